//! Empties nodes that are being drained: moves what runs, one by one, and
//! starts anew elsewhere what isn't running anyway.

use super::{Config, Plan};
use crate::command::Op;
use crate::place::{Room, check_move_within};
use crate::state::State;
use dray_model::ids::{NodeName, TaskId};
use dray_model::{Desired, Migration, MigrationPhase, Node, Task, TaskPhase};

pub(super) fn plan_moves(room: &mut Room<'_>, now_ms: u64, config: &Config, plan: &mut Plan) {
    let state = room.state();
    let draining = || state.nodes().values().filter(|node| node.draining);
    let mut under_way: usize = draining().map(|node| moving(state, &node.name)).sum();
    for node in draining() {
        plan_cold_moves(state, node, plan);
        let mut here = moving(state, &node.name);
        for task in state.tasks_on(&node.name) {
            if here >= config.moves_per_drain || under_way >= config.moves_max {
                break;
            }
            if !rests(state, &task.id, now_ms, config.retry_ms) && plan_move(room, node, task, plan) {
                here += 1;
                under_way += 1;
            }
        }
    }
}

/// Moves a task to the best node that has room left; says whether it can.
fn plan_move(room: &mut Room<'_>, node: &Node, task: &Task, plan: &mut Plan) -> bool {
    let Ok(way) = check_move_within(room, &task.id, None) else { return false };
    room.take(&way.target, way.amounts);
    let reason = format!("drain of {}", node.name);
    let op = Op::CreateMigration { task: task.id.clone(), target: Some(way.target), reason: reason.clone() };
    plan.push_for(&task.id, op, reason);
    true
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
        let reason = format!("drain of {}; it isn't running", node.name);
        plan.push_for(&task.id, Op::StopTask { task: task.id.clone() }, reason);
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
