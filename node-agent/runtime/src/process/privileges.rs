//! Capabilities and resource limits of a container's process.

use std::io;

use caps::{CapSet, CapsHashSet};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use oci_spec::runtime::{LinuxCapabilities, PosixRlimit, PosixRlimitType};

use super::{ProgramError, capability_set};

/// The five sets.
#[derive(Debug, Default)]
pub(super) struct CapabilitySets {
    bounding: CapsHashSet,
    effective: CapsHashSet,
    permitted: CapsHashSet,
    inheritable: CapsHashSet,
    ambient: CapsHashSet,
}

impl CapabilitySets {
    /// The sets the specification gives; none at all if it gives none.
    pub(super) fn of_spec(spec: Option<&LinuxCapabilities>) -> Self {
        let Some(spec) = spec else { return Self::default() };
        Self {
            bounding: capability_set(spec.bounding().as_ref()),
            effective: capability_set(spec.effective().as_ref()),
            permitted: capability_set(spec.permitted().as_ref()),
            inheritable: capability_set(spec.inheritable().as_ref()),
            ambient: capability_set(spec.ambient().as_ref()),
        }
    }

    /// Takes all others from the bounding set, also those that only a newer kernel knows.
    pub(super) fn drop_bounding(&self) -> io::Result<()> {
        for capability in caps::runtime::procfs_all_supported(None).unwrap_or_else(|_| caps::all()) {
            if !self.bounding.contains(&capability) {
                caps::drop(None, CapSet::Bounding, capability).map_err(other)?;
            }
        }
        Ok(())
    }

    /// Sets the others. Effective comes first: the kernel refuses a permitted set below it.
    pub(super) fn set_others(&self) -> io::Result<()> {
        let effective: CapsHashSet = self.effective.intersection(&self.permitted).copied().collect();
        caps::set(None, CapSet::Effective, &effective).map_err(other)?;
        caps::set(None, CapSet::Permitted, &self.permitted).map_err(other)?;
        caps::set(None, CapSet::Inheritable, &self.inheritable).map_err(other)?;
        caps::set(None, CapSet::Ambient, &self.ambient).map_err(other)
    }
}

fn other(error: caps::errors::CapsError) -> io::Error {
    io::Error::other(error)
}

/// A limit as the kernel takes it.
#[derive(Debug)]
pub(super) struct Rlimit {
    resource: Resource,
    soft: u64,
    hard: u64,
}

/// Reads the specification's limits.
pub(super) fn rlimits(spec: &[PosixRlimit]) -> Result<Vec<Rlimit>, ProgramError> {
    let read = |limit: &PosixRlimit| {
        let resource = resource(limit.typ()).ok_or_else(|| ProgramError::Limit {
            limit: limit.typ().to_string(),
            cause: io::ErrorKind::Unsupported.into(),
        })?;
        Ok(Rlimit { resource, soft: limit.soft(), hard: limit.hard() })
    };
    spec.iter().map(read).collect()
}

/// Sets the limits, none above the hard limit we have: raising that needs `CAP_SYS_RESOURCE` on the node, which not every
/// node's root has, and never a user namespace's.
pub(super) fn apply_rlimits(limits: &[Rlimit]) -> Result<(), ProgramError> {
    limits.iter().try_for_each(|limit| {
        let (_, ceiling) = getrlimit(limit.resource).map_err(|errno| failed(limit, errno))?;
        let hard = limit.hard.min(ceiling);
        setrlimit(limit.resource, limit.soft.min(hard), hard).map_err(|errno| failed(limit, errno))
    })
}

fn failed(limit: &Rlimit, errno: nix::Error) -> ProgramError {
    ProgramError::Limit { limit: format!("{:?}", limit.resource), cause: errno.into() }
}

fn resource(name: PosixRlimitType) -> Option<Resource> {
    Some(match name {
        PosixRlimitType::RlimitAs => Resource::RLIMIT_AS,
        PosixRlimitType::RlimitCore => Resource::RLIMIT_CORE,
        PosixRlimitType::RlimitCpu => Resource::RLIMIT_CPU,
        PosixRlimitType::RlimitData => Resource::RLIMIT_DATA,
        PosixRlimitType::RlimitFsize => Resource::RLIMIT_FSIZE,
        PosixRlimitType::RlimitLocks => Resource::RLIMIT_LOCKS,
        PosixRlimitType::RlimitMemlock => Resource::RLIMIT_MEMLOCK,
        PosixRlimitType::RlimitMsgqueue => Resource::RLIMIT_MSGQUEUE,
        PosixRlimitType::RlimitNice => Resource::RLIMIT_NICE,
        PosixRlimitType::RlimitNofile => Resource::RLIMIT_NOFILE,
        PosixRlimitType::RlimitNproc => Resource::RLIMIT_NPROC,
        PosixRlimitType::RlimitRss => Resource::RLIMIT_RSS,
        PosixRlimitType::RlimitRtprio => Resource::RLIMIT_RTPRIO,
        PosixRlimitType::RlimitRttime => Resource::RLIMIT_RTTIME,
        PosixRlimitType::RlimitSigpending => Resource::RLIMIT_SIGPENDING,
        PosixRlimitType::RlimitStack => Resource::RLIMIT_STACK,
    })
}
