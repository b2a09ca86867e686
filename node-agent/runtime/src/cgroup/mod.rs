//! One container's cgroup, whatever the node's layout: v1 hierarchies, hybrid, or the pure v2 tree.
//!
//! [`Cgroup`] is a value (directories per hierarchy) and serializes, so a shim and a later agent find the same one.
//! [`CgroupRoot`] finds out the layout and where ours begins. Freezing and killing use the v2 hierarchy wherever one is
//! mounted, even an empty one beside v1 controllers: there a frozen process still dies of SIGKILL, and `cgroup.kill` is
//! atomic.

mod control;
mod layout;
mod limits;
mod usage;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use control::CgroupError;
pub(crate) use control::Entry;
pub use layout::{CgroupRoot, LayoutError};
pub use limits::Limits;
pub use usage::Usage;

/// What a hierarchy is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Controller {
    /// Share and quota of CPU time.
    Cpu,
    /// Accounting of CPU time.
    Cpuacct,
    /// Memory.
    Memory,
    /// Number of processes.
    Pids,
    /// Stopping all processes.
    Freezer,
}

/// The interface a hierarchy speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Version {
    /// One hierarchy per controller.
    V1,
    /// The one tree.
    V2,
}

/// A directory in one hierarchy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hierarchy {
    /// Its interface.
    pub version: Version,
    /// What we use it for.
    pub controllers: Vec<Controller>,
    /// Where its root is mounted.
    pub mount_point: PathBuf,
    /// The cgroup's directory, below the mount point.
    pub dir: PathBuf,
}

/// One cgroup: a directory in each hierarchy that we use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroup {
    /// Never two for one controller.
    pub hierarchies: Vec<Hierarchy>,
}

impl Cgroup {
    /// The directory whose `cgroup.freeze` or `freezer.state` freezes the container (CRIU's `freeze_cgroup`).
    #[must_use]
    pub fn freezer_dir(&self) -> Option<&Path> {
        self.hierarchy(Controller::Freezer).map(|hierarchy| hierarchy.dir.as_path())
    }

    /// All directories, one per hierarchy.
    pub fn dirs(&self) -> impl Iterator<Item = &Path> {
        self.hierarchies.iter().map(|hierarchy| hierarchy.dir.as_path())
    }

    /// The hierarchy used for `controller`.
    pub(crate) fn hierarchy(&self, controller: Controller) -> Option<&Hierarchy> {
        self.hierarchies.iter().find(|hierarchy| hierarchy.controllers.contains(&controller))
    }

    /// The only hierarchy, if it is the v2 tree: then a process can be born into it.
    pub(crate) fn unified(&self) -> Option<&Hierarchy> {
        match self.hierarchies.as_slice() {
            [only] if only.version == Version::V2 => Some(only),
            _several => None,
        }
    }
}
