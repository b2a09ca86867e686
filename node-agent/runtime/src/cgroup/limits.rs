//! A container's limits as control files: what to write where, for both interfaces.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxResources};

use super::{Cgroup, CgroupError, Controller, Version};

/// CPU quota period when the specification names none: the kernel's own default.
const PERIOD_US: u64 = 100_000;

/// The limits a container runs under. `None` is no limit, or the kernel's default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Weight against other containers when CPU time is short; 1024 is one CPU requested.
    pub cpu_shares: Option<u64>,
    /// CPU time per period, microseconds.
    pub cpu_quota_us: Option<u64>,
    /// The period, microseconds.
    pub cpu_period_us: Option<u64>,
    /// Above this the kernel reclaims, then kills. Bytes.
    pub memory_bytes: Option<u64>,
    /// Below this the kernel spares the container. Bytes.
    pub memory_reservation_bytes: Option<u64>,
    /// Most processes and threads at a time.
    pub pids: Option<u64>,
}

impl From<&LinuxResources> for Limits {
    fn from(resources: &LinuxResources) -> Self {
        let positive = |value: Option<i64>| value.and_then(|v| u64::try_from(v).ok()).filter(|v| *v > 0);
        let cpu = resources.cpu().as_ref();
        let memory = resources.memory().as_ref();
        Self {
            cpu_shares: cpu.and_then(LinuxCpu::shares),
            cpu_quota_us: positive(cpu.and_then(LinuxCpu::quota)),
            cpu_period_us: cpu.and_then(LinuxCpu::period),
            memory_bytes: positive(memory.and_then(LinuxMemory::limit)),
            memory_reservation_bytes: positive(memory.and_then(LinuxMemory::reservation)),
            pids: positive(resources.pids().map(|pids| pids.limit())),
        }
    }
}

impl Cgroup {
    /// Sets those of `limits` that are given and leaves the others as they are. Safe to repeat, also while the container
    /// runs.
    ///
    /// # Errors
    /// When a control file can't be written, or no hierarchy offers what a limit needs.
    pub fn apply_limits(&self, limits: &Limits) -> Result<(), CgroupError> {
        for controller in [Controller::Cpu, Controller::Memory, Controller::Pids] {
            if settings(controller, Version::V2, limits).is_empty() {
                continue;
            }
            let hierarchy = self.hierarchy(controller).ok_or(CgroupError::Missing { controller })?;
            for setting in settings(controller, hierarchy.version, limits) {
                setting.write(&hierarchy.dir)?;
            }
        }
        Ok(())
    }
}

/// One line for one control file.
#[derive(Debug, PartialEq, Eq)]
struct Setting {
    file: &'static str,
    value: String,
    /// The file may be missing: a kernel without swap accounting.
    optional: bool,
}

impl Setting {
    fn must(file: &'static str, value: impl ToString) -> Self {
        Self { file, value: value.to_string(), optional: false }
    }

    fn may(file: &'static str, value: impl ToString) -> Self {
        Self { file, value: value.to_string(), optional: true }
    }

    fn write(&self, dir: &Path) -> Result<(), CgroupError> {
        let path = dir.join(self.file);
        match fs::write(&path, &self.value) {
            Err(cause) if !(self.optional && cause.kind() == ErrorKind::NotFound) => {
                Err(CgroupError::Write { path, cause })
            }
            _written_or_optional => Ok(()),
        }
    }
}

/// What to write for `controller`, in this order.
fn settings(controller: Controller, version: Version, limits: &Limits) -> Vec<Setting> {
    match (controller, version) {
        (Controller::Cpu, Version::V1) => cpu_v1(limits),
        (Controller::Cpu, Version::V2) => cpu_v2(limits),
        (Controller::Memory, Version::V1) => memory_v1(limits),
        (Controller::Memory, Version::V2) => memory_v2(limits),
        (Controller::Pids, _either) => {
            limits.pids.map(|max| Setting::must("pids.max", max)).into_iter().collect()
        }
        (Controller::Cpuacct | Controller::Freezer, _either) => Vec::new(),
    }
}

