//! The agents' sessions, as the leader sees them.

use super::{Proposer, Reader, Scheduler, ToNode};
use crate::fabric::{Fabric, Host, Packet};
use crate::node::{FromNode, name};
use dray_model::assignment::{Assignment, MigrationReport, TaskReport};
use scheduler_core::liveness::Beat;
use scheduler_core::replica::{Done, Unanswered};
use scheduler_core::{Command, Op, Reply, assignment};

/// One session.
#[derive(Debug)]
pub(super) struct Session {
    node: u64,
    /// The number that the log gave it, once it is registered.
    number: Option<u64>,
    /// What the agent was told last.
    sent: Assignment,
}

impl Scheduler {
    pub(super) fn hear(&mut self, id: u64, node: u64, message: FromNode, fabric: &mut Fabric) {
        match message {
            FromNode::Hello { node: name, about } => {
                let op = Op::RegisterNode { name, about };
                if self.leads() && self.propose(op, Proposer::Hello(id), fabric) {
                    self.sessions.insert(id, Session { node, number: None, sent: Assignment::default() });
                } else {
                    let leader = self.replica.as_ref().and_then(|replica| replica.leader());
                    let leader = leader.filter(|leader| *leader != self.id);
                    self.say(id, node, ToNode::Elsewhere { leader }, fabric);
                }
            }
            FromNode::Beat { sequence } => self.heard(id, node, sequence, fabric),
            FromNode::Report { tasks, migrations } => self.report(id, node, tasks, migrations, fabric),
        }
    }

    fn propose(&mut self, op: Op, proposer: Proposer, fabric: &mut Fabric) -> bool {
        let command = Command::new(self.clock.local(fabric.now_ms), op);
        let Some(Ok(ticket)) = self.replica.as_mut().map(|replica| replica.propose(&command)) else {
            return false;
        };
        self.proposers.insert(ticket, proposer);
        true
    }

    fn say(&self, session: u64, node: u64, message: ToNode, fabric: &mut Fabric) {
        let packet = Packet::Down(session, Box::new(message));
        fabric.stream(session, self.host(), Host::Node(node), packet);
    }

    fn close(&mut self, id: u64, fabric: &mut Fabric) {
        if let Some(session) = self.sessions.remove(&id) {
            self.say(id, session.node, ToNode::Closed, fabric);
        }
    }

    pub(super) fn close_all(&mut self, fabric: &mut Fabric) {
        let ids: Vec<u64> = self.sessions.keys().copied().collect();
        ids.into_iter().for_each(|id| self.close(id, fabric));
    }

    /// The registration was applied: the session begins, the node's earlier
    /// one ends, and the agent is told everything.
    pub(super) fn registered(&mut self, id: u64, result: Result<Done, Unanswered>, fabric: &mut Fabric) {
        let Ok(Done { result: Ok(Reply::Session { session: number }), .. }) = result else {
            return self.close(id, fabric);
        };
        let Some(node) = self.sessions.get(&id).map(|session| session.node) else { return };
        let earlier = self.sessions.iter().filter(|(other, s)| **other != id && s.node == node);
        let earlier: Vec<u64> =
            earlier.filter(|(_, s)| s.number.is_some_and(|n| n < number)).map(|(id, _)| *id).collect();
        earlier.into_iter().for_each(|id| self.close(id, fabric));
        let local_ms = self.clock.local(fabric.now_ms);
        let tracker = self.leading.as_mut().and_then(|leading| leading.tracker.as_mut());
        let Some(tracker) = tracker else { return self.close(id, fabric) };
        tracker.registered(&name(node), number, local_ms);
        let (heartbeat_ms, lease_ms) = (self.timing.heartbeat_ms, self.timing.lease_ms);
        self.say(id, node, ToNode::Welcome { heartbeat_ms, lease_ms }, fabric);
        if let (Some(session), Some(replica)) = (self.sessions.get_mut(&id), &self.replica) {
            session.number = Some(number);
            session.sent = assignment(replica.state(), &name(node));
            let full = ToNode::Full(Box::new(session.sent.clone()));
            self.say(id, node, full, fabric);
        }
    }

    /// A heartbeat counts at once; it is acknowledged once a majority has
    /// confirmed that this scheduler still led when it came.
    fn heard(&mut self, id: u64, node: u64, sequence: u64, fabric: &mut Fabric) {
        let local_ms = self.clock.local(fabric.now_ms);
        let Some(number) = self.sessions.get(&id).and_then(|session| session.number) else { return };
        let tracker = self.leading.as_mut().and_then(|leading| leading.tracker.as_mut());
        let beat = tracker.map_or(Beat::Close, |tracker| tracker.heartbeat(&name(node), number, local_ms));
        let ticket = self.replica.as_mut().map(|replica| replica.read_index());
        match (beat, ticket) {
            (Beat::Acknowledge, Some(Ok(ticket))) => {
                self.readers.insert(ticket, Reader::Beat(id, sequence));
            }
            (Beat::Acknowledge | Beat::Close, _) => self.close(id, fabric),
        }
    }

    pub(super) fn acknowledge(&mut self, id: u64, sequence: u64, fabric: &mut Fabric) {
        if let Some(session) = self.sessions.get(&id) {
            self.say(id, session.node, ToNode::Ack { sequence }, fabric);
        }
    }

    fn report(
        &mut self,
        id: u64,
        node: u64,
        tasks: Vec<TaskReport>,
        migrations: Vec<MigrationReport>,
        fabric: &mut Fabric,
    ) {
        let Some(number) = self.sessions.get(&id).and_then(|session| session.number) else { return };
        let op = Op::Report { node: name(node), session: number, tasks, migrations, images: Vec::new() };
        // What is not taken up would be missing: the next session repeats all.
        if !self.propose(op, Proposer::Report(id), fabric) {
            self.close(id, fabric);
        }
    }

    pub(super) fn reported(&mut self, id: u64, result: &Result<Done, Unanswered>, fabric: &mut Fabric) {
        if !matches!(result, Ok(Done { result: Ok(_), .. })) {
            self.close(id, fabric);
        }
    }

    /// Tells every agent what is different for it.
    pub(super) fn assign_all(&mut self, fabric: &mut Fabric) {
        let Some(replica) = &self.replica else { return };
        let mut news = Vec::new();
        for (id, session) in self.sessions.iter_mut().filter(|(_, session)| session.number.is_some()) {
            let next = assignment(replica.state(), &name(session.node));
            let diff = session.sent.diff(&next);
            if !diff.is_empty() {
                session.sent = next;
                news.push((*id, session.node, diff));
            }
        }
        for (id, node, diff) in news {
            self.say(id, node, ToNode::Diff(Box::new(diff)), fabric);
        }
    }
}
