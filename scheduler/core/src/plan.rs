//! What to do next: the distance between what is wanted and what is.
//!
//! [`plan`] is pure. The leader proposes its steps in order and calls it
//! again once they are applied, until nothing is left to do; a step that the
//! state has overtaken is refused by `apply` and does no harm.

mod deadlines;
mod drain;
mod placement;
mod replicas;
mod rollout;

use crate::command::Op;
use crate::place::Room;
use crate::state::State;
use dray_model::ids::TaskId;
use std::collections::BTreeSet;

/// How eagerly to plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Most steps of one plan.
    pub steps_max: usize,
    /// Most migrations that draining one node keeps under way.
    pub moves_per_drain: usize,
    /// Most migrations that all drains together keep under way.
    pub moves_max: usize,
    /// How long a drain waits after a failed migration of a task before it
    /// tries that task again.
    pub retry_ms: u64,
}

impl Default for Config {
    fn default() -> Config {
        Config { steps_max: 1000, moves_per_drain: 1, moves_max: 4, retry_ms: 10_000 }
    }
}

/// Ordered commands and why.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// To be proposed in this order.
    pub steps: Vec<Step>,
    /// The tasks that the steps are about.
    tasks: BTreeSet<TaskId>,
    steps_max: usize,
}

/// One command and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What to propose.
    pub op: Op,
    /// Why, for logs and people.
    pub reason: String,
}

impl Plan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Whether it has as many steps as it may have. The rest follows in the
    /// next plan, so that none takes long.
    fn is_full(&self) -> bool {
        self.steps.len() >= self.steps_max
    }

    fn push(&mut self, op: Op, reason: impl Into<String>) {
        if !self.is_full() {
            self.steps.push(Step { op, reason: reason.into() });
        }
    }

    /// Adds a step about a task, unless there is one already: the first
    /// planner to decide about a task is the only one in this plan.
    fn push_for(&mut self, task: &TaskId, op: Op, reason: impl Into<String>) {
        if self.tasks.insert(task.clone()) {
            self.push(op, reason);
        }
    }
}

/// What to do next. A plan has at most one step about any task, so that its
/// steps don't contradict each other.
pub fn plan(state: &State, now_ms: u64, config: &Config) -> Plan {
    let mut plan = Plan { steps_max: config.steps_max, ..Plan::default() };
    deadlines::plan_aborts(state, now_ms, &mut plan);
    replicas::plan_slots(state, &mut plan);
    rollout::plan_updates(state, &mut plan);
    let mut room = Room::new(state);
    placement::plan_placements(&mut room, &mut plan);
    drain::plan_moves(&mut room, now_ms, config, &mut plan);
    plan
}
