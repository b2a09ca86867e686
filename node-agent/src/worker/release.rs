//! Sets a container running: one that was restored here and is owned now, or
//! one that was frozen and stays.

use super::held::{self, Packets};
use super::send::images_dir;
use super::start;
use crate::context::{Context, runtime_id};
use crate::failpoint;
use crate::lease::unix_us;
use crate::watch::model_exit;
use agent_core::Event;
use anyhow::{Context as _, Result, anyhow};
use container_checkpoint::{Fate, Freezer, sockets};
use container_runtime::{Adopted, Container, Event as ShimEvent, Hook};
use dray_model::assignment::TaskAssignment;
use dray_model::ids::InstanceId;
use dray_model::migration::{Side, Step};
use dray_model::task::Exit;
use std::time::{Duration, Instant};

/// How long a released container may take to run.
const PATIENCE: Duration = Duration::from_secs(20);

/// Target: lets a restored container run.
pub(super) async fn release(context: &Context, id: &InstanceId) -> Event {
    if let Err(error) = failpoint::reach(&context.config.name, "target-committed").await {
        return lost(context, id, &error).await;
    }
    let began_us = unix_us();
    let began = Instant::now();
    let (task, lease) = match leased(context, id).await {
        Ok(leased) => leased,
        Err(error) => {
            // It stays held, and is tried again.
            tracing::warn!(instance = %id, "release: {error:#}");
            return Event::Restored { steps: Vec::new() };
        }
    };
    match try_release(context, id, &task, lease).await {
        Ok(frozen_us) => {
            let took_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
            let step = Step { side: Side::Target, name: "resume".into(), began_us, took_us };
            let freeze_us = frozen_us.map_or(0, |frozen_us| (began_us + took_us).saturating_sub(frozen_us));
            Event::Released { steps: vec![step], freeze_us }
        }
        Err(error) => lost(context, id, &error).await,
    }
}

/// The task, and how long it may run from now; waits for a lease if it needs one.
async fn leased(context: &Context, id: &InstanceId) -> Result<(TaskAssignment, Option<Duration>)> {
    let task = assigned(context, id)?;
    let lease = start::lease(context, &task).await?;
    Ok((task, lease))
}

async fn try_release(
    context: &Context,
    id: &InstanceId,
    task: &TaskAssignment,
    lease: Option<Duration>,
) -> Result<Option<u64>> {
    let network = context.network()?;
    let name = id.to_string();
    // Its sockets are there, so nothing will be answered with a reset.
    network.lower_shield(&name, task.ip).await?;
    let packets = context.packets.take(id);
    let frozen_us = packets.as_ref().map(|packets| packets.frozen_us);
    if let Some(Packets { incoming, outgoing, .. }) = packets {
        network.release_to_instance(incoming, &name).await?;
        network.release_outgoing(outgoing)?;
    }
    let instance = id.clone();
    context
        .blocking(move |context| {
            let container = live(context, &instance)?;
            container.lease(lease)?;
            run(&container)
        })
        .await?;
    if let Err(error) = network.announce(task.ip) {
        tracing::warn!(instance = %id, "announce its address: {error}");
    }
    let images = images_dir(context, id);
    tokio::task::spawn_blocking(move || {
        // Removed with the instance at the latest.
        let _ = std::fs::remove_dir_all(images);
    });
    Ok(frozen_us)
}

/// Answers the hook, and waits until the container runs.
fn run(container: &Container) -> Result<()> {
    let mut events = container.events()?;
    container.answer(Hook::PostRestore, true)?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match events.next_within(left)?.context("the shim ended")? {
            ShimEvent::Restored { .. } => return Ok(()),
            ShimEvent::RestoreFailed { message } => return Err(anyhow!(message)),
            ShimEvent::Exited { exit } => return Err(anyhow!("it ended with code {}", exit.code)),
            ShimEvent::State { .. } | ShimEvent::Fenced | ShimEvent::Unfenced | ShimEvent::Held { .. } => {}
        }
    }
}

/// Source: lets a frozen container run as before.
pub(super) async fn thaw(context: &Context, id: &InstanceId) -> Event {
    match try_thaw(context, id).await {
        Ok(()) => Event::Thawed,
        Err(error) => lost(context, id, &error).await,
    }
}

async fn try_thaw(context: &Context, id: &InstanceId) -> Result<()> {
    let task = assigned(context, id)?;
    let held = context.held_dumps.take(id);
    let (hold, dump) = held.map_or((None, None), |held| (held.hold, held.dump));
    if let Some(dump) = dump {
        held::end(dump, Fate::Keep).await?;
    }
    let name = id.to_string();
    let network = context.network()?;
    network.lower_shield(&name, task.ip).await?;
    let instance = id.clone();
    context
        .blocking(move |context| {
            let cgroup = context.cgroups.instance(&runtime_id(&instance));
            let dir = cgroup.freezer_dir().context("the container's cgroup has no freezer")?;
            // A CRIU that was killed can't have done it.
            sockets::leave_repair(&Freezer::at(dir)?)?;
            live(context, &instance)?.resume()?;
            std::fs::remove_dir_all(images_dir(context, &instance)).or_else(|error| match error.kind() {
                std::io::ErrorKind::NotFound => Ok(()),
                _ => Err(error),
            })?;
            Ok(())
        })
        .await?;
    if let Some(hold) = hold {
        network.release_to_instance(hold, &name).await?;
    }
    Ok(())
}

fn live(context: &Context, id: &InstanceId) -> Result<Container> {
    match context.runtime.adopt(&runtime_id(id))? {
        Adopted::Live(container, _) => Ok(container),
        Adopted::Dead(_) => Err(anyhow!("its shim is gone")),
    }
}

fn assigned(context: &Context, id: &InstanceId) -> Result<TaskAssignment> {
    let assignment = context.assignment.borrow().clone();
    let task = assignment.tasks.get(&id.task).filter(|task| task.epoch == id.epoch);
    task.cloned().with_context(|| format!("{id} is no longer assigned"))
}

/// It can't be set running: what is left is ended, and the restart policy
/// decides.
async fn lost(context: &Context, id: &InstanceId, error: &anyhow::Error) -> Event {
    tracing::error!(instance = %id, "set it running: {error:#}");
    let instance = id.clone();
    let exit = context
        .blocking(move |context| {
            if let Ok(container) = live(context, &instance) {
                container.kill_all()?;
            }
            let state = context.runtime.last_state(&runtime_id(&instance))?;
            Ok(state.and_then(|state| state.exit).as_ref().map(model_exit))
        })
        .await;
    let killed = Exit { code: 137, signal: 9, oom_killed: false, at_ms: crate::lease::unix_ms() };
    Event::Exited { exit: exit.ok().flatten().unwrap_or(killed), stable: false }
}
