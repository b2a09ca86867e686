//! Reports on their way into the log.
//!
//! While one command of a node is under way, its further reports wait and
//! then go together, so that a busy node costs few entries. What a frozen
//! task waits for goes at once.

use dray_model::NodeName;
use dray_model::assignment::{ImageReport, MigrationReport, TaskReport};
use dray_model::migration::Milestone;
use dray_proto::convert::Invalid;
use dray_proto::v1 as wire;
use scheduler_core::Op;

/// Reports that are not in the log yet.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    tasks: Vec<TaskReport>,
    migrations: Vec<MigrationReport>,
    images: Vec<ImageReport>,
    urgent: bool,
}

impl Waiting {
    /// Adds what an agent sent.
    ///
    /// # Errors
    /// Names the field that is wrong; nothing was added.
    pub(super) fn add(&mut self, report: wire::Report) -> Result<(), Invalid> {
        let tasks = report.tasks.into_iter().map(TaskReport::try_from).collect::<Result<Vec<_>, _>>()?;
        let migrations = report.migrations.into_iter().map(MigrationReport::try_from);
        let migrations = migrations.collect::<Result<Vec<_>, _>>()?;
        self.urgent |= migrations.iter().any(|report| holds_up_a_task(&report.milestone));
        self.tasks.extend(tasks);
        self.migrations.extend(migrations);
        self.images.extend(report.images.into_iter().map(ImageReport::from));
        Ok(())
    }

    /// Takes everything as one command, if it may go now.
    pub(super) fn take(&mut self, node: &NodeName, session: u64, under_way: bool) -> Option<Op> {
        let empty = self.tasks.is_empty() && self.migrations.is_empty() && self.images.is_empty();
        if empty || (under_way && !self.urgent) {
            return None;
        }
        let Waiting { tasks, migrations, images, urgent: _ } = std::mem::take(self);
        Some(Op::Report { node: node.clone(), session, tasks, migrations, images })
    }
}

/// Whether a task stays frozen until this is in the log.
fn holds_up_a_task(milestone: &Milestone) -> bool {
    match milestone {
        Milestone::Restored | Milestone::Failed { .. } => true,
        Milestone::Prepared | Milestone::Frozen | Milestone::Resumed | Milestone::Cleaned => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn milestone(milestone: wire::Milestone) -> wire::Report {
        let report = wire::MigrationReport {
            migration: "m-1".into(),
            side: wire::Side::Target.into(),
            milestone: milestone.into(),
            ..Default::default()
        };
        wire::Report { migrations: vec![report], ..Default::default() }
    }

    #[test]
    fn reports_wait_for_the_one_under_way_unless_a_task_is_frozen() {
        let node = "node-1".parse().unwrap();
        let mut waiting = Waiting::default();
        assert_eq!(waiting.take(&node, 7, false), None);
        waiting.add(milestone(wire::Milestone::Prepared)).unwrap();
        assert_eq!(waiting.take(&node, 7, true), None);
        waiting.add(milestone(wire::Milestone::Restored)).unwrap();
        let Some(Op::Report { migrations, .. }) = waiting.take(&node, 7, true) else { panic!("it goes") };
        assert_eq!(migrations.len(), 2);
        assert_eq!(waiting.take(&node, 7, false), None);
    }

    #[test]
    fn a_bad_report_adds_nothing() {
        let mut waiting = Waiting::default();
        assert!(waiting.add(milestone(wire::Milestone::Unspecified)).is_err());
        assert_eq!(waiting.take(&"node-1".parse().unwrap(), 7, false), None);
    }
}
