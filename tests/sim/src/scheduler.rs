//! A scheduler's host: a replica, its disk, the leader's loop and the agents'
//! sessions.
//!
//! The host of `scheduler-core`. It performs effects in their order: what may
//! go early, then the disk, then the rest; while the disk works, everything
//! that arrives waits.

mod disk;
mod lead;
mod sessions;

use crate::check::Broken;
use crate::fabric::{Event as Happening, Fabric, Host, Packet};
use crate::node::{Clock, FromNode};
use crate::user::{Answer, Request};
use disk::Disk;
use dray_model::assignment::{Assignment, AssignmentDiff};
use lead::Leading;
use scheduler_core::liveness::Timing;
use scheduler_core::replica::{Answer as Applied, Config, Effects, ReadAnswer, StartError, Ticket};
use scheduler_core::{Change, Command, Replica, State};
use sessions::Session;
use std::collections::BTreeMap;

/// A tick of raft's clock, in milliseconds.
const TICK_MS: u64 = 100;

/// What a scheduler tells an agent.
#[derive(Debug, Clone)]
pub enum ToNode {
    /// Another scheduler leads.
    Elsewhere {
        /// Which, if it is known.
        leader: Option<u64>,
    },
    /// The session is over.
    Closed,
    /// Come in.
    Welcome {
        /// How often to beat.
        heartbeat_ms: u64,
        /// How long a lease is.
        lease_ms: u64,
    },
    /// What to run.
    Full(Box<Assignment>),
    /// What is different.
    Diff(Box<AssignmentDiff>),
    /// A heartbeat came while this scheduler led.
    Ack {
        /// Which.
        sequence: u64,
    },
}

/// A scheduler's own timers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Timer {
    /// Raft's clock.
    Tick,
    /// The disk is done.
    Persisted,
    /// The leader's loop.
    Look,
    /// The process goes on after a pause.
    GoOn,
    /// The process begins.
    Start,
}

/// What waits while the disk works or the process is stopped.
#[derive(Debug)]
enum Input {
    Tick,
    Raft(Vec<u8>),
    SnapshotSent(u64, bool),
    Session(u64, u64, FromNode),
    Request(Request),
}

/// Who waits for a proposal.
#[derive(Debug, Clone)]
enum Proposer {
    Planner,
    Hello(u64),
    Report(u64),
    User(u64),
}

/// Who waits for a read.
#[derive(Debug, Clone)]
enum Reader {
    /// The leader's loop, to be sure of its election.
    Term(u64),
    /// A heartbeat of a session.
    Beat(u64, u64),
    /// The user.
    User(u64),
}

/// A process and its disk.
pub struct Scheduler {
    /// The voter's number.
    pub id: u64,
    /// Counts the processes.
    pub process: u64,
    /// The machine's clock.
    pub clock: Clock,
    timing: Timing,
    /// `None` while the process isn't there.
    pub replica: Option<Replica>,
    disk: Disk,
    /// What is being made durable.
    writing: Option<Effects>,
    paused: bool,
    waiting: Vec<Input>,
    proposers: BTreeMap<Ticket, Proposer>,
    readers: BTreeMap<Ticket, Reader>,
    sessions: BTreeMap<u64, Session>,
    leading: Option<Leading>,
    /// A digest of what each entry changed, for comparing replicas.
    pub history: BTreeMap<u64, Vec<Change>>,
}

impl Scheduler {
    /// A machine whose process is about to begin.
    pub fn new(id: u64, clock: Clock, timing: Timing) -> Scheduler {
        Scheduler {
            id,
            process: 0,
            clock,
            timing,
            replica: None,
            disk: Disk::default(),
            writing: None,
            paused: false,
            waiting: Vec::new(),
            proposers: BTreeMap::new(),
            readers: BTreeMap::new(),
            sessions: BTreeMap::new(),
            leading: None,
            history: BTreeMap::new(),
        }
    }

    fn host(&self) -> Host {
        Host::Scheduler(self.id)
    }

    /// The state, if the process is there.
    pub fn state(&self) -> Option<&State> {
        self.replica.as_ref().map(Replica::state)
    }

    fn after(&self, ms: u64, timer: Timer, fabric: &mut Fabric) {
        fabric.after(ms, Happening::Scheduler(self.id, self.process, timer));
    }

