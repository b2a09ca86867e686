//! `local status`: every member on a line.

use std::process::ExitCode;

use anyhow::Result;
use container_network::{NetNs, Wire};
use serde::Serialize;

use super::layout::{Layout, Member};
use super::process::Process;
use super::ready;
use super::up::process_record;
use crate::output::{Format, Out};

/// One member, as shown.
#[derive(Debug, Serialize)]
struct Line {
    name: String,
    health: &'static str,
    /// Its process, while that runs.
    pid: Option<i32>,
    address: String,
    /// Whether its cable is neither cut nor missing.
    connected: bool,
    /// The name that `ip netns exec` takes.
    netns: String,
    log: String,
}

/// Shows it; exits with 1 if something is not well.
pub(crate) async fn run(layout: &Layout, format: Format, out: &mut Out) -> Result<ExitCode> {
    let health = ready::look(layout).await;
    let wire = match NetNs::open(&layout.fabric()) {
        Ok(fabric) => Some(Wire::ensure(&fabric).await?),
        Err(_) => None,
    };
    let mut lines = Vec::new();
    for (&member, health) in &health {
        let connected = match &wire {
            Some(wire) => wire.is_connected(&member.to_string()).await?,
            None => false,
        };
        lines.push(line(layout, member, health.word(), connected));
    }
    match format {
        Format::Json => out.json(&lines)?,
        Format::Yaml => out.bytes(crate::output::yaml(&lines)?.as_bytes())?,
        Format::Name => lines.iter().try_for_each(|line| out.line(&line.name))?,
        Format::Table | Format::Wide => table(&lines, out)?,
    }
    let well = health.values().all(|health| health.is_good()) && lines.iter().all(|line| line.connected);
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn line(layout: &Layout, member: Member, health: &'static str, connected: bool) -> Line {
    let process = Process::load(&process_record(layout, member)).filter(|process| process.is_alive());
    let netns = layout.netns(member);
    Line {
        name: member.to_string(),
        health,
        pid: process.map(|process| process.pid),
        address: match member.has_process() {
            true => member.listen().to_string(),
            false => member.underlay().to_string(),
        },
        connected,
        netns: netns.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        log: layout.log(member).display().to_string(),
    }
}

fn table(lines: &[Line], out: &mut Out) -> Result<()> {
    let widest = lines.iter().map(|line| line.netns.len()).max().unwrap_or_default();
    out.line(format_args!(
        "{:<13} {:<10} {:>8}  {:<18} {:<widest$}  LOG",
        "NAME", "HEALTH", "PID", "ADDRESS", "NETNS"
    ))?;
    for line in lines {
        let cut_off = !line.connected && line.pid.is_some();
        let health = if cut_off { "cut off" } else { line.health };
        let pid = line.pid.map_or("-".to_owned(), |pid| pid.to_string());
        let Line { name, address, netns, log, .. } = line;
        out.line(format_args!("{name:<13} {health:<10} {pid:>8}  {address:<18} {netns:<widest$}  {log}"))?;
    }
    Ok(())
}
