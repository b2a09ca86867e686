//! Performs one action on one instance and says what came of it.
//!
//! Every action may be repeated after any crash: each step first looks at
//! what is there.

mod archive;
mod bundle;
mod forward;
mod held;
mod release;
mod remove;
mod restore;
mod send;
mod start;

pub(crate) use archive::{Archive, Carried, unpack};
pub(crate) use bundle::bundle;
pub(crate) use forward::forward;
pub(crate) use held::{Held, Packets, Registry};
pub(crate) use remove::{LOGS_DIR, previous_logs};
pub(crate) use restore::restore;

use crate::context::{Context, runtime_id};
use agent_core::{Action, Event};
use container_runtime::Adopted;
use dray_model::ids::InstanceId;
use dray_model::validate::signal_number;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// What an action is called in logs.
pub(crate) fn name(action: &Action) -> &'static str {
    match action {
        Action::Start(_) => "start",
        Action::Stop { .. } => "stop",
        Action::Remove => "remove",
        Action::Prepare(_) => "prepare",
        Action::Send(_) => "send",
        Action::Release => "release",
        Action::Thaw => "thaw",
        Action::Cancel => "cancel",
    }
}

/// Performs an action; its outcome goes to the node task.
pub(crate) async fn perform(context: Context, id: InstanceId, action: Action, cancel: CancellationToken) {
    let event = match action {
        Action::Start(task) => cancellable(&cancel, start::start(&context, &id, &task))
            .await
            .map_or_else(|message| Some(Event::StartFailed { message }), |()| Some(Event::Started)),
        Action::Prepare(migration) => cancellable(&cancel, start::prepare(&context, &id, &migration))
            .await
            .map_or_else(|message| Some(Event::Broken { message }), |()| Some(Event::Prepared)),
        Action::Send(migration) => Some(send::send(&context, &id, &migration, &cancel).await),
        Action::Release => Some(release::release(&context, &id).await),
        Action::Thaw => Some(release::thaw(&context, &id).await),
        Action::Remove => Some(remove::remove(&context, &id).await),
        // Its end is told by its shim.
        Action::Stop { signal, grace } => stop(&context, &id, signal, grace).await,
        Action::Cancel => None,
    };
    if let Some(event) = event {
        if let Event::StartFailed { message } | Event::Broken { message } = &event {
            tracing::warn!(instance = %id, "{message}");
        }
        context.happened(&id, event).await;
    }
}

/// Runs until done or cancelled. What a cancelled action leaves behind is
/// removed by the next.
async fn cancellable<F>(cancel: &CancellationToken, work: F) -> Result<(), String>
where
    F: Future<Output = anyhow::Result<()>>,
{
    tokio::select! {
        done = work => done.map_err(|error| format!("{error:#}")),
        () = cancel.cancelled() => Err("no longer wanted".into()),
    }
}

/// Asks a container to end, and kills it after the grace.
async fn stop(context: &Context, id: &InstanceId, signal: Option<String>, grace: Duration) -> Option<Event> {
    let name = id.clone();
    let asked = context.blocking(move |context| {
        let Adopted::Live(container, _) = context.runtime.adopt(&runtime_id(&name))? else { return Ok(None) };
        let image = bundle::stop_signal(context, &name);
        let signal = signal.or(image).and_then(|text| signal_number(&text)).unwrap_or(libc::SIGTERM);
        container.signal(signal)?;
        Ok(container.init()?.map(|init| (container, init)))
    });
    match asked.await {
        Ok(Some((container, init))) => {
            let kill = move |_: &Context| {
                if !init.wait(grace)? {
                    container.kill_all()?;
                }
                Ok(())
            };
            if let Err(error) = context.blocking(kill).await {
                tracing::warn!(instance = %id, "kill: {error:#}");
            }
        }
        Ok(None) => {}
        Err(error) => tracing::warn!(instance = %id, "stop: {error:#}"),
    }
    None
}

/// Passes what is left of the lease on to an instance's shim.
pub(crate) async fn renew(context: Context, id: InstanceId) {
    let name = id.clone();
    let renewed = context.blocking(move |context| {
        if let Adopted::Live(container, _) = context.runtime.adopt(&runtime_id(&name))? {
            container.lease(Some(context.contact.remaining()))?;
        }
        Ok(())
    });
    if let Err(error) = renewed.await {
        tracing::debug!(instance = %id, "renew its lease: {error:#}");
    }
}
