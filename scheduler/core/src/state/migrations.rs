//! Migrations under way, and the last that ended.

use dray_model::Migration;
use dray_model::ids::MigrationId;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};

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
}

impl Migrations {
    /// By number.
    pub fn records(&self) -> &BTreeMap<MigrationId, Migration> {
        &self.records
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
        }
        let surplus = self.finished.len() > FINISHED_KEPT;
        let forgotten = if surplus { self.finished.pop_front() } else { None };
        if let Some(id) = forgotten {
            self.records.remove(&id);
        }
        forgotten
    }
}
