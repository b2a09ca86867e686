//! Migrations: the replicated record that moves one task between two nodes.
//!
//! ```text
//! Reserved -> Prepared -> Frozen -> Committed -> Resumed -> Cleaned
//!     |           |          |
//!     +-----------+----------+----> Aborted
//! ```
//!
//! `Committed` and `Aborted` exclude each other: whichever entry comes first
//! in the log wins, and nothing leaves either.

use crate::ids::{Epoch, MigrationId, NodeName, TaskId};
use serde::{Deserialize, Serialize};

/// One move of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Migration {
    /// Numbered by the cluster.
    pub id: MigrationId,
    /// What moves.
    pub task: TaskId,
    /// From here.
    pub source: NodeName,
    /// To here.
    pub target: NodeName,
    /// The task's epoch on the source. On the target it is the next.
    pub epoch: Epoch,
    /// Where it stands.
    pub phase: MigrationPhase,
    /// Why it was begun.
    pub reason: String,
    /// Why it was aborted.
    pub failure: Option<String>,
    /// When each phase was entered, on the leader's clock.
    pub history: Vec<PhaseTime>,
    /// What both sides measured.
    pub figures: Figures,
    /// When the leader aborts it, in Unix milliseconds.
    pub deadline_ms: u64,
}

impl Migration {
    /// Enters a phase if that is a step forward. Says whether it was.
    pub fn advance(&mut self, to: MigrationPhase, now_ms: u64) -> bool {
        let legal = self.phase.may_become(to);
        if legal {
            self.phase = to;
            self.history.push(PhaseTime { phase: to, at_ms: now_ms });
        }
        legal
    }

    /// Whether the task is fenced by it: its owner may still change.
    pub fn is_undecided(&self) -> bool {
        self.phase < MigrationPhase::Committed
    }
}

/// Where a migration stands, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum MigrationPhase {
    /// Capacity on the target is set aside. The task runs.
    Reserved,
    /// The target waits for it. The task runs.
    Prepared,
    /// The source says that it froze the task.
    Frozen,
    /// The target owns the task.
    Committed,
    /// It runs on the target.
    Resumed,
    /// The source has nothing left of it.
    Cleaned,
    /// The source owns the task as before.
    Aborted,
}

impl MigrationPhase {
    /// Whether one phase may follow another. Phases may be skipped, because
    /// reports can be lost; none is ever entered twice or left backwards.
    pub fn may_become(self, to: MigrationPhase) -> bool {
        use MigrationPhase::{Aborted, Cleaned, Committed, Frozen, Prepared, Reserved, Resumed};
        match self {
            Reserved => matches!(to, Prepared | Aborted),
            Prepared => matches!(to, Frozen | Committed | Aborted),
            Frozen => matches!(to, Committed | Aborted),
            Committed => matches!(to, Resumed | Cleaned),
            Resumed => to == Cleaned,
            Cleaned | Aborted => false,
        }
    }

    /// Whether nothing more will happen.
    pub fn is_final(self) -> bool {
        matches!(self, MigrationPhase::Cleaned | MigrationPhase::Aborted)
    }
}

/// When a phase was entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhaseTime {
    /// The phase.
    pub phase: MigrationPhase,
    /// Unix milliseconds.
    pub at_ms: u64,
}

/// One of the two nodes of a migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Side {
    /// The node it leaves.
    Source,
    /// The node it goes to.
    Target,
}

/// What was measured.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// What each side did, in order.
    pub steps: Vec<Step>,
    /// Bytes sent from source to target.
    pub bytes: u64,
    /// The task's memory when it was frozen, in bytes.
    pub memory_bytes: u64,
    /// From the freeze on the source to the resume on the target, in µs.
    pub freeze_us: u64,
}

/// One timed piece of work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Who did it.
    pub side: Side,
    /// What.
    pub name: String,
    /// When it began, in Unix µs on that node's clock.
    pub began_us: u64,
    /// How long it took, in µs.
    pub took_us: u64,
}

/// What one side says of its part. Written by the agents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Milestone {
    /// Target: everything is ready to receive.
    Prepared,
    /// Source: the task is frozen and being dumped.
    Frozen,
    /// Target: restored and held. This asks for the commit.
    Restored,
    /// Target: the task runs.
    Resumed,
    /// Nothing of it is left on this side but what the log grants it.
    Cleaned,
    /// This side can't go on. This asks for the abort.
    Failed {
        /// Why, for a person.
        failure: String,
    },
}

#[cfg(test)]
mod tests {
    use super::MigrationPhase::{self, *};

    const ALL: [MigrationPhase; 7] = [Reserved, Prepared, Frozen, Committed, Resumed, Cleaned, Aborted];

    #[test]
    fn commit_and_abort_exclude_each_other() {
        for later in ALL {
            assert!(!Aborted.may_become(later));
            assert!(!(Committed <= later && later.may_become(Aborted)));
        }
    }

    #[test]
    fn states_only_advance() {
        for from in ALL {
            for to in ALL {
                assert!(!from.may_become(to) || to > from, "{from:?} -> {to:?}");
            }
        }
    }

    #[test]
    fn nothing_commits_before_the_target_was_prepared() {
        assert!(!Reserved.may_become(Committed));
        assert!(!Reserved.may_become(Frozen));
    }
}
