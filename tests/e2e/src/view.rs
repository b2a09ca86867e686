//! What `clusterctl -o json` prints, as far as tests look at it.

use serde::Deserialize;

/// A list of one kind of thing.
#[derive(Debug, Clone, Deserialize)]
pub struct List<T> {
    /// The things.
    pub items: Vec<T>,
}

/// A placed instance.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Task {
    /// `redis-0`.
    pub name: String,
    /// Its workload.
    pub workload: String,
    /// The fencing number.
    pub epoch: u64,
    /// Stays when the task moves.
    pub ip: std::net::Ipv4Addr,
    /// Empty while not placed.
    #[serde(default)]
    pub node: String,
    /// `run` or `stop`.
    pub desired: String,
    /// `running`, `backOff`, ...
    pub phase: String,
    /// Why it doesn't run.
    #[serde(default)]
    pub message: String,
    /// Counted by the cluster.
    pub restarts: u32,
    /// How it ended last.
    pub last_exit: Option<Exit>,
    /// The migration it is part of, or empty.
    #[serde(default)]
    pub migration: String,
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Exit {
    /// The exit code, or 128 + the signal.
    pub code: i32,
    /// Killed for want of memory.
    pub oom_killed: bool,
}

/// A machine.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    /// `node-1`.
    pub name: String,
    /// `ready` or `lost`.
    pub liveness: String,
    /// Takes no new tasks.
    pub cordoned: bool,
    /// How many tasks are placed there.
    pub tasks: u32,
}

/// A task's way from one node to another.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Migration {
    /// `m-3`.
    pub name: String,
    /// What moves.
    pub task: String,
    /// From where.
    pub source: String,
    /// To where.
    pub target: String,
    /// `reserved` to `cleaned`, or `aborted`.
    pub phase: String,
    /// Why it was aborted.
    #[serde(default)]
    pub failure: String,
    /// When it entered each phase.
    pub history: Vec<PhaseTime>,
    /// What both sides measured.
    pub steps: Vec<Step>,
    /// Sent from source to target.
    pub bytes: u64,
    /// Of the processes.
    pub memory_bytes: u64,
    /// From the freeze to the resume.
    pub freeze_us: u64,
}

impl Migration {
    /// Whether nothing more will happen.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.phase.as_str(), "cleaned" | "aborted")
    }
}

/// When a migration entered a phase.
#[derive(Debug, Clone, Deserialize)]
pub struct PhaseTime {
    /// Which.
    pub phase: String,
    /// RFC 3339, UTC.
    pub at: String,
}

/// One measured step of a migration.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// `source` or `target`.
    pub side: String,
    /// `dump`, `restore`, ...
    pub name: String,
    /// RFC 3339 with microseconds.
    pub began_at: String,
    /// How long.
    pub took_us: u64,
}

/// Something that happened.
#[derive(Debug, Clone, Deserialize)]
pub struct Event {
    /// `task/redis-0`.
    pub object: String,
    /// One word.
    pub reason: String,
    /// For people.
    pub message: String,
}
