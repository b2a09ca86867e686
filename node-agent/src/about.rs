//! What this machine has and can do.

use crate::config::Config;
use anyhow::{Context, Result};
use dray_model::node::{About, Capabilities};
use dray_model::resources::Amounts;
use std::path::Path;

/// Asks the machine.
pub(crate) fn about(config: &Config, criu: &str, cgroup: &str) -> Result<About> {
    let cpus = std::thread::available_parallelism().context("count processors")?.get();
    let machine = Amounts {
        cpu_millis: u64::try_from(cpus).unwrap_or(1) * 1000,
        memory_bytes: memory_bytes(&read("/proc/meminfo")?).context("/proc/meminfo has no MemTotal")?,
        pids: read("/proc/sys/kernel/pid_max")?.trim().parse().context("/proc/sys/kernel/pid_max")?,
    };
    Ok(About {
        boot_id: read("/proc/sys/kernel/random/boot_id")?.trim().into(),
        labels: config.labels.clone(),
        capacity: Amounts {
            cpu_millis: config.capacity.cpu.map_or(machine.cpu_millis, |cpu| cpu.0),
            memory_bytes: config.capacity.memory.map_or(machine.memory_bytes, |memory| memory.0),
            pids: config.capacity.pids.unwrap_or(machine.pids),
        },
        peer_address: config.listen,
        underlay_ip: config.underlay_ip,
        capabilities: Capabilities {
            kernel: read("/proc/sys/kernel/osrelease")?.trim().into(),
            criu: criu.into(),
            cgroup: cgroup.into(),
            agent_version: env!("CARGO_PKG_VERSION").into(),
            cpus: u32::try_from(cpus).unwrap_or(u32::MAX),
        },
    })
}

fn read(path: &str) -> Result<String> {
    std::fs::read_to_string(Path::new(path)).with_context(|| format!("read {path}"))
}

fn memory_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_bytes() {
        assert_eq!(memory_bytes("MemTotal:       24684092 kB\nMemFree: 1 kB\n"), Some(24_684_092 * 1024));
        assert_eq!(memory_bytes("nothing"), None);
    }
}
