//! The best of the nodes that will do.

use super::{Needs, Tally, feasible_with};
use crate::state::State;
use dray_model::Node;
use dray_model::ids::{NodeName, WorkloadName};
use dray_model::resources::Amounts;
use std::collections::{BTreeMap, BTreeSet};

/// How good a node is for a task; the least is best. The fields' order is
/// their weight, and the name makes every choice unambiguous.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Score {
    /// Tasks of the same workload there: a lost node should cost few.
    pub siblings: usize,
    /// How full it would be, in thousandths of its scarcest resource.
    pub load_permille: u64,
    /// The node.
    pub node: NodeName,
}

/// What is free on each node once the steps planned so far are done.
#[derive(Debug, Clone)]
pub struct Room<'a> {
    state: &'a State,
    taken: BTreeMap<NodeName, Amounts>,
}

impl<'a> Room<'a> {
    /// Nothing is planned yet.
    pub fn new(state: &'a State) -> Room<'a> {
        Room { state, taken: BTreeMap::new() }
    }

    /// The state as it is.
    pub fn state(&self) -> &'a State {
        self.state
    }

    /// Notes a planned step.
    pub fn take(&mut self, node: &NodeName, amounts: Amounts) {
        let taken = self.taken.entry(node.clone()).or_default();
        *taken = taken.plus(amounts);
    }

    /// What will be free on a node.
    pub(super) fn free(&self, node: &Node) -> Amounts {
        let taken = self.taken.get(&node.name).copied().unwrap_or_default();
        self.state.free(node).minus(taken)
    }
}

/// The nodes that will do for tasks with the same needs, best first.
#[derive(Debug, Clone)]
pub struct Ranking<'a> {
    needs: Needs,
    nodes: BTreeMap<&'a NodeName, &'a Node>,
    scores: BTreeSet<Score>,
    tally: Tally,
}

impl<'a> Ranking<'a> {
    /// Ranks all nodes for tasks of one workload.
    pub fn new(room: &Room<'a>, workload: &WorkloadName, needs: Needs) -> Ranking<'a> {
        let state = room.state;
        let siblings = siblings(state, workload);
        let mut ranking =
            Ranking { needs, nodes: BTreeMap::new(), scores: BTreeSet::new(), tally: Tally::default() };
        let away_from = ranking.needs.away_from.clone();
        for node in state.nodes().values().filter(|node| Some(&node.name) != away_from.as_ref()) {
            let free = room.free(node);
            match feasible_with(&ranking.needs, node, free) {
                Ok(()) => {
                    let there = siblings.get(&node.name).copied().unwrap_or(0);
                    ranking.tally.count_fit();
                    ranking.scores.insert(score(node, free, ranking.needs.amounts, there));
                    ranking.nodes.insert(&node.name, node);
                }
                Err(obstacle) => ranking.tally.count(obstacle),
            }
        }
        ranking
    }

    /// The best node, if any will do.
    pub fn best(&self) -> Option<&NodeName> {
        self.scores.first().map(|score| &score.node)
    }

    /// Takes the best node for one task, and ranks it anew for the next.
    pub fn take(&mut self, room: &mut Room<'a>) -> Option<NodeName> {
        let taken = self.scores.pop_first()?;
        room.take(&taken.node, self.needs.amounts);
        if let Some(node) = self.nodes.get(&taken.node) {
            let free = room.free(node);
            if let Ok(()) = feasible_with(&self.needs, node, free) {
                self.scores.insert(score(node, free, self.needs.amounts, taken.siblings + 1));
            }
        }
        Some(taken.node)
    }

    /// Why the others won't do.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }
}

fn siblings(state: &State, workload: &WorkloadName) -> BTreeMap<NodeName, usize> {
    let mut count = BTreeMap::new();
    let placed = state.tasks_of(workload).filter(|task| !state.is_vacant(task));
    for node in placed.filter_map(|task| task.node.clone()) {
        *count.entry(node).or_insert(0) += 1;
    }
    count
}

fn score(node: &Node, free: Amounts, needs: Amounts, siblings: usize) -> Score {
    let (has, left) = (node.about.capacity, free.minus(needs));
    let load = |has: u64, left: u64| has.saturating_sub(left).saturating_mul(1000).checked_div(has);
    let cpu = load(has.cpu_millis, left.cpu_millis).unwrap_or(0);
    let memory = load(has.memory_bytes, left.memory_bytes).unwrap_or(0);
    Score { siblings, load_permille: cpu.max(memory), node: node.name.clone() }
}
