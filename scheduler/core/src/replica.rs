//! One voter: a raft node and the state that its log makes.
//!
//! Sans-io. Inputs are [`Replica::tick`], [`Replica::step`],
//! [`Replica::propose`] and [`Replica::read_index`]; after any number of them
//! the host calls [`Replica::ready`] until it returns nothing, and performs
//! each [`Effects`] in its order: **persist, then send, then answer**; only
//! what a leader may send early goes before. The replica's state already
//! holds what the effects describe; nobody looks at it until the host has
//! persisted.
//!
//! Membership is fixed: every voter begins with the same snapshot at index 1,
//! which names all voters and holds an empty cluster.

mod effects;
mod errors;
mod log;
mod setup;
mod timeouts;

pub use effects::{
    Answer, Applied, Done, Effects, Envelope, LogEntry, Persist, ReadAnswer, Recovered, Ticket, Unanswered,
};

pub use errors::{Fatal, NotTaken, StartError, StepError};
pub use setup::Config;

use crate::apply::{apply, apply_nothing};
use crate::codec::{self, EncodeError};
use crate::command::{Command, Op};
use crate::state::State;
use log::MemoryLog;
use prost_raft::Message as _;
use raft::prelude::{Entry, EntryType, Message, MessageType, Snapshot};
use raft::{RawNode, SnapshotStatus, StateRole};
use setup::{decode, first_snapshot, raft_config, snapshot};
use std::collections::BTreeMap;
use timeouts::enforce_timeout;

/// One voter.
pub struct Replica {
    raw: RawNode<MemoryLog>,
    state: State,
    config: Config,
    tickets: u64,
    /// Proposals under way, by index: the term and ticket of each.
    proposals: BTreeMap<u64, (u64, Ticket)>,
    /// Reads that raft has confirmed for an index not applied yet.
    confirmed: Vec<(Ticket, u64)>,
    /// Reads that raft has not confirmed.
    reads: Vec<Ticket>,
    /// Index and digest of the last snapshot.
    digest: (u64, u64),
    /// Whether the other voters have yet to compare their snapshot with it.
    compare: bool,
}

impl Replica {
    /// Begins, with what was persisted before, if anything was.
    ///
    /// # Errors
    /// What was stored can't be used.
    pub fn new(config: Config, stored: Recovered, logger: &slog::Logger) -> Result<Replica, StartError> {
        let snapshot = match &stored.snapshot {
            Some(bytes) => decode("snapshot", bytes)?,
            None => first_snapshot(&config)?,
        };
        let state = codec::decode_state(&snapshot.data)?;
        let entries: Result<Vec<Entry>, _> = stored.entries.iter().map(|e| decode("entry", e)).collect();
        let hard_state = stored.hard_state.as_deref().map(|bytes| decode("hard state", bytes)).transpose()?;
        let mut log = MemoryLog::new(snapshot);
        log.recover(entries?, hard_state);
        let raft = raft_config(&config, log.snapshot_index());
        raft.validate()?;
        let mut raw = RawNode::new(&raft, log, logger)?;
        enforce_timeout(&mut raw, config.seed);
        let (proposals, confirmed, reads) = (BTreeMap::new(), Vec::new(), Vec::new());
        let digest = raw.store().snapshot_digest();
        Ok(Replica { raw, state, config, tickets: 0, proposals, confirmed, reads, digest, compare: false })
    }

    /// The replicated state as of the last entry that was applied here.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// This voter.
    pub fn id(&self) -> u64 {
        self.config.id
    }

    /// The present term.
    pub fn term(&self) -> u64 {
        self.raw.raft.term
    }

    /// Who leads, as far as this voter knows.
    pub fn leader(&self) -> Option<u64> {
        Some(self.raw.raft.leader_id).filter(|id| *id != raft::INVALID_ID)
    }

    /// Whether this voter leads and has applied all that its predecessors
    /// committed: only then may it plan and answer.
    pub fn leads(&self) -> bool {
        let applied = self.raw.store().term_of(self.state.applied());
        self.raw.raft.state == StateRole::Leader && applied == Some(self.raw.raft.term)
    }

    /// One tick of the clock has passed.
    pub fn tick(&mut self) {
        self.raw.tick();
        enforce_timeout(&mut self.raw, self.config.seed);
    }

    /// A message from another voter has arrived.
    ///
    /// # Errors
    /// It can't be used; nothing has changed.
    pub fn step(&mut self, bytes: &[u8]) -> Result<(), StepError> {
        let message = Message::decode(bytes)?;
        if message.to != self.config.id {
            return Err(StepError::Misdirected { to: message.to });
        }
        // A proposal or a read that a follower passed on would have no answer.
        if matches!(message.get_msg_type(), MessageType::MsgPropose | MessageType::MsgReadIndex) {
            return Err(StepError::Raft(raft::Error::ProposalDropped));
        }
        let stepped = self.raw.step(message);
        enforce_timeout(&mut self.raw, self.config.seed);
        Ok(stepped?)
    }

