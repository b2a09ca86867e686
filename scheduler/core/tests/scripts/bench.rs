//! A cluster that scripts talk to.

use crate::show;
use dray_model::assignment::{ImageReport, MigrationReport, TaskReport};
use dray_model::ids::NodeName;
use dray_model::migration::{Milestone, Side};
use dray_model::node::{About, Capabilities};
use dray_model::resources::Amounts;
use dray_model::spec::{Labels, WorkloadSpec};
use dray_model::{CpuMillis, Desired, MemoryBytes, TaskPhase};
use scheduler_core::plan::Config;
use scheduler_core::{Command, Op, Refusal, Reply, State, apply, assignment, plan};
use std::net::{Ipv4Addr, SocketAddr};

pub(crate) struct Bench {
    state: State,
    now_ms: u64,
    nodes: u8,
}

/// The words of a command: plain ones, and `key=value`.
struct Words<'a> {
    plain: Vec<&'a str>,
    keyed: Vec<(&'a str, &'a str)>,
}

impl<'a> Words<'a> {
    fn of(line: &'a str) -> Words<'a> {
        let (keyed, plain) = line.split(' ').partition::<Vec<_>, _>(|word| word.contains('='));
        Words { plain, keyed: keyed.into_iter().filter_map(|word| word.split_once('=')).collect() }
    }

    fn at(&self, index: usize) -> &'a str {
        self.plain.get(index).unwrap_or_else(|| panic!("a word is missing: {:?}", self.plain))
    }

    fn rest(&self, from: usize) -> String {
        self.plain.get(from..).unwrap_or_default().join(" ")
    }

    fn key(&self, name: &str) -> Option<&'a str> {
        self.keyed.iter().find(|(key, _)| *key == name).map(|(_, value)| *value)
    }

    fn labels(&self, name: &str) -> Labels {
        let pairs = self.key(name).into_iter().flat_map(|text| text.split(','));
        pairs.filter_map(|pair| pair.split_once(':')).map(|(k, v)| (k.into(), v.into())).collect()
    }
}

impl Bench {
    pub(crate) fn new() -> Bench {
        Bench { state: State::new("10.88.0.0/16".parse().unwrap()), now_ms: 1_000_000, nodes: 0 }
    }

    /// Runs one command and returns what it prints.
    ///
    /// ```text
    /// node NAME [memory=1Gi cpu=4 labels=k:v,.. criu=4.2.1 boot=1]   an agent registers
    /// apply|delete NAME, scale NAME N    [replicas= memory= image= mode= loss= select=k:v etag= id=]
    /// cordon|uncordon|drain|lose NAME    [session=]
    /// migrate TASK [NODE], abort MIGRATION WHY
    /// report NODE TASK PHASE [WHY]       at the task's present epoch, or epoch=N
    /// milestone NODE MIGRATION source|target WHAT [WHY]
    /// import|has|lacks NODE IMAGE DIGEST
    /// run NODE...                        each says that it did what it was told
    /// plan, step, settle                 look; do it once; do it until nothing is left
    /// tasks, migrations, assigned NODE   print
    /// wait SECONDS
    /// ```
    pub(crate) fn run(&mut self, command: &str) -> Vec<String> {
        let words = Words::of(command);
        match words.at(0) {
            "plan" => self.plan(),
            "step" => self.step(),
            "settle" => self.settle(),
            "tasks" => self.state.tasks().values().map(show::task).collect(),
            "migrations" => self.state.migrations().values().map(show::migration).collect(),
            "assigned" => show::assignment(&assignment(&self.state, &name(words.at(1)))),
            "wait" => {
                self.now_ms += words.at(1).parse::<u64>().unwrap() * 1000;
                vec![]
            }
            "run" => words.plain[1..].iter().flat_map(|node| self.obey(&name(node))).collect(),
            _ => {
                let op = self.op(&words);
                show::result(&self.apply(words.key("id"), op))
            }
        }
    }

