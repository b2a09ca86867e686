//! What the scheduler is told: a function of what is assigned and what is
//! there, so that a lost report is simply made again.

use crate::backoff;
use crate::observed::{Instance, Observed, Part, Stage};
use dray_model::assignment::{Assignment, MigrationAssignment, MigrationReport, TaskAssignment, TaskReport};
use dray_model::ids::{InstanceId, MigrationId, TaskId};
use dray_model::migration::{Figures, MigrationPhase, Milestone, Side};
use dray_model::task::{Desired, TaskPhase};
use std::collections::BTreeMap;

/// Everything there is to say now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reports {
    /// One for each task that the node owns.
    pub tasks: BTreeMap<TaskId, TaskReport>,
    /// One for each migration that has come somewhere.
    pub migrations: BTreeMap<MigrationId, MigrationReport>,
}

impl Reports {
    /// Makes the reports of this moment. `since_ms` is zero where nothing is
    /// there.
    pub fn of(assignment: &Assignment, observed: &Observed) -> Reports {
        let tasks = assignment.tasks.values();
        let tasks = tasks.map(|task| (task.task.clone(), task_report(task, observed)));
        let migrations = assignment.migrations.values();
        let migrations = migrations.filter_map(|m| Some((m.migration, migration_report(m, observed)?)));
        Reports { tasks: tasks.collect(), migrations: migrations.collect() }
    }

    /// What is new since earlier reports.
    #[must_use]
    pub fn since(&self, earlier: &Reports) -> Reports {
        Reports {
            tasks: changed(&self.tasks, &earlier.tasks),
            migrations: changed(&self.migrations, &earlier.migrations),
        }
    }

    /// Whether there is nothing to say.
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty() && self.migrations.is_empty()
    }
}

fn changed<K: Ord + Clone, V: PartialEq + Clone>(
    now: &BTreeMap<K, V>,
    earlier: &BTreeMap<K, V>,
) -> BTreeMap<K, V> {
    let new = now.iter().filter(|(key, value)| earlier.get(key) != Some(value));
    new.map(|(key, value)| (key.clone(), value.clone())).collect()
}

fn task_report(task: &TaskAssignment, observed: &Observed) -> TaskReport {
    let id = InstanceId { task: task.task.clone(), epoch: task.epoch };
    let have = observed.instances.get(&id);
    TaskReport {
        task: task.task.clone(),
        epoch: task.epoch,
        phase: have.map_or(absent(task), |have| phase(task, have)),
        message: have.map(|have| have.message.clone()).unwrap_or_default(),
        restarts: have.map_or(task.restarts, |have| have.restarts),
        last_exit: have.and_then(|have| have.last_exit),
        since_ms: have.map_or(0, |have| have.since_ms),
    }
}

fn absent(task: &TaskAssignment) -> TaskPhase {
    match task.desired {
        Desired::Run => TaskPhase::Preparing,
        Desired::Stop => TaskPhase::Stopped,
    }
}

fn phase(task: &TaskAssignment, have: &Instance) -> TaskPhase {
    match have.stage {
        Stage::Starting | Stage::Preparing | Stage::Waiting | Stage::Restoring | Stage::Broken => {
            TaskPhase::Preparing
        }
        Stage::Running
        | Stage::Freezing
        | Stage::Frozen
        | Stage::Thawing
        | Stage::Held
        | Stage::Releasing => TaskPhase::Running,
        Stage::Stopping | Stage::Removing => TaskPhase::Stopping,
        Stage::Failed => TaskPhase::Failed,
        Stage::Exited if task.desired == Desired::Stop => TaskPhase::Stopping,
        Stage::Exited => {
            let again =
                have.last_exit.is_none_or(|exit| backoff::is_restarted(&task.template.restart, &exit));
            if again { TaskPhase::BackOff } else { TaskPhase::Exited }
        }
    }
}

fn migration_report(migration: &MigrationAssignment, observed: &Observed) -> Option<MigrationReport> {
    let (milestone, figures) = match migration.side {
        Side::Source => source(migration, observed)?,
        Side::Target => target(migration, observed)?,
    };
    Some(MigrationReport {
        migration: migration.migration,
        side: migration.side,
        milestone,
        steps: figures.steps,
        bytes: figures.bytes,
        memory_bytes: figures.memory_bytes,
        freeze_us: figures.freeze_us,
    })
}

/// The part that an instance has in this migration.
fn part_in(instance: &Instance, migration: MigrationId) -> Option<&Part> {
    instance.part.as_ref().filter(|part| part.migration == migration)
}

fn failed(failure: impl Into<String>) -> Option<(Milestone, Figures)> {
    Some((Milestone::Failed { failure: failure.into() }, Figures::default()))
}

fn source(migration: &MigrationAssignment, observed: &Observed) -> Option<(Milestone, Figures)> {
    // The target's instance is one epoch on.
    let epoch = dray_model::Epoch(migration.task.epoch.0.saturating_sub(1));
    let id = InstanceId { task: migration.task.task.clone(), epoch };
    let have = observed.instances.get(&id);
    if migration.phase >= MigrationPhase::Committed {
        return have.is_none().then(|| (Milestone::Cleaned, Figures::default()));
    }
    let Some(have) = have else { return failed("the container is gone") };
    match (have.stage, part_in(have, migration.migration)) {
        (_, Some(Part { failure: Some(failure), .. })) => failed(failure.clone()),
        (Stage::Freezing | Stage::Frozen, Some(part)) => Some((Milestone::Frozen, part.figures.clone())),
        (Stage::Exited | Stage::Failed, _) => failed("the container isn't running"),
        (
            Stage::Starting
            | Stage::Running
            | Stage::Stopping
            | Stage::Freezing
            | Stage::Frozen
            | Stage::Thawing
            | Stage::Preparing
            | Stage::Waiting
            | Stage::Restoring
            | Stage::Held
            | Stage::Releasing
            | Stage::Broken
            | Stage::Removing,
            _,
        ) => None,
    }
}

fn target(migration: &MigrationAssignment, observed: &Observed) -> Option<(Milestone, Figures)> {
    let id = InstanceId { task: migration.task.task.clone(), epoch: migration.task.epoch };
    let have = observed.instances.get(&id);
    let part = have.and_then(|have| part_in(have, migration.migration));
    if migration.phase >= MigrationPhase::Committed {
        // Also for an agent that was restarted and knows of no part.
        let runs = have.is_some_and(|have| have.stage == Stage::Running);
        let figures = part.map(|part| part.figures.clone()).unwrap_or_default();
        return runs.then_some((Milestone::Resumed, figures));
    }
    let lost = migration.phase > MigrationPhase::Reserved;
    let Some((have, part)) = have.zip(part) else {
        return if lost { failed("the target lost what it had prepared") } else { None };
    };
    if let Some(failure) = &part.failure {
        return failed(failure.clone());
    }
    match have.stage {
        Stage::Waiting => Some((Milestone::Prepared, Figures::default())),
        Stage::Held => Some((Milestone::Restored, part.figures.clone())),
        Stage::Starting
        | Stage::Running
        | Stage::Stopping
        | Stage::Exited
        | Stage::Failed
        | Stage::Freezing
        | Stage::Frozen
        | Stage::Thawing
        | Stage::Preparing
        | Stage::Restoring
        | Stage::Releasing
        | Stage::Broken
        | Stage::Removing => None,
    }
}
