//! How scripts print what they are about.

use dray_model::assignment::Assignment;
use dray_model::{Migration, Task};
use scheduler_core::plan::Step;
use scheduler_core::{Op, Refusal, Reply};

pub(crate) fn result(result: &Result<Reply, Refusal>) -> Vec<String> {
    match result {
        Err(refusal) => vec![format!("refused: {refusal}")],
        Ok(Reply::Done) => vec![],
        Ok(Reply::Session { session }) => vec![format!("session {session}")],
        Ok(Reply::Migration { id }) => vec![id.to_string()],
        Ok(Reply::Workload { change, warnings, .. }) => {
            let warnings = warnings.iter().map(|warning| format!("warning: {warning}"));
            std::iter::once(format!("{change:?}").to_lowercase()).chain(warnings).collect()
        }
        Ok(Reply::Drain { moving, blocked }) => {
            let moving = moving.iter().map(|task| format!("moving {task}"));
            moving.chain(blocked.iter().map(|b| format!("blocked {}: {}", b.task, b.reason))).collect()
        }
    }
}

pub(crate) fn step(step: &Step) -> String {
    format!("{} ({})", op(&step.op), step.reason)
}

fn op(op: &Op) -> String {
    match op {
        Op::CreateTask { workload, slot } => format!("create {workload}-{slot}"),
        Op::Place { task, node } => format!("place {task} on {node}"),
        Op::StopTask { task } => format!("stop {task}"),
        Op::RemoveTask { task } => format!("remove {task}"),
        Op::Explain { task, message } => format!("explain {task}: {message}"),
        Op::RemoveWorkload { name } => format!("remove workload {name}"),
        Op::CreateMigration { task, target, .. } => {
            let target = target.as_ref().map_or("the best node", |node| node.as_str());
            format!("migrate {task} to {target}")
        }
        Op::AbortMigration { id, failure } => format!("abort {id}: {failure}"),
        Op::ApplyWorkload { .. }
        | Op::ScaleWorkload { .. }
        | Op::DeleteWorkload { .. }
        | Op::Cordon { .. }
        | Op::Uncordon { .. }
        | Op::Drain { .. }
        | Op::ImportImage { .. }
        | Op::RegisterNode { .. }
        | Op::LoseNode { .. }
        | Op::Report { .. }
        | Op::Compare { .. } => panic!("not a planner's command: {op:?}"),
    }
}

pub(crate) fn task(task: &Task) -> String {
    let node = task.node.as_ref().map_or("-", |node| node.as_str());
    let mut line = format!(
        "{} {node} epoch {} revision {} {:?}",
        task.id, task.epoch, task.revision, task.observed.phase
    );
    if task.desired == dray_model::Desired::Stop {
        line += " (to stop)";
    }
    if let Some(migration) = task.migration {
        line += &format!(" in {migration}");
    }
    if !task.observed.message.is_empty() {
        line += &format!(": {}", task.observed.message);
    }
    line
}

pub(crate) fn migration(m: &Migration) -> String {
    let failure = m.failure.as_ref().map(|failure| format!(": {failure}")).unwrap_or_default();
    format!("{} {} {} -> {} {:?}{failure}", m.id, m.task, m.source, m.target, m.phase)
}

pub(crate) fn assignment(assignment: &Assignment) -> Vec<String> {
    let tasks = assignment.tasks.values().map(|t| format!("{:?} {}@{}", t.desired, t.task, t.epoch));
    let migrations = assignment
        .migrations
        .values()
        .map(|m| format!("{:?} of {} {}@{} {:?}", m.side, m.migration, m.task.task, m.task.epoch, m.phase));
    let routes = assignment.routes.iter().map(|(ip, via)| format!("{ip} via {via}"));
    let images = assignment
        .images
        .values()
        .map(|i| format!("image {} {} from {} holders", i.reference, i.digest, i.holders.len()));
    tasks.chain(migrations).chain(routes).chain(images).collect()
}
