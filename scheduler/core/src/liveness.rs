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
//!
//! **When all schedulers are gone** containers must not notice. Agents that
//! reach more than half of all nodes, none of which was in touch with a
//! leader for a whole lease, may extend a lease that has not run out yet. So a
//! leader declares a node lost only while it is, and for longer than a lease
//! has been, in touch with at least half of the nodes that this node knows:
//! one of them is among any more than half, and says so.

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
    timing: Timing,
    elected_ms: u64,
    sessions: BTreeMap<NodeName, Session>,
    /// Whether every node that there was at the election is in `sessions`:
    /// whoever comes later is new.
    complete: bool,
}

/// A session that began, or was judged, under this leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Session {
    number: u64,
    /// When the node became known to this leader, and through it to others.
    known_ms: u64,
    /// Since when it has been heard from without a gap; `None`: it hasn't.
    since_ms: Option<u64>,
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
        Tracker { timing, elected_ms, sessions: BTreeMap::new(), complete: false }
    }

    /// A registration has been applied: the session has begun.
    pub fn registered(&mut self, node: &NodeName, session: u64, now_ms: u64) {
        let old = self.sessions.get(node);
        let over = |old: &Session| old.number > session || (old.number == session && old.lost);
        if !old.is_some_and(over) {
            let known_ms = old.map_or(self.first_seen_ms(now_ms), |old| old.known_ms);
            let since_ms = Some(now_ms);
            let begun = Session { number: session, known_ms, since_ms, heard_ms: now_ms, lost: false };
            self.sessions.insert(node.clone(), begun);
        }
    }

    /// Since when a node that is seen for the first time is known.
    fn first_seen_ms(&self, now_ms: u64) -> u64 {
        if self.complete { now_ms } else { self.elected_ms }
    }

    /// A heartbeat has arrived in a session that began under this leader.
    pub fn heartbeat(&mut self, node: &NodeName, session: u64, now_ms: u64) -> Beat {
        let gap_ms = self.timing.lease_ms / 2;
        match self.sessions.get_mut(node) {
            Some(known) if known.number == session && !known.lost => {
                let gap = now_ms.saturating_sub(known.heard_ms) >= gap_ms;
                known.since_ms = known.since_ms.filter(|_| !gap).or(Some(now_ms));
                known.heard_ms = now_ms;
                Beat::Acknowledge
            }
            Some(_) | None => Beat::Close,
        }
    }

    /// The commands that declare nodes lost as of now. Repeated until the
    /// state says so, in case a proposal was dropped.
    pub fn verdicts(&mut self, state: &State, now_ms: u64) -> Vec<Op> {
        for node in state.nodes().keys() {
            self.meet(node, state.session(node).unwrap_or_default(), now_ms);
        }
        self.complete = true;
        let ready = state.nodes().values().filter(|node| node.liveness == Liveness::Ready);
        let sessions = ready.filter_map(|node| Some((&node.name, state.session(&node.name)?)));
        let silent = sessions.filter(|(name, number)| self.judge(name, *number, now_ms));
        silent.map(|(node, session)| Op::LoseNode { node: node.clone(), session }).collect()
    }

    /// A session that this leader has not seen begin is as old as itself.
    fn meet(&mut self, node: &NodeName, number: u64, now_ms: u64) {
        let (known_ms, heard_ms) = (self.first_seen_ms(now_ms), self.elected_ms);
        let unseen = Session { number, known_ms, since_ms: None, heard_ms, lost: false };
        self.sessions.entry(node.clone()).or_insert(unseen);
    }

    /// Whether a session is lost; if it is, it stays so.
    fn judge(&mut self, node: &NodeName, number: u64, now_ms: u64) -> bool {
        let Some(session) = self.sessions.get(node).copied().filter(|known| known.number == number) else {
            return false;
        };
        let silent = now_ms.saturating_sub(session.heard_ms) >= self.timing.loss_ms;
        let lost = session.lost || (silent && self.hears_half(session.heard_ms, now_ms));
        self.sessions.insert(node.clone(), Session { lost, ..session });
        lost
    }

    /// Whether this leader is, and has been for longer than a lease, in touch
    /// with at least half of the nodes that were known at a time.
    fn hears_half(&self, known_by_ms: u64, now_ms: u64) -> bool {
        let known = || self.sessions.values().filter(|session| session.known_ms <= known_by_ms);
        let lease_ms = self.timing.lease_ms + self.timing.lease_ms / 4;
        let steady = |session: &&Session| {
            let long = session.since_ms.is_some_and(|since| now_ms.saturating_sub(since) >= lease_ms);
            let lately = now_ms.saturating_sub(session.heard_ms) < self.timing.lease_ms / 2;
            long && lately && !session.lost
        };
        2 * known().filter(steady).count() >= known().count()
    }

    /// How long ago this leader heard from a node, if it did.
    pub fn age_ms(&self, node: &NodeName, now_ms: u64) -> Option<u64> {
        let heard = |session: &&Session| !session.lost && session.since_ms.is_some();
        let session = self.sessions.get(node).filter(heard)?;
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

    /// A tracker and the sessions of its cluster's nodes.
    struct Bench {
        state: State,
        tracker: Tracker,
    }

    impl Bench {
        fn new(nodes: u8, elected_ms: u64) -> Bench {
            let (state, tracker) = (testing::cluster(nodes), Tracker::new(Timing::default(), elected_ms));
            Bench { state, tracker }
        }

        fn registers(&mut self, node: &str, now_ms: u64) {
            let node = node.parse().unwrap();
            let session = self.state.session(&node).unwrap();
            self.tracker.registered(&node, session, now_ms);
        }

        fn beats(&mut self, node: &str, now_ms: u64) -> Beat {
            let node = node.parse().unwrap();
            let session = self.state.session(&node).unwrap();
            self.tracker.heartbeat(&node, session, now_ms)
        }

        /// Beats once a second, from one time up to another.
        fn beats_on(&mut self, node: &str, from_ms: u64, to_ms: u64) {
            (from_ms..=to_ms)
                .step_by(1000)
                .for_each(|at| assert_eq!(self.beats(node, at), Beat::Acknowledge));
        }

        fn lost(&mut self, now_ms: u64) -> Vec<String> {
            lost(&mut self.tracker, &self.state, now_ms)
        }
    }

    #[test]
    fn a_new_leader_gives_every_node_the_whole_time() {
        let mut bench = Bench::new(2, 50_000);
        bench.registers("node-2", 50_100);
        bench.beats_on("node-2", 51_000, 60_000);
        assert!(bench.lost(59_999).is_empty());
        assert_eq!(bench.lost(60_000), ["node-1"]);
    }

    #[test]
    fn a_leader_that_hears_less_than_half_declares_nobody_lost() {
        let mut bench = Bench::new(3, 0);
        bench.registers("node-1", 0);
        bench.beats_on("node-1", 0, 60_000);
        assert!(bench.lost(60_000).is_empty(), "one of three");
        bench.registers("node-2", 60_000);
        bench.beats_on("node-1", 61_000, 68_000);
        bench.beats_on("node-2", 61_000, 68_000);
        assert!(bench.lost(68_000).is_empty(), "two, but not for long enough");
        bench.beats("node-1", 69_000);
        bench.beats("node-2", 69_000);
        assert_eq!(bench.lost(69_000), ["node-3"]);
    }

    #[test]
    fn nodes_that_the_silent_one_never_heard_of_don_t_count() {
        let mut bench = Bench::new(4, 0);
        bench.tracker.verdicts(&testing::cluster(2), 0);
        // The other two join later, when the first two are silent already.
        for node in ["node-3", "node-4"] {
            bench.registers(node, 1_000);
            bench.beats_on(node, 1_000, 30_000);
        }
        assert!(bench.lost(30_000).is_empty());
    }

    #[test]
    fn a_lost_session_never_counts_again() {
        let mut bench = Bench::new(2, 0);
        let node: NodeName = "node-1".parse().unwrap();
        let session = bench.state.session(&node).unwrap();
        bench.registers("node-1", 0);
        bench.registers("node-2", 0);
        bench.beats_on("node-2", 1_000, 20_000);
        assert_eq!(bench.lost(20_000), ["node-1"]);
        assert_eq!(bench.beats("node-1", 20_001), Beat::Close);
        assert_eq!(bench.lost(20_002), ["node-1"], "until the state says so");
        bench.tracker.registered(&node, session + 9, 20_003);
        assert_eq!(bench.tracker.heartbeat(&node, session, 20_004), Beat::Close);
        assert_eq!(bench.tracker.heartbeat(&node, session + 9, 20_004), Beat::Acknowledge);
        assert!(bench.lost(20_005).is_empty(), "the verdict was on another session");
    }

    #[test]
    fn the_default_timing_is_safe() {
        assert!(Timing::default().is_safe());
        assert!(!Timing { lease_ms: 10_000, ..Timing::default() }.is_safe());
    }
}
