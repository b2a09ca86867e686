//! Time and the network.
//!
//! Raft's messages are datagrams: lost, doubled, late, out of order. A
//! session is a stream: in order, until the first loss; after that nothing
//! more arrives in that direction, and neither end is told.

use crate::dice::Dice;
use crate::faults::Fault;
use crate::node::{self, FromNode, Peer};
use crate::scheduler::{self, ToNode};
use crate::user::{Answer, Request};
use dray_model::ids::InstanceId;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::fmt;

/// A machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Host {
    /// A scheduler's.
    Scheduler(u64),
    /// A node.
    Node(u64),
    /// The user's.
    User,
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Scheduler(id) => write!(f, "scheduler-{id}"),
            Host::Node(id) => write!(f, "node-{id}"),
            Host::User => write!(f, "user"),
        }
    }
}

/// What happens at some time.
#[derive(Debug, Clone)]
pub enum Event {
    /// A packet arrives.
    Arrives {
        /// From here.
        from: Host,
        /// To here.
        to: Host,
        /// What.
        packet: Packet,
    },
    /// A scheduler's timer or disk.
    Scheduler(u64, u64, scheduler::Timer),
    /// A node's timer or worker.
    Node(u64, u64, node::Timer),
    /// The user does something.
    User,
    /// The next thing of a storm breaks or is mended.
    Storm,
    /// A thing of a plot breaks or is mended.
    Fault(Fault),
}

/// What goes over the network.
#[derive(Debug, Clone)]
pub enum Packet {
    /// Between schedulers.
    Raft(Vec<u8>),
    /// A part of a session, to a scheduler.
    Up(u64, Box<FromNode>),
    /// A part of a session, to a node.
    Down(u64, Box<ToNode>),
    /// Between nodes.
    Peer(Box<Peer>),
    /// From the user.
    Request(Box<Request>),
    /// To the user.
    Answer(Answer),
}

/// How bad network and disks are, in thousandths.
#[derive(Debug, Clone, Copy, Default)]
pub struct Weather {
    /// Datagrams that are lost.
    pub loss: u64,
    /// Datagrams that come twice.
    pub doubled: u64,
    /// Streams that break at a message.
    pub breaks: u64,
    /// Writes for which a scheduler's disk takes long.
    pub slow_writes: u64,
}

#[derive(Debug)]
struct Entry {
    at_ms: u64,
    order: u64,
    event: Event,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        self.order == other.order
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Entry) -> std::cmp::Ordering {
        (self.at_ms, self.order).cmp(&(other.at_ms, other.order))
    }
}

/// A container was started from nothing.
#[derive(Debug, Clone)]
pub struct Start {
    /// Which.
    pub instance: InstanceId,
    /// Whether it, or its machine, had ended by itself before.
    pub fell: bool,
}

/// One direction of a session.
#[derive(Debug, Default)]
struct Stream {
    /// When the last message arrives; none overtakes it.
    last_ms: u64,
    broken: bool,
}

/// Time, chance, and what is under way.
#[derive(Debug)]
pub struct Fabric {
    /// Virtual time in milliseconds.
    pub now_ms: u64,
    /// Chance.
    pub dice: Dice,
    /// How bad network and disks are.
    pub weather: Weather,
    queue: BinaryHeap<Reverse<Entry>>,
    order: u64,
    /// Pairs that can't reach each other, in this direction.
    cut: BTreeSet<(Host, Host)>,
    streams: BTreeMap<(u64, bool), Stream>,
    starts: Vec<Start>,
    trace: Option<Vec<String>>,
}

impl Fabric {
    /// Before the first event.
    pub fn new(seed: u64, trace: bool) -> Fabric {
        Fabric {
            now_ms: 0,
            dice: Dice::new(seed),
            weather: Weather::default(),
            queue: BinaryHeap::new(),
            order: 0,
            cut: BTreeSet::new(),
            streams: BTreeMap::new(),
            starts: Vec::new(),
            trace: trace.then(Vec::new),
        }
    }

    /// The next event; time goes on to it.
    pub fn advance(&mut self) -> Option<Event> {
        let Reverse(entry) = self.queue.pop()?;
        self.now_ms = entry.at_ms;
        Some(entry.event)
    }

    /// Lets something happen later.
    pub fn after(&mut self, ms: u64, event: Event) {
        self.order += 1;
        self.queue.push(Reverse(Entry { at_ms: self.now_ms + ms, order: self.order, event }));
    }

    /// Cuts or mends one direction between two machines.
    pub fn set_cut(&mut self, from: Host, to: Host, cut: bool) {
        if cut {
            self.cut.insert((from, to));
        } else {
            self.cut.remove(&(from, to));
        }
    }

    /// Mends the network.
    pub fn mend(&mut self) {
        self.cut.clear();
    }

    /// Whether packets get from one machine to another.
    pub fn reaches(&self, from: Host, to: Host) -> bool {
        !self.cut.contains(&(from, to))
    }

    /// Sends a datagram. Says whether at least one copy is on its way.
    pub fn send(&mut self, from: Host, to: Host, packet: Packet) -> bool {
        let mut sent = false;
        for _ in 0..=u64::from(self.dice.chance(self.weather.doubled)) {
            if self.reaches(from, to) && !self.dice.chance(self.weather.loss) {
                let delay = self.dice.delay(1..6, 6..400);
                self.after(delay, Event::Arrives { from, to, packet: packet.clone() });
                sent = true;
            }
        }
        sent
    }

    /// Sends the next message of a session.
    pub fn stream(&mut self, session: u64, from: Host, to: Host, packet: Packet) {
        let (now_ms, reaches) = (self.now_ms, self.reaches(from, to));
        let breaks = !reaches || self.dice.chance(self.weather.breaks);
        let delay = self.dice.delay(1..6, 6..400);
        let stream = self.streams.entry((session, upward(&packet))).or_default();
        stream.broken |= breaks;
        if !stream.broken {
            stream.last_ms = stream.last_ms.max(now_ms + delay);
            let wait = stream.last_ms - now_ms;
            self.after(wait, Event::Arrives { from, to, packet });
        }
    }

    /// Whether a packet that was under way arrives after all.
    pub fn arrives(&mut self, from: Host, to: Host, packet: &Packet) -> bool {
        let reaches = self.reaches(from, to);
        let (Packet::Up(session, _) | Packet::Down(session, _)) = packet else { return reaches };
        let stream = self.streams.entry((*session, upward(packet))).or_default();
        stream.broken |= !reaches;
        !stream.broken
    }

    /// Notes for the checks that a container was started from nothing.
    pub fn started(&mut self, start: Start) {
        self.starts.push(start);
    }

    /// What was started since the last time.
    pub fn take_starts(&mut self) -> Vec<Start> {
        std::mem::take(&mut self.starts)
    }

    /// Notes what happens, for people.
    pub fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>7} {}", self.now_ms, line()));
        }
    }

    /// All notes.
    pub fn take_trace(&mut self) -> Vec<String> {
        self.trace.take().unwrap_or_default()
    }
}

fn upward(packet: &Packet) -> bool {
    matches!(packet, Packet::Up(..))
}
