//! From `apply` to everything running, for many replicas at once.

use crate::report::Report;
use anyhow::Result;
use dray_e2e::cluster::{Size, with};
use dray_e2e::manifest::{COUNT, shell};
use std::time::Instant;

const SIZE: Size = Size { schedulers: 3, nodes: 3 };

/// Starts `count` replicas.
pub(crate) fn measure(count: u32, report: &mut Report) -> Result<()> {
    let mut took = f64::NAN;
    with("bench", SIZE, |cluster| {
        cluster.import("busybox")?;
        // The image is on every node and was used once.
        cluster.apply(&shell("first", 3, COUNT))?;
        (0..3).try_for_each(|slot| cluster.running(&format!("first-{slot}")).map(drop))?;
        let began = Instant::now();
        let manifest = shell("many", count, COUNT);
        cluster.ctl_with(&["apply", "-f", "-", "--wait", "--timeout", "120s"], manifest.as_bytes())?;
        took = began.elapsed().as_secs_f64();
        Ok(())
    })?;
    report.add(&format!("apply_to_running.{count}"), "s", took, None);
    report.add("apply_to_running.rate", "1/s", f64::from(count) / took, None);
    Ok(())
}
