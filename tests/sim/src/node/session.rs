//! The agent's stream to a scheduler.

use super::{FromNode, Node, Timer, next_assignment};
use crate::fabric::{Fabric, Host, Packet};
use crate::scheduler::ToNode;
use agent_core::Reports;
use dray_model::assignment::Assignment;
use std::collections::BTreeMap;

/// How often the session is looked after.
const LOOK_MS: u64 = 250;
/// How long a session may be silent before it is given up.
const SILENCE_MS: u64 = 3_000;

/// One session, as the agent sees it.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) number: u64,
    scheduler: u64,
    /// Whether the scheduler has let us in.
    joined: bool,
    heartbeat_ms: u64,
    assignment: Assignment,
    sent: Reports,
    /// When each heartbeat that isn't acknowledged was sent, on our clock.
    beats: BTreeMap<u64, u64>,
    sequence: u64,
    last_beat_ms: u64,
    last_heard_ms: u64,
}

impl Node {
    pub(super) fn look_after_session(&mut self, fabric: &mut Fabric) {
        self.after(LOOK_MS, Timer::Session, fabric);
        let now_ms = fabric.now_ms;
        match &self.agent.session {
            None => self.open_session(fabric),
            Some(session) if now_ms - session.last_heard_ms > SILENCE_MS => {
                fabric.note(|| format!("node-{} gives its session up", self.id));
                self.agent.session = None;
                self.open_session(fabric);
            }
            Some(session) if session.joined && now_ms - session.last_beat_ms >= session.heartbeat_ms => {
                self.beat(fabric);
            }
            Some(_) => {}
        }
    }

    fn open_session(&mut self, fabric: &mut Fabric) {
        self.sessions += 1;
        let scheduler = self.agent.next % 3 + 1;
        self.agent.next += 1;
        let number = self.id * 1_000_000 + self.sessions;
        self.agent.session = Some(Session {
            number,
            scheduler,
            joined: false,
            heartbeat_ms: 0,
            assignment: Assignment::default(),
            sent: Reports::default(),
            beats: BTreeMap::new(),
            sequence: 0,
            last_beat_ms: 0,
            last_heard_ms: fabric.now_ms,
        });
        let hello = FromNode::Hello { node: self.name(), about: Box::new(self.about()) };
        self.say(hello, fabric);
    }

    fn say(&self, message: FromNode, fabric: &mut Fabric) {
        if let Some(session) = &self.agent.session {
            let to = Host::Scheduler(session.scheduler);
            let packet = Packet::Up(session.number, Box::new(message));
            fabric.stream(session.number, self.host(), to, packet);
        }
    }

    fn beat(&mut self, fabric: &mut Fabric) {
        let (now_ms, local_ms) = (fabric.now_ms, self.clock.local(fabric.now_ms));
        if let Some(session) = &mut self.agent.session {
            session.sequence += 1;
            session.last_beat_ms = now_ms;
            session.beats.insert(session.sequence, local_ms);
            let sequence = session.sequence;
            self.say(FromNode::Beat { sequence }, fabric);
        }
    }

    /// A scheduler says something in a session.
    pub(super) fn receive(&mut self, number: u64, message: ToNode, fabric: &mut Fabric) {
        let Some(session) = self.agent.session.as_mut().filter(|session| session.number == number) else {
            return;
        };
        session.last_heard_ms = fabric.now_ms;
        match message {
            ToNode::Elsewhere { leader } => {
                self.agent.session = None;
                self.agent.next = leader.map_or(self.agent.next, |id| id - 1);
            }
            ToNode::Closed => self.agent.session = None,
            ToNode::Welcome { heartbeat_ms, lease_ms } => {
                session.joined = true;
                session.heartbeat_ms = heartbeat_ms;
                self.lease_ms = lease_ms;
                self.report(Reports::of(&self.page, &self.agent.observed), fabric);
            }
            ToNode::Full(assignment) => {
                session.assignment = *assignment;
                let assignment = session.assignment.clone();
                self.accept(assignment, fabric);
            }
            ToNode::Diff(diff) => {
                if next_assignment(&mut session.assignment, *diff) {
                    let assignment = session.assignment.clone();
                    self.accept(assignment, fabric);
                } else {
                    self.agent.session = None;
                }
            }
            ToNode::Ack { sequence } => self.acknowledged(sequence, fabric),
        }
    }

    /// Counts only once the full set of this session is known.
    fn acknowledged(&mut self, sequence: u64, fabric: &mut Fabric) {
        let Some(session) = self.agent.session.as_mut().filter(|s| s.assignment.generation > 0) else {
            return;
        };
        let later = session.beats.split_off(&(sequence + 1));
        let answered = std::mem::replace(&mut session.beats, later);
        if let Some(sent_ms) = answered.get(&sequence) {
            self.agent.sent_ms = self.agent.sent_ms.max(Some(*sent_ms));
            self.renew_leases(fabric.now_ms);
        }
    }

    /// Tells what is new.
    pub(super) fn report(&mut self, now: Reports, fabric: &mut Fabric) {
        let Some(session) = self.agent.session.as_mut().filter(|session| session.joined) else { return };
        let news = now.since(&session.sent);
        session.sent = now;
        if !news.is_empty() {
            let tasks = news.tasks.into_values().collect();
            let migrations = news.migrations.into_values().collect();
            self.say(FromNode::Report { tasks, migrations }, fabric);
        }
    }
}
