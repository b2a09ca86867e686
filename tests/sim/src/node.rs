//! A node: a machine with a kernel, a ledger that survives, and an agent that
//! doesn't.
//!
//! The host of `agent-core`. It follows the rules that the cores state:
//! accepted assignments go to the ledger first; nothing is begun before a
//! session has given the full set; a lease is renewed by an acknowledged
//! heartbeat, or extended, before it ends, when there is no leader anywhere.

mod lease;
mod session;
mod work;

use crate::fabric::{Event as Happening, Fabric, Host, Packet};
use crate::kernel::{Kernel, State};
use agent_core::observed::Part;
use agent_core::reconcile::begin;
use agent_core::{Event, Instance, Observed, Reports, Stage, reconcile};
use dray_model::assignment::{Assignment, AssignmentDiff, MigrationReport, TaskReport};
use dray_model::ids::{InstanceId, MigrationId, NodeName};
use dray_model::migration::{Figures, Side};
use dray_model::node::{About, Capabilities};
use dray_model::resources::Amounts;
use dray_model::spec::Labels;
use dray_model::task::Exit;
use lease::Question;
use session::Session;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use work::Job;

/// A clock that is set wrongly and runs at its own speed.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// What it shows at the beginning, in milliseconds.
    pub offset_ms: u64,
    /// How much of it passes in a second, in milliseconds.
    pub rate: u64,
}

impl Clock {
    /// What it shows.
    pub fn local(self, now_ms: u64) -> u64 {
        self.offset_ms + now_ms * self.rate / 1000
    }
}

/// What an agent tells a scheduler.
#[derive(Debug, Clone)]
pub enum FromNode {
    /// Always first.
    Hello {
        /// Who.
        node: NodeName,
        /// What it is.
        about: Box<About>,
    },
    /// It is there.
    Beat {
        /// Counts from one.
        sequence: u64,
    },
    /// What it observed.
    Report {
        /// Of tasks.
        tasks: Vec<TaskReport>,
        /// Of migrations.
        migrations: Vec<MigrationReport>,
    },
}

/// What agents tell each other.
#[derive(Debug, Clone)]
pub enum Peer {
    /// When did you last hear from a leader?
    Ask {
        /// Names the question.
        question: u64,
    },
    /// So long ago, or never.
    Tell {
        /// The question.
        question: u64,
        /// In milliseconds.
        age_ms: Option<u64>,
    },
    /// A frozen task, whole.
    Checkpoint {
        /// The migration.
        migration: MigrationId,
        /// The run.
        life: u64,
        /// How far it has come.
        counter: u64,
    },
    /// Whether it arrived and was taken in.
    Received {
        /// The migration.
        migration: MigrationId,
        /// Whether.
        taken: bool,
    },
}

/// A node's own timers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Timer {
    /// Look after the session: open one, beat, give a silent one up.
    Session,
    /// Look after the lease.
    Lease,
    /// The others had their time to answer.
    Judge(u64),
    /// Reconcile again.
    Wake,
    /// A worker has come so far.
    Work(InstanceId, u64, work::Step),
    /// The agent begins, after a crash or a boot.
    Start,
}

/// A machine and its agent.
#[derive(Debug)]
pub struct Node {
    /// Counts from one.
    pub id: u64,
    /// Counts the agent's processes.
    pub process: u64,
    /// Counts the machine's boots.
    pub boot: u64,
    /// Whether the agent's process is there.
    pub up: bool,
    /// The machine's clock.
    pub clock: Clock,
    /// What runs.
    pub kernel: Kernel,
    /// How many runs began here.
    lives: u64,
    /// Instances that ended by themselves here.
    fell: BTreeSet<InstanceId>,
    /// How many sessions there were, so that each has its own number.
    sessions: u64,
    /// The ledger: the last assignment that was accepted, and the lease.
    page: Assignment,
    lease_ms: u64,
    agent: Agent,
}

/// What a process forgets.
#[derive(Debug, Default)]
struct Agent {
    observed: Observed,
    /// Whether a leader has said what to run since the process began.
    is_current: bool,
    session: Option<Session>,
    /// Which scheduler to try next.
    next: u64,
    /// When the last acknowledged heartbeat was sent.
    sent_ms: Option<u64>,
    /// When there was no leader anywhere.
    outage_ms: Option<u64>,
    question: Option<Question>,
    questions: u64,
    jobs: BTreeMap<InstanceId, Job>,
    job: u64,
}

