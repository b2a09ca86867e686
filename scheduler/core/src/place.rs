//! Which node can take a task, why another can't, and which is best.
//!
//! [`feasible`] is the one answer to "can it?": placing, moving, validating
//! and explaining all ask it.

mod moving;
mod ranking;
mod tally;

pub(crate) use moving::check_move_within;
pub use moving::{Move, check_move};
pub use ranking::{Ranking, Room, Score};
pub use tally::Tally;

use crate::refusal::Obstacle;
use crate::state::{State, needs};
use dray_model::ids::{MigrationId, NodeName, TaskId};
use dray_model::resources::{Amounts, CpuMillis, MemoryBytes};
use dray_model::spec::{Labels, Template};
use dray_model::{Liveness, Migration, MigrationPhase, Node, Task};

/// What a node must offer to take one task.
#[derive(Debug, Clone)]
pub struct Needs {
    /// What it takes of the node.
    pub amounts: Amounts,
    /// Labels the node must carry.
    pub selector: Labels,
    /// Whether the task arrives as a checkpoint.
    pub restored: bool,
    /// The node it is to go away from.
    pub away_from: Option<NodeName>,
    /// Nodes that have not cleaned up after an earlier stay of the task.
    pub leftovers: Vec<(NodeName, MigrationId)>,
}

impl Needs {
    /// To start any task of a template.
    pub fn of_template(template: &Template) -> Needs {
        Needs {
            amounts: needs(template),
            selector: template.node_selector.clone(),
            restored: false,
            away_from: None,
            leftovers: Vec::new(),
        }
    }

    /// To start a task with a template.
    pub fn to_start(state: &State, task: &TaskId, template: &Template) -> Needs {
        Needs { leftovers: leftovers(state, task), ..Needs::of_template(template) }
    }

    /// To take a task over as it runs.
    pub fn to_move(state: &State, task: &Task, template: &Template) -> Needs {
        Needs { restored: true, away_from: task.node.clone(), ..Needs::to_start(state, &task.id, template) }
    }
}

fn leftovers(state: &State, task: &TaskId) -> Vec<(NodeName, MigrationId)> {
    let left = |m: &&Migration| {
        let decided = matches!(m.phase, MigrationPhase::Committed | MigrationPhase::Resumed);
        m.task == *task && decided && !state.is_cleaned(m.id)
    };
    state.migrations().values().filter(left).map(|m| (m.source.clone(), m.id)).collect()
}

/// Whether a node can take a task, as things are.
///
/// # Errors
/// The first obstacle, the most lasting kind first.
pub fn feasible(state: &State, needs: &Needs, node: &Node) -> Result<(), Obstacle> {
    feasible_with(needs, node, state.free(node))
}

/// [`feasible`], with what a plan has left free.
fn feasible_with(needs: &Needs, node: &Node, free: Amounts) -> Result<(), Obstacle> {
    check_open(node)?;
    check_selector(&needs.selector, node)?;
    if needs.restored && node.about.capabilities.criu.is_empty() {
        return Err(Obstacle::NoCriu);
    }
    if let Some((_, migration)) = needs.leftovers.iter().find(|(name, _)| *name == node.name) {
        return Err(Obstacle::Leftover { migration: *migration });
    }
    check_room(needs.amounts, free)
}

fn check_open(node: &Node) -> Result<(), Obstacle> {
    match node.liveness {
        Liveness::Lost => Err(Obstacle::Lost),
        Liveness::Ready if node.draining => Err(Obstacle::Draining),
        Liveness::Ready if node.cordoned => Err(Obstacle::Cordoned),
        Liveness::Ready => Ok(()),
    }
}

fn check_selector(selector: &Labels, node: &Node) -> Result<(), Obstacle> {
    let missing = selector.iter().find(|(key, value)| node.about.labels.get(*key) != Some(*value));
    match missing {
        Some((key, value)) => Err(Obstacle::Label { label: format!("{key}={value}") }),
        None => Ok(()),
    }
}

/// Whether an amount fits into what is free.
///
/// # Errors
/// What is short, and by how much.
pub(crate) fn check_room(needs: Amounts, free: Amounts) -> Result<(), Obstacle> {
    if needs.memory_bytes > free.memory_bytes {
        let (needs, free) = (MemoryBytes(needs.memory_bytes), MemoryBytes(free.memory_bytes));
        return Err(Obstacle::Memory { needs, free });
    }
    if needs.cpu_millis > free.cpu_millis {
        let (needs, free) = (CpuMillis(needs.cpu_millis), CpuMillis(free.cpu_millis));
        return Err(Obstacle::Cpu { needs, free });
    }
    if needs.pids > free.pids {
        return Err(Obstacle::Pids { needs: needs.pids, free: free.pids });
    }
    Ok(())
}
