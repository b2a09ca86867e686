//! A user who writes, reads, and interferes.
//!
//! One workload, `ledger`, has no tasks and a label that counts: each write
//! is repeated with the same request id until it is acknowledged, and no read
//! may ever show less than what was acknowledged before it began.

use crate::check::Broken;
use crate::fabric::{Event, Fabric, Host, Packet};
use crate::node::name;
use dray_model::ids::{MigrationId, TaskId, WorkloadName};
use dray_model::spec::{Labels, WorkloadSpec};
use scheduler_core::{Command, Op, Refusal, Reply, State};
use std::collections::BTreeMap;

/// How long the user waits for an answer before asking another scheduler.
const PATIENCE_MS: u64 = 1_500;

/// Something that is asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// Names it.
    pub number: u64,
    /// What to write; nothing: read the ledger.
    pub command: Option<Command>,
}

/// What comes back.
#[derive(Debug, Clone)]
pub enum Answer {
    /// Ask another scheduler, or later.
    NotTaken {
        /// The request.
        request: u64,
    },
    /// The write is done or refused; `None`: not known.
    Written {
        /// The request.
        request: u64,
        /// What came of it.
        result: Option<Result<Reply, Refusal>>,
    },
    /// What the ledger says.
    Read {
        /// The request.
        request: u64,
        /// The count; `None`: not known.
        value: Option<u64>,
    },
}

/// A user.
#[derive(Debug)]
pub struct User {
    nodes: u64,
    number: u64,
    /// The highest count that was acknowledged.
    pub acknowledged: u64,
    writing: Option<(u64, u64)>,
    /// Reads under way: what they must show at least.
    reading: BTreeMap<u64, u64>,
    /// Whether the image was imported.
    imported: bool,
    importing: u64,
    migrations: Vec<MigrationId>,
    version: u64,
    /// Whether the user only wants what there is to come to rest.
    pub quiet: bool,
}

impl User {
    /// A user of a cluster with some nodes.
    pub fn new(nodes: u64) -> User {
        User {
            nodes,
            number: 0,
            acknowledged: 0,
            writing: None,
            reading: BTreeMap::new(),
            imported: false,
            importing: 0,
            migrations: Vec::new(),
            version: 0,
            quiet: false,
        }
    }

    /// Does the next thing.
    pub fn step(&mut self, fabric: &mut Fabric) {
        let wait_ms = fabric.dice.range(50..500);
        fabric.after(wait_ms, Event::User);
        self.write(fabric);
        if fabric.dice.chance(300) {
            let number = self.ask(None, fabric);
            self.reading.insert(number, self.acknowledged);
        }
        if !self.imported {
            self.importing = self.number + 1;
            let (reference, digest) = ("app:1".into(), "sha256:a".into());
            self.order(Op::ImportImage { node: name(1), reference, digest, size_bytes: 1 }, fabric);
        } else if self.quiet || fabric.dice.chance(50) {
            self.want_everything(fabric);
        } else if fabric.dice.chance(400) {
            let op = self.interfere(fabric);
            self.order(op, fabric);
        }
    }

    /// Three tasks that restart elsewhere, one that waits, and open nodes.
    fn want_everything(&mut self, fabric: &mut Fabric) {
        self.order(apply("web", 3, self.version, "restart"), fabric);
        self.order(apply("db", 1, 0, "wait"), fabric);
        for node in 1..=self.nodes {
            self.order(Op::Uncordon { node: name(node) }, fabric);
        }
    }

    fn interfere(&mut self, fabric: &mut Fabric) -> Op {
        let node = name(fabric.dice.range(1..self.nodes + 1));
        match fabric.dice.range(0..13) {
            0 => Op::Drain { node },
            1 => Op::Uncordon { node },
            2 => {
                let replicas = u32::try_from(fabric.dice.range(0..5)).unwrap_or(1);
                Op::ScaleWorkload { name: workload("web"), replicas, etag: None }
            }
            3 => {
                self.version += 1;
                apply("web", 3, self.version, "restart")
            }
            4 if fabric.dice.chance(300) => Op::DeleteWorkload { name: workload("web"), etag: None },
            6 => apply("db", 1, 0, if fabric.dice.chance(500) { "restart" } else { "wait" }),
            5 => {
                let id = fabric.dice.pick(&self.migrations).unwrap_or(MigrationId(1));
                Op::AbortMigration { id, failure: "cancelled by the user".into() }
            }
            _ => {
                let slot = u32::try_from(fabric.dice.range(0..4)).unwrap_or(0);
                let workload = workload(if slot == 3 { "db" } else { "web" });
                let task = TaskId { workload, slot: slot % 3 };
                let target = Some(node).filter(|_| fabric.dice.chance(700));
                Op::CreateMigration { task, target, reason: "user".into() }
            }
        }
    }

