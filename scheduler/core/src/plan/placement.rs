//! A node for every task that nobody may run and that is wanted: new ones,
//! replaced ones whose old revision has ended, and those of lost nodes.

use super::Plan;
use crate::command::Op;
use crate::place::{Needs, Ranking, Room};
use crate::state::State;
use dray_model::{Task, TaskPhase, Workload};

pub(super) fn plan_placements<'a>(room: &mut Room<'a>, plan: &mut Plan) {
    let state = room.state();
    for workload in state.workloads().values().filter(|workload| !workload.deleting) {
        place_vacant(state, workload, room, plan);
    }
}

fn place_vacant<'a>(state: &'a State, workload: &Workload, room: &mut Room<'a>, plan: &mut Plan) {
    let wanted = |task: &&Task| task.id.slot < workload.spec.replicas && state.is_vacant(task);
    // Tasks of a workload differ only in what they left behind: rank the
    // nodes once for those that left nothing.
    let mut common: Option<Ranking<'a>> = None;
    for task in state.tasks_of(&workload.name).filter(wanted) {
        if plan.is_full() {
            return;
        }
        let needs = Needs::to_start(state, &task.id, &workload.spec.template);
        if needs.leftovers.is_empty() {
            let ranking = common.get_or_insert_with(|| Ranking::new(room, &workload.name, needs));
            place_task(task, ranking, room, plan);
        } else {
            place_task(task, &mut Ranking::new(room, &workload.name, needs), room, plan);
            common = None;
        }
    }
}

fn place_task<'a>(task: &Task, ranking: &mut Ranking<'a>, room: &mut Room<'a>, plan: &mut Plan) {
    let id = task.id.clone();
    if let Some(node) = ranking.take(room) {
        plan.push_for(&task.id, Op::Place { task: id, node }, reason(task));
    } else if ranking.tally().fits() == 0 {
        explain(task, format!("no node can take it: {}", ranking.tally()), plan);
    }
    // Otherwise this plan itself has used up the room: the next one explains.
}

fn explain(task: &Task, message: String, plan: &mut Plan) {
    if task.observed.message != message {
        let op = Op::Explain { task: task.id.clone(), message };
        plan.push_for(&task.id, op, "it waits");
    }
}

fn reason(task: &Task) -> String {
    match (&task.node, task.observed.phase) {
        (None, _) => "it is new".into(),
        (Some(_), TaskPhase::Stopped) => "its last instance has ended".into(),
        (Some(node), _) => format!("{node} is lost"),
    }
}
