//! What one node must run and know. A pure function of the replicated state;
//! sent as a full set first and then as diffs chained by generation.

use crate::ids::{Epoch, MigrationId, NodeName, TaskId};
use crate::migration::{MigrationPhase, Milestone, Side, Step};
use crate::spec::{NodeLossPolicy, Template};
use crate::task::{Desired, Exit, TaskPhase};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

/// Everything one node must run and know.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// Grows with every change that concerns the node.
    pub generation: u64,
    /// What it owns. The right to run, and the only one.
    pub tasks: BTreeMap<TaskId, TaskAssignment>,
    /// Its part in migrations that aren't over.
    pub migrations: BTreeMap<MigrationId, MigrationAssignment>,
    /// Which node's underlay address frames for a task's address go to. Holds
    /// all placed tasks of the cluster but those on this node.
    pub routes: BTreeMap<Ipv4Addr, Ipv4Addr>,
    /// Every other node of the cluster.
    pub peers: BTreeMap<NodeName, PeerNode>,
    /// Images it should hold, by reference.
    pub images: BTreeMap<String, ImageAssignment>,
}

/// The right to run one task at one epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskAssignment {
    /// The task.
    pub task: TaskId,
    /// Fencing number.
    pub epoch: Epoch,
    /// The template's revision.
    pub revision: u64,
    /// What to run.
    pub template: Template,
    /// The task's address.
    pub ip: Ipv4Addr,
    /// Run or stop.
    pub desired: Desired,
    /// The image, if the cluster knows it.
    pub image: Option<ImageAssignment>,
    /// Whether it may be restarted elsewhere: then it runs under a lease.
    pub on_node_loss: NodeLossPolicy,
    /// Restarts counted before, so that back-off survives a move.
    pub restarts: u32,
}

/// One side's part in a migration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigrationAssignment {
    /// The migration.
    pub migration: MigrationId,
    /// Which side this node is.
    pub side: Side,
    /// What the log says.
    pub phase: MigrationPhase,
    /// As it is to run on the target: at the source's epoch plus one.
    pub task: TaskAssignment,
    /// The other side.
    pub peer: NodeName,
    /// Where the other side's agent serves.
    pub peer_address: SocketAddr,
}

/// Another node of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerNode {
    /// Where its agent serves other agents.
    pub peer_address: SocketAddr,
    /// Where tunnelled frames for it go.
    pub underlay_ip: Ipv4Addr,
    /// Its own address in the cluster's range.
    pub overlay_ip: Ipv4Addr,
}

/// An image and who has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageAssignment {
    /// The name that manifests use.
    pub reference: String,
    /// `sha256:<hex>` of its manifest.
    pub digest: String,
    /// Peer addresses of nodes that have it.
    pub holders: Vec<SocketAddr>,
}

/// The changes from one assignment to the next.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssignmentDiff {
    /// The generation it applies to.
    pub base: u64,
    /// The generation it makes.
    pub generation: u64,
    /// `None`: removed.
    pub tasks: BTreeMap<TaskId, Option<TaskAssignment>>,
    /// `None`: removed.
    pub migrations: BTreeMap<MigrationId, Option<MigrationAssignment>>,
    /// `None`: removed.
    pub routes: BTreeMap<Ipv4Addr, Option<Ipv4Addr>>,
    /// `None`: removed.
    pub peers: BTreeMap<NodeName, Option<PeerNode>>,
    /// `None`: removed.
    pub images: BTreeMap<String, Option<ImageAssignment>>,
}

/// A diff that doesn't apply to the assignment at hand.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the diff applies to generation {base}, but this is generation {generation}")]
pub struct WrongBase {
    /// What the diff applies to.
    pub base: u64,
    /// What there is.
    pub generation: u64,
}

impl Assignment {
    /// The changes that make `next` of `self`.
    pub fn diff(&self, next: &Assignment) -> AssignmentDiff {
        AssignmentDiff {
            base: self.generation,
            generation: next.generation,
            tasks: diff_map(&self.tasks, &next.tasks),
            migrations: diff_map(&self.migrations, &next.migrations),
            routes: diff_map(&self.routes, &next.routes),
            peers: diff_map(&self.peers, &next.peers),
            images: diff_map(&self.images, &next.images),
        }
    }

