//! What happened, for people: kept in the replicated state, oldest dropped.

use serde::{Deserialize, Serialize};

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The log index that caused it.
    pub index: u64,
    /// Unix milliseconds on the leader's clock.
    pub at_ms: u64,
    /// Whether somebody should look.
    pub level: Level,
    /// `task/redis-0`, `node/node-1`, `migration/m-3`, `workload/redis`.
    pub object: String,
    /// One CamelCase word, for machines.
    pub reason: String,
    /// One sentence, for people.
    pub message: String,
}

/// How much an event matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Level {
    /// All is well.
    Info,
    /// Somebody should look.
    Warning,
}