    fn apply(&mut self, id: Option<&str>, op: Op) -> Result<Reply, Refusal> {
        self.now_ms += 1;
        let command = Command { now_ms: self.now_ms, request_id: id.map(Into::into), op };
        let index = self.state.applied() + 1;
        apply(&mut self.state, index, &command).result
    }

    fn op(&mut self, words: &Words<'_>) -> Op {
        let etag = words.key("etag").map(Into::into);
        match words.at(0) {
            "node" => self.register(words),
            "apply" => Op::ApplyWorkload {
                name: words.at(1).parse().unwrap(),
                labels: words.labels("labels"),
                spec: Box::new(spec(words)),
                etag,
            },
            "scale" => {
                let replicas = words.at(2).parse().unwrap();
                Op::ScaleWorkload { name: words.at(1).parse().unwrap(), replicas, etag }
            }
            "delete" => Op::DeleteWorkload { name: words.at(1).parse().unwrap(), etag },
            "cordon" => Op::Cordon { node: name(words.at(1)) },
            "uncordon" => Op::Uncordon { node: name(words.at(1)) },
            "drain" => Op::Drain { node: name(words.at(1)) },
            "lose" => {
                let node = name(words.at(1));
                let session = words.key("session").map(|number| number.parse().unwrap());
                let session = session.or(self.state.session(&node)).unwrap_or(0);
                Op::LoseNode { node, session }
            }
            "migrate" => Op::CreateMigration {
                task: words.at(1).parse().unwrap(),
                target: words.plain.get(2).map(|node| name(node)),
                reason: "user".into(),
            },
            "abort" => Op::AbortMigration { id: words.at(1).parse().unwrap(), failure: words.rest(2) },
            "import" => Op::ImportImage {
                node: name(words.at(1)),
                reference: words.at(2).into(),
                digest: words.at(3).into(),
                size_bytes: 1,
            },
            _ => self.report(words),
        }
    }

    fn register(&mut self, words: &Words<'_>) -> Op {
        let known = self.state.node(&name(words.at(1))).map(|node| node.about.clone());
        let about = known.unwrap_or_else(|| {
            self.nodes += 1;
            about(self.nodes, words)
        });
        let boot_id = words.key("boot").unwrap_or("1").into();
        Op::RegisterNode { name: name(words.at(1)), about: Box::new(About { boot_id, ..about }) }
    }

    fn report(&self, words: &Words<'_>) -> Op {
        let node = name(words.at(1));
        let session = self.state.session(&node).unwrap_or(0);
        let (mut tasks, mut migrations, mut images) = (vec![], vec![], vec![]);
        match words.at(0) {
            "report" => tasks.push(self.task_report(words)),
            "milestone" => migrations.push(milestone(words)),
            "has" | "lacks" => images.push(ImageReport {
                reference: words.at(2).into(),
                digest: words.at(3).into(),
                size_bytes: 1,
                removed: words.at(0) == "lacks",
            }),
            other => panic!("no such command: {other}"),
        }
        Op::Report { node, session, tasks, migrations, images }
    }

    fn task_report(&self, words: &Words<'_>) -> TaskReport {
        let id = words.at(2).parse().unwrap();
        let epoch = self.state.task(&id).unwrap().epoch;
        TaskReport {
            task: id,
            epoch: words.key("epoch").map_or(epoch, |text| dray_model::Epoch(text.parse().unwrap())),
            phase: phase(words.at(3)),
            message: words.rest(4),
            restarts: 0,
            last_exit: None,
            since_ms: self.now_ms,
        }
    }

