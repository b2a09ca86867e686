//! Makes containers: to be started, or to be restored.

use super::bundle;
use super::send::{fresh_dir, images_dir};
use crate::context::{Context, runtime_id, searchable_dir};
use crate::{failpoint, images, watch};
use anyhow::{Context as _, Result, ensure};
use container_network::{NetNs, VethSpec};
use container_runtime::{Container, RestoreOrder};
use dray_model::assignment::{MigrationAssignment, TaskAssignment};
use dray_model::ids::InstanceId;
use dray_model::spec::NodeLossPolicy;
use std::net::Ipv4Addr;
use std::time::Duration;

/// Makes a container and runs it; what is left of an earlier run goes first.
pub(super) async fn start(context: &Context, id: &InstanceId, task: &TaskAssignment) -> Result<()> {
    super::remove::clear(context, id, super::remove::Logs::Keep).await?;
    let layers = images::layers(context, task.image.as_ref(), &task.template.container().image).await?;
    let made = bundle(context, id, task, layers).await?;
    let container = context.blocking(move |context| Ok(context.runtime.create(&made)?)).await?;
    let pid = init_pid(context, &container).await?;
    connect(context, id, task.ip, pid).await?;
    let network = context.network()?;
    network.lower_shield(&id.to_string(), task.ip).await.context("connect its network")?;
    let lease = lease(context, task).await?;
    watch::watch(context.clone(), id.clone(), &container)?;
    context
        .blocking(move |_| {
            container.lease(lease)?;
            container.start()?;
            Ok(())
        })
        .await?;
    if let Err(error) = network.announce(task.ip) {
        tracing::warn!(instance = %id, "announce its address: {:#}", anyhow::Error::from(error));
    }
    Ok(())
}

/// How long a task may run from now; for ever if it never restarts elsewhere.
pub(super) async fn lease(context: &Context, task: &TaskAssignment) -> Result<Option<Duration>> {
    match task.on_node_loss {
        NodeLossPolicy::Wait => Ok(None),
        NodeLossPolicy::Restart => {
            let lease = context.contact.lease().await;
            Ok(Some(lease.context("no scheduler has been heard from for too long")?))
        }
    }
}

async fn init_pid(context: &Context, container: &Container) -> Result<i32> {
    let container = container.clone();
    let init = context.blocking(move |_| Ok(container.init()?)).await?;
    Ok(init.context("the container's init is gone")?.pid())
}

/// Gives the network namespace of a process the task's address; shielded.
pub(crate) async fn connect(context: &Context, id: &InstanceId, ip: Ipv4Addr, pid: i32) -> Result<()> {
    let namespace = NetNs::of_pid(u32::try_from(pid)?).context("open its network namespace")?;
    let spec = VethSpec { instance: &id.to_string(), address: ip };
    context.network()?.ensure_veth(&spec, &namespace).await.context("make its network")
}

/// Target: makes everything but the process.
pub(super) async fn prepare(
    context: &Context,
    id: &InstanceId,
    migration: &MigrationAssignment,
) -> Result<()> {
    let criu = context.criu.as_ref().context("this node has no CRIU that works; run deploy/setup-host.sh")?;
    let order = RestoreOrder {
        criu: criu.program().into(),
        images_dir: images_dir(context, id),
        log_dir: context.runtime.instance_dir(&runtime_id(id)),
    };
    super::remove::clear(context, id, super::remove::Logs::Discard).await?;
    let task = &migration.task;
    let layers = images::layers(context, task.image.as_ref(), &task.template.container().image).await?;
    let made = bundle(context, id, task, layers).await?;
    let container = context
        .blocking(move |context| {
            searchable_dir(&context.config.run_dir.join("checkpoints"))?;
            fresh_dir(&order.images_dir)?;
            Ok(context.runtime.prepare_restore(&made, &order)?)
        })
        .await?;
    ensure!(container.instance() == &runtime_id(id), "the shim names another instance");
    failpoint::reach(&context.config.name, "target-prepared").await
}
