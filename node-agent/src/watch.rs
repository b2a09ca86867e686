//! One watcher per container: passes on what its shim says.

use crate::context::{Context, runtime_id};
use crate::lease::unix_ms;
use agent_core::Event;
use agent_core::backoff::is_stable;
use anyhow::{Context as _, Result};
use container_runtime::{Container, Event as ShimEvent, Events, Exit as ShimExit};
use dray_model::ids::InstanceId;
use dray_model::task::Exit;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::broadcast;

/// The stack of a watcher, in bytes. It only waits and passes on.
const STACK_BYTES: usize = 128 << 10;

/// Watches a container until it has ended. What happens besides can be heard
/// by who restores it.
pub(crate) fn watch(
    context: Context,
    id: InstanceId,
    container: &Container,
) -> Result<broadcast::Receiver<Arc<ShimEvent>>> {
    let events = container.events()?;
    let (sender, receiver) = broadcast::channel(64);
    let runtime = Handle::current();
    std::thread::Builder::new()
        .name("watch".into())
        .stack_size(STACK_BYTES)
        .spawn(move || {
            let exit = follow(&id, events, &sender);
            let stable = stable(&context, &id);
            runtime.block_on(context.happened(&id, Event::Exited { exit, stable }));
        })
        .context("start a watcher")?;
    Ok(receiver)
}

/// Follows a container to its end.
fn follow(id: &InstanceId, mut events: Events, to: &broadcast::Sender<Arc<ShimEvent>>) -> Exit {
    loop {
        match events.next() {
            Ok(Some(ShimEvent::Exited { exit })) => return model_exit(&exit),
            // Nobody listens but during a restore.
            Ok(Some(event)) => drop(to.send(Arc::new(event))),
            Ok(None) => return lost(),
            Err(error) => {
                tracing::warn!(instance = %id, "watch its shim: {error}");
                return lost();
            }
        }
    }
}

/// The shim is gone, and its container with it.
fn lost() -> Exit {
    Exit { code: 137, signal: 9, oom_killed: false, at_ms: unix_ms() }
}

/// Whether its last run was long enough to count ends anew.
fn stable(context: &Context, id: &InstanceId) -> bool {
    let Ok(Some(state)) = context.runtime.last_state(&runtime_id(id)) else { return false };
    let policy = context.assignment.borrow().tasks.get(&id.task).map(|task| task.template.restart.clone());
    let ran = state.exit.zip(state.started_at_ms).map(|(exit, at)| exit.finished_at_ms.saturating_sub(at));
    policy.zip(ran).is_some_and(|(policy, ms)| is_stable(&policy, Duration::from_millis(ms)))
}

/// The model's view of an exit.
pub(crate) fn model_exit(exit: &ShimExit) -> Exit {
    Exit {
        code: exit.code,
        signal: exit.signal.unwrap_or_default(),
        oom_killed: exit.oom,
        at_ms: exit.finished_at_ms,
    }
}
