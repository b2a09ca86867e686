//! Removes instances: processes, mounts, cgroup, network, directories.

use super::held;
use super::send::images_dir;
use crate::context::{Context, runtime_id};
use agent_core::Event;
use anyhow::{Context as _, Result};
use dray_model::ids::InstanceId;
use std::path::PathBuf;
use std::time::Duration;

/// What becomes of an instance's logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Logs {
    /// They are kept as those of the previous run.
    Keep,
    /// They go too.
    Discard,
}

/// Where an instance's logs are, in its directory.
pub(crate) const LOGS_DIR: &str = "logs";

/// How long to wait before something that can't be removed is tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// Removes everything of an instance.
pub(super) async fn remove(context: &Context, id: &InstanceId) -> Event {
    match clear(context, id, Logs::Discard).await {
        Ok(()) => Event::Removed,
        Err(error) => {
            tracing::error!(instance = %id, "remove: {error:#}");
            tokio::time::sleep(PAUSE).await;
            Event::RemoveFailed { message: format!("{error:#}") }
        }
    }
}

/// Removes what there is of an instance; nothing is fine.
pub(crate) async fn clear(context: &Context, id: &InstanceId, logs: Logs) -> Result<()> {
    // A frozen, dumped container first: CRIU holds its processes.
    held::kill(context, id).await?;
    let name = id.clone();
    context
        .blocking(move |context| {
            let previous = previous_logs(context, &name);
            remove_dir(&previous)?;
            let current = context.runtime.instance_dir(&runtime_id(&name)).join(LOGS_DIR);
            if logs == Logs::Keep && current.is_dir() {
                std::fs::create_dir_all(previous.parent().unwrap_or(&previous))?;
                std::fs::rename(&current, &previous)?;
            }
            context.runtime.delete(&runtime_id(&name))?;
            remove_dir(&images_dir(context, &name))?;
            Ok(())
        })
        .await
        .context("delete the container")?;
    if let Ok(network) = context.network() {
        network.delete_veth(&id.to_string()).await.context("delete its network")?;
        if let Some(packets) = context.packets.take(id) {
            held::give_back(context, packets.incoming).await.context("give back what was sent to it")?;
        }
    }
    Ok(())
}

/// Where the logs of a task's run before this one are.
pub(crate) fn previous_logs(context: &Context, id: &InstanceId) -> PathBuf {
    context.config.data_dir.join("previous").join(id.task.to_string())
}

fn remove_dir(path: &std::path::Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _gone => Ok(()),
    }
}
