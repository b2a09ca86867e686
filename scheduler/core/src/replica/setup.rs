//! How a voter begins.

use super::StartError;
use crate::apply::apply_nothing;
use crate::codec::{self, EncodeError};
use crate::state::State;
use dray_model::address::ClusterCidr;
use raft::ReadOnlyOption;
use raft::prelude::{ConfState, Snapshot};

/// How a replica is set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// This voter.
    pub id: u64,
    /// All voters, the same list everywhere.
    pub voters: Vec<u64>,
    /// The cluster's address range, the same everywhere.
    pub cidr: ClusterCidr,
    /// Ticks without a leader before an election, at least.
    pub election_ticks: usize,
    /// Ticks between a leader's heartbeats.
    pub heartbeat_ticks: usize,
    /// A snapshot is taken each time this many entries were applied.
    pub snapshot_every: u64,
    /// So many entries before a snapshot are kept, for followers that are a
    /// little behind.
    pub entries_kept: u64,
    /// Chooses the election timeouts; different on every voter.
    pub seed: u64,
}

pub(super) fn raft_config(config: &Config, applied: u64) -> raft::Config {
    raft::Config {
        id: config.id,
        applied,
        election_tick: config.election_ticks,
        heartbeat_tick: config.heartbeat_ticks,
        pre_vote: true,
        check_quorum: true,
        read_only_option: ReadOnlyOption::Safe,
        max_size_per_msg: 1 << 20,
        max_inflight_msgs: 256,
        max_uncommitted_size: 64 << 20,
        max_committed_size_per_ready: 16 << 20,
        ..raft::Config::default()
    }
}

/// What every voter begins with: an empty cluster at index 1 of term 1.
pub(super) fn first_snapshot(config: &Config) -> Result<Snapshot, EncodeError> {
    let mut state = State::new(config.cidr);
    apply_nothing(&mut state, 1);
    snapshot(&state, 1, ConfState::from((config.voters.clone(), Vec::new())))
}

pub(super) fn snapshot(state: &State, term: u64, voters: ConfState) -> Result<Snapshot, EncodeError> {
    let mut snapshot = Snapshot { data: codec::encode_state(state)?, ..Snapshot::default() };
    let metadata = snapshot.mut_metadata();
    metadata.index = state.applied();
    metadata.term = term;
    metadata.set_conf_state(voters);
    Ok(snapshot)
}

/// Reads back what was stored of raft's.
pub(super) fn decode<M: prost_raft::Message + Default>(
    what: &'static str,
    bytes: &[u8],
) -> Result<M, StartError> {
    M::decode(bytes).map_err(|cause| StartError::Stored { what, cause })
}
