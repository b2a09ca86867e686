//! Whom this scheduler hears from while it leads; shared by the sessions and
//! the leader's loop.

use dray_model::NodeName;
use parking_lot::Mutex;
use scheduler_core::liveness::{Beat, Timing, Tracker};
use scheduler_core::{Op, State};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::oneshot;

/// Contacts with the nodes' agents.
#[derive(Debug, Clone)]
pub struct Contacts {
    timing: Timing,
    started: Instant,
    term: Arc<Mutex<Term>>,
}

#[derive(Debug, Default)]
struct Term {
    /// `None` while another scheduler leads.
    tracker: Option<Tracker>,
    /// The one session of each node. Dropping it ends the session.
    sessions: BTreeMap<NodeName, oneshot::Sender<()>>,
}

impl Contacts {
    /// Nobody was heard from yet.
    pub fn new(timing: Timing) -> Contacts {
        Contacts { timing, started: Instant::now(), term: Arc::default() }
    }

    /// Milliseconds on a clock that is never set.
    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The timing that all of this goes by.
    pub fn timing(&self) -> Timing {
        self.timing
    }

    /// This scheduler was elected.
    pub fn begin_term(&self) {
        let tracker = Some(Tracker::new(self.timing, self.now_ms()));
        *self.term.lock() = Term { tracker, sessions: BTreeMap::new() };
    }

    /// It no longer leads. Ends all sessions.
    pub fn end_term(&self) {
        *self.term.lock() = Term::default();
    }

    /// A node has begun a session. Ends its earlier session, if there is one; the
    /// receiver hears of the end of this one. `None`: this scheduler doesn't
    /// lead.
    pub fn registered(&self, node: &NodeName, session: u64) -> Option<oneshot::Receiver<()>> {
        let now_ms = self.now_ms();
        let mut term = self.term.lock();
        term.tracker.as_mut()?.registered(node, session, now_ms);
        let (open, ended) = oneshot::channel();
        term.sessions.insert(node.clone(), open);
        Some(ended)
    }

    /// A heartbeat has arrived in a session.
    pub fn heartbeat(&self, node: &NodeName, session: u64) -> Beat {
        let now_ms = self.now_ms();
        let mut term = self.term.lock();
        term.tracker.as_mut().map_or(Beat::Close, |tracker| tracker.heartbeat(node, session, now_ms))
    }

    /// The commands that declare nodes lost.
    pub fn verdicts(&self, state: &State) -> Vec<Op> {
        let now_ms = self.now_ms();
        let mut term = self.term.lock();
        term.tracker.as_mut().map(|tracker| tracker.verdicts(state, now_ms)).unwrap_or_default()
    }
}
