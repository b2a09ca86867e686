//! Empties nodes that are being drained: moves what runs, one by one, and
//! starts anew elsewhere what isn't running anyway.

use super::{Config, Plan};
use crate::command::Op;
use crate::place::check_move;
use crate::state::State;
use dray_model::ids::{NodeName, TaskId};
use dray_model::{Desired, Migration, MigrationPhase, Node, Task, TaskPhase};

pub(super) fn plan_moves(state: &State, now_ms: u64, config: &Config, plan: &mut Plan) {
    let draining = |node: &&Node| node.draining;
    let mut under_way = state.nodes().values().filter(draining).map(|node| moving(state, &node.name)).sum();
    for node in state.nodes().values().filter(draining) {
        plan_cold_moves(state, node, plan);
        let room = config.moves_per_drain.saturating_sub(moving(state, &node.name));
        let room = room.min(config.moves_max.saturating_sub(under_way));
        let ready =
            state.tasks_on(&node.name).filter(|task| !rests(state, &task.id, now_ms, config.retry_ms));
        let movable = ready.filter(|task| check_move(state, &task.id, None).is_ok());
        for task in movable.take(room) {
            let reason = format!("drain of {}", node.name);
            // The target is chosen when it is applied: nothing planned here
            // knows of the room that the other steps take.
            let op = Op::CreateMigration { task: task.id.clone(), target: None, reason: reason.clone() };
            plan.push_for(&task.id, op, reason);
            under_way += 1;
        }
    }
}

/// How many of a node's tasks are on their way to another.
fn moving(state: &State, node: &NodeName) -> usize {
    let busy = |m: &&Migration| m.source == *node && m.phase < MigrationPhase::Resumed;
    state.migrations().values().filter(busy).count()
}

/// Whether a migration of the task failed too recently to try again.
fn rests(state: &State, task: &TaskId, now_ms: u64, retry_ms: u64) -> bool {
    let failed = |m: &&Migration| m.task == *task && m.phase == MigrationPhase::Aborted;
    let ends = state.migrations().values().filter(failed).filter_map(|m| m.history.last());
    ends.map(|end| end.at_ms.saturating_add(retry_ms)).any(|until| now_ms < until)
}

/// A task that has failed or waits to be started again has nothing to carry
/// over: it is stopped here, and placed on another node once it has ended.
fn plan_cold_moves(state: &State, node: &Node, plan: &mut Plan) {
    let idle = |task: &&Task| {
        task.desired == Desired::Run && task.migration.is_none() && has_nothing_to_carry(task.observed.phase)
    };
    for task in state.tasks_on(&node.name).filter(idle) {
        plan.push(
            Op::StopTask { task: task.id.clone() },
            format!("drain of {}; it isn't running", node.name),
        );
    }
}

fn has_nothing_to_carry(phase: TaskPhase) -> bool {
    match phase {
        TaskPhase::BackOff | TaskPhase::Failed => true,
        TaskPhase::Pending
        | TaskPhase::Preparing
        | TaskPhase::Running
        | TaskPhase::Stopping
        | TaskPhase::Exited
        | TaskPhase::Stopped
        | TaskPhase::Unknown => false,
    }
}