    /// Goes on with the ledger's present write, or begins the next.
    fn write(&mut self, fabric: &mut Fabric) {
        let waits = self.writing.is_some_and(|(_, sent_ms)| fabric.now_ms - sent_ms < PATIENCE_MS);
        if waits {
            return;
        }
        let count = self.acknowledged + 1;
        let mut labels = Labels::new();
        labels.insert("count".into(), count.to_string());
        let name = workload("ledger");
        let op = Op::ApplyWorkload { name, labels, spec: Box::new(spec(0, 0, "restart")), etag: None };
        let command = Command { now_ms: 0, request_id: Some(format!("ledger-{count}")), op };
        let number = self.ask(Some(command), fabric);
        self.writing = Some((number, fabric.now_ms));
    }

    /// Asks once; whatever comes of it will do.
    fn order(&mut self, op: Op, fabric: &mut Fabric) {
        let request_id = Some(format!("order-{}", self.number));
        self.ask(Some(Command { now_ms: 0, request_id, op }), fabric);
    }

    fn ask(&mut self, command: Option<Command>, fabric: &mut Fabric) -> u64 {
        self.number += 1;
        let to = Host::Scheduler(fabric.dice.range(1..4));
        let request = Request { number: self.number, command };
        fabric.send(Host::User, to, Packet::Request(Box::new(request)));
        self.number
    }

    /// An answer has come.
    ///
    /// # Errors
    /// It can't be true.
    pub fn hear(&mut self, answer: Answer, fabric: &mut Fabric) -> Result<(), Broken> {
        match answer {
            Answer::NotTaken { request } => self.forget(request, fabric),
            Answer::Written { request, result } => match result {
                Some(Ok(reply)) => self.granted(request, &reply),
                Some(Err(_)) | None => self.forget(request, fabric),
            },
            Answer::Read { request, value } => {
                let floor = self.reading.remove(&request);
                if let (Some(floor), Some(value)) = (floor, value)
                    && value < floor
                {
                    return Err(Broken::WriteLost { acknowledged: floor, read: value });
                }
            }
        }
        Ok(())
    }

    /// The present write is to be repeated soon.
    fn forget(&mut self, request: u64, fabric: &Fabric) {
        self.reading.remove(&request);
        if let Some((number, sent_ms)) = &mut self.writing
            && *number == request
        {
            *sent_ms = fabric.now_ms.saturating_sub(PATIENCE_MS);
        }
    }

    fn granted(&mut self, request: u64, reply: &Reply) {
        if self.writing.is_some_and(|(number, _)| number == request) {
            self.acknowledged += 1;
            self.writing = None;
        }
        self.imported |= request == self.importing;
        if let Reply::Migration { id } = reply {
            self.migrations.push(*id);
        }
    }
}

/// What a state says of the ledger.
pub fn value_of(state: &State) -> u64 {
    let label = state.workload(&workload("ledger")).and_then(|ledger| ledger.labels.get("count").cloned());
    label.and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn workload(name: &str) -> WorkloadName {
    name.parse().expect("a valid name")
}

fn apply(name: &str, replicas: u32, version: u64, loss: &str) -> Op {
    let spec = Box::new(spec(replicas, version, loss));
    Op::ApplyWorkload { name: workload(name), labels: Labels::new(), spec, etag: None }
}

fn spec(replicas: u32, version: u64, loss: &str) -> WorkloadSpec {
    serde_json::from_value(serde_json::json!({
        "kind": "service", "replicas": replicas,
        "template": {
            "containers": [{
                "name": "main", "image": "app:1",
                "env": [{"name": "VERSION", "value": version.to_string()}],
                "resources": {"requests": {"memory": "200Mi"}},
            }],
            "restart": {"backoff": "200ms", "backoffMax": "2s"},
        },
        "migration": {"timeout": "20s"},
        "onNodeLoss": loss,
    }))
    .expect("a valid spec")
}
