//! Whether a running task can move, and where to.

use super::{Needs, Ranking, Room, feasible_with};
use crate::refusal::{Obstacle, Refusal};
use crate::state::State;
use dray_model::ids::{NodeName, TaskId};
use dray_model::resources::Amounts;
use dray_model::spec::MigrationMode;
use dray_model::{Desired, Liveness, Task, TaskPhase};

/// A move that can begin now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// From here.
    pub source: NodeName,
    /// To here.
    pub target: NodeName,
    /// What it takes there.
    pub amounts: Amounts,
}

/// Whether a task can move now, to a given node or to the best there is.
///
/// # Errors
/// The first thing that is in the way.
pub fn check_move(state: &State, id: &TaskId, target: Option<&NodeName>) -> Result<Move, Refusal> {
    check_move_within(&Room::new(state), id, target)
}

/// [`check_move`], with what a plan has left free.
pub(crate) fn check_move_within(
    room: &Room<'_>,
    id: &TaskId,
    target: Option<&NodeName>,
) -> Result<Move, Refusal> {
    let state = room.state();
    let unknown = || Refusal::UnknownTask { task: id.clone() };
    let task = state.task(id).ok_or_else(unknown)?;
    let source = check_task(state, task)?;
    let template = state.template(&id.workload, task.revision).ok_or_else(unknown)?;
    let needs = Needs::to_move(state, task, template);
    let amounts = needs.amounts;
    let target = match target {
        Some(target) => check_target(room, task, &needs, target)?,
        None => choose_target(room, task, needs)?,
    };
    Ok(Move { source, target, amounts })
}

/// Whether the task and its node let it go.
fn check_task(state: &State, task: &Task) -> Result<NodeName, Refusal> {
    let id = || task.id.clone();
    let workload = state.workload(&task.id.workload);
    let workload = workload.ok_or_else(|| Refusal::UnknownTask { task: id() })?;
    if workload.spec.migration.mode == MigrationMode::Never {
        return Err(Refusal::NeverMoves { task: id() });
    }
    let Some(source) = &task.node else {
        return Err(Refusal::NotPlaced { task: id(), why: task.observed.message.clone() });
    };
    if task.desired == Desired::Stop {
        return Err(Refusal::Stopping { task: id() });
    }
    if let Some(migration) = task.migration {
        return Err(Refusal::AlreadyMoving { task: id(), migration });
    }
    check_source(state, task, source)?;
    if task.observed.phase != TaskPhase::Running {
        return Err(Refusal::NotRunning { task: id(), phase: task.observed.phase });
    }
    Ok(source.clone())
}

fn check_source(state: &State, task: &Task, source: &NodeName) -> Result<(), Refusal> {
    let node = state.node(source).ok_or_else(|| Refusal::UnknownNode { node: source.clone() })?;
    let obstacle = match node.liveness {
        Liveness::Lost => Obstacle::Lost,
        Liveness::Ready if node.about.capabilities.criu.is_empty() => Obstacle::NoCriu,
        Liveness::Ready => return Ok(()),
    };
    Err(Refusal::SourceUnfit { task: task.id.clone(), node: source.clone(), obstacle })
}

fn check_target(room: &Room<'_>, task: &Task, needs: &Needs, target: &NodeName) -> Result<NodeName, Refusal> {
    let node = room.state().node(target).ok_or_else(|| Refusal::UnknownNode { node: target.clone() })?;
    if task.node.as_ref() == Some(target) {
        return Err(Refusal::AlreadyThere { task: task.id.clone(), node: target.clone() });
    }
    let unfit = |obstacle| Refusal::TargetUnfit { task: task.id.clone(), node: target.clone(), obstacle };
    feasible_with(needs, node, room.free(node)).map_err(unfit)?;
    Ok(target.clone())
}

/// The best node but the one it is on.
fn choose_target(room: &Room<'_>, task: &Task, needs: Needs) -> Result<NodeName, Refusal> {
    let ranking = Ranking::new(room, &task.id.workload, needs);
    let tally = || ranking.tally().to_string();
    ranking.best().cloned().ok_or_else(|| Refusal::NoTarget { task: task.id.clone(), tally: tally() })
}