impl Node {
    /// A machine whose agent is about to begin.
    pub fn new(id: u64, clock: Clock) -> Node {
        Node {
            id,
            process: 0,
            boot: 1,
            up: false,
            clock,
            kernel: Kernel::default(),
            lives: 0,
            fell: BTreeSet::new(),
            sessions: 0,
            page: Assignment::default(),
            lease_ms: 0,
            agent: Agent::default(),
        }
    }

    /// Its name.
    pub fn name(&self) -> NodeName {
        name(self.id)
    }

    fn host(&self) -> Host {
        Host::Node(self.id)
    }

    fn after(&self, ms: u64, timer: Timer, fabric: &mut Fabric) {
        fabric.after(ms, Happening::Node(self.id, self.process, timer));
    }

    /// The process begins: it looks at what is there and asks for a session.
    fn start(&mut self, fabric: &mut Fabric) {
        fabric.note(|| format!("node-{}'s agent begins", self.id));
        self.up = true;
        self.agent = Agent { observed: self.adopt(fabric.now_ms), ..Agent::default() };
        self.after(1, Timer::Session, fabric);
        self.after(200, Timer::Lease, fabric);
    }

    /// The process ends; containers and their shims stay.
    pub fn crash(&mut self, fabric: &mut Fabric) {
        fabric.note(|| format!("node-{}'s agent is killed", self.id));
        self.end(fabric);
    }

    /// The machine ends and boots again; nothing runs any more.
    pub fn reboot(&mut self, fabric: &mut Fabric) {
        fabric.note(|| format!("node-{} reboots", self.id));
        self.boot += 1;
        self.fell.extend(std::mem::take(&mut self.kernel).containers.into_keys());
        self.end(fabric);
    }

    fn end(&mut self, fabric: &mut Fabric) {
        self.up = false;
        self.process += 1;
        let wait = fabric.dice.delay(50..3_000, 3_000..25_000);
        self.after(wait, Timer::Start, fabric);
    }

    /// A container ends by itself.
    pub fn fall(&mut self, id: &InstanceId, fabric: &mut Fabric) {
        let Some(container) = self.kernel.containers.get_mut(id) else { return };
        if container.state == State::Running {
            fabric.note(|| format!("{id} falls"));
            container.state = State::Exited;
            self.fell.insert(id.clone());
            self.happened(id, exited(fabric.now_ms), fabric);
        }
    }

    /// A timer of the present process has run out.
    pub fn on(&mut self, timer: Timer, fabric: &mut Fabric) {
        match timer {
            Timer::Start => self.start(fabric),
            Timer::Session => self.look_after_session(fabric),
            Timer::Lease => self.look_after_lease(fabric),
            Timer::Judge(question) => self.judge(question, fabric),
            Timer::Wake => self.act(fabric),
            Timer::Work(id, job, step) => self.work(&id, job, step, fabric),
        }
    }

    /// A packet has arrived.
    pub fn take_in(&mut self, from: Host, packet: Packet, fabric: &mut Fabric) {
        match (from, packet) {
            (Host::Scheduler(_), Packet::Down(session, message)) => {
                self.receive(session, *message, fabric);
            }
            (Host::Node(peer), Packet::Peer(message)) => self.hear(peer, *message, fabric),
            (Host::Scheduler(_) | Host::Node(_) | Host::User, _) => {}
        }
    }

    /// Another agent says something.
    fn hear(&mut self, from: u64, peer: Peer, fabric: &mut Fabric) {
        match peer {
            Peer::Ask { question } => {
                let local_ms = self.clock.local(fabric.now_ms);
                let age_ms = self.agent.sent_ms.map(|sent| local_ms.saturating_sub(sent));
                self.tell(from, Peer::Tell { question, age_ms }, fabric);
            }
            Peer::Tell { question, age_ms } => {
                if let Some(open) = self.agent.question.as_mut().filter(|open| open.number == question) {
                    open.answers.insert(from, age_ms.map(Duration::from_millis));
                }
            }
            Peer::Checkpoint { migration, life, counter } => {
                let taken = self.take_checkpoint(migration, life, counter, fabric);
                self.tell(from, Peer::Received { migration, taken }, fabric);
            }
            Peer::Received { migration, taken } => self.was_sent(migration, taken, fabric),
        }
    }