    /// A node says that it runs what it is to run, and that nothing is left
    /// of what it is to stop.
    fn obey(&mut self, node: &NodeName) -> Vec<String> {
        let assigned = assignment(&self.state, node);
        let done = |desired| match desired {
            Desired::Run => TaskPhase::Running,
            Desired::Stop => TaskPhase::Stopped,
        };
        let tasks = assigned.tasks.into_values().map(|task| TaskReport {
            phase: done(task.desired),
            task: task.task,
            epoch: task.epoch,
            message: String::new(),
            restarts: task.restarts,
            last_exit: None,
            since_ms: self.now_ms,
        });
        let (tasks, session) = (tasks.collect(), self.state.session(node).unwrap_or(0));
        let op = Op::Report { node: node.clone(), session, tasks, migrations: vec![], images: vec![] };
        show::result(&self.apply(None, op))
    }

    fn plan(&self) -> Vec<String> {
        plan(&self.state, self.now_ms, &Config::default()).steps.iter().map(show::step).collect()
    }

    fn step(&mut self) -> Vec<String> {
        let mut printed = Vec::new();
        for step in plan(&self.state, self.now_ms, &Config::default()).steps {
            printed.push(show::step(&step));
            if let Err(refusal) = self.apply(None, step.op) {
                printed.push(format!("  refused: {refusal}"));
            }
        }
        printed
    }

    fn settle(&mut self) -> Vec<String> {
        let mut printed = Vec::new();
        for _ in 0..100 {
            match self.step() {
                step if step.is_empty() => return printed,
                step => printed.extend(step),
            }
        }
        panic!("the planner goes in circles: {printed:?}")
    }
}

fn name(text: &str) -> NodeName {
    text.parse().unwrap()
}

fn about(number: u8, words: &Words<'_>) -> About {
    let cpu: CpuMillis = words.key("cpu").unwrap_or("4").parse().unwrap();
    let memory: MemoryBytes = words.key("memory").unwrap_or("1Gi").parse().unwrap();
    let criu = words.key("criu").unwrap_or("4.2.1").into();
    About {
        boot_id: String::new(),
        labels: words.labels("labels"),
        capacity: Amounts { cpu_millis: cpu.0, memory_bytes: memory.0, pids: 1000 },
        peer_address: SocketAddr::from(([10, 77, 0, number], 7002)),
        underlay_ip: Ipv4Addr::new(10, 77, 0, number),
        capabilities: Capabilities { criu, cpus: 4, ..Capabilities::default() },
    }
}

fn spec(words: &Words<'_>) -> WorkloadSpec {
    let replicas: u32 = words.key("replicas").unwrap_or("1").parse().unwrap();
    let requests = match words.key("memory") {
        Some(memory) => serde_json::json!({"memory": memory}),
        None => serde_json::json!({}),
    };
    serde_json::from_value(serde_json::json!({
        "kind": "service", "replicas": replicas,
        "template": {
            "containers": [{
                "name": "main", "image": words.key("image").unwrap_or("redis:7"),
                "resources": {"requests": requests},
            }],
            "nodeSelector": words.labels("select"),
        },
        "migration": {"mode": words.key("mode").unwrap_or("auto")},
        "onNodeLoss": words.key("loss").unwrap_or("restart"),
    }))
    .unwrap()
}

fn phase(word: &str) -> TaskPhase {
    serde_json::from_value(word.into()).unwrap()
}

fn milestone(words: &Words<'_>) -> MigrationReport {
    let side = if words.at(3) == "source" { Side::Source } else { Side::Target };
    let milestone = match words.at(4) {
        "prepared" => Milestone::Prepared,
        "frozen" => Milestone::Frozen,
        "restored" => Milestone::Restored,
        "resumed" => Milestone::Resumed,
        "cleaned" => Milestone::Cleaned,
        "failed" => Milestone::Failed { failure: words.rest(5) },
        other => panic!("no such milestone: {other}"),
    };
    MigrationReport {
        migration: words.at(2).parse().unwrap(),
        side,
        milestone,
        steps: vec![],
        bytes: 0,
        memory_bytes: 0,
        freeze_us: 0,
    }
}
