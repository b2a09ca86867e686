//! The peer of our migrations: Redis in plain namespaces, moved with plain
//! CRIU (`tests/e2e/by-hand.sh`).

use crate::report::millis;
use anyhow::{Context, Result, ensure};
use dray_e2e::client::{Counting, Job, now_us};
use dray_e2e::cluster::repository;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// What moving it cost, in milliseconds.
#[derive(Debug, Default)]
pub(crate) struct ByHand {
    /// The longest a client waited, for each move.
    pub(crate) stalls: Vec<f64>,
    /// From the dump's start to the restore's end.
    pub(crate) work: Vec<f64>,
}

/// Two machines made of namespaces; removed when dropped.
struct Machines<'a>(&'a Path);

/// Moves Redis there and back.
pub(crate) fn measure(moves: u32) -> Result<ByHand> {
    let dir = tempfile::tempdir().context("a directory")?;
    let root = dir.path().join("image");
    crate::image::unpack("redis", &root)?;
    let machines = Machines(dir.path());
    machines.run(&["up"], &[&root])?;
    let client = Counting::start(Job {
        netns: Some("/run/netns/dray-hand-c".into()),
        address: ([10, 88, 100, 1], 6379).into(),
        key: "counter".into(),
        limit: Duration::from_secs(600),
    })?;
    let mut measured = ByHand::default();
    for number in 0..moves {
        let (from, to) = if number % 2 == 0 { ("a", "b") } else { ("b", "a") };
        let from_us = now_us();
        let took = machines.run(&["move"], &[Path::new(from), Path::new(to)])?;
        client.goes_on(Duration::from_secs(20))?;
        let stall = client.tally().longest_stall_us(from_us, now_us());
        measured.stalls.push(millis(stall));
        measured.work.push(millis(took.trim().parse().with_context(|| format!("{took:?}"))?));
        std::thread::sleep(Duration::from_millis(300));
    }
    ensure!(client.stop().errors.is_empty(), "the client of the baseline saw errors");
    Ok(measured)
}

impl Machines<'_> {
    /// Runs the script: a command, the directory, and the command's arguments.
    fn run(&self, command: &[&str], arguments: &[&Path]) -> Result<String> {
        let script = repository().join("tests/e2e/by-hand.sh");
        let mut shell = Command::new(script);
        shell.args(command).arg(self.0).args(arguments).stdin(Stdio::null()).stderr(Stdio::inherit());
        let output = shell.output().context("by-hand.sh")?;
        ensure!(output.status.success(), "by-hand.sh {command:?}: {}", output.status);
        String::from_utf8(output.stdout).context("its output")
    }
}

impl Drop for Machines<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.run(&["down"], &[]) {
            eprintln!("{error:#}");
        }
    }
}
