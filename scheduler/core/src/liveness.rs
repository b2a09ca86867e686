//! Whom the leader hears from. Lives in the leader's memory only; what is
//! replicated is the change from ready to lost and back.
//!
//! **Why a lease is safe.** An agent runs a task that may restart elsewhere
//! until `lease_ms` after it *sent* the last heartbeat that was acknowledged.
//! A node is lost when the leader has heard nothing for `loss_ms`, which is
//! longer, and counts from the *arrival* of the last heartbeat or, for a new
//! leader, from its election. So the lease has run out before the loss can be
//! proposed, if these rules are kept:
//!
//! - the leader acknowledges a heartbeat only after a read index that it
//!   asked for *after* the heartbeat arrived: a deposed leader that doesn't
//!   know it yet can't extend a lease past its successor's election;
//! - once it has decided that a session is lost, it acknowledges nothing more
//!   in it and closes it ([`Tracker::heartbeat`] says so); the node begins
//!   another, and a verdict on the old one that is still on its way through
//!   the log is void;
//! - an agent thaws what a lease froze only after it has received the full
//!   assignment of its new session.

use crate::command::Op;
use crate::state::State;
use dray_model::Liveness;
use dray_model::ids::NodeName;
use std::collections::BTreeMap;

/// Timing of heartbeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// How often an agent sends one.
    pub heartbeat_ms: u64,
    /// How long an agent may run leased tasks after it sent one that was
    /// acknowledged.
    pub lease_ms: u64,
    /// How long the leader waits for one before the node is lost.
    pub loss_ms: u64,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing { heartbeat_ms: 1_000, lease_ms: 7_000, loss_ms: 10_000 }
    }
}

impl Timing {
    /// Whether a lease always ends before a loss: a quarter of the lease is
    /// allowed for clocks that run at different speeds and for freezing.
    pub fn is_safe(self) -> bool {
        self.lease_ms + self.lease_ms / 4 <= self.loss_ms && self.heartbeat_ms * 2 <= self.lease_ms
    }
}

/// When the leader last heard from each node.
#[derive(Debug, Clone)]
pub struct Tracker {
    loss_ms: u64,
    elected_ms: u64,
    sessions: BTreeMap<NodeName, Session>,
}

/// A session that began, or was judged, under this leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Session {
    number: u64,
    heard_ms: u64,
    /// Judged: nothing in it counts any more.
    lost: bool,
}

/// What to do about a heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beat {
    /// Acknowledge it once the leader has confirmed that it leads.
    Acknowledge,
    /// Close the session: the node has to register again.
    Close,
}

impl Tracker {
    /// A leader's tracker begins with its election. Times are of the leader's
    /// monotonic clock, in milliseconds.
    pub fn new(timing: Timing, elected_ms: u64) -> Tracker {
        Tracker { loss_ms: timing.loss_ms, elected_ms, sessions: BTreeMap::new() }
    }

    /// A registration has been applied: the session has begun.
    pub fn registered(&mut self, node: &NodeName, session: u64, now_ms: u64) {
        let begun = Session { number: session, heard_ms: now_ms, lost: false };
        let newer = self.sessions.get(node).is_none_or(|old| old.number < session);
        if newer {
            self.sessions.insert(node.clone(), begun);
        }
    }

    /// A heartbeat has arrived in a session that began under this leader.
    pub fn heartbeat(&mut self, node: &NodeName, session: u64, now_ms: u64) -> Beat {
        match self.sessions.get_mut(node) {
            Some(known) if known.number == session && !known.lost => {
                known.heard_ms = now_ms;
                Beat::Acknowledge
            }
            Some(_) | None => Beat::Close,
        }
    }

    /// The commands that declare nodes lost as of now. Repeated until the
    /// state says so, in case a proposal was dropped.
    pub fn verdicts(&mut self, state: &State, now_ms: u64) -> Vec<Op> {
        let ready = state.nodes().values().filter(|node| node.liveness == Liveness::Ready);
        let sessions = ready.filter_map(|node| Some((&node.name, state.session(&node.name)?)));
        let silent = sessions.filter(|(name, number)| self.judge(name, *number, now_ms));
        silent.map(|(node, session)| Op::LoseNode { node: node.clone(), session }).collect()
    }

    /// Whether a session is lost; if it is, it stays so.
    fn judge(&mut self, node: &NodeName, number: u64, now_ms: u64) -> bool {
        // A session that this leader has not seen begin is as old as itself.
        let unseen = Session { number, heard_ms: self.elected_ms, lost: false };
        let session = self.sessions.entry(node.clone()).or_insert(unseen);
        let same = session.number == number;
        session.lost |= same && now_ms.saturating_sub(session.heard_ms) >= self.loss_ms;
        same && session.lost
    }

    /// How long ago this leader heard from a node, if it did.
    pub fn age_ms(&self, node: &NodeName, now_ms: u64) -> Option<u64> {
        let session = self.sessions.get(node).filter(|session| !session.lost)?;
        Some(now_ms.saturating_sub(session.heard_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn lost(tracker: &mut Tracker, state: &State, now_ms: u64) -> Vec<String> {
        let verdicts = tracker.verdicts(state, now_ms).into_iter();
        let name = |op| if let Op::LoseNode { node, .. } = op { Some(node.to_string()) } else { None };
        verdicts.filter_map(name).collect()
    }

    #[test]
    fn a_new_leader_gives_every_node_the_whole_time() {
        let (state, timing) = (testing::cluster(2), Timing::default());
        let mut tracker = Tracker::new(timing, 50_000);
        assert!(lost(&mut tracker, &state, 50_000 + timing.loss_ms - 1).is_empty());
        assert_eq!(lost(&mut tracker, &state, 50_000 + timing.loss_ms), ["node-1", "node-2"]);
    }

    #[test]
    fn a_lost_session_never_counts_again() {
        let (state, node) = (testing::cluster(2), "node-1".parse().unwrap());
        let session = state.session(&node).unwrap();
        let mut tracker = Tracker::new(Timing::default(), 0);
        tracker.registered(&node, session, 1_000);
        assert_eq!(tracker.heartbeat(&node, session, 9_000), Beat::Acknowledge);
        assert_eq!(lost(&mut tracker, &state, 12_000), ["node-2"]);
        assert_eq!(lost(&mut tracker, &state, 19_000), ["node-1", "node-2"]);
        assert_eq!(tracker.heartbeat(&node, session, 19_001), Beat::Close);
        assert_eq!(lost(&mut tracker, &state, 19_002), ["node-1", "node-2"], "until the state says so");
        tracker.registered(&node, session + 9, 20_000);
        assert_eq!(tracker.heartbeat(&node, session, 20_001), Beat::Close);
        assert_eq!(tracker.heartbeat(&node, session + 9, 20_001), Beat::Acknowledge);
        assert_eq!(lost(&mut tracker, &state, 20_002), ["node-2"], "the verdict was on another session");
    }

    #[test]
    fn the_default_timing_is_safe() {
        assert!(Timing::default().is_safe());
        assert!(!Timing { lease_ms: 10_000, ..Timing::default() }.is_safe());
    }
}