    fn tell(&self, to: u64, peer: Peer, fabric: &mut Fabric) -> bool {
        fabric.send(self.host(), Host::Node(to), Packet::Peer(Box::new(peer)))
    }

    /// Takes in what happened to an instance, then acts.
    fn happened(&mut self, id: &InstanceId, event: Event, fabric: &mut Fabric) {
        if self.up {
            fabric.note(|| format!("node-{} {id}: {event:?}", self.id));
            self.agent.observed.observe(id, event, fabric.now_ms);
            self.act(fabric);
        }
    }

    /// Writes the ledger, then acts.
    fn accept(&mut self, assignment: Assignment, fabric: &mut Fabric) {
        self.page = assignment;
        self.agent.is_current = true;
        self.act(fabric);
    }

    /// Begins what is to be done, and tells the scheduler what is new.
    fn act(&mut self, fabric: &mut Fabric) {
        if self.agent.is_current {
            let todo = reconcile(&self.page, &self.agent.observed, fabric.now_ms);
            for (id, action) in todo.actions {
                fabric.note(|| format!("node-{} {id}: begins {}", self.id, work::name(&action)));
                begin(&mut self.agent.observed, &id, &action, fabric.now_ms);
                self.begin(&id, action, fabric);
            }
            if let Some(at_ms) = todo.wake_at_ms {
                let wait = at_ms.saturating_sub(fabric.now_ms).max(1);
                self.after(wait, Timer::Wake, fabric);
            }
        }
        self.report(Reports::of(&self.page, &self.agent.observed), fabric);
    }

    /// Finds again what an earlier process left; only looks.
    fn adopt(&self, now_ms: u64) -> Observed {
        let instances = self.kernel.containers.iter().map(|(id, container)| {
            let (stage, side, failure) = match container.state {
                State::Running => (Stage::Running, None, None),
                State::Exited => (Stage::Exited, None, None),
                State::Frozen => (Stage::Frozen, Some(Side::Source), Some("the agent was restarted")),
                State::Held => (Stage::Held, Some(Side::Target), None),
                State::Waiting => (Stage::Broken, Some(Side::Target), Some("the agent was restarted")),
            };
            let mut instance = Instance::new(stage, now_ms);
            instance.part = side.and_then(|side| self.part(id, side, failure));
            (id.clone(), instance)
        });
        Observed { instances: instances.collect() }
    }

    /// An instance's part in a migration, according to the ledger.
    fn part(&self, id: &InstanceId, side: Side, failure: Option<&str>) -> Option<Part> {
        let mut mine = self.page.migrations.values().filter(|m| m.side == side && m.task.task == id.task);
        mine.next().map(|m| Part {
            migration: m.migration,
            failure: failure.map(Into::into),
            figures: Figures::default(),
        })
    }

    fn about(&self) -> About {
        let last = u8::try_from(self.id).unwrap_or(u8::MAX);
        About {
            boot_id: format!("boot-{}", self.boot),
            labels: Labels::new(),
            capacity: Amounts { cpu_millis: 4_000, memory_bytes: 1 << 30, pids: 1_000 },
            peer_address: SocketAddr::from(([10, 77, 0, last], 7100)),
            underlay_ip: Ipv4Addr::new(10, 77, 0, last),
            capabilities: Capabilities { criu: "4.2.1".into(), cpus: 4, ..Capabilities::default() },
        }
    }
}

/// The name of a node.
pub fn name(id: u64) -> NodeName {
    format!("node-{id}").parse().expect("a valid name")
}

/// The number of a node.
pub fn number_of(name: &NodeName) -> Option<u64> {
    name.as_str().strip_prefix("node-")?.parse().ok()
}

fn exited(at_ms: u64) -> Event {
    Event::Exited { exit: Exit { code: 137, signal: 9, oom_killed: false, at_ms }, stable: false }
}

/// Makes the next assignment of a session's last.
fn next_assignment(assignment: &mut Assignment, diff: AssignmentDiff) -> bool {
    assignment.apply(diff).is_ok()
}
