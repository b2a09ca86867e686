//! Random commands, and what must be true after each.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use dray_model::assignment::{MigrationReport, TaskReport};
use dray_model::ids::{Epoch, MigrationId, NodeName, TaskId, WorkloadName};
use dray_model::migration::{Milestone, Side};
use dray_model::node::{About, Capabilities};
use dray_model::resources::Amounts;
use dray_model::spec::{Labels, WorkloadSpec};
use dray_model::{Desired, Liveness, MigrationPhase, TaskPhase};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use scheduler_core::codec::{decode_state, encode_state};
use scheduler_core::plan::Config;
use scheduler_core::{Command, Op, Refusal, Reply, State, apply, assignment, plan};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};

/// What happens next, in numbers that always mean something.
#[derive(Debug, Clone)]
enum Input {
    Register { node: u8, boot: u8 },
    Lose { node: u8 },
    Apply { workload: u8, replicas: u32, memory_mib: u64, never: bool, wait: bool },
    Scale { workload: u8, replicas: u32 },
    Delete { workload: u8 },
    Cordon { node: u8, drain: bool },
    Uncordon { node: u8 },
    Migrate { workload: u8, slot: u32, target: Option<u8> },
    Abort { pick: u8 },
    Tell { node: u8, pick: u8, phase: TaskPhase, old: bool },
    Milestone { pick: u8, side: Side, milestone: Milestone },
    Stop { workload: u8, slot: u32 },
    Place { workload: u8, slot: u32, node: u8 },
    Plan,
    Obey { node: u8 },
    Wait { seconds: u64 },
}

fn input() -> impl Strategy<Value = Input> {
    let (node, workload, slot) = (0..4u8, 0..3u8, 0..3u32);
    let phase = prop_oneof![
        Just(TaskPhase::Pending),
        Just(TaskPhase::Running),
        Just(TaskPhase::BackOff),
        Just(TaskPhase::Failed),
        Just(TaskPhase::Stopped),
        Just(TaskPhase::Unknown),
    ];
    let milestone = prop_oneof![
        Just(Milestone::Prepared),
        Just(Milestone::Frozen),
        Just(Milestone::Restored),
        Just(Milestone::Resumed),
        Just(Milestone::Cleaned),
        Just(Milestone::Failed { failure: "it failed".into() }),
    ];
    let side = prop_oneof![Just(Side::Source), Just(Side::Target)];
    let apply = (workload.clone(), 0..4u32, 100..600u64, any::<bool>(), any::<bool>());
    prop_oneof![
        2 => (node.clone(), 0..2u8).prop_map(|(node, boot)| Input::Register { node, boot }),
        2 => node.clone().prop_map(|node| Input::Lose { node }),
        2 => apply.prop_map(|(workload, replicas, memory_mib, never, wait)| {
            Input::Apply { workload, replicas, memory_mib, never, wait }
        }),
        1 => (workload.clone(), 0..4u32).prop_map(|(workload, replicas)| Input::Scale { workload, replicas }),
        1 => workload.clone().prop_map(|workload| Input::Delete { workload }),
        1 => (node.clone(), any::<bool>()).prop_map(|(node, drain)| Input::Cordon { node, drain }),
        1 => node.clone().prop_map(|node| Input::Uncordon { node }),
        3 => (workload.clone(), slot.clone(), proptest::option::of(node.clone()))
            .prop_map(|(workload, slot, target)| Input::Migrate { workload, slot, target }),
        1 => any::<u8>().prop_map(|pick| Input::Abort { pick }),
        2 => (node.clone(), any::<u8>(), phase, any::<bool>())
            .prop_map(|(node, pick, phase, old)| Input::Tell { node, pick, phase, old }),
        6 => (any::<u8>(), side, milestone)
            .prop_map(|(pick, side, milestone)| Input::Milestone { pick, side, milestone }),
        1 => (workload.clone(), slot.clone()).prop_map(|(workload, slot)| Input::Stop { workload, slot }),
        1 => (workload, slot, node.clone())
            .prop_map(|(workload, slot, node)| Input::Place { workload, slot, node }),
        6 => Just(Input::Plan),
        5 => node.prop_map(|node| Input::Obey { node }),
        1 => (1..30u64).prop_map(|seconds| Input::Wait { seconds }),
    ]
}

