//! What to do next. Pure: call as often as you like.

use crate::backoff;
use crate::observed::{Instance, Observed, Part, Stage};
use dray_model::assignment::{Assignment, MigrationAssignment, TaskAssignment};
use dray_model::ids::{InstanceId, MigrationId};
use dray_model::migration::{Figures, MigrationPhase, Side};
use dray_model::task::Desired;
use std::collections::BTreeSet;
use std::time::Duration;

/// One piece of work for a worker. Each is safe to repeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Make the container and run it; remove first what is left of an
    /// earlier run.
    Start(TaskAssignment),
    /// Ask the container to end, and kill it after the grace.
    Stop {
        /// The stop signal's name; the image's if not set.
        signal: Option<String>,
        /// How long to wait before killing.
        grace: Duration,
    },
    /// Kill and remove everything of it.
    Remove,
    /// Target: make everything but the process.
    Prepare(MigrationAssignment),
    /// Source: freeze, dump and send it.
    Send(MigrationAssignment),
    /// Target: set it running.
    Release,
    /// Source: set it running again.
    Thaw,
    /// Tell its worker to give up.
    Cancel,
}

/// What the assignment says of an instance.
#[derive(Debug, Clone, Copy)]
enum Want<'a> {
    /// It is the owner's, and may run.
    Run(&'a TaskAssignment, Option<&'a MigrationAssignment>),
    /// It is the owner's, and is to end.
    Stop(&'a TaskAssignment),
    /// It may come to run here; the log hasn't decided.
    Hold(&'a MigrationAssignment),
    /// It has no business here.
    Nothing,
}

/// Every action to begin now, and when to ask again if nothing happens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Todo {
    /// At most one per instance.
    pub actions: Vec<(InstanceId, Action)>,
    /// In Unix milliseconds.
    pub wake_at_ms: Option<u64>,
}

/// Decides for every instance that is assigned or there.
pub fn reconcile(assignment: &Assignment, observed: &Observed, now_ms: u64) -> Todo {
    let mut todo = Todo::default();
    for id in instances(assignment, observed) {
        let have = observed.instances.get(&id);
        // One instance of a task at a time: they share address and files.
        if have.is_none() && another_epoch(observed, &id) {
            continue;
        }
        match decide(want(assignment, &id), have, now_ms) {
            Next::Act(action) => todo.actions.push((id, *action)),
            Next::At(ms) => todo.wake_at_ms = Some(todo.wake_at_ms.map_or(ms, |other| other.min(ms))),
            Next::Settled => {}
        }
    }
    todo
}

fn another_epoch(observed: &Observed, id: &InstanceId) -> bool {
    observed.instances.keys().any(|other| other.task == id.task && other.epoch != id.epoch)
}

/// Marks an action as begun.
pub fn begin(observed: &mut Observed, id: &InstanceId, action: &Action, now_ms: u64) {
    let stage = match action {
        Action::Start(_) => Stage::Starting,
        Action::Stop { .. } => Stage::Stopping,
        Action::Remove => Stage::Removing,
        Action::Prepare(_) => Stage::Preparing,
        Action::Send(_) => Stage::Freezing,
        Action::Release => Stage::Releasing,
        Action::Thaw => Stage::Thawing,
        Action::Cancel => {
            observed.instances.entry(id.clone()).and_modify(|instance| instance.cancelled = true);
            return;
        }
    };
    let instance = observed.instances.entry(id.clone()).or_insert_with(|| Instance::new(stage, now_ms));
    match action {
        Action::Start(task) if instance.last_exit.is_none() => instance.restarts = task.restarts,
        Action::Start(_) => instance.restarts += 1,
        Action::Prepare(migration) => {
            instance.restarts = migration.task.restarts;
            instance.part = Some(part(migration.migration));
        }
        Action::Send(migration) => instance.part = Some(part(migration.migration)),
        Action::Stop { .. } | Action::Remove | Action::Release | Action::Thaw | Action::Cancel => {}
    }
    instance.enter(stage, now_ms);
}

fn part(migration: MigrationId) -> Part {
    Part { migration, failure: None, figures: Figures::default() }
}

/// Every instance that is assigned or there.
fn instances(assignment: &Assignment, observed: &Observed) -> BTreeSet<InstanceId> {
    let tasks = assignment.tasks.values();
    let incoming = assignment.migrations.values().filter(|m| m.side == Side::Target).map(|m| &m.task);
    let assigned = tasks.chain(incoming).map(|t| InstanceId { task: t.task.clone(), epoch: t.epoch });
    assigned.chain(observed.instances.keys().cloned()).collect()
}

fn want<'a>(assignment: &'a Assignment, id: &InstanceId) -> Want<'a> {
    let undecided = |m: &&MigrationAssignment| m.phase < MigrationPhase::Committed && m.task.task == id.task;
    if let Some(task) = assignment.tasks.get(&id.task).filter(|task| task.epoch == id.epoch) {
        return match task.desired {
            Desired::Run => {
                let outgoing = assignment.migrations.values().filter(undecided);
                Want::Run(task, outgoing.into_iter().find(|m| m.side == Side::Source))
            }
            Desired::Stop => Want::Stop(task),
        };
    }
    let mut incoming = assignment.migrations.values().filter(undecided);
    match incoming.find(|m| m.side == Side::Target && m.task.epoch == id.epoch) {
        Some(migration) => Want::Hold(migration),
        None => Want::Nothing,
    }
}

