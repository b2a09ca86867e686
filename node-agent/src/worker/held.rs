//! What is held while the log decides: containers that CRIU has dumped and
//! keeps frozen (source), and packets kept for a container that CRIU has
//! restored (target).

use super::send::Ended;
use crate::context::Context;
use crate::failpoint;
use anyhow::{Context as _, Result, ensure};
use container_checkpoint::{Fate, Outcome};
use container_network::{Incoming, Outgoing};
use dray_model::ids::InstanceId;
use dray_model::migration::Side;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Things held for instances. Lost with the process, which is safe: frames
/// are sent again, and a container stays frozen without its CRIU.
#[derive(Debug)]
pub(crate) struct Registry<T>(Mutex<BTreeMap<InstanceId, T>>);

impl<T> Default for Registry<T> {
    fn default() -> Self {
        Registry(Mutex::default())
    }
}

impl<T> Registry<T> {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<InstanceId, T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn put(&self, id: &InstanceId, thing: T) {
        self.lock().insert(id.clone(), thing);
    }

    pub(super) fn take(&self, id: &InstanceId) -> Option<T> {
        self.lock().remove(id)
    }
}

/// Source: a frozen container.
pub(crate) struct Held {
    /// What was sent to it meanwhile.
    pub(super) hold: Option<Incoming>,
    /// The CRIU that holds it, if it still does.
    pub(super) dump: Option<(oneshot::Sender<Fate>, JoinHandle<Ended>)>,
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Held").field("hold", &self.hold).finish_non_exhaustive()
    }
}

/// Target: packets of a restored container.
#[derive(Debug)]
pub(crate) struct Packets {
    /// Sent to it.
    pub(super) incoming: Incoming,
    /// Sent by it.
    pub(super) outgoing: Outgoing,
    /// When the source froze it, in Unix µs.
    pub(super) frozen_us: u64,
}

/// Tells the CRIU that holds a container what becomes of it, and waits until
/// it is done.
pub(super) async fn end(dump: (oneshot::Sender<Fate>, JoinHandle<Ended>), fate: Fate) -> Result<()> {
    let (decide, thread) = dump;
    // A dump that failed by itself no longer listens.
    let _ = decide.send(fate);
    let ended = thread.await.context("the dump's thread panicked")?;
    let killed = matches!(ended.result, Ok(Outcome::Killed { .. }));
    ensure!(fate == Fate::Kill || !killed, "CRIU killed the container instead of letting it go");
    Ok(())
}

/// Source: kills a container that runs elsewhere now, and passes on what was
/// sent to it. An instance that isn't held is left alone.
pub(super) async fn kill(context: &Context, id: &InstanceId) -> Result<()> {
    let Some(Held { hold, dump }) = context.held_dumps.take(id) else { return Ok(()) };
    failpoint::reach(&context.config.name, "source-committed").await?;
    if let Some(hold) = hold {
        // First, because clients wait for it.
        pass_on(context, id, hold);
    }
    match dump {
        Some(dump) => end(dump, Fate::Kill).await,
        None => Ok(()),
    }
}

/// Target: sends what was kept for a task that is not to come here to the
/// node that has it.
pub(super) async fn give_back(context: &Context, hold: Incoming) -> Result<()> {
    let owner = context.assignment.borrow().routes.get(&hold.address()).copied();
    if let Some(node) = owner {
        context.network()?.release_to_node(hold, node).await?;
    }
    Ok(())
}

/// How long other nodes may take to learn of a move.
const RELAY: Duration = Duration::from_secs(2);

/// Sends what was kept for a task to the node that has it now.
fn pass_on(context: &Context, id: &InstanceId, hold: Incoming) {
    let assignment = context.assignment.borrow().clone();
    let outgoing = assignment.migrations.values().find(|m| m.side == Side::Source && m.task.task == id.task);
    let Some(ip) = outgoing.map(|migration| migration.task.ip) else { return };
    let Some(node) = assignment.routes.get(&ip) else { return };
    let (context, id, node) = (context.clone(), id.clone(), *node);
    tokio::spawn(async move {
        let relay = async { anyhow::Ok(context.network()?.relay_to_node(hold, node, RELAY).await?) };
        match relay.await {
            Ok(released) => tracing::debug!(instance = %id, frames = released.frames, "passed on"),
            Err(error) => tracing::warn!(instance = %id, "pass on what was sent to it: {error:#}"),
        }
    });
}