fn node(number: u8) -> NodeName {
    format!("node-{number}").parse().unwrap()
}

fn workload(number: u8) -> WorkloadName {
    format!("w{number}").parse().unwrap()
}

fn about(number: u8, boot: u8) -> About {
    About {
        boot_id: format!("boot-{boot}"),
        labels: Labels::new(),
        capacity: Amounts { cpu_millis: 4000, memory_bytes: 1 << 30, pids: 1000 },
        peer_address: SocketAddr::from(([10, 77, 0, number], 7002)),
        underlay_ip: Ipv4Addr::new(10, 77, 0, number),
        capabilities: Capabilities { criu: "4.2.1".into(), ..Capabilities::default() },
    }
}

fn spec(replicas: u32, memory_mib: u64, never: bool, wait: bool) -> WorkloadSpec {
    serde_json::from_value(serde_json::json!({
        "kind": "service", "replicas": replicas,
        "template": {"containers": [{
            "name": "main", "image": "redis:7",
            "resources": {"requests": {"memory": format!("{memory_mib}Mi")}},
        }]},
        "migration": {"mode": if never { "never" } else { "auto" }},
        "onNodeLoss": if wait { "wait" } else { "restart" },
    }))
    .unwrap()
}

/// Two replicas that apply the same log, and what was true before.
struct World {
    state: State,
    other: State,
    now_ms: u64,
    /// The highest epoch that any node was given.
    given: BTreeMap<TaskId, Epoch>,
    /// The highest epoch that a migration offered to its target.
    offered: BTreeMap<TaskId, Epoch>,
}

impl World {
    fn new() -> World {
        let state = State::new("10.88.0.0/24".parse().unwrap());
        let (given, offered) = (BTreeMap::new(), BTreeMap::new());
        let mut world = World { other: state.clone(), state, now_ms: 1_000_000, given, offered };
        // Something to begin with: three nodes that run two tasks.
        let nodes = (0..3).map(|node| Input::Register { node, boot: 0 });
        let spec = Input::Apply { workload: 0, replicas: 2, memory_mib: 200, never: false, wait: false };
        let obey = (0..3).map(|node| Input::Obey { node });
        let import = Op::ImportImage {
            node: node(0),
            reference: "redis:7".into(),
            digest: "sha256:a".into(),
            size_bytes: 1,
        };
        nodes.for_each(|input| world.run(&input).unwrap());
        world.apply(import).unwrap().unwrap();
        for input in [spec, Input::Plan, Input::Plan].into_iter().chain(obey) {
            world.run(&input).unwrap();
        }
        world
    }

    /// Applies one entry on both replicas and checks everything.
    fn apply(&mut self, op: Op) -> Result<Result<Reply, Refusal>, TestCaseError> {
        self.now_ms += 1;
        let command = Command { now_ms: self.now_ms, request_id: None, op };
        let before = self.state.clone();
        let index = before.applied() + 1;
        let outcome = apply(&mut self.state, index, &command);
        // The second replica reads the entry and its state from bytes.
        let bytes = scheduler_core::codec::encode_command(&command).unwrap();
        let same = scheduler_core::codec::decode_command(&bytes).unwrap();
        let second = apply(&mut self.other, index, &same);
        prop_assert_eq!(&outcome, &second, "replicas differ");
        if outcome.result.is_err() {
            prop_assert!(outcome.changes.is_empty(), "a refusal changed {:?}", outcome.changes);
            prop_assert_eq!(before.tasks(), self.state.tasks(), "a refusal changed tasks");
            prop_assert_eq!(before.migrations(), self.state.migrations(), "a refusal changed migrations");
        }
        states_only_advance(&before, &self.state)?;
        self.epochs_only_grow(&before)?;
        one_owner_and_one_address(&self.state)?;
        capacity_holds(&self.state)?;
        fences_are_true(&self.state)?;
        at_most_one_node_is_told_to_run(&self.state)?;
        Ok(outcome.result)
    }

