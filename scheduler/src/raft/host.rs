//! The one thread that owns a replica, its log and its clock.
//!
//! ```text
//! inbox, links, clock --> replica --> effects: send early, persist, send, answer
//! ```
//!
//! A round takes everything that waits, so that one sync makes many commands
//! durable. The replica is behind a lock only so that others can look at its
//! state; a round that has to persist holds it until that is done, so that
//! nobody ever sees what a crash could take back.

use super::log::{Log, LogError};
use super::ring::Ring;
use super::transport::{LinkEvent, Outgoing, Transport};
use crate::api::now_ms;
use parking_lot::RwLock;
use scheduler_core::replica::{Effects, Envelope, Fatal, NotTaken, Ticket, Unanswered};
use scheduler_core::{Command, Refusal, Replica, Reply, State};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::MissedTickBehavior;

/// Inputs that may wait.
const INBOX: usize = 8192;
/// Inputs that one round takes at most.
const ROUND: usize = 1024;

/// A command that was applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// What came of it.
    pub result: Result<Reply, Refusal>,
    /// Where in the log it is.
    pub index: u64,
}

/// Why a replica didn't serve a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotServed {
    /// It doesn't lead, or not yet: certainly not done.
    #[error("not the leader")]
    NotLeader,
    /// It lost the leadership: perhaps done.
    #[error("the leadership was lost before there was an answer")]
    Unknown,
    /// Too much is under way: certainly not done.
    #[error("too much is under way")]
    Overloaded,
    /// A defect.
    #[error("{0}")]
    Malformed(String),
}

/// Where a replica stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Standing {
    /// Who leads, as far as it knows.
    pub leader: Option<u64>,
    /// Whether it leads and has applied all that was committed before.
    pub leads: bool,
    /// Its term.
    pub term: u64,
}

/// Why the host, and with it the process, must stop.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The replica can't go on.
    #[error(transparent)]
    Replica(#[from] Fatal),
    /// The disk can't be trusted.
    #[error("make the log durable")]
    Log(#[from] LogError),
    /// The thread can't be set up.
    #[error("start the replica's thread")]
    Start(#[source] std::io::Error),
}

enum Input {
    Propose(Command, oneshot::Sender<Result<Applied, NotServed>>),
    Read(oneshot::Sender<Result<u64, NotServed>>),
    Step(Vec<u8>),
    Transfer(u64),
}

/// What others may look at.
struct Shared {
    replica: RwLock<(Replica, Ring)>,
    standing: watch::Sender<Standing>,
    applied: watch::Sender<u64>,
}

/// For asking a host. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    inbox: mpsc::Sender<Input>,
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").field("standing", &self.standing()).finish_non_exhaustive()
    }
}

/// What a host works with.
pub struct Parts {
    /// The replica, begun with what the log held.
    pub replica: Replica,
    /// The log.
    pub log: Log,
    /// The links to the others.
    pub transport: Transport,
    /// What becomes of those.
    pub links: mpsc::UnboundedReceiver<LinkEvent>,
    /// The length of a tick.
    pub tick: Duration,
}

