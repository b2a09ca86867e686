//! What a container may do: default capabilities, system calls, hidden and read-only paths.

mod filter;
mod profile;

use oci_spec::runtime::{Capabilities, Capability};

pub(crate) use filter::{SeccompError, SeccompFilters};
pub use profile::default_seccomp;

/// The capabilities of a container, over its own user namespace: what Docker gives, less `MKNOD` (a device made by the
/// node's root, in a container without a private id range, would be real) and `AUDIT_WRITE` (the audit log is the node's).
#[must_use]
pub fn default_capabilities() -> Capabilities {
    [
        Capability::Chown,
        Capability::DacOverride,
        Capability::Fowner,
        Capability::Fsetid,
        Capability::Kill,
        Capability::NetBindService,
        Capability::NetRaw,
        Capability::Setfcap,
        Capability::Setgid,
        Capability::Setpcap,
        Capability::Setuid,
        Capability::SysChroot,
    ]
    .into()
}

/// Files and directories that tell about the node, hidden under empty ones. A path that doesn't exist is skipped.
#[must_use]
pub fn default_masked_paths() -> Vec<String> {
    [
        "/proc/acpi",
        "/proc/asound",
        "/proc/interrupts",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/sched_debug",
        "/proc/scsi",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/sys/devices/virtual/powercap",
        "/sys/firmware",
    ]
    .map(str::to_owned)
    .into()
}

/// Paths through which the node could be changed.
#[must_use]
pub fn default_readonly_paths() -> Vec<String> {
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"].map(str::to_owned).into()
}