fn cpu_v1(limits: &Limits) -> Vec<Setting> {
    let mut settings: Vec<_> =
        limits.cpu_shares.map(|shares| Setting::must("cpu.shares", shares)).into_iter().collect();
    if let Some(quota) = limits.cpu_quota_us {
        settings.push(Setting::must("cpu.cfs_period_us", limits.cpu_period_us.unwrap_or(PERIOD_US)));
        settings.push(Setting::must("cpu.cfs_quota_us", quota));
    }
    settings
}

fn cpu_v2(limits: &Limits) -> Vec<Setting> {
    let weight = limits.cpu_shares.map(|shares| Setting::must("cpu.weight", weight_of_shares(shares)));
    let period = limits.cpu_period_us.unwrap_or(PERIOD_US);
    let max = limits.cpu_quota_us.map(|quota| Setting::must("cpu.max", format!("{quota} {period}")));
    weight.into_iter().chain(max).collect()
}

/// Memory with swap together is limited to the same amount, so that a limit means what it says on a node with swap.
fn memory_v1(limits: &Limits) -> Vec<Setting> {
    const WITH_SWAP: &str = "memory.memsw.limit_in_bytes";
    let mut settings = Vec::new();
    if let Some(max) = limits.memory_bytes {
        // The sum may never be below the limit, so it is lifted before the limit is raised.
        settings.push(Setting::may(WITH_SWAP, -1));
        settings.push(Setting::must("memory.limit_in_bytes", max));
        settings.push(Setting::may(WITH_SWAP, max));
    }
    let soft = limits.memory_reservation_bytes;
    settings.extend(soft.map(|bytes| Setting::must("memory.soft_limit_in_bytes", bytes)));
    settings
}

fn memory_v2(limits: &Limits) -> Vec<Setting> {
    let mut settings = Vec::new();
    if let Some(max) = limits.memory_bytes {
        settings.push(Setting::must("memory.max", max));
        settings.push(Setting::may("memory.swap.max", 0));
    }
    settings.extend(limits.memory_reservation_bytes.map(|bytes| Setting::must("memory.low", bytes)));
    settings
}

/// v1 shares (2..=262144, 1024 is usual) as a v2 weight (1..=10000), linear as the container world does it.
fn weight_of_shares(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(controller: Controller, version: Version, limits: &Limits) -> Vec<String> {
        let line = |s: Setting| format!("{}={}", s.file, s.value);
        settings(controller, version, limits).into_iter().map(line).collect()
    }

    #[test]
    fn every_limit_has_its_file_in_both_interfaces() {
        let limits = Limits {
            cpu_shares: Some(1024),
            cpu_quota_us: Some(50_000),
            cpu_period_us: None,
            memory_bytes: Some(64 << 20),
            memory_reservation_bytes: Some(32 << 20),
            pids: Some(10),
        };
        let both = |controller| {
            [Version::V1, Version::V2].map(|version| lines(controller, version, &limits).join(" "))
        };
        assert_eq!(
            both(Controller::Cpu),
            [
                "cpu.shares=1024 cpu.cfs_period_us=100000 cpu.cfs_quota_us=50000",
                "cpu.weight=39 cpu.max=50000 100000",
            ]
        );
        assert_eq!(
            both(Controller::Memory),
            [
                "memory.memsw.limit_in_bytes=-1 memory.limit_in_bytes=67108864 memory.memsw.limit_in_bytes=67108864 \
             memory.soft_limit_in_bytes=33554432",
                "memory.max=67108864 memory.swap.max=0 memory.low=33554432",
            ]
        );
        assert_eq!(both(Controller::Pids), ["pids.max=10", "pids.max=10"]);
    }

    #[test]
    fn no_limits_write_nothing() {
        for controller in [Controller::Cpu, Controller::Memory, Controller::Pids] {
            assert!(settings(controller, Version::V1, &Limits::default()).is_empty());
            assert!(settings(controller, Version::V2, &Limits::default()).is_empty());
        }
    }

    #[test]
    fn shares_cover_the_whole_range_of_weights() {
        assert_eq!([0, 2, 1024, 262_144, u64::MAX].map(weight_of_shares), [1, 1, 39, 10_000, 10_000]);
    }
}
