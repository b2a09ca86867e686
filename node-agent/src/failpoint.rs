//! Switches that tests use to break a migration at a known place.
//!
//! Off unless `DRAY_FAILPOINTS` names a directory. At point `P` of node `N`
//! its file `N.P` says what happens: `pause` (until the file is gone), `fail`
//! or `exit`. That the point was reached is said by `N.P.reached`.

use anyhow::{Context as _, Result, bail};
use dray_model::NodeName;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

static DIR: LazyLock<Option<PathBuf>> =
    LazyLock::new(|| std::env::var_os("DRAY_FAILPOINTS").map(PathBuf::from));

/// Does what a test has laid down for this point.
pub(crate) async fn reach(node: &NodeName, point: &str) -> Result<()> {
    match &*DIR {
        Some(dir) => obey(&dir.join(format!("{node}.{point}")), point).await,
        None => Ok(()),
    }
}

async fn obey(switch: &Path, point: &str) -> Result<()> {
    let Ok(action) = std::fs::read_to_string(switch) else { return Ok(()) };
    let action = action.trim();
    tracing::warn!(point, action, "failpoint");
    std::fs::write(switch.with_added_extension("reached"), "").context("say that a failpoint was reached")?;
    if action == "pause" {
        while switch.exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        return Ok(());
    }
    std::fs::remove_file(switch).context("disarm a failpoint")?;
    match action {
        "exit" => std::process::abort(),
        "fail" => bail!("failpoint {point}"),
        other => bail!("failpoint {point} has an unknown action {other:?}"),
    }
}
