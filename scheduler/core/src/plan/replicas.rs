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
        plan_surplus(state, workload, wanted, plan);
        plan_missing(state, workload, wanted, plan);
        if workload.deleting && state.tasks_of(&workload.name).next().is_none() {
            let op = Op::RemoveWorkload { name: workload.name.clone() };
            plan.push(op, "it was deleted and its tasks are gone");
        }
    }
}

fn plan_surplus(state: &State, workload: &Workload, wanted: u32, plan: &mut Plan) {
    let reason = surplus_reason(workload);
    let surplus = state.tasks_of(&workload.name).rev().take_while(|task| task.id.slot >= wanted);
    surplus.for_each(|task| plan_end(state, task, &reason, plan));
}

fn plan_missing(state: &State, workload: &Workload, wanted: u32, plan: &mut Plan) {
    let mut slots = state.tasks_of(&workload.name).map(|task| task.id.slot).peekable();
    for slot in 0..wanted {
        let filled = slots.next_if_eq(&slot).is_some();
        if !filled && !plan.is_full() {
            let id = TaskId { workload: workload.name.clone(), slot };
            let op = Op::CreateTask { workload: workload.name.clone(), slot };
            plan.push_for(&id, op, format!("its workload wants {wanted}"));
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
