//! What the host must do, in this order: persist, then send, then answer.

use crate::outcome::{Change, Reply};
use crate::refusal::Refusal;

/// Everything that follows from the last inputs. The fields are in the order
/// in which the host must deal with them; if persisting fails, it must stop.
#[derive(Debug, Default)]
pub struct Effects {
    /// At once, before or while the next is made durable: what a leader tells
    /// its followers. Their disks then work at the same time as its own
    /// (Ongaro's thesis, 10.2.1).
    pub early: Vec<Envelope>,
    /// First: make this durable.
    pub persist: Persist,
    /// Then: send these. Losing them is harmless, sending them before
    /// `persist` is durable is not.
    pub messages: Vec<Envelope>,
    /// Then: answer these.
    pub answers: Vec<Answer>,
    /// Reads that may be served now from this replica's state.
    pub reads: Vec<ReadAnswer>,
    /// What each applied entry changed, for those who watch.
    pub applied: Vec<Applied>,
    /// The whole state was replaced by a leader's snapshot: those who watch
    /// have missed changes and must begin anew.
    pub restored: bool,
}

/// What must be durable before anything else happens. To be done in one
/// transaction, in the order of the fields.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Persist {
    /// Replaces the stored snapshot.
    pub snapshot: Option<Vec<u8>>,
    /// All stored entries with a smaller index are to be deleted.
    pub first_kept: Option<u64>,
    /// All stored entries are to be deleted.
    pub clear_entries: bool,
    /// To be stored in place of all entries with the same or a higher index
    /// than the first of these.
    pub entries: Vec<LogEntry>,
    /// Replaces the stored hard state.
    pub hard_state: Option<Vec<u8>>,
}

impl Persist {
    /// Whether there is nothing to store.
    pub fn is_empty(&self) -> bool {
        *self == Persist::default()
    }
}

/// One entry as it is to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// Its index.
    pub index: u64,
    /// To be handed back as they are after a restart.
    pub bytes: Vec<u8>,
}

/// What the host has stored. All of it is opaque to the host.
#[derive(Debug, Clone, Default)]
pub struct Recovered {
    /// The stored snapshot.
    pub snapshot: Option<Vec<u8>>,
    /// The stored entries, by index.
    pub entries: Vec<Vec<u8>>,
    /// The stored hard state.
    pub hard_state: Option<Vec<u8>>,
}

/// A message to another voter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// To whom.
    pub to: u64,
    /// For the other's [`super::Replica::step`].
    pub bytes: Vec<u8>,
    /// Whether it holds a snapshot: then the host must say how the sending
    /// went, by [`super::Replica::snapshot_sent`].
    pub snapshot: bool,
}

/// Names a proposal or a read until it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// What came of a proposal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The proposal.
    pub ticket: Ticket,
    /// What applying it did.
    pub result: Result<Done, Unanswered>,
}

/// A proposal that was applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// The entry's index.
    pub index: u64,
    /// The reply or the refusal.
    pub result: Result<Reply, Refusal>,
}

/// Why a proposal has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unanswered {
    /// Another leader's entry took its place: it was not done.
    #[error("another leader took over; the command was not done")]
    Dropped,
    /// This replica lost the leadership first.
    #[error(
        "another leader took over; whether the command was done is not known: repeat it with the same request id"
    )]
    Unknown,
}

/// What came of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadAnswer {
    /// The read.
    pub ticket: Ticket,
    /// The index that any replica must have applied to serve the read, which
    /// this one has; or the leadership was lost.
    pub index: Result<u64, Unanswered>,
}

/// What one entry changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The entry's index.
    pub index: u64,
    /// The objects it wrote or removed.
    pub changes: Vec<Change>,
}
