//! The shim's record of its container (`state.json`), which outlives every process.
//!
//! Written by the shim alone, each time as a whole. As long as the container lives, the record is in the run directory: it
//! means nothing after a reboot. The final one, with the exit, is in the instance's directory, and synced: a batch task that
//! has finished must not run again after a power loss.
//!
//! ```text
//! Empty --create--> Created --start--> Running --> Exited
//!   |                  '--------- killed ------------^
//!   '--prepare--> Prepared --restore--> Restoring --> Running
//!                                           '-------> Exited (with an error)
//! ```

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::bundle::InstanceId;

/// The record's file name.
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
    /// The file couldn't be replaced or synced.
    #[error("write {path}")]
    Write {
        /// The record.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
}

/// Reads an instance's record: the final one, or else the present one. `None` if there is none.
pub(crate) fn read_state(instance_dir: &Path, run_dir: &Path) -> Result<Option<State>, StateError> {
    for path in [instance_dir, run_dir].map(|dir| dir.join(STATE_FILE)) {
        match fs::read(&path) {
            Ok(bytes) => {
                let state = serde_json::from_slice(&bytes);
                return state.map(Some).map_err(|cause| StateError::Parse { path, cause });
            }
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
            Err(cause) => return Err(StateError::Read { path, cause }),
        }
    }
    Ok(None)
}

/// Replaces the record in `dir`.
pub(crate) fn write_state(dir: &Path, state: &State) -> Result<(), StateError> {
    let bytes =
        serde_json::to_vec(state).unwrap_or_else(|cause| unreachable!("a state is plain data: {cause}"));
    let path = dir.join(STATE_FILE);
    replace_file(&path, &bytes).map_err(|cause| StateError::Write { path, cause })
}

/// Sees to it that the record in `dir` survives a power loss.
pub(crate) fn sync_state(dir: &Path) -> Result<(), StateError> {
    let path = dir.join(STATE_FILE);
    let sync = || {
        File::open(&path)?.sync_all()?;
        File::open(dir)?.sync_all()
    };
    sync().map_err(|cause| StateError::Write { path: path.clone(), cause })
}

/// Replaces `path` by way of a temporary file beside it: readers see the old content or the new, never a part.
pub(crate) fn replace_file(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    fs::write(&temporary, content)?;
    fs::rename(&temporary, path)
}
