//! Why no node will do, counted: `0/3 nodes: 1 cordoned, 2 insufficient
//! memory (needs 64Mi, 32Mi free)`.

use crate::refusal::Obstacle;
use std::collections::BTreeMap;
use std::fmt;

/// The obstacles of all nodes, counted by kind. Of amounts that are short it
/// keeps the one of the node that has most.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    nodes: usize,
    fits: usize,
    kinds: BTreeMap<(u8, String), (usize, Obstacle)>,
}

impl Tally {
    /// Counts a node that would do.
    pub fn count_fit(&mut self) {
        self.nodes += 1;
        self.fits += 1;
    }

    /// How many nodes would do.
    pub fn fits(&self) -> usize {
        self.fits
    }

    /// Counts a node that won't do.
    pub fn count(&mut self, obstacle: Obstacle) {
        self.nodes += 1;
        let entry = self.kinds.entry(kind(&obstacle)).or_insert_with(|| (0, obstacle.clone()));
        entry.0 += 1;
        if obstacle.free() > entry.1.free() {
            entry.1 = obstacle;
        }
    }
}

/// In which order kinds are shown, and what tells two of a kind apart.
fn kind(obstacle: &Obstacle) -> (u8, String) {
    match obstacle {
        Obstacle::Lost => (0, String::new()),
        Obstacle::Cordoned => (1, String::new()),
        Obstacle::Draining => (2, String::new()),
        Obstacle::Label { label } => (3, label.clone()),
        Obstacle::NoCriu => (4, String::new()),
        Obstacle::Leftover { .. } => (5, String::new()),
        Obstacle::Cpu { .. } => (6, String::new()),
        Obstacle::Memory { .. } => (7, String::new()),
        Obstacle::Pids { .. } => (8, String::new()),
    }
}

/// An obstacle as one item of a list.
fn item(obstacle: &Obstacle) -> String {
    match obstacle {
        Obstacle::Lost => "lost".into(),
        Obstacle::Cordoned => "cordoned".into(),
        Obstacle::Draining => "draining".into(),
        Obstacle::Label { label } => format!("without label {label}"),
        Obstacle::NoCriu => "without CRIU".into(),
        Obstacle::Leftover { .. } => "not cleaned up yet".into(),
        Obstacle::Cpu { .. } | Obstacle::Memory { .. } | Obstacle::Pids { .. } => obstacle.to_string(),
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.nodes {
            0 => write!(f, "there are none"),
            nodes => {
                let items =
                    self.kinds.values().map(|(count, obstacle)| format!("{count} {}", item(obstacle)));
                let items: Vec<String> = items.collect();
                write!(f, "{}/{nodes} nodes: {}", self.fits, items.join(", "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dray_model::resources::MemoryBytes;

    #[test]
    fn obstacles_are_counted_and_the_best_amount_is_shown() {
        let memory =
            |free: u64| Obstacle::Memory { needs: MemoryBytes(64 << 20), free: MemoryBytes(free << 20) };
        let mut tally = Tally::default();
        assert_eq!(tally.to_string(), "there are none");
        for obstacle in [memory(16), Obstacle::Cordoned, memory(32)] {
            tally.count(obstacle);
        }
        assert_eq!(tally.to_string(), "0/3 nodes: 1 cordoned, 2 insufficient memory (needs 64Mi, 32Mi free)");
    }
}
