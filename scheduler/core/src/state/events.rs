//! What happened lately: a ring, oldest dropped.

use dray_model::event::Event;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// How many events are kept.
pub const EVENTS_KEPT: usize = 1000;

/// The last events, each with its position in all there ever were.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Events {
    /// The position of the first that is kept.
    first: u64,
    ring: VecDeque<Event>,
}

impl Events {
    /// Oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Event> {
        self.ring.iter()
    }

    /// The event at a position, if it is kept.
    pub fn get(&self, position: u64) -> Option<&Event> {
        let offset = position.checked_sub(self.first)?;
        self.ring.get(usize::try_from(offset).ok()?)
    }

    /// Adds one and says its position.
    pub(super) fn push(&mut self, event: Event) -> u64 {
        if self.ring.len() == EVENTS_KEPT {
            self.ring.pop_front();
            self.first += 1;
        }
        self.ring.push_back(event);
        self.first + self.ring.len() as u64 - 1
    }
}