/// The next step for one instance.
enum Next {
    Act(Box<Action>),
    At(u64),
    Settled,
}

fn act(action: Action) -> Next {
    Next::Act(Box::new(action))
}

fn decide(want: Want<'_>, have: Option<&Instance>, now_ms: u64) -> Next {
    match (want, have) {
        (Want::Run(task, _), None) => act(Action::Start(task.clone())),
        (Want::Run(task, outgoing), Some(have)) => keep_running(task, outgoing, have, now_ms),
        (Want::Stop(task), Some(have)) => end(task, have),
        (Want::Hold(migration), None) => prepare(migration),
        (Want::Hold(migration), Some(have)) => hold(migration, have),
        (Want::Nothing, Some(have)) => forget(have),
        (Want::Stop(_) | Want::Nothing, None) => Next::Settled,
    }
}

fn keep_running(
    task: &TaskAssignment,
    outgoing: Option<&MigrationAssignment>,
    have: &Instance,
    now_ms: u64,
) -> Next {
    match have.stage {
        Stage::Running => outgoing.map_or(Next::Settled, |migration| send(migration, have)),
        Stage::Exited | Stage::Failed => start_again(task, have, now_ms),
        Stage::Frozen if outgoing.is_some_and(|migration| is_part_of(have, migration)) => Next::Settled,
        Stage::Frozen => act(Action::Thaw),
        Stage::Held => act(Action::Release),
        // The log gave it to us, but what was restored is lost.
        Stage::Waiting | Stage::Broken => act(Action::Start(task.clone())),
        Stage::Freezing if outgoing.is_none() => cancel(have),
        Stage::Starting
        | Stage::Stopping
        | Stage::Freezing
        | Stage::Thawing
        | Stage::Preparing
        | Stage::Restoring
        | Stage::Releasing
        | Stage::Removing => Next::Settled,
    }
}

fn is_part_of(have: &Instance, migration: &MigrationAssignment) -> bool {
    have.part.as_ref().is_some_and(|part| part.migration == migration.migration)
}

/// A migration that failed here isn't tried again: it will be aborted.
fn send(migration: &MigrationAssignment, have: &Instance) -> Next {
    match migration.phase {
        MigrationPhase::Prepared | MigrationPhase::Frozen if !is_part_of(have, migration) => {
            act(Action::Send(migration.clone()))
        }
        MigrationPhase::Reserved
        | MigrationPhase::Prepared
        | MigrationPhase::Frozen
        | MigrationPhase::Committed
        | MigrationPhase::Resumed
        | MigrationPhase::Cleaned
        | MigrationPhase::Aborted => Next::Settled,
    }
}

fn start_again(task: &TaskAssignment, have: &Instance, now_ms: u64) -> Next {
    let policy = &task.template.restart;
    let ended = have.last_exit.filter(|_| have.stage == Stage::Exited);
    if ended.is_some_and(|exit| !backoff::is_restarted(policy, &exit)) {
        return Next::Settled;
    }
    let delay_ms = backoff::delay(policy, have.ends_in_a_row).as_millis();
    let at_ms = have.since_ms.saturating_add(u64::try_from(delay_ms).unwrap_or(u64::MAX));
    if now_ms >= at_ms { act(Action::Start(task.clone())) } else { Next::At(at_ms) }
}

fn end(task: &TaskAssignment, have: &Instance) -> Next {
    match have.stage {
        Stage::Running => {
            act(Action::Stop { signal: task.template.stop_signal.clone(), grace: task.template.stop_grace })
        }
        Stage::Exited | Stage::Failed | Stage::Frozen | Stage::Waiting | Stage::Held | Stage::Broken => {
            act(Action::Remove)
        }
        Stage::Starting | Stage::Preparing | Stage::Restoring | Stage::Freezing => cancel(have),
        Stage::Stopping | Stage::Thawing | Stage::Releasing | Stage::Removing => Next::Settled,
    }
}

/// What was prepared and lost isn't prepared again: the source may be frozen
/// already, and the abort is asked for by the report.
fn prepare(migration: &MigrationAssignment) -> Next {
    match migration.phase {
        MigrationPhase::Reserved => act(Action::Prepare(migration.clone())),
        MigrationPhase::Prepared
        | MigrationPhase::Frozen
        | MigrationPhase::Committed
        | MigrationPhase::Resumed
        | MigrationPhase::Cleaned
        | MigrationPhase::Aborted => Next::Settled,
    }
}

/// An instance of an earlier, aborted migration makes room first.
fn hold(migration: &MigrationAssignment, have: &Instance) -> Next {
    if is_part_of(have, migration) { Next::Settled } else { forget(have) }
}

fn forget(have: &Instance) -> Next {
    match have.stage {
        Stage::Removing => Next::Settled,
        stage if stage.is_busy() => cancel(have),
        Stage::Running
        | Stage::Exited
        | Stage::Failed
        | Stage::Frozen
        | Stage::Waiting
        | Stage::Held
        | Stage::Broken
        | Stage::Starting
        | Stage::Stopping
        | Stage::Freezing
        | Stage::Thawing
        | Stage::Preparing
        | Stage::Restoring
        | Stage::Releasing => act(Action::Remove),
    }
}

fn cancel(have: &Instance) -> Next {
    if have.cancelled { Next::Settled } else { act(Action::Cancel) }
}

#[cfg(test)]
mod tests;
