//! Beginning a migration and calling it off.

use super::abort::abort_undecided;
use crate::outcome::Reply;
use crate::place::check_move;
use crate::refusal::Refusal;
use crate::state::State;
use dray_model::event::Level;
use dray_model::ids::{MigrationId, NodeName, TaskId};
use dray_model::migration::{Figures, PhaseTime};
use dray_model::{Migration, MigrationPhase};

/// Sets room aside on the target and fences the task.
pub(super) fn create(
    state: &mut State,
    id: &TaskId,
    target: Option<&NodeName>,
    reason: &str,
) -> Result<Reply, Refusal> {
    let way = check_move(state, id, target)?;
    let unknown = || Refusal::UnknownTask { task: id.clone() };
    let epoch = state.task(id).ok_or_else(unknown)?.epoch;
    let workload = state.workload(&id.workload).ok_or_else(unknown)?;
    let timeout_ms = u64::try_from(workload.spec.migration.timeout.as_millis()).unwrap_or(u64::MAX);

    let now_ms = state.clock_ms();
    let number = state.next_migration();
    let message = format!("{id} from {} to {}: {reason}", way.source, way.target);
    state.grants_mut().promise(id, epoch.next());
    state.put_migration(Migration {
        id: number,
        task: id.clone(),
        source: way.source,
        target: way.target,
        epoch,
        phase: MigrationPhase::Reserved,
        reason: reason.to_owned(),
        failure: None,
        history: vec![PhaseTime { phase: MigrationPhase::Reserved, at_ms: now_ms }],
        figures: Figures::default(),
        deadline_ms: now_ms.saturating_add(timeout_ms),
    });
    state.edit_task(id, |task| task.migration = Some(number));
    state.event(Level::Info, format!("migration/{number}"), "Reserved", message);
    Ok(Reply::Migration { id: number })
}

pub(super) fn abort(state: &mut State, id: MigrationId, failure: &str) -> Result<Reply, Refusal> {
    let migration = state.migration(id).ok_or(Refusal::UnknownMigration { id })?;
    let phase = migration.phase;
    if abort_undecided(state, id, failure) { Ok(Reply::Done) } else { Err(Refusal::Decided { id, phase }) }
}