/// Starts a host in a thread of its own. The receiver hears why it ended;
/// nothing is heard when the last handle was dropped.
///
/// # Errors
/// There is no thread to be had.
pub fn start(parts: Parts) -> Result<(Handle, oneshot::Receiver<HostError>), HostError> {
    let applied = parts.replica.state().applied();
    let (inbox, inputs) = mpsc::channel(INBOX);
    let shared = Arc::new(Shared {
        replica: RwLock::new((parts.replica, Ring::new(applied))),
        standing: watch::Sender::new(Standing::default()),
        applied: watch::Sender::new(applied),
    });
    let host = Host {
        shared: shared.clone(),
        log: parts.log,
        transport: parts.transport,
        proposals: HashMap::new(),
        reads: HashMap::new(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let runtime = runtime.map_err(HostError::Start)?;
    let (failed, failure) = oneshot::channel();
    let run = move || {
        if let Err(error) = runtime.block_on(host.run(inputs, parts.links, parts.tick)) {
            // Whoever started it may be gone; then nobody has to know.
            let _ = failed.send(error);
        }
    };
    std::thread::Builder::new().name("replica".into()).spawn(run).map_err(HostError::Start)?;
    Ok((Handle { inbox, shared }, failure))
}

impl Handle {
    /// Puts a command into the log, stamped with the present time, and waits
    /// for what comes of it.
    ///
    /// # Errors
    /// Says whether it was certainly not done.
    pub async fn propose(&self, command: Command) -> Result<Applied, NotServed> {
        let (answer, answered) = oneshot::channel();
        let command = Command { now_ms: now_ms(), ..command };
        self.inbox.send(Input::Propose(command, answer)).await.map_err(|_| NotServed::NotLeader)?;
        answered.await.unwrap_or(Err(NotServed::Unknown))
    }

    /// Confirms that this replica leads, at some time after this was called.
    /// Whoever has applied the index sees all that was acknowledged before.
    ///
    /// # Errors
    /// It doesn't.
    pub async fn read_index(&self) -> Result<u64, NotServed> {
        let (answer, answered) = oneshot::channel();
        self.inbox.send(Input::Read(answer)).await.map_err(|_| NotServed::NotLeader)?;
        answered.await.unwrap_or(Err(NotServed::Unknown))
    }

    /// Hands a message from another voter over.
    pub async fn step(&self, message: Vec<u8>) {
        // A host that has ended needs no messages.
        let _ = self.inbox.send(Input::Step(message)).await;
    }

    /// Asks for the leadership to go to another voter.
    pub async fn transfer_leader(&self, to: u64) {
        let _ = self.inbox.send(Input::Transfer(to)).await;
    }

    /// Looks at the state. Keep it short: it holds up the log.
    pub fn view<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(self.shared.replica.read().0.state())
    }

    /// Looks at the state and the last changes.
    pub fn view_with_ring<T>(&self, look: impl FnOnce(&State, &Ring) -> T) -> T {
        let shared = self.shared.replica.read();
        look(shared.0.state(), &shared.1)
    }

    /// Where the replica stands.
    pub fn standing(&self) -> Standing {
        *self.shared.standing.borrow()
    }

    /// Hears of every change of where the replica stands.
    pub fn subscribe_standing(&self) -> watch::Receiver<Standing> {
        self.shared.standing.subscribe()
    }

    /// Hears of every entry that is applied.
    pub fn subscribe_applied(&self) -> watch::Receiver<u64> {
        self.shared.applied.subscribe()
    }

    /// Returns once an entry has been applied here.
    pub async fn wait_applied(&self, index: u64) {
        let mut applied = self.shared.applied.subscribe();
        // The sender lives as long as this handle.
        let _ = applied.wait_for(|applied| *applied >= index).await;
    }
}

struct Host {
    shared: Arc<Shared>,
    log: Log,
    transport: Transport,
    proposals: HashMap<Ticket, oneshot::Sender<Result<Applied, NotServed>>>,
    reads: HashMap<Ticket, Vec<oneshot::Sender<Result<u64, NotServed>>>>,
}

impl Host {
    async fn run(
        mut self,
        mut inputs: mpsc::Receiver<Input>,
        mut links: mpsc::UnboundedReceiver<LinkEvent>,
        tick: Duration,
    ) -> Result<(), HostError> {
        let mut clock = tokio::time::interval(tick);
        // Ticks missed in a pause say nothing about the others: no election for them.
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut round = Vec::with_capacity(ROUND);
        loop {
            // Each arm only waits, or takes all it returns: cancelling loses nothing.
            tokio::select! {
                taken = inputs.recv_many(&mut round, ROUND) => match taken {
                    0 => return Ok(()),
                    _ => self.take(round.drain(..)),
                },
                Some(event) = links.recv() => note(&mut self.shared.replica.write().0, event),
                _ = clock.tick() => self.shared.replica.write().0.tick(),
            }
            self.perform_all()?;
            self.publish();
        }
    }

    fn take(&mut self, round: impl Iterator<Item = Input>) {
        let shared = self.shared.clone();
        let replica = &mut shared.replica.write().0;
        let mut readers = Vec::new();
        for input in round {
            match input {
                Input::Propose(command, answer) => self.propose(replica, &command, answer),
                Input::Read(answer) => readers.push(answer),
                Input::Transfer(to) => replica.transfer_leader(to),
                Input::Step(message) => {
                    if let Err(error) = replica.step(&message) {
                        tracing::debug!(%error, "a message from another scheduler is of no use");
                    }
                }
            }
        }
        if !readers.is_empty() {
            self.read(replica, readers);
        }
    }

    fn propose(
        &mut self,
        replica: &mut Replica,
        command: &Command,
        answer: oneshot::Sender<Result<Applied, NotServed>>,
    ) {
        match replica.propose(command) {
            Ok(ticket) => {
                self.proposals.insert(ticket, answer);
            }
            // Nobody may be waiting any more, here and below; that is fine.
            Err(refused) => drop(answer.send(Err(not_served(refused)))),
        }
    }

    /// One round to the others confirms the leadership for all readers.
    fn read(&mut self, replica: &mut Replica, readers: Vec<oneshot::Sender<Result<u64, NotServed>>>) {
        match replica.read_index() {
            Ok(ticket) => {
                self.reads.insert(ticket, readers);
            }
            Err(refused) => {
                let refused = not_served(refused);
                for reader in readers {
                    let _ = reader.send(Err(refused.clone()));
                }
            }
        }
    }

    fn perform_all(&mut self) -> Result<(), HostError> {
        while let Some(effects) = self.turn()? {
            self.answer(effects);
        }
        Ok(())
    }

    /// Lets the replica work, makes durable what has to be, and sends. Until
    /// then nobody sees the state that follows from it.
    fn turn(&mut self) -> Result<Option<Effects>, HostError> {
        let shared = self.shared.clone();
        let shared = &mut *shared.replica.write();
        let Some(mut effects) = shared.0.ready()? else { return Ok(None) };
        self.send(std::mem::take(&mut effects.early), &mut shared.0);
        if !effects.persist.is_empty() {
            self.log.save(std::mem::take(&mut effects.persist))?;
        }
        if effects.restored {
            shared.1 = Ring::new(shared.0.state().applied());
        }
        for applied in std::mem::take(&mut effects.applied) {
            shared.1.push(applied.index, applied.changes);
        }
        self.send(std::mem::take(&mut effects.messages), &mut shared.0);
        Ok(Some(effects))
    }

    fn send(&self, messages: Vec<Envelope>, replica: &mut Replica) {
        for message in messages {
            let message = Outgoing { to: message.to, bytes: message.bytes, is_snapshot: message.snapshot };
            if let Some(lost) = self.transport.send(message) {
                note(replica, lost);
            }
        }
    }

    fn answer(&mut self, effects: Effects) {
        for answer in effects.answers {
            let Some(waiting) = self.proposals.remove(&answer.ticket) else { continue };
            let result = answer.result.map(|done| Applied { result: done.result, index: done.index });
            let _ = waiting.send(result.map_err(unanswered));
        }
        for read in effects.reads {
            for waiting in self.reads.remove(&read.ticket).unwrap_or_default() {
                let _ = waiting.send(read.index.map_err(unanswered));
            }
        }
    }

    fn publish(&self) {
        let (standing, applied) = {
            let replica = &self.shared.replica.read().0;
            let standing =
                Standing { leader: replica.leader(), leads: replica.leads(), term: replica.term() };
            (standing, replica.state().applied())
        };
        self.shared.applied.send_if_modified(|published| std::mem::replace(published, applied) != applied);
        self.shared.standing.send_if_modified(|published| std::mem::replace(published, standing) != standing);
    }
}

fn note(replica: &mut Replica, event: LinkEvent) {
    match event {
        LinkEvent::Unreachable(id) => replica.unreachable(id),
        LinkEvent::SnapshotSent(id) => replica.snapshot_sent(id, true),
        LinkEvent::SnapshotLost(id) => replica.snapshot_sent(id, false),
    }
}

fn not_served(refused: NotTaken) -> NotServed {
    match refused {
        NotTaken::NotLeader { .. } | NotTaken::NotReady => NotServed::NotLeader,
        NotTaken::Busy => NotServed::Overloaded,
        NotTaken::Encode(error) => NotServed::Malformed(error.to_string()),
    }
}

fn unanswered(reason: Unanswered) -> NotServed {
    match reason {
        Unanswered::Dropped => NotServed::NotLeader,
        Unanswered::Unknown => NotServed::Unknown,
    }
}
