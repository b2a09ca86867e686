//! Nodes come, go, and are closed for new tasks; images reach them.

use super::abort::abort_where;
use crate::outcome::{Blocked, Reply};
use crate::place::check_move;
use crate::refusal::Refusal;
use crate::state::State;
use dray_model::event::Level;
use dray_model::ids::{NodeName, TaskId};
use dray_model::image::Image;
use dray_model::node::About;
use dray_model::{Liveness, MigrationPhase, Node, TaskPhase};

/// An agent began a session. What the node owned, it still owns: a node that
/// was lost in between finds its tasks as they are, or given to others.
pub(super) fn register(state: &mut State, name: &NodeName, about: &About) -> Result<Reply, Refusal> {
    match state.node(name).cloned() {
        Some(old) => welcome_back(state, old, about),
        None => join(state, name, about)?,
    }
    let session = state.begin_session(name);
    Ok(Reply::Session { session })
}

fn welcome_back(state: &mut State, old: Node, about: &About) {
    let name = old.name.clone();
    if old.about.boot_id != about.boot_id {
        abort_of_node(state, &name, "was started anew");
    }
    let came_back = old.liveness == Liveness::Lost;
    let since_ms = if came_back { state.clock_ms() } else { old.since_ms };
    let node = Node { about: about.clone(), liveness: Liveness::Ready, since_ms, ..old.clone() };
    if node != old {
        state.put_node(node);
    }
    if came_back {
        note(state, Level::Info, &name, "Ready", "is back".into());
    }
}

fn join(state: &mut State, name: &NodeName, about: &About) -> Result<(), Refusal> {
    let (cidr, now_ms) = (state.cidr(), state.clock_ms());
    let no_address = || Refusal::NoAddress { cidr: cidr.to_string() };
    let overlay_ip = state.addresses_mut().allocate().ok_or_else(no_address)?;
    state.put_node(Node {
        name: name.clone(),
        about: about.clone(),
        overlay_ip,
        liveness: Liveness::Ready,
        since_ms: now_ms,
        cordoned: false,
        draining: false,
        registered_ms: now_ms,
    });
    note(state, Level::Info, name, "Registered", format!("with address {overlay_ip}"));
    Ok(())
}

/// Whether a session is the node's present one and not lost.
pub(super) fn check_session(state: &State, name: &NodeName, session: u64) -> Result<(), Refusal> {
    let node = existing(state, name)?;
    let current = state.session(name) == Some(session) && node.liveness == Liveness::Ready;
    if current { Ok(()) } else { Err(Refusal::SessionOver { node: name.clone(), session }) }
}

/// Ends the migrations that can't go on without a node.
///
/// A *target* that is gone can't ask for the commit any more: abort. A
/// *source* that is gone may have sent everything before: once the target was
/// prepared, the target decides, by asking for the commit or by saying that it
/// can't; the deadline bounds the wait. Before that nothing can have been
/// sent: abort.
fn abort_of_node(state: &mut State, name: &NodeName, failure: &str) {
    abort_where(state, &format!("{name} {failure}"), |m| {
        m.target == *name || (m.source == *name && m.phase == MigrationPhase::Reserved)
    });
}

/// The leader's verdict on a silent session, and what follows from it. The
/// session's number makes it a compare-and-set: a verdict that crossed a new
/// registration on its way through the log is void.
pub(super) fn lose(state: &mut State, name: &NodeName, session: u64) -> Result<Reply, Refusal> {
    check_session(state, name, session)?;
    let now_ms = state.clock_ms();
    state.edit_node(name, |node| {
        node.liveness = Liveness::Lost;
        node.since_ms = now_ms;
    });
    note(state, Level::Warning, name, "Lost", "no longer heard from".into());
    abort_of_node(state, name, "is lost");
    mark_unknown(state, name);
    Ok(Reply::Done)
}

fn mark_unknown(state: &mut State, name: &NodeName) {
    let now_ms = state.clock_ms();
    let live = state.tasks_on(name).filter(|task| task.observed.phase != TaskPhase::Stopped);
    let ids: Vec<TaskId> = live.map(|task| task.id.clone()).collect();
    for id in ids {
        state.edit_task(&id, |task| {
            task.observed.phase = TaskPhase::Unknown;
            task.observed.since_ms = now_ms;
            task.observed.message = format!("{name} is lost");
        });
    }
}

pub(super) fn cordon(state: &mut State, name: &NodeName) -> Result<Reply, Refusal> {
    let node = existing(state, name)?;
    if !node.cordoned {
        state.edit_node(name, |node| node.cordoned = true);
        note(state, Level::Info, name, "Cordoned", "takes no new tasks".into());
    }
    Ok(Reply::Done)
}

pub(super) fn uncordon(state: &mut State, name: &NodeName) -> Result<Reply, Refusal> {
    let node = existing(state, name)?;
    if node.cordoned || node.draining {
        state.edit_node(name, |node| {
            node.cordoned = false;
            node.draining = false;
        });
        note(state, Level::Info, name, "Uncordoned", "takes tasks again".into());
    }
    Ok(Reply::Done)
}

/// Marks the node; the planner moves its tasks. Answers what it will move
/// and what it can't, as things are now.
pub(super) fn drain(state: &mut State, name: &NodeName) -> Result<Reply, Refusal> {
    let node = existing(state, name)?;
    if !node.draining {
        state.edit_node(name, |node| {
            node.cordoned = true;
            node.draining = true;
        });
        note(state, Level::Info, name, "Draining", "its tasks are being moved away".into());
    }
    let (mut moving, mut blocked) = (Vec::new(), Vec::new());
    for task in state.tasks_on(name).filter(|task| task.observed.phase != TaskPhase::Stopped) {
        match check_move(state, &task.id, None) {
            Ok(_) | Err(Refusal::AlreadyMoving { .. } | Refusal::Stopping { .. }) => {
                moving.push(task.id.clone());
            }
            Err(refusal) => blocked.push(Blocked { task: task.id.clone(), reason: refusal.to_string() }),
        }
    }
    Ok(Reply::Drain { moving, blocked })
}

/// An import decides what a name means; nodes that have something else by
/// that name have it no more.
pub(super) fn import_image(
    state: &mut State,
    node: &NodeName,
    reference: &str,
    digest: &str,
    size_bytes: u64,
) -> Result<Reply, Refusal> {
    existing(state, node)?;
    let same = state.images().get(reference).filter(|image| image.digest == digest);
    let mut holders = same.map(|image| image.holders.clone()).unwrap_or_default();
    holders.insert(node.clone());
    state.put_image(Image {
        reference: reference.to_owned(),
        digest: digest.to_owned(),
        size_bytes,
        holders,
        imported_ms: state.clock_ms(),
    });
    state.event(Level::Info, format!("image/{reference}"), "Imported", format!("{digest} through {node}"));
    Ok(Reply::Done)
}

fn existing(state: &State, name: &NodeName) -> Result<Node, Refusal> {
    state.node(name).cloned().ok_or_else(|| Refusal::UnknownNode { node: name.clone() })
}

fn note(state: &mut State, level: Level, name: &NodeName, reason: &str, message: String) {
    state.event(level, format!("node/{name}"), reason, message);
}