    /// An epoch is given once, and never below one that was given before,
    /// even to a task of the same name that was created later. What a
    /// migration offered to its target is given by that commit or never.
    fn epochs_only_grow(&mut self, before: &State) -> Result<(), TestCaseError> {
        for task in self.state.tasks().values().filter(|task| task.node.is_some()) {
            let old = before.task(&task.id).filter(|old| old.node.is_some());
            let same_right = old.is_some_and(|old| old.epoch == task.epoch && old.node == task.node);
            let highest = self.given.entry(task.id.clone()).or_default();
            if same_right {
                prop_assert_eq!(task.epoch, *highest, "{} went back", task.id);
                continue;
            }
            prop_assert!(task.epoch > *highest, "{} was given epoch {} again", task.id, task.epoch);
            *highest = task.epoch;
            let committed = task.migration.is_some();
            let offered = self.offered.get(&task.id).copied().unwrap_or_default();
            prop_assert!(committed || task.epoch > offered, "{} was given what was offered", task.id);
        }
        for migration in self.state.migrations().values() {
            let offered = self.offered.entry(migration.task.clone()).or_default();
            *offered = migration.epoch.next().max(*offered);
        }
        Ok(())
    }

    fn run(&mut self, input: &Input) -> Result<(), TestCaseError> {
        match input {
            Input::Plan => self.plan(),
            Input::Obey { node: number } => self.obey(&node(*number)),
            Input::Wait { seconds } => {
                self.now_ms += seconds * 1000;
                Ok(())
            }
            simple => match self.op(simple) {
                Some(op) => self.apply(op).map(drop),
                None => Ok(()),
            },
        }
    }

    /// A plan that is proposed at once is accepted in every step.
    fn plan(&mut self) -> Result<(), TestCaseError> {
        let plan = plan(&self.state, self.now_ms, &Config::default());
        prop_assert_eq!(&plan, &scheduler_core::plan(&self.other, self.now_ms, &Config::default()));
        for step in plan.steps {
            let refusal = self.apply(step.op.clone())?.err();
            prop_assert_eq!(refusal, None, "the plan's own step {:?} is refused", step);
        }
        Ok(())
    }

    fn obey(&mut self, name: &NodeName) -> Result<(), TestCaseError> {
        let Some(session) = self.state.session(name) else { return Ok(()) };
        let tasks = assignment(&self.state, name).tasks.into_values().map(|task| TaskReport {
            phase: if task.desired == Desired::Run { TaskPhase::Running } else { TaskPhase::Stopped },
            task: task.task,
            epoch: task.epoch,
            message: String::new(),
            restarts: 0,
            last_exit: None,
            since_ms: self.now_ms,
        });
        let tasks = tasks.collect();
        let report = Op::Report { node: name.clone(), session, tasks, migrations: vec![], images: vec![] };
        self.apply(report).map(drop)
    }

