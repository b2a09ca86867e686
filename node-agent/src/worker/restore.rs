//! Target: restores what has arrived, and holds it.

use super::archive::Carried;
use super::held::Packets;
use super::start::connect;
use crate::context::{Context, runtime_id};
use crate::watch::watch;
use anyhow::{Result, anyhow, bail};
use container_network::Outgoing;
use container_runtime::{Adopted, Container, Event as ShimEvent, Hook};
use dray_model::ids::InstanceId;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast;
use tokio::time::timeout;

/// How long CRIU may take from one hook to the next.
const PATIENCE: Duration = Duration::from_secs(120);

/// Restores an instance whose files have arrived; it is held when this
/// returns, and nothing of it has run.
pub(crate) async fn restore(
    context: &Context,
    id: &InstanceId,
    ip: Ipv4Addr,
    carried: &Carried,
) -> Result<()> {
    let name = id.clone();
    let container = context
        .blocking(move |context| match context.runtime.adopt(&runtime_id(&name))? {
            Adopted::Live(container, _) => Ok(container),
            Adopted::Dead(_) => bail!("the waiting shim is gone"),
        })
        .await?;
    let mut events = watch(context.clone(), id.clone(), &container)?;
    let network = context.network()?;
    let incoming = network.prepare_incoming(ip)?;
    network.begin_incoming(&incoming).await?;
    begin(context, &container).await?;
    let pid = held(&mut events, Hook::SetupNamespaces).await?;
    let outgoing = join(context, id, ip, pid).await?;
    answer(context, &container, Hook::SetupNamespaces).await?;
    held(&mut events, Hook::PostRestore).await?;
    context.packets.put(id, Packets { incoming, outgoing, frozen_us: carried.frozen_us });
    Ok(())
}

async fn begin(context: &Context, container: &Container) -> Result<()> {
    let container = container.clone();
    context
        .blocking(move |_| {
            container.restore()?;
            Ok(())
        })
        .await
}

/// Gives the restored namespaces their network, shielded.
async fn join(context: &Context, id: &InstanceId, ip: Ipv4Addr, pid: i32) -> Result<Outgoing> {
    connect(context, id, ip, pid).await?;
    Ok(context.network()?.hold_outgoing(&id.to_string()).await?)
}

async fn answer(context: &Context, container: &Container, hook: Hook) -> Result<()> {
    let container = container.clone();
    context
        .blocking(move |_| {
            container.answer(hook, true)?;
            Ok(())
        })
        .await
}

/// Waits until CRIU is held in a hook; gives the process that it names.
async fn held(events: &mut broadcast::Receiver<Arc<ShimEvent>>, wanted: Hook) -> Result<i32> {
    let wait = async {
        loop {
            match &*events.recv().await? {
                ShimEvent::Held { hook, pid } if *hook == wanted => return anyhow::Ok(*pid),
                ShimEvent::RestoreFailed { message } => bail!("restore: {message}"),
                ShimEvent::Exited { exit } => bail!("the restored container ended with code {}", exit.code),
                ShimEvent::State { .. }
                | ShimEvent::Fenced
                | ShimEvent::Unfenced
                | ShimEvent::Held { .. }
                | ShimEvent::Restored { .. } => {}
            }
        }
    };
    timeout(PATIENCE, wait).await.map_err(|_| anyhow!("CRIU takes too long"))?
}
