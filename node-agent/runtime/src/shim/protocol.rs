//! What agent and shim say to each other: JSON, one message per packet of a `SOCK_SEQPACKET` socket.
//!
//! A connection carries one request and its reply, except after [`Request::Subscribe`]: then the shim sends
//! [`Event`]s until either side closes. Values only; the wire is in [`super::channel`].

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::state::{Exit, Hook, State};

/// The socket's file name inside of the instance's run directory.
pub(crate) const SOCKET_FILE: &str = "shim.sock";

/// No message is longer.
pub(crate) const MESSAGE_BYTES_MAX: usize = 64 << 10;

/// What the agent asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
pub(crate) enum Request {
    /// Tell the state.
    Status,
    /// Send every change as an [`Event`], the present state first.
    Subscribe,
    /// Make cgroup, namespaces and root file system from `spec.json`, and hold init at the gate.
    Create,
    /// Make cgroup and mounts for a container that will be restored, and start CRIU, but no process of the container.
    Prepare(RestoreOrder),
    /// Open the gate: run the container's program.
    Start,
    /// Send a signal to init.
    Signal {
        /// The signal's number.
        signal: i32,
    },
    /// Kill every process of the container, frozen or not.
    KillAll,
    /// Thaw nothing until [`Request::Resume`], whatever becomes of the lease: the agent has its own plans with the freezer.
    Hold,
    /// [`Request::Hold`], and freeze.
    Pause,
    /// Undo [`Request::Hold`] and [`Request::Pause`].
    Resume,
    /// The container may run for so long from now; `None` is for ever.
    Lease {
        /// Milliseconds.
        ms: Option<u64>,
    },
    /// Restore the container from its checkpoint. Answered at once; [`Event`]s tell the rest.
    Restore,
    /// The answer to the hook that is held.
    Answer {
        /// The hook answered.
        hook: Hook,
        /// Whether CRIU may go on.
        proceed: bool,
    },
    /// End the shim. Refused while a container exists.
    Shutdown,
    /// Kill every process of the container, and end the shim when they are gone.
    Destroy,
}

/// How to restore.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreOrder {
    /// CRIU's program.
    pub criu: PathBuf,
    /// Where the checkpoint's images will be.
    pub images_dir: PathBuf,
    /// Where CRIU writes its log.
    pub log_dir: PathBuf,
}

/// What the shim answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "kebab-case")]
pub(crate) enum Reply {
    /// Done.
    Done {
        /// The state after it.
        state: Box<State>,
    },
    /// Not done.
    Refused {
        /// Why.
        refusal: Refusal,
    },
}

/// Why the shim didn't do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Refusal {
    /// The container isn't in a phase that allows it.
    #[error("{request} is not possible: {reason}")]
    Phase {
        /// What was asked.
        request: String,
        /// What stands against it.
        reason: String,
    },
    /// The program can't run, and that is the workload's or the image's fault.
    #[error("{message}")]
    Program {
        /// For the user, for example `command not found in image: foo`.
        message: String,
        /// 127 for a missing command, 126 for one that can't be executed, else 125.
        code: i32,
    },
    /// The node couldn't do it.
    #[error("{message}")]
    Failed {
        /// The error and its causes.
        message: String,
    },
}

/// What the shim tells its subscribers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// The state, sent first.
    State {
        /// As of now.
        state: Box<State>,
    },
    /// The container is gone. Its record is on disk.
    Exited {
        /// How.
        exit: Exit,
    },
    /// The lease ran out; the container is frozen.
    Fenced,
    /// A new lease thawed the container.
    Unfenced,
    /// CRIU waits in a hook for an answer; [`State::init`] is the restored init.
    Held {
        /// The hook.
        hook: Hook,
        /// The restored init, in the node's pid namespace.
        pid: i32,
    },
    /// The restored container runs.
    Restored {
        /// Its init, in the node's pid namespace.
        pid: i32,
    },
    /// The restore failed; nothing is left of it but directories.
    RestoreFailed {
        /// Why, with CRIU's last words.
        message: String,
    },
}
