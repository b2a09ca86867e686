//! The promises, asked for after every event.

use crate::fabric::Start;
use crate::kernel::{Container, State as Run};
use crate::node::{Node, number_of};
use crate::scheduler::Scheduler;
use dray_model::ids::{InstanceId, MigrationId, TaskId};
use dray_model::{Desired, Liveness, Migration, MigrationPhase, TaskPhase};
use scheduler_core::{Change, State};
use std::collections::{BTreeMap, BTreeSet};

/// A promise that was not kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// Promise 2.
    #[error("the write {acknowledged} was acknowledged, but a later read shows {read}")]
    WriteLost {
        /// What the user was told.
        acknowledged: u64,
        /// What the user read.
        read: u64,
    },
    /// Promise 3.
    #[error("{task} runs on {} at once", .nodes.join(" and "))]
    RunsTwice {
        /// The task.
        task: TaskId,
        /// Where.
        nodes: Vec<String>,
    },
    /// Promise 4: nothing that was computed is undone.
    #[error("{task} goes on at {count} on {node}, but it had come to {seen}")]
    WentBack {
        /// The task.
        task: TaskId,
        /// Where.
        node: String,
        /// Where it goes on.
        count: u64,
        /// How far it had come.
        seen: u64,
    },
    /// Promise 4: committed means that the target has it, whole.
    #[error("{migration} is committed, but {what}")]
    CommittedBadly {
        /// The migration.
        migration: MigrationId,
        /// What is wrong.
        what: String,
    },
    /// Promise 4: aborted means that the source has it.
    #[error("{migration} is aborted, but the source no longer has the task")]
    AbortedBadly {
        /// The migration.
        migration: MigrationId,
    },
    /// Promise 4: a moved task was started anew, though its node was well.
    #[error("{instance} was moved, and then started anew")]
    MovedAndRestarted {
        /// The instance.
        instance: InstanceId,
    },
    /// Two replicas made different things of one entry.
    #[error("entry {index} changed one thing here and another there")]
    Diverged {
        /// The entry.
        index: u64,
    },
    /// A process stopped for good.
    #[error("scheduler-{id} stopped: {why}")]
    Stopped {
        /// Which.
        id: u64,
        /// Why.
        why: String,
    },
    /// All is mended, and still something isn't as it should be.
    #[error("it never came to rest: {what}")]
    Restless {
        /// What isn't.
        what: String,
    },
}

/// What was true before.
#[derive(Debug, Default)]
pub struct Checker {
    /// How far each run has come.
    seen: BTreeMap<u64, u64>,
    /// What each entry changed, on the first replica that applied it.
    history: BTreeMap<u64, Vec<Change>>,
    /// Up to which entry each replica was compared.
    compared: BTreeMap<u64, u64>,
    applied: u64,
    migrations: BTreeMap<MigrationId, Known>,
    /// Instances that came by a commit to a machine that has not booted since.
    moved: BTreeSet<InstanceId>,
    /// How many there were.
    pub committed: u64,
    /// How many there were.
    pub aborted: u64,
}

/// What was known of a migration.
#[derive(Debug, Clone, Copy)]
struct Known {
    phase: MigrationPhase,
    /// How often both machines had booted when it began.
    boots: (u64, u64),
    /// Whether the source had the task when it began.
    had: bool,
}

impl Checker {
    /// Lets time pass on all machines, and sees who runs.
    ///
    /// # Errors
    /// Two run the same task, or one runs on from too early.
    pub fn pass(&mut self, nodes: &mut BTreeMap<u64, Node>, from_ms: u64, to_ms: u64) -> Result<(), Broken> {
        let mut ran: BTreeMap<TaskId, Vec<String>> = BTreeMap::new();
        for node in nodes.values_mut() {
            let (from_ms, to_ms) = (node.clock.local(from_ms), node.clock.local(to_ms));
            for (id, container) in &mut node.kernel.containers {
                let Some(count) = container.pass(from_ms, to_ms) else { continue };
                ran.entry(id.task.clone()).or_default().push(format!("node-{}", node.id));
                let seen = self.seen.insert(container.life, container.counter).unwrap_or(0);
                if count < seen {
                    let (task, node) = (id.task.clone(), format!("node-{}", node.id));
                    return Err(Broken::WentBack { task, node, count, seen });
                }
            }
        }
        match ran.into_iter().find(|(_, nodes)| nodes.len() > 1) {
            Some((task, nodes)) => Err(Broken::RunsTwice { task, nodes }),
            None => Ok(()),
        }
    }

    /// Looks at what the schedulers have decided.
    ///
    /// # Errors
    /// They disagree, or decided what isn't so.
    pub fn decided(
        &mut self,
        schedulers: &BTreeMap<u64, Scheduler>,
        nodes: &BTreeMap<u64, Node>,
    ) -> Result<(), Broken> {
        for scheduler in schedulers.values() {
            self.compare(scheduler)?;
        }
        let states = schedulers.values().filter_map(Scheduler::state);
        let Some(newest) = states.max_by_key(|state| state.applied()) else { return Ok(()) };
        if newest.applied() > self.applied {
            self.applied = newest.applied();
            for migration in newest.migrations().values() {
                self.follow(newest, migration, nodes)?;
            }
        }
        Ok(())
    }

    fn compare(&mut self, scheduler: &Scheduler) -> Result<(), Broken> {
        let compared = self.compared.entry(scheduler.id).or_default();
        for (index, changes) in scheduler.history.range(*compared + 1..) {
            let first = self.history.entry(*index).or_insert_with(|| changes.clone());
            if first != changes {
                return Err(Broken::Diverged { index: *index });
            }
            *compared = *index;
        }
        Ok(())
    }