    /// Makes the next assignment of this one.
    ///
    /// # Errors
    /// The diff belongs to another generation; nothing has changed then.
    pub fn apply(&mut self, diff: AssignmentDiff) -> Result<(), WrongBase> {
        if diff.base != self.generation {
            return Err(WrongBase { base: diff.base, generation: self.generation });
        }
        self.generation = diff.generation;
        apply_map(&mut self.tasks, diff.tasks);
        apply_map(&mut self.migrations, diff.migrations);
        apply_map(&mut self.routes, diff.routes);
        apply_map(&mut self.peers, diff.peers);
        apply_map(&mut self.images, diff.images);
        Ok(())
    }
}

impl AssignmentDiff {
    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
            && self.migrations.is_empty()
            && self.routes.is_empty()
            && self.images.is_empty()
    }
}

fn diff_map<K: Ord + Clone, V: PartialEq + Clone>(
    old: &BTreeMap<K, V>,
    new: &BTreeMap<K, V>,
) -> BTreeMap<K, Option<V>> {
    let removed = old.keys().filter(|key| !new.contains_key(key)).map(|key| (key.clone(), None));
    let changed = new.iter().filter(|(key, value)| old.get(key) != Some(value));
    removed.chain(changed.map(|(key, value)| (key.clone(), Some(value.clone())))).collect()
}

fn apply_map<K: Ord, V>(map: &mut BTreeMap<K, V>, diff: BTreeMap<K, Option<V>>) {
    for (key, change) in diff {
        match change {
            Some(value) => map.insert(key, value),
            None => map.remove(&key),
        };
    }
}

/// What a node says of one of its tasks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskReport {
    /// The task.
    pub task: TaskId,
    /// The epoch it is about; reports about others are ignored.
    pub epoch: Epoch,
    /// Where it stands.
    pub phase: TaskPhase,
    /// Why it isn't running, for a person.
    pub message: String,
    /// Restarts on this placement.
    pub restarts: u32,
    /// How its container last ended.
    pub last_exit: Option<Exit>,
    /// Since when, in Unix milliseconds.
    pub since_ms: u64,
}

/// What one side says of its part in a migration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigrationReport {
    /// The migration.
    pub migration: MigrationId,
    /// Who says so.
    pub side: Side,
    /// What was reached.
    pub milestone: Milestone,
    /// What was done since the last report.
    pub steps: Vec<Step>,
    /// Bytes sent, when known.
    pub bytes: u64,
    /// Memory in bytes, when known.
    pub memory_bytes: u64,
    /// From freeze to resume in µs, when known (by the target).
    pub freeze_us: u64,
}

/// What a node says of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageReport {
    /// The name that manifests use.
    pub reference: String,
    /// `sha256:<hex>` of its manifest.
    pub digest: String,
    /// Bytes of all its blobs.
    pub size_bytes: u64,
    /// Whether the node no longer has it.
    pub removed: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diff_makes_the_next_assignment() {
        let mut old = Assignment { generation: 4, ..Default::default() };
        old.routes.insert(Ipv4Addr::new(10, 88, 0, 1), Ipv4Addr::new(10, 77, 0, 1));
        old.routes.insert(Ipv4Addr::new(10, 88, 0, 2), Ipv4Addr::new(10, 77, 0, 1));
        let mut new = Assignment { generation: 5, ..Default::default() };
        new.routes.insert(Ipv4Addr::new(10, 88, 0, 2), Ipv4Addr::new(10, 77, 0, 2));
        let diff = old.diff(&new);
        assert_eq!(diff.routes.len(), 2);
        old.apply(diff.clone()).unwrap();
        assert_eq!(old, new);
        assert_eq!(old.apply(diff), Err(WrongBase { base: 4, generation: 5 }));
    }
}
