//! What agents say. A report counts only if it comes from the task's owner
//! and is about the task's epoch; everything else is late and is ignored.

use super::abort::abort_undecided;
use crate::outcome::Reply;
use crate::refusal::Refusal;
use crate::state::State;
use dray_model::assignment::{ImageReport, MigrationReport, TaskReport};
use dray_model::event::Level;
use dray_model::ids::{MigrationId, NodeName, TaskId};
use dray_model::image::Image;
use dray_model::migration::{Milestone, Side};
use dray_model::task::Observed;
use dray_model::{Desired, Migration, MigrationPhase, Task, TaskPhase};
use std::collections::BTreeSet;

pub(super) fn report(
    state: &mut State,
    node: &NodeName,
    tasks: &[TaskReport],
    migrations: &[MigrationReport],
    images: &[ImageReport],
) -> Result<Reply, Refusal> {
    tasks.iter().for_each(|report| observe(state, node, report));
    migrations.iter().for_each(|report| progress(state, node, report));
    images.iter().for_each(|report| hold_image(state, node, report));
    Ok(Reply::Done)
}

fn observe(state: &mut State, node: &NodeName, report: &TaskReport) {
    let Some(task) = state.task(&report.task).filter(|task| counts(task, node, report)) else { return };
    let old = &task.observed;
    let new = Observed {
        phase: report.phase,
        since_ms: if old.phase == report.phase { old.since_ms } else { report.since_ms },
        message: report.message.clone(),
        restarts: report.restarts,
        last_exit: report.last_exit,
    };
    if *old == new {
        return;
    }
    if old.phase != new.phase || old.restarts != new.restarts {
        tell(state, node, report);
    }
    state.edit_task(&report.task, |task| task.observed = new);
}

/// Whether a report is about the present and possible.
fn counts(task: &Task, node: &NodeName, report: &TaskReport) -> bool {
    let current = task.node.as_ref() == Some(node) && task.epoch == report.epoch;
    let possible = match report.phase {
        // Nobody may run the task from here on: only true if it was asked for.
        TaskPhase::Stopped => task.desired == Desired::Stop,
        // The scheduler's words, not an agent's.
        TaskPhase::Pending | TaskPhase::Unknown => false,
        TaskPhase::Preparing
        | TaskPhase::Running
        | TaskPhase::BackOff
        | TaskPhase::Stopping
        | TaskPhase::Exited
        | TaskPhase::Failed => true,
    };
    // The last word of an epoch.
    current && possible && task.observed.phase != TaskPhase::Stopped
}

fn tell(state: &mut State, node: &NodeName, report: &TaskReport) {
    let level = match report.phase {
        TaskPhase::BackOff | TaskPhase::Failed => Level::Warning,
        TaskPhase::Pending
        | TaskPhase::Preparing
        | TaskPhase::Running
        | TaskPhase::Stopping
        | TaskPhase::Exited
        | TaskPhase::Stopped
        | TaskPhase::Unknown => Level::Info,
    };
    let message = if report.message.is_empty() { format!("on {node}") } else { report.message.clone() };
    state.event(level, format!("task/{}", report.task), &format!("{:?}", report.phase), message);
}

fn progress(state: &mut State, node: &NodeName, report: &MigrationReport) {
    let Some(mut migration) = state.migration(report.migration).cloned() else { return };
    let side = match report.side {
        Side::Source => &migration.source,
        Side::Target => &migration.target,
    };
    if side != node {
        return;
    }
    if merge_figures(&mut migration, report) {
        state.put_migration(migration.clone());
    }
    match (report.side, &report.milestone) {
        (Side::Target, Milestone::Prepared) => advance(state, migration, MigrationPhase::Prepared),
        (Side::Source, Milestone::Frozen) => advance(state, migration, MigrationPhase::Frozen),
        (Side::Target, Milestone::Restored) => commit(state, migration),
        (Side::Target, Milestone::Resumed) => resume(state, migration),
        (Side::Source, Milestone::Cleaned) => clean(state, migration),
        (Side::Source | Side::Target, Milestone::Failed { failure }) => {
            abort_undecided(state, migration.id, &format!("{node}: {failure}"));
        }
        // A target that has cleaned up after an abort: nothing depends on it.
        (Side::Target, Milestone::Cleaned)
        | (Side::Target, Milestone::Frozen)
        | (Side::Source, Milestone::Prepared | Milestone::Restored | Milestone::Resumed) => {}
    }
}

/// Adds what a side measured. Reports may come twice; says whether this one
/// brought anything new.
fn merge_figures(migration: &mut Migration, report: &MigrationReport) -> bool {
    let old = migration.figures.clone();
    let figures = &mut migration.figures;
    for step in &report.steps {
        if !figures.steps.contains(step) {
            figures.steps.push(step.clone());
        }
    }
    figures.bytes = figures.bytes.max(report.bytes);
    figures.memory_bytes = figures.memory_bytes.max(report.memory_bytes);
    figures.freeze_us = figures.freeze_us.max(report.freeze_us);
    *figures != old
}