    fn op(&self, input: &Input) -> Option<Op> {
        let task = |number: &u8, slot: &u32| TaskId { workload: workload(*number), slot: *slot };
        Some(match input {
            Input::Register { node: n, boot } => {
                Op::RegisterNode { name: node(*n), about: Box::new(about(*n, *boot)) }
            }
            Input::Lose { node: n } => {
                Op::LoseNode { node: node(*n), session: self.state.session(&node(*n)).unwrap_or(0) }
            }
            Input::Apply { workload: w, replicas, memory_mib, never, wait } => Op::ApplyWorkload {
                name: workload(*w),
                labels: Labels::new(),
                spec: Box::new(spec(*replicas, *memory_mib, *never, *wait)),
                etag: None,
            },
            Input::Scale { workload: w, replicas } => {
                Op::ScaleWorkload { name: workload(*w), replicas: *replicas, etag: None }
            }
            Input::Delete { workload: w } => Op::DeleteWorkload { name: workload(*w), etag: None },
            Input::Cordon { node: n, drain: true } => Op::Drain { node: node(*n) },
            Input::Cordon { node: n, drain: false } => Op::Cordon { node: node(*n) },
            Input::Uncordon { node: n } => Op::Uncordon { node: node(*n) },
            Input::Migrate { workload: w, slot, target } => {
                let target = target.map(node);
                Op::CreateMigration { task: task(w, slot), target, reason: "user".into() }
            }
            Input::Abort { pick } => Op::AbortMigration { id: self.pick(*pick)?, failure: "user".into() },
            Input::Stop { workload: w, slot } => Op::StopTask { task: task(w, slot) },
            Input::Place { workload: w, slot, node: n } => Op::Place { task: task(w, slot), node: node(*n) },
            Input::Tell { node: n, pick, phase, old } => self.tell(&node(*n), *pick, *phase, *old)?,
            Input::Milestone { pick, side, milestone } => self.milestone(*pick, *side, milestone)?,
            Input::Plan | Input::Obey { .. } | Input::Wait { .. } => return None,
        })
    }

    /// Any migration, rather a late one.
    fn pick(&self, pick: u8) -> Option<MigrationId> {
        let ids: Vec<MigrationId> = self.state.migrations().keys().rev().take(3).copied().collect();
        ids.get(usize::from(pick) % ids.len().max(1)).copied()
    }

    /// Any node says anything of any task, true or not.
    fn tell(&self, name: &NodeName, pick: u8, phase: TaskPhase, old: bool) -> Option<Op> {
        let tasks: Vec<_> = self.state.tasks().values().collect();
        let task = tasks.get(usize::from(pick) % tasks.len().max(1))?;
        let report = TaskReport {
            task: task.id.clone(),
            epoch: Epoch(task.epoch.0.saturating_sub(u64::from(old))),
            phase,
            message: String::new(),
            restarts: 0,
            last_exit: None,
            since_ms: self.now_ms,
        };
        let session = self.state.session(name)?;
        Some(Op::Report {
            node: name.clone(),
            session,
            tasks: vec![report],
            migrations: vec![],
            images: vec![],
        })
    }

    fn milestone(&self, pick: u8, side: Side, milestone: &Milestone) -> Option<Op> {
        let migration = self.state.migration(self.pick(pick)?)?;
        let name = if side == Side::Source { &migration.source } else { &migration.target };
        let report = MigrationReport {
            migration: migration.id,
            side,
            milestone: milestone.clone(),
            steps: vec![],
            bytes: 0,
            memory_bytes: 0,
            freeze_us: 0,
        };
        let session = self.state.session(name)?;
        Some(Op::Report {
            node: name.clone(),
            session,
            tasks: vec![],
            migrations: vec![report],
            images: vec![],
        })
    }
}

fn states_only_advance(before: &State, after: &State) -> Result<(), TestCaseError> {
    for (id, new) in after.migrations() {
        let Some(old) = before.migration(*id) else { continue };
        prop_assert!(new.phase >= old.phase, "{} went from {:?} to {:?}", id, old.phase, new.phase);
        let decided = |phase| matches!(phase, MigrationPhase::Aborted);
        let committed = !old.is_undecided() && !decided(old.phase);
        prop_assert!(!(committed && decided(new.phase)), "{} was committed, then aborted", id);
    }
    for (id, new) in after.tasks() {
        let Some(old) = before.task(id) else { continue };
        let same = old.epoch == new.epoch && old.created_ms == new.created_ms;
        let revived = old.desired == Desired::Stop && new.desired == Desired::Run;
        prop_assert!(!(same && revived), "{} was stopped and told to run at one epoch", id);
        let ended = old.observed.phase == TaskPhase::Stopped;
        prop_assert!(
            !(same && ended && new.observed.phase != TaskPhase::Stopped),
            "{} ran after its end",
            id
        );
    }
    prop_assert!(after.clock_ms() >= before.clock_ms());
    Ok(())
}

