//! Tasks: what the scheduler wants of each, and what its node says of it.

use crate::address::Mac;
use crate::ids::{Epoch, MigrationId, NodeName, TaskId};
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

/// One placed instance of a workload's revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Workload and slot.
    pub id: TaskId,
    /// The revision of the template it runs.
    pub revision: u64,
    /// Belongs to the task, not to a node, and moves with it.
    pub ip: Ipv4Addr,
    /// The owner: the only node that may run the task, at `epoch`.
    pub node: Option<NodeName>,
    /// Fencing number of the owner's right.
    pub epoch: Epoch,
    /// Written by the planner.
    pub desired: Desired,
    /// Written by the owner's reports.
    pub observed: Observed,
    /// The migration that fences the task, if any.
    pub migration: Option<MigrationId>,
    /// When its slot was created, in Unix milliseconds.
    pub created_ms: u64,
}

impl Task {
    /// The task's Ethernet address.
    pub fn mac(&self) -> Mac {
        Mac::of(self.ip)
    }
}

/// What the scheduler wants of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Desired {
    /// Keep it running.
    Run,
    /// End it, with grace, and forget it.
    Stop,
}

/// What is known of a task at its epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    /// Where it stands.
    pub phase: TaskPhase,
    /// Since when, in Unix milliseconds.
    pub since_ms: u64,
    /// Why it isn't running, for a person; empty when there is nothing to say.
    pub message: String,
    /// How often its container was started again on this placement.
    pub restarts: u32,
    /// How its container last ended.
    pub last_exit: Option<Exit>,
}

impl Observed {
    /// A task that no node has.
    pub fn pending(since_ms: u64, message: impl Into<String>) -> Observed {
        Observed {
            phase: TaskPhase::Pending,
            since_ms,
            message: message.into(),
            restarts: 0,
            last_exit: None,
        }
    }
}

/// Where a task stands.
///
/// ```text
/// Pending -> Preparing -> Running <-> BackOff
///                |           |-> Exited
///                +-> Failed  +-> Stopping -> Stopped
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum TaskPhase {
    /// Not placed.
    Pending,
    /// Its node fetches the image and sets the container up.
    Preparing,
    /// Its container runs.
    Running,
    /// Its container ended and will be started again.
    BackOff,
    /// Its container was asked to end.
    Stopping,
    /// Its container ended and won't be started again.
    Exited,
    /// It can't be started; the message says why. Tried again with back-off.
    Failed,
    /// Nothing is left of it on its node.
    Stopped,
    /// Its node is lost.
    Unknown,
}

/// How a container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// The exit code, or 128 + the signal's number.
    pub code: i32,
    /// The signal that ended it, or zero.
    pub signal: i32,
    /// Whether the kernel killed it for want of memory.
    pub oom_killed: bool,
    /// When, in Unix milliseconds.
    pub at_ms: u64,
}

impl Exit {
    /// Whether it ended of itself and well.
    pub fn success(&self) -> bool {
        self.code == 0
    }
}
