//! The last changes, so that a watch can go on where it was.

use scheduler_core::Change;
use std::collections::{BTreeSet, VecDeque};

/// Most changes that are kept.
const KEPT: usize = 100_000;

/// Which objects changed at which index, oldest first.
#[derive(Debug, Default)]
pub struct Ring {
    /// Nothing is known of changes up to and including this index.
    floor: u64,
    changes: VecDeque<(u64, Change)>,
}

/// A watch asks for changes that are no longer known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("changes before index {floor} are no longer known; list everything again and watch from there")]
pub struct Compacted {
    /// The first index from which a watch can go on.
    pub floor: u64,
}

impl Ring {
    /// Nothing is known of what happened up to `floor`.
    pub fn new(floor: u64) -> Ring {
        Ring { floor, changes: VecDeque::new() }
    }

    /// Notes what one entry changed.
    pub fn push(&mut self, index: u64, changes: impl IntoIterator<Item = Change>) {
        self.changes.extend(changes.into_iter().map(|change| (index, change)));
        while self.changes.len() > KEPT {
            if let Some((forgotten, _)) = self.changes.pop_front() {
                self.floor = forgotten;
            }
        }
    }

    /// Everything that changed after an index, each object once.
    ///
    /// # Errors
    /// That was too long ago.
    pub fn after(&self, index: u64) -> Result<BTreeSet<&Change>, Compacted> {
        if index < self.floor {
            return Err(Compacted { floor: self.floor });
        }
        let from = self.changes.partition_point(|(at, _)| *at <= index);
        Ok(self.changes.range(from..).map(|(_, change)| change).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_found_and_what_is_not_is_said() {
        let mut ring = Ring::new(10);
        ring.push(11, [Change::Event(1), Change::Event(2)]);
        ring.push(12, [Change::Event(2)]);
        assert_eq!(ring.after(9), Err(Compacted { floor: 10 }));
        assert_eq!(ring.after(10).unwrap().len(), 2);
        assert_eq!(ring.after(11).unwrap(), BTreeSet::from([&Change::Event(2)]));
        assert!(ring.after(12).unwrap().is_empty());
    }

    #[test]
    fn an_index_of_which_half_is_forgotten_is_forgotten() {
        let mut ring = Ring::new(0);
        ring.push(1, [Change::Event(0), Change::Event(1)]);
        ring.push(2, (2..=KEPT as u64).map(Change::Event));
        assert_eq!(ring.after(0), Err(Compacted { floor: 1 }));
        assert_eq!(ring.after(1).unwrap().len(), KEPT - 1);
    }
}
