//! A scheduler's disk: what was synced is there, whatever happens.

use scheduler_core::replica::{Persist, Recovered};
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub(super) struct Disk {
    snapshot: Option<Vec<u8>>,
    entries: BTreeMap<u64, Vec<u8>>,
    hard_state: Option<Vec<u8>>,
}

impl Disk {
    /// Writes and syncs: all of it or, after a crash, nothing.
    pub(super) fn persist(&mut self, persist: &Persist) {
        if persist.snapshot.is_some() {
            self.snapshot.clone_from(&persist.snapshot);
        }
        if persist.clear_entries {
            self.entries.clear();
        }
        if let Some(first) = persist.first_kept {
            self.entries = self.entries.split_off(&first);
        }
        if let Some(first) = persist.entries.first() {
            self.entries.split_off(&first.index);
        }
        self.entries.extend(persist.entries.iter().map(|entry| (entry.index, entry.bytes.clone())));
        if persist.hard_state.is_some() {
            self.hard_state.clone_from(&persist.hard_state);
        }
    }

    /// What a process finds.
    pub(super) fn recovered(&self) -> Recovered {
        Recovered {
            snapshot: self.snapshot.clone(),
            entries: self.entries.values().cloned().collect(),
            hard_state: self.hard_state.clone(),
        }
    }
}
