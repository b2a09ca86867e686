//! Migrations under way, and the last that ended.

use dray_model::Migration;
use dray_model::ids::MigrationId;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// How many ended migrations are kept.
pub const FINISHED_KEPT: usize = 200;

/// The records of all migrations that matter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Migrations {
    /// How many there ever were.
    count: u64,
    records: BTreeMap<MigrationId, Migration>,
    /// Those that ended, in the order in which they did.
    finished: VecDeque<MigrationId>,
    /// Committed ones whose source was done before the target had resumed
    /// the task: they end with the latter.
    cleaned: BTreeSet<MigrationId>,
}

impl Migrations {
    /// By number.
    pub fn records(&self) -> &BTreeMap<MigrationId, Migration> {
        &self.records
    }

    /// Whether nothing is left at the source, though the target isn't done.
    pub fn is_cleaned(&self, id: MigrationId) -> bool {
        self.cleaned.contains(&id)
    }

    pub(super) fn mark_cleaned(&mut self, id: MigrationId) {
        self.cleaned.insert(id);
    }

    /// A number that no migration had.
    pub(super) fn number(&mut self) -> MigrationId {
        self.count += 1;
        MigrationId(self.count)
    }

    /// Writes a record; returns the one that is forgotten for it, if any.
    pub(super) fn put(&mut self, migration: Migration) -> Option<MigrationId> {
        let id = migration.id;
        let ended = migration.phase.is_final();
        let had_ended = self.records.get(&id).is_some_and(|old| old.phase.is_final());
        self.records.insert(id, migration);
        if ended && !had_ended {
            self.finished.push_back(id);
            self.cleaned.remove(&id);
        }
        let surplus = self.finished.len() > FINISHED_KEPT;
        let forgotten = if surplus { self.finished.pop_front() } else { None };
        if let Some(id) = forgotten {
            self.records.remove(&id);
        }
        forgotten
    }
}
