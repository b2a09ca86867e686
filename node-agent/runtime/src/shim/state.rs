//! The shim's record of its container (`state.json`), which outlives every process.
//!
//! Written by the shim alone. A write replaces the file atomically; the exit is also synced to disk, because it is the
//! only thing that must survive a power loss (a finished batch task must not run again).
//!
//! ```text
//! Empty --create--> Created --start--> Running --> Exited
//!   |                  '--------- killed ------------^
//!   '--prepare--> Prepared --restore--> Restoring --> Running
//!                                           '-------> Exited (with an error)
//! ```

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::bundle::InstanceId;

/// The record's file name inside of the instance's directory.
pub const STATE_FILE: &str = "state.json";

/// Where a container is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// The shim runs, nothing else does.
    Empty,
    /// The container's init waits at the gate; its namespaces exist.
    Created,
    /// The container's program runs.
    Running,
    /// Cgroup, mounts and CRIU wait for a checkpoint.
    Prepared,
    /// CRIU is at work, or held in a hook.
    Restoring,
    /// The container is gone; see [`State::exit`].
    Exited,
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// As a shell would say it: the exit code, or 128 + signal; 126/127 when the program couldn't be run.
    pub code: i32,
    /// The signal that killed init, if one did.
    pub signal: Option<i32>,
    /// The kernel killed a process of the container because its memory limit was reached.
    pub oom: bool,
    /// Milliseconds since 1970.
    pub finished_at_ms: u64,
    /// Why it never ran, for people.
    pub error: Option<String>,
}

/// A process, named so that a recycled pid can't be mistaken for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// The pid in the node's pid namespace.
    pub pid: i32,
    /// Start time in clock ticks since boot (`/proc/<pid>/stat`, field 22).
    pub start_ticks: u64,
}

/// A mount that was made outside of the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct External {
    /// Where the container sees it.
    pub path: PathBuf,
    /// What is behind it.
    pub backing: Backing,
    /// Before a restore: where it is in the shim's mount namespace (look below `/proc/<shim>/root`).
    pub staged: Option<PathBuf>,
}

/// A point of a restore at which the agent decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hook {
    /// Init exists, alone, in its namespaces and cgroup; its network namespace is empty. Connect it now.
    SetupNamespaces,
    /// All is restored and nothing has run. The last moment to say no.
    PostRestore,
}

/// What is behind an external mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Backing {
    /// A tmpfs: its content is the agent's to carry.
    Tmpfs,
    /// The tmpfs of device nodes; other files in it are the agent's to carry.
    Devices,
    /// A file or directory of the node.
    Bind,
    /// `/dev/null`, over a masked file.
    NullFile,
    /// An empty directory, over a masked one.
    EmptyDir,
}

/// The contents of `state.json`, and the answer to `status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Whose record this is.
    pub instance: InstanceId,
    /// The shim.
    pub shim: ProcessId,
    /// Where the container is in its life.
    pub phase: Phase,
    /// The container's init, from `Created` on (in a restore: from the hook that names it).
    pub init: Option<ProcessId>,
    /// The inodes of the pipes behind stdin, stdout and stderr; `None` where there is no pipe.
    pub stdio: [Option<u64>; 3],
    /// The mounts that were made outside of the container, and that CRIU must take as external.
    pub externals: Vec<External>,
    /// The lease ran out and the container was frozen for it.
    pub fenced: bool,
    /// The agent has its own plans with the freezer: the shim thaws nothing.
    pub paused: bool,
    /// The restore hook that waits for the agent's answer.
    pub held: Option<Hook>,
    /// Milliseconds since 1970.
    pub created_at_ms: Option<u64>,
    /// Milliseconds since 1970; for a restored container, when it resumed here.
    pub started_at_ms: Option<u64>,
    /// How it ended.
    pub exit: Option<Exit>,
}

impl State {
    /// The record of a shim that has just started.
    #[must_use]
    pub fn new(instance: InstanceId, shim: ProcessId) -> Self {
        Self {
            instance,
            shim,
            phase: Phase::Empty,
            init: None,
            stdio: [None, None, None],
            externals: Vec::new(),
            fenced: false,
            paused: false,
            held: None,
            created_at_ms: None,
            started_at_ms: None,
            exit: None,
        }
    }
}

/// Reading or writing a container's record failed.
#[derive(Debug, Error)]
pub enum StateError {
    /// The file couldn't be read.
    #[error("read {path}")]
    Read {
        /// The record.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The file isn't a record.
    #[error("{path} is no container state")]
    Parse {
        /// The record.
        path: PathBuf,
        /// Why.
        #[source]
        cause: serde_json::Error,
    },
    /// The file couldn't be replaced.
    #[error("replace {path}")]
    Write {
        /// The record.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
}

/// Whether a write must survive a power loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// Survives the death of any process.
    Process,
    /// Survives a power loss too.
    Disk,
}

/// Reads the record in `instance_dir`.
///
/// # Errors
/// When there is none (a [`StateError::Read`] of kind `NotFound`), or it can't be read.
pub(crate) fn read_state(instance_dir: &Path) -> Result<State, StateError> {
    let path = instance_dir.join(STATE_FILE);
    let bytes = fs::read(&path).map_err(|cause| StateError::Read { path: path.clone(), cause })?;
    serde_json::from_slice(&bytes).map_err(|cause| StateError::Parse { path, cause })
}

/// Replaces the record in `instance_dir`.
pub(crate) fn write_state(
    instance_dir: &Path,
    state: &State,
    durability: Durability,
) -> Result<(), StateError> {
    let bytes =
        serde_json::to_vec(state).unwrap_or_else(|cause| unreachable!("a state is plain data: {cause}"));
    replace_file(&instance_dir.join(STATE_FILE), &bytes, durability)
        .map_err(|cause| StateError::Write { path: instance_dir.join(STATE_FILE), cause })
}

/// Replaces `path` by way of a temporary file beside it: readers see the old content or the new, never a part.
pub(crate) fn replace_file(path: &Path, content: &[u8], durability: Durability) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = File::create(&temporary)?;
    file.write_all(content)?;
    if durability == Durability::Disk {
        file.sync_all()?;
    }
    fs::rename(&temporary, path)?;
    if durability == Durability::Disk
        && let Some(parent) = path.parent()
    {
        File::open(parent)?.sync_all()?;
    }
    Ok(())
}