    /// Puts a command into the log. Its answer comes with some later effects.
    ///
    /// # Errors
    /// It was not taken up; nothing has changed.
    pub fn propose(&mut self, command: &Command) -> Result<Ticket, NotTaken> {
        self.check_leads()?;
        let before = self.raw.raft.raft_log.last_index();
        let bytes = codec::encode_command(command)?;
        self.raw.propose(Vec::new(), bytes).map_err(|_| NotTaken::Busy)?;
        let index = before + 1;
        debug_assert_eq!(self.raw.raft.raft_log.last_index(), index, "one proposal, one entry");
        let ticket = self.ticket();
        self.proposals.insert(index, (self.raw.raft.term, ticket));
        Ok(ticket)
    }

    /// Asks whether this voter still leads, so that what it has applied by
    /// then may be read.
    ///
    /// # Errors
    /// It was not taken up.
    pub fn read_index(&mut self) -> Result<Ticket, NotTaken> {
        self.check_leads()?;
        let ticket = self.ticket();
        self.raw.read_index(ticket.0.to_be_bytes().to_vec());
        self.reads.push(ticket);
        Ok(ticket)
    }

    /// Hands the leadership to another voter, before a planned stop.
    pub fn transfer_leader(&mut self, to: u64) {
        self.raw.transfer_leader(to);
    }

    /// A message to a voter could not be sent.
    pub fn unreachable(&mut self, id: u64) {
        self.raw.report_unreachable(id);
    }

