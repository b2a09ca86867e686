//! What raft reads of the durable log: the same entries, kept in memory
//! since a while before the last snapshot. The host persists what
//! [`super::Persist`] says before anything else happens.

use crate::codec::digest;
use raft::prelude::{ConfState, Entry, HardState, Snapshot};
use raft::storage::RaftState;
use raft::{GetEntriesContext, Storage, StorageError};

/// The log as of what was persisted last.
#[derive(Debug, Clone)]
pub(super) struct MemoryLog {
    hard_state: HardState,
    snapshot: Snapshot,
    /// Index and term of the entry before the first that is kept.
    base: (u64, u64),
    entries: Vec<Entry>,
}

impl MemoryLog {
    /// A log that begins with a snapshot.
    pub(super) fn new(snapshot: Snapshot) -> MemoryLog {
        let at = (snapshot.get_metadata().index, snapshot.get_metadata().term);
        let hard_state = HardState { term: at.1, commit: at.0, ..HardState::default() };
        MemoryLog { hard_state, snapshot, base: at, entries: Vec::new() }
    }

    /// Takes up what was persisted before a restart. Entries that are older
    /// than the snapshot stay for followers that are a little behind.
    pub(super) fn recover(&mut self, entries: Vec<Entry>, hard_state: Option<HardState>) {
        let covered = self.base.0;
        let mut rest = entries.into_iter().skip_while(|entry| entry.index <= covered).peekable();
        if rest.peek().is_some_and(|first| first.index == covered + 1) {
            self.entries = rest.collect();
        }
        if let Some(stored) = hard_state {
            let commit = stored.commit.clamp(covered, self.last());
            self.hard_state = HardState { commit, term: stored.term.max(self.base.1), ..stored };
        }
    }

    pub(super) fn first(&self) -> u64 {
        self.base.0 + 1
    }

    pub(super) fn last(&self) -> u64 {
        self.base.0 + self.entries.len() as u64
    }

    pub(super) fn snapshot_index(&self) -> u64 {
        self.snapshot.get_metadata().index
    }

    /// Index and digest of the snapshot.
    pub(super) fn snapshot_digest(&self) -> (u64, u64) {
        (self.snapshot_index(), digest(&self.snapshot.data))
    }

    pub(super) fn voters(&self) -> &ConfState {
        self.snapshot.get_metadata().get_conf_state()
    }

    /// The term of an entry that is kept.
    pub(super) fn term_of(&self, index: u64) -> Option<u64> {
        if index == self.base.0 {
            return Some(self.base.1);
        }
        self.entries.get(self.offset(index)?).map(|entry| entry.term)
    }

    /// Appends, in place of whatever was there from the first index on.
    pub(super) fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        // Raft never replaces what was committed, and leaves no gap.
        assert!(first.index >= self.first() && first.index <= self.last() + 1, "a gap in the log");
        let kept = self.offset(first.index).unwrap_or(0);
        self.entries.truncate(kept);
        self.entries.extend_from_slice(entries);
    }

    pub(super) fn set_hard_state(&mut self, hard_state: HardState) {
        self.hard_state = hard_state;
    }

    pub(super) fn set_commit(&mut self, commit: u64) {
        self.hard_state.commit = commit;
    }

    pub(super) fn hard_state(&self) -> &HardState {
        &self.hard_state
    }

    /// Takes a leader's snapshot in place of everything.
    pub(super) fn restore(&mut self, snapshot: Snapshot) {
        self.base = (snapshot.get_metadata().index, snapshot.get_metadata().term);
        self.hard_state.commit = self.hard_state.commit.max(self.base.0);
        self.entries.clear();
        self.snapshot = snapshot;
    }

    /// Takes a snapshot of this replica's own state, and forgets all entries
    /// but the last `keep` before it.
    pub(super) fn compact(&mut self, snapshot: Snapshot, keep: u64) {
        let index = snapshot.get_metadata().index.saturating_sub(keep);
        self.snapshot = snapshot;
        if index > self.base.0
            && let Some(term) = self.term_of(index)
            && let Some(offset) = self.offset(index)
        {
            self.entries.drain(..=offset);
            self.base = (index, term);
        }
    }

    /// Where an index is in `entries`, whether there is one or not.
    fn offset(&self, index: u64) -> Option<usize> {
        usize::try_from(index.checked_sub(self.first())?).ok()
    }
}

impl Storage for MemoryLog {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(self.hard_state.clone(), self.voters().clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        let unavailable = raft::Error::Store(StorageError::Unavailable);
        let low = self.offset(low).ok_or(raft::Error::Store(StorageError::Compacted))?;
        let high = self.offset(high).ok_or(raft::Error::Store(StorageError::Compacted))?;
        let mut entries = self.entries.get(low..high).ok_or(unavailable)?.to_vec();
        raft::util::limit_size(&mut entries, max_size.into());
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        let missing = if index < self.base.0 { StorageError::Compacted } else { StorageError::Unavailable };
        self.term_of(index).ok_or(raft::Error::Store(missing))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.first())
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        if self.snapshot_index() < request_index {
            return Err(raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        }
        Ok(self.snapshot.clone())
    }
}
