//! New revisions: a workload's tasks are replaced one at a time, the highest
//! slot first, and the next only when all others run.

use super::Plan;
use crate::command::Op;
use crate::state::State;
use dray_model::{Desired, Task, TaskPhase, Workload};

pub(super) fn plan_updates(state: &State, plan: &mut Plan) {
    for workload in state.workloads().values().filter(|workload| !workload.deleting) {
        plan_update(state, workload, plan);
    }
}

fn plan_update(state: &State, workload: &Workload, plan: &mut Plan) {
    let slots = || state.tasks_of(&workload.name).filter(|task| task.id.slot < workload.spec.replicas);
    let outdated = || slots().rev().filter(|task| may_be_replaced(state, workload, task));
    let mut stop = |task: &Task| {
        let reason = format!("revision {} is wanted", workload.revision);
        plan.push_for(&task.id, Op::StopTask { task: task.id.clone() }, reason);
    };
    if outdated().any(|task| !serves(task)) {
        // Nothing is lost by replacing what doesn't work.
        outdated().filter(|task| !serves(task)).for_each(stop);
        return;
    }
    let complete = slots().count() == workload.spec.replicas as usize;
    if complete && slots().all(settled) {
        outdated().take(1).for_each(&mut stop);
    }
}

/// Whether a task runs an old revision and could be asked to end now.
/// A task that is moving is left alone until its migration is over.
fn may_be_replaced(state: &State, workload: &Workload, task: &Task) -> bool {
    task.revision != workload.revision
        && task.desired == Desired::Run
        && task.migration.is_none()
        && !state.is_vacant(task)
}

fn serves(task: &Task) -> bool {
    task.observed.phase == TaskPhase::Running
}

/// Whether a task is where its policy wants it: nothing more will happen.
fn settled(task: &Task) -> bool {
    task.desired == Desired::Run && matches!(task.observed.phase, TaskPhase::Running | TaskPhase::Exited)
}
