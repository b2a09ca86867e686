//! Waiting until workloads run as they should.

use crate::client::Client;
use crate::output::Out;
use crate::output::progress::Waiting;
use crate::output::table::task_status;
use crate::resource::{Kind, Object};
use crate::watch::{Change, Watch};
use dray_proto::v1::{Task, TaskPhase, Workload};
use std::collections::BTreeMap;

/// What has to run before the wait is over.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    workload: String,
    revision: u64,
    replicas: u32,
}

impl Wanted {
    /// What a workload asks for.
    pub(super) fn of(workload: &Workload) -> Wanted {
        Wanted {
            workload: workload.name.clone(),
            revision: workload.revision,
            replicas: workload.spec.as_ref().map_or(0, |spec| spec.replicas),
        }
    }

    fn is_met(&self, tasks: &BTreeMap<String, Task>) -> bool {
        self.running(tasks) == self.replicas as usize
            && tasks.values().filter(|task| task.workload == self.workload).count() == self.replicas as usize
    }

    fn running(&self, tasks: &BTreeMap<String, Task>) -> usize {
        let mine = tasks.values().filter(|task| task.workload == self.workload);
        mine.filter(|task| task.revision >= self.revision && task.phase() == TaskPhase::Running).count()
    }

    /// How it stands, and why it isn't done.
    fn progress(&self, tasks: &BTreeMap<String, Task>) -> String {
        let waiting = tasks.values().find(|task| {
            task.workload == self.workload && task.phase() != TaskPhase::Running && !task.message.is_empty()
        });
        let why = waiting.map(|task| format!("; {} is {}: {}", task.id, task_status(task), task.message));
        let (name, running) = (&self.workload, self.running(tasks));
        format!("workload/{name}: {running} of {} running{}", self.replicas, why.unwrap_or_default())
    }
}

/// Waits until every workload's tasks run, all of the right revision.
pub(super) async fn until_running(client: &Client, wanted: Vec<Wanted>, out: &mut Out) -> anyhow::Result<()> {
    let mut watch = Watch::open(client, Kind::Task, "").await?;
    let (mut tasks, mut synced) = (BTreeMap::new(), false);
    let mut waiting = Waiting::new(out);
    loop {
        match watch.next().await? {
            Change::Now(Object::Task(task)) => drop(tasks.insert(task.id.clone(), task)),
            Change::Removed(object) => drop(tasks.remove(&object.name())),
            Change::Synced => synced = true,
            Change::Restarted => (tasks, synced) = (BTreeMap::new(), false),
            Change::Now(_) => {}
        }
        if !synced {
            continue;
        }
        match wanted.iter().find(|wanted| !wanted.is_met(&tasks)) {
            None => break,
            Some(open) => waiting.say(out, open.progress(&tasks)),
        }
    }
    drop(waiting);
    for wanted in &wanted {
        out.note(wanted.progress(&tasks));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(id: &str, revision: u64, phase: TaskPhase) -> (String, Task) {
        let message = if phase == TaskPhase::Running { "" } else { "no node has room" };
        let task = Task {
            id: id.into(),
            workload: "redis".into(),
            revision,
            phase: phase.into(),
            message: message.into(),
            ..Default::default()
        };
        (id.into(), task)
    }

    #[test]
    fn all_tasks_of_the_revision_must_run_and_no_others_be_left() {
        let wanted = Wanted { workload: "redis".into(), revision: 2, replicas: 2 };
        let old = || task("redis-0", 1, TaskPhase::Running);
        let new = |id| task(id, 2, TaskPhase::Running);
        for (tasks, met) in [
            (vec![], false),
            (vec![new("redis-0")], false),
            (vec![old(), new("redis-1")], false),
            (vec![new("redis-0"), task("redis-1", 2, TaskPhase::Pending)], false),
            (vec![new("redis-0"), new("redis-1"), task("redis-2", 1, TaskPhase::Stopping)], false),
            (vec![new("redis-0"), new("redis-1")], true),
        ] {
            let tasks = BTreeMap::from_iter(tasks);
            assert_eq!(wanted.is_met(&tasks), met, "{}", wanted.progress(&tasks));
        }
    }

    #[test]
    fn progress_says_why() {
        let wanted = Wanted { workload: "redis".into(), revision: 1, replicas: 2 };
        let tasks =
            BTreeMap::from([task("redis-0", 1, TaskPhase::Running), task("redis-1", 1, TaskPhase::Pending)]);
        let expected = "workload/redis: 1 of 2 running; redis-1 is Pending: no node has room";
        assert_eq!(wanted.progress(&tasks), expected);
    }
}
