//! Ctrl-C: whatever was started is stopped before the program ends.

use crate::cluster::{home, program};
use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};
use std::process::Command;

/// From now on SIGINT, SIGTERM and SIGHUP take down the cluster of this name and then end the program. To be called
/// before any thread is started; children don't inherit the blocked signals.
///
/// # Errors
/// When the signals can't be blocked.
pub fn takes_down(cluster: &'static str) -> Result<()> {
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
    signals.thread_block().context("block signals")?;
    let wait = move || {
        if let Ok(signal) = signals.wait() {
            eprintln!("\n{signal}: cleaning up");
            let down = program("clusterctl").map(|path| {
                Command::new(path)
                    .args(["local", "down"])
                    .env("DRAY_LOCAL_DIR", home().join(cluster))
                    .status()
            });
            if !matches!(down, Ok(Ok(status)) if status.success()) {
                eprintln!("clusterctl local down failed: {down:?}");
            }
            // Whatever still is in the directory was only to break things on purpose.
            let _ = std::fs::remove_dir_all(home().join(cluster));
            std::process::exit(128 + signal as i32);
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(wait).context("start a thread")?;
    Ok(())
}