    fn follow(
        &mut self,
        state: &State,
        migration: &Migration,
        nodes: &BTreeMap<u64, Node>,
    ) -> Result<(), Broken> {
        let side = |name| number_of(name).and_then(|id| nodes.get(&id));
        let (Some(source), Some(target)) = (side(&migration.source), side(&migration.target)) else {
            return Ok(());
        };
        let instance = |epoch| InstanceId { task: migration.task.clone(), epoch };
        let at_source = source.kernel.containers.get(&instance(migration.epoch));
        let at_target = target.kernel.containers.get(&instance(migration.epoch.next()));
        let boots = (source.boot, target.boot);
        let begun = Known { phase: MigrationPhase::Reserved, boots, had: at_source.is_some() };
        let known = self.migrations.get(&migration.id).copied().unwrap_or(begun);
        self.migrations.insert(migration.id, Known { phase: migration.phase, ..known });
        if known.phase >= MigrationPhase::Committed {
            return Ok(());
        }
        match migration.phase {
            MigrationPhase::Reserved | MigrationPhase::Prepared | MigrationPhase::Frozen => {}
            MigrationPhase::Committed | MigrationPhase::Resumed | MigrationPhase::Cleaned => {
                self.committed += 1;
                if boots.1 == known.boots.1 {
                    check_commit(migration, at_source, at_target)?;
                    self.moved.insert(instance(migration.epoch.next()));
                }
            }
            MigrationPhase::Aborted => {
                self.aborted += 1;
                let expected = known.had && boots.0 == known.boots.0 && stays(state, migration);
                if expected && at_source.is_none() {
                    return Err(Broken::AbortedBadly { migration: migration.id });
                }
            }
        }
        Ok(())
    }

    /// A container was started from nothing.
    ///
    /// # Errors
    /// It had just come from another node, and nothing had happened to it.
    pub fn started(&mut self, start: &Start) -> Result<(), Broken> {
        let moved = self.moved.remove(&start.instance);
        if moved && !start.fell {
            return Err(Broken::MovedAndRestarted { instance: start.instance.clone() });
        }
        Ok(())
    }
}

/// Whether the source of an aborted migration still has the right to run it.
fn stays(state: &State, migration: &Migration) -> bool {
    state.task(&migration.task).is_some_and(|task| {
        task.node.as_ref() == Some(&migration.source)
            && task.epoch == migration.epoch
            && task.observed.phase != TaskPhase::Stopped
    })
}

/// At a commit the target holds exactly what the source has frozen.
fn check_commit(
    migration: &Migration,
    at_source: Option<&Container>,
    at_target: Option<&Container>,
) -> Result<(), Broken> {
    let bad = |what: &str| Broken::CommittedBadly { migration: migration.id, what: what.into() };
    let target = at_target.ok_or_else(|| bad("the target doesn't have it"))?;
    if let Some(source) = at_source {
        if source.state == Run::Running {
            return Err(bad("the source runs it"));
        }
        if (source.life, source.counter) != (target.life, target.counter) {
            return Err(bad("the target has something else"));
        }
    }
    Ok(())
}

/// What isn't at rest, once everything was mended; `None` when all is.
pub fn restless(schedulers: &BTreeMap<u64, Scheduler>, nodes: &BTreeMap<u64, Node>) -> Option<String> {
    let states: Vec<&State> = schedulers.values().filter_map(Scheduler::state).collect();
    let [first, ..] = states.as_slice() else { return Some("no scheduler is there".into()) };
    if states.len() < 3 || states.iter().any(|state| state.applied() != first.applied()) {
        return Some("the schedulers aren't level".into());
    }
    if states.iter().any(|state| state != first) {
        return Some("the schedulers' states differ".into());
    }
    restless_state(first).or_else(|| restless_nodes(first, nodes))
}

fn restless_state(state: &State) -> Option<String> {
    let lost = state.nodes().values().find(|node| node.liveness == Liveness::Lost);
    let open = state.migrations().values().find(|m| !m.phase.is_final());
    let wanted = |w: &&dray_model::Workload| state.tasks_of(&w.name).count() != w.spec.replicas as usize;
    let short = state.workloads().values().find(wanted);
    let idle = state.tasks().values().find(|task| task.observed.phase != TaskPhase::Running);
    None.or_else(|| lost.map(|node| format!("{} is lost", node.name)))
        .or_else(|| open.map(|m| format!("{} is {:?}", m.id, m.phase)))
        .or_else(|| short.map(|w| format!("{} has too few or too many tasks", w.name)))
        .or_else(|| idle.map(|task| format!("{} is {:?}", task.id, task.observed.phase)))
}

/// Every task runs where it belongs, and nothing else is there.
fn restless_nodes(state: &State, nodes: &BTreeMap<u64, Node>) -> Option<String> {
    let mut wanted = BTreeSet::new();
    for task in state.tasks().values().filter(|task| task.desired == Desired::Run) {
        let node = task.node.as_ref().and_then(number_of)?;
        wanted.insert((node, InstanceId { task: task.id.clone(), epoch: task.epoch }));
    }
    let there = |node: &Node| {
        let containers = node.kernel.containers.iter();
        containers.map(|(id, c)| (node.id, id.clone(), c.state)).collect::<Vec<_>>()
    };
    let there: Vec<_> = nodes.values().flat_map(there).collect();
    let running = there.iter().filter(|(_, _, run)| *run == Run::Running);
    let running: BTreeSet<_> = running.map(|(node, id, _)| (*node, id.clone())).collect();
    if let Some((node, id)) = wanted.difference(&running).next() {
        return Some(format!("{id} doesn't run on node-{node}"));
    }
    let left = there.iter().find(|(node, id, _)| !wanted.contains(&(*node, id.clone())));
    left.map(|(node, id, run)| format!("{id} is left on node-{node}, {run:?}"))
}