fn advance(state: &mut State, mut migration: Migration, to: MigrationPhase) {
    let now_ms = state.clock_ms();
    if migration.advance(to, now_ms) {
        let (id, task) = (migration.id, migration.task.clone());
        state.put_migration(migration);
        state.event(Level::Info, format!("migration/{id}"), &format!("{to:?}"), format!("{task}"));
    }
}

/// Gives the task to the target, unless an abort came first. From this entry
/// on the source may never thaw its instance.
fn commit(state: &mut State, mut migration: Migration) {
    let Some(task) = state.task(&migration.task).cloned() else { return };
    let fenced = task.migration == Some(migration.id) && task.epoch == migration.epoch;
    if !fenced || !migration.advance(MigrationPhase::Committed, state.clock_ms()) {
        return;
    }
    let epoch = migration.epoch.next();
    let (id, target) = (migration.id, migration.target.clone());
    let policy = state.workload(&task.id.workload).map(|w| w.spec.on_node_loss).unwrap_or_default();
    state.grants_mut().give(&task.id, epoch, policy);
    // The record first: it frees the reservation that the task then takes.
    state.put_migration(migration);
    let message = format!("{} runs on {target} from now on, epoch {epoch}", task.id);
    let observed = running(&task, state.clock_ms());
    state.put_task(Task { node: Some(target), epoch, observed, ..task });
    state.event(Level::Info, format!("migration/{id}"), "Committed", message);
}

/// A moved task runs as before: it keeps its restarts and last exit.
fn running(task: &Task, now_ms: u64) -> Observed {
    let since_ms = if task.observed.phase == TaskPhase::Running { task.observed.since_ms } else { now_ms };
    Observed { phase: TaskPhase::Running, since_ms, message: String::new(), ..task.observed.clone() }
}

/// The task runs at the target: the migration no longer concerns it.
fn resume(state: &mut State, migration: Migration) {
    let (id, task) = (migration.id, migration.task.clone());
    advance(state, migration, MigrationPhase::Resumed);
    let concerned = state.task(&task).is_some_and(|task| task.migration == Some(id));
    let resumed = state.migration(id).is_some_and(|m| m.phase == MigrationPhase::Resumed);
    if concerned && resumed {
        state.edit_task(&task, |task| task.migration = None);
    }
    if state.is_cleaned(id) {
        end(state, id);
    }
}

/// Nothing is left at the source. If the target isn't done, its figures are
/// still to come and the migration ends with it; but a target that lost the
/// task again in the meantime has nothing more to say.
fn clean(state: &mut State, migration: Migration) {
    let epoch = migration.epoch.next();
    let is_owner = state.task(&migration.task).is_some_and(|task| task.epoch == epoch);
    match migration.phase {
        MigrationPhase::Committed if is_owner => state.mark_cleaned(migration.id),
        MigrationPhase::Committed | MigrationPhase::Resumed => end(state, migration.id),
        MigrationPhase::Reserved
        | MigrationPhase::Prepared
        | MigrationPhase::Frozen
        | MigrationPhase::Cleaned
        | MigrationPhase::Aborted => {}
    }
}

/// The last step of a migration that was committed.
fn end(state: &mut State, id: MigrationId) {
    if let Some(migration) = state.migration(id).cloned() {
        advance(state, migration, MigrationPhase::Cleaned);
    }
}

/// A task gets another owner: what a migration's target still had to do is
/// void. A source that isn't done goes on cleaning up.
pub(super) fn end_cleaned(state: &mut State, task: &TaskId) {
    end_where(state, |state, migration| migration.task == *task && state.is_cleaned(migration.id));
}

/// A task goes: nobody is told of its migrations any more, and whoever has
/// something left of it removes that because nothing lists it.
pub(super) fn end_all(state: &mut State, task: &TaskId) {
    end_where(state, |_, migration| migration.task == *task && !migration.is_undecided());
}

fn end_where(state: &mut State, condition: impl Fn(&State, &Migration) -> bool) {
    let open = state.migrations().values().filter(|m| !m.phase.is_final() && condition(state, m));
    let ids: Vec<MigrationId> = open.map(|m| m.id).collect();
    ids.into_iter().for_each(|id| end(state, id));
}

/// Notes who has an image. The first report of a name says what it means;
/// after that only an import does.
fn hold_image(state: &mut State, node: &NodeName, report: &ImageReport) {
    let known = state.images().get(&report.reference).cloned();
    let mut image = known.unwrap_or_else(|| Image {
        reference: report.reference.clone(),
        digest: report.digest.clone(),
        size_bytes: report.size_bytes,
        holders: BTreeSet::new(),
        imported_ms: state.clock_ms(),
    });
    let holds = !report.removed && image.digest == report.digest;
    let changed = if holds { image.holders.insert(node.clone()) } else { image.holders.remove(node) };
    match (changed, image.holders.is_empty()) {
        (false, _) => {}
        (true, true) => state.remove_image(&report.reference),
        (true, false) => state.put_image(image),
    }
}
