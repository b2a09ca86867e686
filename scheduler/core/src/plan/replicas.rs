//! As many slots as wanted: fills what is missing, ends what is surplus,
//! forgets what has ended.

use super::Plan;
use crate::command::Op;
use crate::state::State;
use dray_model::ids::TaskId;
use dray_model::{Desired, Task, Workload};

pub(super) fn plan_slots(state: &State, plan: &mut Plan) {
    for workload in state.workloads().values() {
        let wanted = if workload.deleting { 0 } else { workload.spec.replicas };
        let reason = surplus_reason(workload);
        for task in state.tasks_of(&workload.name).rev().filter(|task| task.id.slot >= wanted) {
            plan_end(state, task, &reason, plan);
        }
        for slot in 0..wanted {
            let id = TaskId { workload: workload.name.clone(), slot };
            if state.task(&id).is_none() {
                let op = Op::CreateTask { workload: id.workload.clone(), slot };
                plan.push_for(&id, op, format!("its workload wants {wanted}"));
            }
        }
        if workload.deleting && state.tasks_of(&workload.name).next().is_none() {
            let op = Op::RemoveWorkload { name: workload.name.clone() };
            plan.push(op, "it was deleted and its tasks are gone");
        }
    }
}

fn surplus_reason(workload: &Workload) -> String {
    match workload.deleting {
        true => "its workload is being deleted".into(),
        false => format!("its workload wants only {}", workload.spec.replicas),
    }
}

/// Forgets a task that nobody may run; asks its owner to end it otherwise.
fn plan_end(state: &State, task: &Task, reason: &str, plan: &mut Plan) {
    if state.is_vacant(task) {
        plan.push_for(&task.id, Op::RemoveTask { task: task.id.clone() }, reason);
    } else if task.desired == Desired::Run {
        plan.push_for(&task.id, Op::StopTask { task: task.id.clone() }, reason);
    }
}