fn one_owner_and_one_address(state: &State) -> Result<(), TestCaseError> {
    let mut seen = BTreeSet::new();
    let tasks = state.tasks().values().map(|task| task.ip);
    for ip in tasks.chain(state.nodes().values().map(|node| node.overlay_ip)) {
        prop_assert!(seen.insert(ip), "{} is given twice", ip);
        prop_assert!(state.cidr().index(ip).is_some_and(|index| index > 1), "{} is not a host", ip);
    }
    for name in state.nodes().keys() {
        for task in state.tasks_on(name) {
            prop_assert_eq!(task.node.as_ref(), Some(name), "the index by node is wrong");
        }
    }
    Ok(())
}

fn capacity_holds(state: &State) -> Result<(), TestCaseError> {
    for node in state.nodes().values() {
        let used = state.used(&node.name);
        prop_assert!(used.fits(node.about.capacity), "{} is overcommitted: {:?}", node.name, used);
    }
    Ok(())
}

/// A task is fenced by exactly its own undecided migration.
fn fences_are_true(state: &State) -> Result<(), TestCaseError> {
    for migration in state.migrations().values().filter(|m| m.is_undecided()) {
        let task = state.task(&migration.task);
        let fenced = task.is_some_and(|task| {
            task.migration == Some(migration.id)
                && task.epoch == migration.epoch
                && task.node.as_ref() == Some(&migration.source)
                && task.desired == Desired::Run
        });
        prop_assert!(fenced, "{} doesn't fence its task", migration.id);
        let target = state.node(&migration.target);
        prop_assert!(target.is_some_and(|node| node.liveness == Liveness::Ready), "a lost target");
    }
    for migration in state.migrations().values().filter(|m| !m.phase.is_final()) {
        let task = state.task(&migration.task);
        prop_assert!(task.is_some(), "{} goes on without its task", migration.id);
        let awaited = task.is_some_and(|task| task.epoch == migration.epoch.next());
        prop_assert!(!state.is_cleaned(migration.id) || awaited, "{} waits for nobody", migration.id);
    }
    for task in state.tasks().values() {
        let open = task.migration.and_then(|id| state.migration(id));
        prop_assert!(task.migration.is_none() || open.is_some_and(|m| m.task == task.id));
        prop_assert!(open.is_none_or(|m| m.phase < MigrationPhase::Resumed), "fenced by what is over");
    }
    Ok(())
}

fn at_most_one_node_is_told_to_run(state: &State) -> Result<(), TestCaseError> {
    let mut told = BTreeSet::new();
    for name in state.nodes().keys() {
        for task in assignment(state, name).tasks.into_keys() {
            prop_assert!(told.insert(task.clone()), "{} is assigned twice", task);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 200,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct("tests/properties.regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn whatever_happens_the_state_is_sound(inputs in proptest::collection::vec(input(), 1..120)) {
        let mut world = World::new();
        for (step, input) in inputs.iter().enumerate() {
            world.run(input)?;
            if step % 16 == 0 {
                // A replica that restarts from a snapshot goes on as the same.
                let bytes = encode_state(&world.other).unwrap();
                let restored = decode_state(&bytes).unwrap();
                prop_assert_eq!(&restored, &world.other, "a snapshot loses something");
                world.other = restored;
            }
        }
        prop_assert_eq!(encode_state(&world.state).unwrap(), encode_state(&world.other).unwrap());
    }

    #[test]
    fn the_planner_comes_to_an_end(inputs in proptest::collection::vec(input(), 1..60)) {
        let mut world = World::new();
        for input in &inputs {
            world.run(input)?;
        }
        let quiet = (0..50).any(|_| {
            let idle = plan(&world.state, world.now_ms, &Config::default()).is_empty();
            idle || world.plan().is_err()
        });
        prop_assert!(quiet, "the planner goes in circles");
    }
}