    fn start(&mut self, seed: u64, fabric: &mut Fabric) -> Result<(), StartError> {
        fabric.note(|| format!("scheduler-{} begins", self.id));
        let config = Config {
            id: self.id,
            voters: vec![1, 2, 3],
            cidr: "10.88.0.0/16".parse().expect("a valid range"),
            election_ticks: 10,
            heartbeat_ticks: 2,
            snapshot_every: 150,
            entries_kept: 30,
            seed: seed.wrapping_mul(31) + self.id,
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        self.replica = Some(Replica::new(config, self.disk.recovered(), &logger)?);
        self.after(TICK_MS, Timer::Tick, fabric);
        self.after(TICK_MS / 2, Timer::Look, fabric);
        Ok(())
    }

    /// The process is killed. What the disk was at is there or isn't.
    pub fn crash(&mut self, away_ms: Option<u64>, fabric: &mut Fabric) {
        fabric.note(|| format!("scheduler-{} is killed", self.id));
        if let Some(effects) = self.writing.take().filter(|_| fabric.dice.chance(500)) {
            self.disk.persist(&effects.persist);
        }
        let disk = std::mem::take(&mut self.disk);
        let history = std::mem::take(&mut self.history);
        let process = self.process + 1;
        *self = Scheduler { disk, history, process, ..Scheduler::new(self.id, self.clock, self.timing) };
        let soon_ms = fabric.dice.delay(200..4_000, 5_000..20_000);
        self.after(away_ms.unwrap_or(soon_ms), Timer::Start, fabric);
    }

    /// The process is stopped for a while, and doesn't know.
    pub fn pause(&mut self, ms: u64, fabric: &mut Fabric) {
        fabric.note(|| format!("scheduler-{} is stopped for {ms} ms", self.id));
        self.paused = true;
        self.after(ms, Timer::GoOn, fabric);
    }

    /// A timer of the present process has run out.
    ///
    /// # Errors
    /// The process would stop for good.
    pub fn on(&mut self, timer: Timer, seed: u64, fabric: &mut Fabric) -> Result<(), Broken> {
        match timer {
            Timer::Start => {
                let started = self.start(seed, fabric);
                return started.map_err(|error| Broken::Stopped { id: self.id, why: format!("{error:?}") });
            }
            Timer::Tick => {
                self.after(TICK_MS * 1000 / self.clock.rate, Timer::Tick, fabric);
                // Ticks that come while nobody looks are not made up for.
                if self.is_free() {
                    self.waiting.push(Input::Tick);
                }
            }
            Timer::Persisted => self.persisted(fabric),
            Timer::Look => {
                self.after(TICK_MS / 2, Timer::Look, fabric);
                if self.is_free() {
                    self.look(fabric);
                }
            }
            Timer::GoOn => self.paused = false,
        }
        self.pump(fabric)
    }

    /// A packet has arrived.
    ///
    /// # Errors
    /// The process would stop for good.
    pub fn receive(&mut self, from: Host, packet: Packet, fabric: &mut Fabric) -> Result<(), Broken> {
        if self.replica.is_none() {
            return Ok(());
        }
        match (from, packet) {
            (_, Packet::Raft(bytes)) => self.waiting.push(Input::Raft(bytes)),
            (Host::Node(node), Packet::Up(session, message)) => {
                self.waiting.push(Input::Session(session, node, *message));
            }
            (_, Packet::Request(request)) => self.waiting.push(Input::Request(*request)),
            (_, Packet::Up(..) | Packet::Down(..) | Packet::Peer(_) | Packet::Answer(_)) => {}
        }
        self.pump(fabric)
    }

    fn is_free(&self) -> bool {
        !self.paused && self.writing.is_none() && self.replica.is_some()
    }

    /// Takes in what waits, and performs what follows, until the disk has to
    /// work or nothing is left.
    fn pump(&mut self, fabric: &mut Fabric) -> Result<(), Broken> {
        while self.is_free() {
            for input in std::mem::take(&mut self.waiting) {
                self.take_in(input, fabric);
            }
            let Some(replica) = &mut self.replica else { return Ok(()) };
            let ready = replica.ready();
            let ready = ready.map_err(|fatal| Broken::Stopped { id: self.id, why: format!("{fatal:?}") })?;
            match ready {
                Some(effects) => self.perform(effects, fabric),
                None => break,
            }
        }
        Ok(())
    }

    fn take_in(&mut self, input: Input, fabric: &mut Fabric) {
        let Some(replica) = &mut self.replica else { return };
        match input {
            Input::Tick => replica.tick(),
            // What can't be used is as good as lost.
            Input::Raft(bytes) => drop(replica.step(&bytes)),
            Input::SnapshotSent(to, arrived) => replica.snapshot_sent(to, arrived),
            Input::Session(session, node, message) => self.hear(session, node, message, fabric),
            Input::Request(request) => self.serve(request, fabric),
        }
    }

    fn perform(&mut self, mut effects: Effects, fabric: &mut Fabric) {
        self.send_all(std::mem::take(&mut effects.early), fabric);
        if effects.persist.is_empty() {
            self.finish(effects, fabric);
        } else {
            self.writing = Some(effects);
            let slow = fabric.dice.chance(fabric.weather.slow_writes);
            let takes_ms = fabric.dice.range(if slow { 20..600 } else { 1..6 });
            self.after(takes_ms, Timer::Persisted, fabric);
        }
    }

    fn persisted(&mut self, fabric: &mut Fabric) {
        if let Some(effects) = self.writing.take() {
            self.disk.persist(&effects.persist);
            self.finish(effects, fabric);
        }
    }

    /// Everything that had to wait for the disk.
    fn finish(&mut self, effects: Effects, fabric: &mut Fabric) {
        self.send_all(effects.messages, fabric);
        let changed = !effects.applied.is_empty() || effects.restored;
        self.history.extend(effects.applied.into_iter().map(|applied| (applied.index, applied.changes)));
        for answer in effects.answers {
            self.answered(answer, fabric);
        }
        for read in effects.reads {
            self.was_read(read, fabric);
        }
        if changed {
            self.assign_all(fabric);
        }
    }

    fn send_all(&mut self, messages: Vec<scheduler_core::replica::Envelope>, fabric: &mut Fabric) {
        for message in messages {
            let sent = fabric.send(self.host(), Host::Scheduler(message.to), Packet::Raft(message.bytes));
            if message.snapshot {
                self.waiting.push(Input::SnapshotSent(message.to, sent));
            }
        }
    }

    fn answered(&mut self, answer: Applied, fabric: &mut Fabric) {
        match self.proposers.remove(&answer.ticket) {
            Some(Proposer::Planner) => self.step_answered(),
            Some(Proposer::Hello(session)) => self.registered(session, answer.result, fabric),
            Some(Proposer::Report(session)) => self.reported(session, &answer.result, fabric),
            Some(Proposer::User(request)) => {
                let result = answer.result.ok().map(|done| done.result);
                self.reply(Answer::Written { request, result }, fabric);
            }
            None => {}
        }
    }

    fn was_read(&mut self, read: ReadAnswer, fabric: &mut Fabric) {
        let led = read.index.is_ok();
        match self.readers.remove(&read.ticket) {
            Some(Reader::Term(term)) if led => self.lead(term, fabric),
            Some(Reader::Beat(session, sequence)) if led => self.acknowledge(session, sequence, fabric),
            Some(Reader::User(request)) => {
                let value = self.state().filter(|_| led).map(crate::user::value_of);
                self.reply(Answer::Read { request, value }, fabric);
            }
            Some(Reader::Term(_) | Reader::Beat(..)) | None => {}
        }
    }

    /// The user asks for something. One that doesn't lead says so.
    fn serve(&mut self, request: Request, fabric: &mut Fabric) {
        let now_ms = self.clock.local(fabric.now_ms);
        let Some(replica) = &mut self.replica else { return };
        let ticket = match request.command {
            Some(command) => {
                let ticket = replica.propose(&Command { now_ms, ..command }).ok();
                self.proposers.extend(ticket.map(|ticket| (ticket, Proposer::User(request.number))));
                ticket
            }
            None => {
                let ticket = replica.read_index().ok();
                self.readers.extend(ticket.map(|ticket| (ticket, Reader::User(request.number))));
                ticket
            }
        };
        if ticket.is_none() {
            self.reply(Answer::NotTaken { request: request.number }, fabric);
        }
    }

    fn reply(&self, answer: Answer, fabric: &mut Fabric) {
        fabric.send(self.host(), Host::User, Packet::Answer(answer));
    }
}