    /// Says how the sending of a snapshot went. Without this raft sends that
    /// voter nothing more.
    pub fn snapshot_sent(&mut self, to: u64, arrived: bool) {
        let status = if arrived { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
        self.raw.report_snapshot(to, status);
    }

    /// What the host must do now; `None` when there is nothing.
    ///
    /// # Errors
    /// The process must stop.
    pub fn ready(&mut self) -> Result<Option<Effects>, Fatal> {
        let mut effects = Effects::default();
        self.fail_if_deposed(&mut effects);
        if self.raw.has_ready() {
            self.turn(&mut effects)?;
        }
        self.serve_reads(&mut effects);
        let idle = effects.persist.is_empty()
            && effects.early.is_empty()
            && effects.messages.is_empty()
            && effects.answers.is_empty()
            && effects.reads.is_empty()
            && effects.applied.is_empty()
            && !effects.restored;
        Ok(if idle { None } else { Some(effects) })
    }

    /// One round of raft's own cycle. What it calls persisted here, the host
    /// persists before anything of these effects is seen outside.
    fn turn(&mut self, effects: &mut Effects) -> Result<(), Fatal> {
        let mut ready = self.raw.ready();
        effects.early = envelopes(&ready.take_messages());
        if !ready.snapshot().is_empty() {
            self.restore(ready.snapshot().clone(), effects)?;
        }
        self.apply_entries(ready.take_committed_entries(), effects)?;
        self.raw.mut_store().append(ready.entries());
        effects.persist.entries = ready.entries().iter().map(log_entry).collect();
        if let Some(hard_state) = ready.hs() {
            self.raw.mut_store().set_hard_state(hard_state.clone());
        }
        // A commit index alone is not worth a sync: a restart finds it again.
        if ready.must_sync() {
            effects.persist.hard_state = Some(self.raw.store().hard_state().encode_to_vec());
        }
        effects.messages = envelopes(&ready.take_persisted_messages());
        self.confirmed.extend(ready.take_read_states().iter().filter_map(|read| {
            let number = u64::from_be_bytes(read.request_ctx.as_slice().try_into().ok()?);
            Some((Ticket(number), read.index))
        }));

        let mut light = self.raw.advance(ready);
        if let Some(commit) = light.commit_index() {
            self.raw.mut_store().set_commit(commit);
        }
        effects.messages.extend(envelopes(&light.take_messages()));
        self.apply_entries(light.take_committed_entries(), effects)?;
        self.raw.advance_apply();
        self.propose_comparison()?;
        enforce_timeout(&mut self.raw, self.config.seed);
        Ok(())
    }

    fn apply_entries(&mut self, entries: Vec<Entry>, effects: &mut Effects) -> Result<(), Fatal> {
        entries.into_iter().try_for_each(|entry| self.apply_entry(&entry, effects))
    }

    fn apply_entry(&mut self, entry: &Entry, effects: &mut Effects) -> Result<(), Fatal> {
        let index = entry.index;
        if entry.get_entry_type() != EntryType::EntryNormal {
            return Err(Fatal::Membership { index });
        }
        if entry.data.is_empty() {
            apply_nothing(&mut self.state, index);
            effects.applied.push(Applied { index, changes: Vec::new() });
        } else {
            let command = codec::decode_command(&entry.data);
            let command = command.map_err(|cause| Fatal::Entry { index, cause })?;
            self.compare_with(&command.op)?;
            let outcome = apply(&mut self.state, index, &command);
            effects.applied.push(Applied { index, changes: outcome.changes });
            self.answer(entry, outcome.result, effects);
        }
        if index.is_multiple_of(self.config.snapshot_every) {
            self.compact(entry, effects)?;
        }
        Ok(())
    }

    /// Answers the proposal that had this index, if it was made here.
    fn answer(&mut self, entry: &Entry, result: Result<crate::Reply, crate::Refusal>, effects: &mut Effects) {
        if let Some((term, ticket)) = self.proposals.remove(&entry.index) {
            let done = Done { index: entry.index, result };
            let result = if term == entry.term { Ok(done) } else { Err(Unanswered::Dropped) };
            effects.answers.push(Answer { ticket, result });
        }
    }

    /// Takes a leader's snapshot in place of all that is here.
    fn restore(&mut self, snapshot: Snapshot, effects: &mut Effects) -> Result<(), Fatal> {
        self.state = codec::decode_state(&snapshot.data)?;
        effects.persist.snapshot = Some(snapshot.encode_to_vec());
        effects.persist.clear_entries = true;
        effects.restored = true;
        self.raw.mut_store().restore(snapshot);
        self.digest = self.raw.store().snapshot_digest();
        Ok(())
    }

    /// Takes a snapshot of the state as of an entry that was just applied.
    fn compact(&mut self, entry: &Entry, effects: &mut Effects) -> Result<(), Fatal> {
        let voters = self.raw.store().voters().clone();
        let snapshot = snapshot(&self.state, entry.term, voters)?;
        effects.persist.snapshot = Some(snapshot.encode_to_vec());
        self.raw.mut_store().compact(snapshot, self.config.entries_kept);
        effects.persist.first_kept = Some(self.raw.store().first());
        self.digest = self.raw.store().snapshot_digest();
        self.compare = true;
        Ok(())
    }

    /// The leader has every replica compare snapshots once per snapshot. If
    /// the proposal is lost, the next snapshot's will do.
    fn propose_comparison(&mut self) -> Result<(), EncodeError> {
        if std::mem::take(&mut self.compare) && self.leads() {
            let (index, digest) = self.digest;
            let op = Op::Compare { encoding: codec::VERSION, index, digest };
            let command = Command::new(self.state.clock_ms(), op);
            // Refused only when too much is under way.
            drop(self.raw.propose(Vec::new(), codec::encode_command(&command)?));
        }
        Ok(())
    }

    fn compare_with(&self, op: &Op) -> Result<(), Fatal> {
        let Op::Compare { encoding, index, digest } = op else { return Ok(()) };
        let comparable = *encoding == codec::VERSION && self.digest.0 == *index;
        if comparable && self.digest.1 != *digest { Err(Fatal::Diverged { index: *index }) } else { Ok(()) }
    }

    /// Once the leadership is lost, nobody here will hear of the rest.
    fn fail_if_deposed(&mut self, effects: &mut Effects) {
        if self.raw.raft.state == StateRole::Leader {
            return;
        }
        let unknown = Unanswered::Unknown;
        let proposals = std::mem::take(&mut self.proposals).into_values();
        effects.answers.extend(proposals.map(|(_, ticket)| Answer { ticket, result: Err(unknown) }));
        self.confirmed.clear();
        let reads = std::mem::take(&mut self.reads).into_iter();
        effects.reads.extend(reads.map(|ticket| ReadAnswer { ticket, index: Err(unknown) }));
    }

    fn serve_reads(&mut self, effects: &mut Effects) {
        let applied = self.state.applied();
        let served = self.confirmed.extract_if(.., |(_, index)| *index <= applied);
        for (ticket, index) in served {
            self.reads.retain(|waiting| *waiting != ticket);
            effects.reads.push(ReadAnswer { ticket, index: Ok(index) });
        }
    }

    fn check_leads(&self) -> Result<(), NotTaken> {
        match self.raw.raft.state {
            StateRole::Leader if self.leads() => Ok(()),
            StateRole::Leader => Err(NotTaken::NotReady),
            StateRole::Follower | StateRole::Candidate | StateRole::PreCandidate => {
                Err(NotTaken::NotLeader { leader: self.leader() })
            }
        }
    }

    fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }
}

fn envelopes(messages: &[Message]) -> Vec<Envelope> {
    let envelope = |message: &Message| Envelope {
        to: message.to,
        bytes: message.encode_to_vec(),
        snapshot: message.get_msg_type() == MessageType::MsgSnapshot,
    };
    messages.iter().map(envelope).collect()
}

fn log_entry(entry: &Entry) -> LogEntry {
    LogEntry { index: entry.index, bytes: entry.encode_to_vec() }
}
