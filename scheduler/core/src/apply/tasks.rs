//! The planner's commands about single tasks.

use super::abort::abort_of_task;
use super::report::{end_all, end_cleaned};
use crate::outcome::Reply;
use crate::place::{Needs, feasible};
use crate::refusal::Refusal;
use crate::state::State;
use dray_model::event::Level;
use dray_model::ids::{Epoch, NodeName, TaskId, WorkloadName};
use dray_model::task::Observed;
use dray_model::{Desired, Task, TaskPhase};

pub(super) fn create(state: &mut State, name: &WorkloadName, slot: u32) -> Result<Reply, Refusal> {
    let workload = state.workload(name).ok_or_else(|| Refusal::UnknownWorkload { name: name.clone() })?;
    let revision = workload.revision;
    let id = TaskId { workload: name.clone(), slot };
    if workload.deleting || slot >= workload.spec.replicas || state.task(&id).is_some() {
        return Err(overtaken(format!("slot {slot} of {name} is to be filled")));
    }
    let cidr = state.cidr();
    let no_address = || Refusal::NoAddress { cidr: cidr.to_string() };
    let ip = state.addresses_mut().allocate().ok_or_else(no_address)?;
    let now_ms = state.clock_ms();
    state.put_task(Task {
        id,
        revision,
        ip,
        node: None,
        epoch: Epoch(0),
        desired: Desired::Run,
        observed: Observed::pending(now_ms, "not placed yet"),
        migration: None,
        created_ms: now_ms,
    });
    Ok(Reply::Done)
}

/// Gives the right to run a vacant task to a node.
pub(super) fn place(state: &mut State, id: &TaskId, node: &NodeName) -> Result<Reply, Refusal> {
    let task = existing(state, id)?;
    let name = &id.workload;
    let workload = state.workload(name).ok_or_else(|| Refusal::UnknownWorkload { name: name.clone() })?;
    if !state.is_vacant(&task) || workload.deleting || id.slot >= workload.spec.replicas {
        return Err(overtaken(format!("task {id} is to be placed")));
    }
    let target = state.node(node).ok_or_else(|| Refusal::UnknownNode { node: node.clone() })?;
    let needs = Needs::to_start(state, id, &workload.spec.template);
    let unfit = |obstacle| Refusal::TargetUnfit { task: id.clone(), node: node.clone(), obstacle };
    feasible(state, &needs, target).map_err(unfit)?;

    let (revision, policy) = (workload.revision, workload.spec.on_node_loss);
    let epoch = state.grants().next(id);
    let preparing = Observed { phase: TaskPhase::Preparing, ..Observed::pending(state.clock_ms(), "") };
    state.grants_mut().give(id, epoch, policy);
    end_cleaned(state, id);
    state.put_task(Task {
        revision,
        node: Some(node.clone()),
        epoch,
        desired: Desired::Run,
        observed: preparing,
        migration: None,
        ..task
    });
    note(state, Level::Info, id, "Placed", format!("on {node}, epoch {epoch}, revision {revision}"));
    Ok(Reply::Done)
}

/// Asks the owner to end a task. A migration that isn't decided is aborted
/// by the same entry, so that source and target hear of one decision.
pub(super) fn stop(state: &mut State, id: &TaskId) -> Result<Reply, Refusal> {
    let task = existing(state, id)?;
    if task.desired == Desired::Stop {
        return Err(overtaken(format!("task {id} is to run")));
    }
    abort_of_task(state, &task, "the task is being stopped");
    state.edit_task(id, |task| task.desired = Desired::Stop);
    note(state, Level::Info, id, "Stopping", "asked its node to stop it".into());
    Ok(Reply::Done)
}

/// Forgets a task that nobody may run and that its workload doesn't want.
pub(super) fn remove(state: &mut State, id: &TaskId) -> Result<Reply, Refusal> {
    let task = existing(state, id)?;
    let workload = state.workload(&id.workload);
    let wanted = workload.is_some_and(|w| !w.deleting && id.slot < w.spec.replicas);
    if wanted || !state.is_vacant(&task) {
        return Err(overtaken(format!("task {id} is surplus and ended")));
    }
    end_all(state, id);
    state.remove_task(id);
    note(state, Level::Info, id, "Removed", format!("its address {} is free", task.ip));
    Ok(Reply::Done)
}

/// Says why a vacant task waits.
pub(super) fn explain(state: &mut State, id: &TaskId, message: &str) -> Result<Reply, Refusal> {
    let task = existing(state, id)?;
    if !state.is_vacant(&task) {
        return Err(overtaken(format!("task {id} is not placed")));
    }
    if task.observed.message != message {
        state.edit_task(id, |task| message.clone_into(&mut task.observed.message));
        note(state, Level::Warning, id, "NotPlaced", message.to_owned());
    }
    Ok(Reply::Done)
}

fn existing(state: &State, id: &TaskId) -> Result<Task, Refusal> {
    state.task(id).cloned().ok_or_else(|| Refusal::UnknownTask { task: id.clone() })
}

fn overtaken(what: String) -> Refusal {
    Refusal::Overtaken { what: format!("no longer so: {what}") }
}

fn note(state: &mut State, level: Level, id: &TaskId, reason: &str, message: String) {
    state.event(level, format!("task/{id}"), reason, message);
}
