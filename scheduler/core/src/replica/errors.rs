//! What can go wrong with a replica.

use crate::codec::{DecodeError, EncodeError};

/// Why a replica can't begin.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Stored bytes of raft's can't be read.
    #[error("decode the stored {what}")]
    Stored {
        /// Which part.
        what: &'static str,
        /// Why.
        #[source]
        cause: prost_raft::DecodeError,
    },
    /// The stored snapshot's state can't be read.
    #[error("decode the stored snapshot's state")]
    State(#[from] DecodeError),
    /// The empty state can't be written; a defect.
    #[error("encode the first snapshot")]
    Encode(#[from] EncodeError),
    /// Raft refuses the set-up.
    #[error("set up raft")]
    Raft(#[from] raft::Error),
}

/// Why the process must stop: going on could make replicas differ.
#[derive(Debug, thiserror::Error)]
pub enum Fatal {
    /// An entry that this program can't read.
    #[error("entry {index} can't be applied")]
    Entry {
        /// Its index.
        index: u64,
        /// Why.
        #[source]
        cause: DecodeError,
    },
    /// An entry of a kind that is never proposed.
    #[error("entry {index} changes the membership, which is fixed")]
    Membership {
        /// Its index.
        index: u64,
    },
    /// A leader's snapshot that this program can't read.
    #[error("a snapshot can't be restored")]
    Snapshot(#[from] DecodeError),
    /// The state can't be written; a defect.
    #[error("the state can't be written")]
    Encode(#[from] EncodeError),
    /// This replica has made another state of the same log.
    #[error("the state at entry {index} differs from the leader's; replace this replica's data")]
    Diverged {
        /// The snapshot's index.
        index: u64,
    },
}

/// A message from another voter that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// Not a message.
    #[error("decode a raft message")]
    Decode(#[from] prost_raft::DecodeError),
    /// For another voter.
    #[error("a raft message for voter {to}")]
    Misdirected {
        /// For whom.
        to: u64,
    },
    /// Of no use to raft.
    #[error("step a raft message")]
    Raft(#[from] raft::Error),
}

/// Why a proposal or a read isn't taken up.
#[derive(Debug, thiserror::Error)]
pub enum NotTaken {
    /// Another voter leads, or nobody does.
    #[error("not the leader")]
    NotLeader {
        /// The leader, if it is known.
        leader: Option<u64>,
    },
    /// Elected, but not yet sure of everything its predecessors committed.
    #[error("just elected; repeat in a moment")]
    NotReady,
    /// Too much is under way.
    #[error("too many proposals are under way; repeat in a moment")]
    Busy,
    /// The command can't be written; a defect.
    #[error("encode the command")]
    Encode(#[from] EncodeError),
}
