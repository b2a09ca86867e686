//! How a command changes the state. Deterministic: the same state and
//! command make the same outcome on every replica.
//!
//! Every precondition is checked here, whatever the proposer has checked
//! before: between its look and this entry others may have come. Each
//! function checks first and writes after, so that a refusal changes nothing.
//!
//! **Who may run a task** changes in two places only: [`tasks::place`] (to a
//! node, of a task that nobody may run) and [`report`] (a migration's commit,
//! from source to target). Both give an epoch that nobody ever had.

mod abort;
mod migrations;
mod nodes;
mod report;
mod tasks;
mod workloads;

use crate::codec::digest_of;
use crate::command::{Command, Op};
use crate::outcome::{Outcome, Reply};
use crate::refusal::Refusal;
use crate::state::{Known, State};

/// Applies one command, the log's entry `index`.
pub fn apply(state: &mut State, index: u64, command: &Command) -> Outcome {
    state.begin(index, command.now_ms);
    let result = match &command.request_id {
        Some(id) => apply_once(state, id, &command.op),
        None => apply_op(state, &command.op),
    };
    Outcome { result, changes: state.take_changes() }
}

/// Applies an entry without a command: raft's own, at the start of a term.
pub fn apply_nothing(state: &mut State, index: u64) {
    state.begin(index, 0);
}

fn apply_once(state: &mut State, id: &str, op: &Op) -> Result<Reply, Refusal> {
    let digest = digest_of(op);
    match state.requests().look_up(id, digest) {
        Known::Repeated(reply) => return Ok(reply.clone()),
        Known::Reused => return Err(Refusal::RequestIdReused { id: id.to_owned() }),
        Known::New => {}
    }
    let reply = apply_op(state, op)?;
    state.requests_mut().remember(id, digest, reply.clone());
    Ok(reply)
}

fn apply_op(state: &mut State, op: &Op) -> Result<Reply, Refusal> {
    match op {
        Op::ApplyWorkload { name, labels, spec, etag } => {
            workloads::apply(state, name, labels, spec, etag.as_deref())
        }
        Op::ScaleWorkload { name, replicas, etag } => {
            workloads::scale(state, name, *replicas, etag.as_deref())
        }
        Op::DeleteWorkload { name, etag } => workloads::delete(state, name, etag.as_deref()),
        Op::RemoveWorkload { name } => workloads::remove(state, name),
        Op::Cordon { node } => nodes::cordon(state, node),
        Op::Uncordon { node } => nodes::uncordon(state, node),
        Op::Drain { node } => nodes::drain(state, node),
        Op::RegisterNode { name, about } => nodes::register(state, name, about),
        Op::LoseNode { node, session } => nodes::lose(state, node, *session),
        Op::ImportImage { node, reference, digest, size_bytes } => {
            nodes::import_image(state, node, reference, digest, *size_bytes)
        }
        Op::CreateMigration { task, target, reason } => {
            migrations::create(state, task, target.as_ref(), reason)
        }
        Op::AbortMigration { id, failure } => migrations::abort(state, *id, failure),
        Op::Report { node, session, tasks, migrations, images } => {
            nodes::check_session(state, node, *session)?;
            report::report(state, node, tasks, migrations, images)
        }
        Op::CreateTask { workload, slot } => tasks::create(state, workload, *slot),
        Op::Place { task, node } => tasks::place(state, task, node),
        Op::StopTask { task } => tasks::stop(state, task),
        Op::RemoveTask { task } => tasks::remove(state, task),
        // The replica compares; the state has nothing to do with it.
        Op::Compare { .. } => Ok(Reply::Done),
        Op::Explain { task, message } => tasks::explain(state, task, message),
    }
}
