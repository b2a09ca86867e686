//! Migrations that took too long.

use super::Plan;
use crate::command::Op;
use crate::state::State;

/// Aborts every undecided migration whose deadline has passed. After a
/// decision there is nothing to hurry: the task has its one owner.
pub(super) fn plan_aborts(state: &State, now_ms: u64, plan: &mut Plan) {
    for migration in state.migrations().values().filter(|m| m.is_undecided() && m.deadline_ms <= now_ms) {
        let failure = format!("not committed by its deadline; it was {:?}", migration.phase);
        plan.push(Op::AbortMigration { id: migration.id, failure }, "its deadline has passed");
    }
}
