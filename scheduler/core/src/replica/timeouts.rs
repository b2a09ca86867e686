//! Election timeouts from a seed. Raft's library draws them from the thread's
//! generator; a simulation has to repeat them.

use super::log::MemoryLog;
use raft::RawNode;

/// Replaces whatever timeout raft has drawn by one that follows from a seed
/// and the term. To be called after every input: in one term it is always the
/// same, and a term that elected nobody is followed by another.
pub(super) fn enforce_timeout(raw: &mut RawNode<MemoryLog>, seed: u64) {
    let ticks = raw.raft.election_timeout();
    let spread = mix(seed ^ mix(raw.raft.term)) % ticks as u64;
    raw.raft.set_randomized_election_timeout(ticks + usize::try_from(spread).unwrap_or(0));
}

/// Spreads every bit of a number over all others (the finalizer of
/// SplitMix64, Steele et al. 2014).
fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
