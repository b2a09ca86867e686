//! What to run: an OCI runtime specification plus what it leaves open (id range, layers, cgroup, logs).
//!
//! A [`Bundle`] is a value. It is written to `spec.json` in the instance's directory before anything happens, so that
//! the shim, a restarted agent and a restore all read the same. Nothing here touches the kernel.

use std::fmt;
use std::path::PathBuf;

use oci_spec::runtime::Spec;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::cgroup::Cgroup;

/// Names one container on one node: the task and the epoch it was placed with, for example `redis-0@3`.
///
/// It is also a directory's name, so it is checked to be one plain path component.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InstanceId(String);

/// The text can't name an instance.
#[derive(Debug, Error)]
#[error(
    "{text:?} is no instance id: it must be 1 to 128 characters of [A-Za-z0-9._@-], not starting with a dot"
)]
pub struct InvalidInstanceId {
    text: String,
}

impl InstanceId {
    /// Checks and wraps `text`.
    ///
    /// # Errors
    /// When the text isn't 1 to 128 characters of `[A-Za-z0-9._@-]`, or starts with a dot.
    pub fn new(text: impl Into<String>) -> Result<Self, InvalidInstanceId> {
        let text = text.into();
        let plain = |c: char| c.is_ascii_alphanumeric() || "._@-".contains(c);
        let valid = (1..=128).contains(&text.len()) && !text.starts_with('.') && text.chars().all(plain);
        if valid { Ok(Self(text)) } else { Err(InvalidInstanceId { text }) }
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for InstanceId {
    type Error = InvalidInstanceId;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::new(text)
    }
}

impl From<InstanceId> for String {
    fn from(id: InstanceId) -> Self {
        id.0
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A range of user and group ids of the node that a container's ids `0..size` are mapped to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMap {
    /// The node's id that the container's root is.
    pub base: u32,
    /// How many ids there are.
    pub size: u32,
}

impl IdMap {
    /// The usual range: 65536 ids from `base`.
    #[must_use]
    pub fn at(base: u32) -> Self {
        Self { base, size: 65536 }
    }
}

/// How much of a container's output is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLimits {
    /// A file is rotated before it grows beyond this.
    pub file_bytes: u64,
    /// Files kept, the current one included. At least 1.
    pub files: u32,
}

impl Default for LogLimits {
    fn default() -> Self {
        Self { file_bytes: 10 << 20, files: 3 }
    }
}

/// A small file written into the root file system before the first start (for example `/etc/hosts`).
///
/// It becomes part of the upper directory, so it moves with the container. A restore doesn't write it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeedFile {
    /// Absolute path as the container sees it; missing directories are made.
    pub path: PathBuf,
    /// The whole content.
    pub content: String,
    /// Permission bits, for example `0o644`.
    pub mode: u32,
}

/// Everything the runtime must know to run one container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Bundle {
    /// Who this is.
    pub instance: InstanceId,
    /// What to run, in the words of the OCI runtime specification. Honoured: process, root.readonly, hostname, mounts,
    /// linux.{resources (cpu, memory, pids), maskedPaths, readonlyPaths, seccomp}. Namespaces are always all private.
    pub spec: Spec,
    /// The user as the image or the workload wrote it (`name`, `uid`, `name:group`, `uid:gid`), looked up in the
    /// container's own `/etc/passwd`; `None` takes the numbers in the specification.
    pub user: Option<String>,
    /// The private id range; `None` keeps the node's user namespace.
    pub idmap: Option<IdMap>,
    /// Read-only layer directories, lowest first.
    pub layers: Vec<PathBuf>,
    /// The directory that holds (or will hold) the overlay's `upper` and `work` directories.
    pub writable_dir: PathBuf,
    /// The container's cgroup, see [`crate::CgroupRoot::instance`].
    pub cgroup: Cgroup,
    /// How much output is kept.
    pub logs: LogLimits,
    /// Files to write before the first start.
    pub files: Vec<SeedFile>,
}

impl Bundle {
    /// The overlay's upper directory: the container's own changes, with the ids a container sees.
    #[must_use]
    pub fn upper_dir(&self) -> PathBuf {
        self.writable_dir.join("upper")
    }

    /// The overlay's work directory.
    #[must_use]
    pub fn work_dir(&self) -> PathBuf {
        self.writable_dir.join("work")
    }

    /// The node's id of the container's root: the owner of what we make for it.
    #[must_use]
    pub fn root_id(&self) -> u32 {
        self.idmap.map_or(0, |map| map.base)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_id_is_one_plain_path_component() {
        for good in ["redis-0@3", "a", "web.v2-11@1"] {
            assert_eq!(InstanceId::new(good).expect("valid").as_str(), good);
        }
        for bad in ["", ".", "..", ".hidden", "a/b", "a b", "a\0", "ä", &"x".repeat(129)] {
            assert!(InstanceId::new(bad).is_err(), "{bad:?} was accepted");
        }
    }
}
