//! The one place where a migration becomes `Aborted`. Commit is the other
//! side of the same coin: see [`super::report`].

use crate::state::State;
use dray_model::event::Level;
use dray_model::ids::MigrationId;
use dray_model::{Migration, MigrationPhase, Task};

/// Aborts a migration if it isn't decided: the source owns the task as
/// before. Says whether it did.
pub(super) fn abort_undecided(state: &mut State, id: MigrationId, failure: &str) -> bool {
    let Some(mut migration) = state.migration(id).cloned() else { return false };
    if !migration.advance(MigrationPhase::Aborted, state.clock_ms()) {
        return false;
    }
    migration.failure = Some(failure.to_owned());
    let task = migration.task.clone();
    let stays = format!("{task} stays on {}: {failure}", migration.source);
    // The record first: its reservation is found through the task's revision.
    state.put_migration(migration);
    state.edit_task(&task, |task| task.migration = None);
    state.event(Level::Warning, format!("migration/{id}"), "Aborted", stays);
    true
}

/// Aborts what fences a task, if anything does.
pub(super) fn abort_of_task(state: &mut State, task: &Task, failure: &str) {
    let fencing = task.migration.and_then(|id| state.migration(id)).filter(|m| m.is_undecided());
    if let Some(id) = fencing.map(|migration| migration.id) {
        abort_undecided(state, id, failure);
    }
}

/// Aborts all undecided migrations that satisfy a condition.
pub(super) fn abort_where(state: &mut State, failure: &str, condition: impl Fn(&Migration) -> bool) {
    let open = state.migrations().values().filter(|m| m.is_undecided() && condition(m));
    let ids: Vec<MigrationId> = open.map(|m| m.id).collect();
    for id in ids {
        abort_undecided(state, id, failure);
    }
}
