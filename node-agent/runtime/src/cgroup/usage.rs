//! What a container uses, read from its cgroup.

use std::path::Path;

use super::control::read_existing;
use super::{Cgroup, CgroupError, Controller, Hierarchy, Version};

/// A moment's usage. Zero where the node doesn't account for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// CPU time since the cgroup was made, microseconds.
    pub cpu_us: u64,
    /// Time the CPU quota held it back, microseconds.
    pub throttled_us: u64,
    /// Memory charged, page cache included. Bytes.
    pub memory_bytes: u64,
    /// Memory that can't be reclaimed at once (charged less inactive page cache). Bytes.
    pub working_set_bytes: u64,
    /// Processes and threads.
    pub pids: u64,
    /// Processes the kernel killed because the memory limit was reached.
    pub oom_kills: u64,
}

impl Cgroup {
    /// Reads the present usage. A cgroup that is gone uses nothing.
    ///
    /// # Errors
    /// When a file exists and can't be read.
    pub fn usage(&self) -> Result<Usage, CgroupError> {
        let mut usage = Usage { oom_kills: self.oom_kills()?, ..Usage::default() };
        if let Some(hierarchy) = self.hierarchy(Controller::Cpu) {
            usage.throttled_us = throttled_us(hierarchy)?;
        }
        if let Some(hierarchy) = self.hierarchy(Controller::Cpuacct) {
            usage.cpu_us = cpu_us(hierarchy)?;
        }
        if let Some(hierarchy) = self.hierarchy(Controller::Memory) {
            (usage.memory_bytes, usage.working_set_bytes) = memory_bytes(hierarchy)?;
        }
        if let Some(hierarchy) = self.hierarchy(Controller::Pids) {
            usage.pids = number(&read_existing(&hierarchy.dir.join("pids.current"))?);
        }
        Ok(usage)
    }

    /// How many processes the kernel killed because the memory limit was reached.
    ///
    /// # Errors
    /// When the file exists and can't be read.
    pub fn oom_kills(&self) -> Result<u64, CgroupError> {
        let Some(hierarchy) = self.hierarchy(Controller::Memory) else { return Ok(0) };
        let file = match hierarchy.version {
            Version::V1 => "memory.oom_control",
            Version::V2 => "memory.events",
        };
        keyed(&hierarchy.dir, file, "oom_kill")
    }
}

fn throttled_us(hierarchy: &Hierarchy) -> Result<u64, CgroupError> {
    match hierarchy.version {
        Version::V1 => Ok(keyed(&hierarchy.dir, "cpu.stat", "throttled_time")? / 1000),
        Version::V2 => keyed(&hierarchy.dir, "cpu.stat", "throttled_usec"),
    }
}

fn cpu_us(hierarchy: &Hierarchy) -> Result<u64, CgroupError> {
    match hierarchy.version {
        Version::V1 => Ok(number(&read_existing(&hierarchy.dir.join("cpuacct.usage"))?) / 1000),
        Version::V2 => keyed(&hierarchy.dir, "cpu.stat", "usage_usec"),
    }
}

/// Charged, and charged without inactive page cache.
fn memory_bytes(hierarchy: &Hierarchy) -> Result<(u64, u64), CgroupError> {
    let (file, key) = match hierarchy.version {
        Version::V1 => ("memory.usage_in_bytes", "total_inactive_file"),
        Version::V2 => ("memory.current", "inactive_file"),
    };
    let charged = number(&read_existing(&hierarchy.dir.join(file))?);
    Ok((charged, charged.saturating_sub(keyed(&hierarchy.dir, "memory.stat", key)?)))
}

/// The number behind `key` in a file of `key number` lines.
fn keyed(dir: &Path, file: &str, key: &str) -> Result<u64, CgroupError> {
    let text = read_existing(&dir.join(file))?;
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    Ok(value.map_or(0, number))
}

fn number(text: &str) -> u64 {
    text.trim().parse().unwrap_or(0)
}
