//! Everything together.

use crate::check::{Broken, Checker, restless};
use crate::dice::Dice;
use crate::fabric::{Event, Fabric, Host, Packet, Weather};
use crate::faults::{Climate, befall, plot, strike};
use crate::node::{self, Clock, Node};
use crate::scheduler::{self, Scheduler};
use crate::user::User;
use scheduler_core::liveness::Timing;
use std::collections::BTreeMap;

/// How long things break.
const STORM_MS: u64 = 60_000;
/// How long everything may take to come to rest afterwards.
const REST_MS: u64 = 150_000;

/// A cluster and what surrounds it.
pub struct World {
    seed: u64,
    /// Time, chance and the network.
    pub fabric: Fabric,
    /// By number.
    pub schedulers: BTreeMap<u64, Scheduler>,
    /// By number.
    pub nodes: BTreeMap<u64, Node>,
    /// Who asks.
    pub user: User,
    /// What breaks.
    pub climate: Climate,
    check: Checker,
    events: u64,
}

/// What a run was like.
#[derive(Debug, Clone, Copy, Default)]
pub struct Figures {
    /// Events that happened.
    pub events: u64,
    /// Virtual milliseconds.
    pub ms: u64,
    /// Writes that were acknowledged.
    pub writes: u64,
    /// Migrations that were committed.
    pub committed: u64,
    /// Migrations that were aborted.
    pub aborted: u64,
}

impl Figures {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Figures) -> Figures {
        Figures {
            events: self.events + other.events,
            ms: self.ms + other.ms,
            writes: self.writes + other.writes,
            committed: self.committed + other.committed,
            aborted: self.aborted + other.aborted,
        }
    }
}

impl World {
    /// Draws a cluster.
    pub fn new(seed: u64, trace: bool) -> World {
        let mut fabric = Fabric::new(seed, trace);
        let nodes = fabric.dice.range(2..5);
        let climate = Climate::draw(&mut fabric.dice);
        let clock = |fabric: &mut Fabric| Clock {
            offset_ms: 1_000_000 + fabric.dice.range(0..100_000),
            rate: fabric.dice.range(960..1041),
        };
        let timing = timing(&mut fabric.dice);
        for (at_ms, fault) in plot(&mut fabric.dice, nodes, timing.loss_ms) {
            fabric.after(at_ms, Event::Fault(fault));
        }
        let scheduler = |id, fabric: &mut Fabric| (id, Scheduler::new(id, clock(fabric), timing));
        let schedulers = (1..=3).map(|id| scheduler(id, &mut fabric)).collect();
        let nodes: BTreeMap<u64, Node> =
            (1..=nodes).map(|id| (id, Node::new(id, clock(&mut fabric)))).collect();
        let user = User::new(nodes.len() as u64);
        World { seed, fabric, schedulers, nodes, user, climate, check: Checker::default(), events: 0 }
    }

    /// What the run was like so far.
    pub fn figures(&self) -> Figures {
        Figures {
            events: self.events,
            ms: self.fabric.now_ms,
            writes: self.user.acknowledged,
            committed: self.check.committed,
            aborted: self.check.aborted,
        }
    }

    /// Runs to the end: a storm, then rest.
    ///
    /// # Errors
    /// A promise was broken.
    pub fn run(&mut self) -> Result<(), Broken> {
        self.begin();
        self.run_until(STORM_MS)?;
        self.calm();
        self.come_to_rest()
    }

    fn begin(&mut self) {
        for id in self.schedulers.keys() {
            self.fabric.after(1, Event::Scheduler(*id, 0, scheduler::Timer::Start));
        }
        for id in self.nodes.keys() {
            self.fabric.after(2_500, Event::Node(*id, 0, node::Timer::Start));
        }
        self.fabric.after(3_000, Event::User);
        self.fabric.after(8_000, Event::Storm);
        self.fabric.weather = self.climate.weather;
    }

    fn calm(&mut self) {
        self.fabric.note(|| "the storm is over".into());
        self.fabric.weather = Weather::default();
        self.fabric.mend();
        self.user.quiet = true;
    }

    fn run_until(&mut self, end_ms: u64) -> Result<(), Broken> {
        while self.fabric.now_ms < end_ms {
            self.step()?;
        }
        Ok(())
    }

    /// All is well once everything is where it belongs, and one more write
    /// was acknowledged.
    fn come_to_rest(&mut self) -> Result<(), Broken> {
        let (end_ms, written) = (self.fabric.now_ms + REST_MS, self.user.acknowledged);
        loop {
            self.run_until(self.fabric.now_ms + 500)?;
            let what = restless(&self.schedulers, &self.nodes);
            match what {
                None if self.user.acknowledged > written => return Ok(()),
                Some(what) if self.fabric.now_ms > end_ms => return Err(Broken::Restless { what }),
                None if self.fabric.now_ms > end_ms => {
                    return Err(Broken::Restless { what: "nothing can be written".into() });
                }
                Some(_) | None => {}
            }
        }
    }

    /// One event, and then every promise.
    fn step(&mut self) -> Result<(), Broken> {
        let from_ms = self.fabric.now_ms;
        let Some(event) = self.fabric.advance() else { return Ok(()) };
        self.events += 1;
        self.check.pass(&mut self.nodes, from_ms, self.fabric.now_ms)?;
        self.happen(event)?;
        for start in self.fabric.take_starts() {
            self.check.started(&start)?;
        }
        self.check.decided(&self.schedulers, &self.nodes)
    }

    fn happen(&mut self, event: Event) -> Result<(), Broken> {
        let fabric = &mut self.fabric;
        match event {
            Event::Arrives { from, to, packet } => return self.arrive(from, to, packet),
            Event::Scheduler(id, process, timer) => {
                if let Some(scheduler) = self.schedulers.get_mut(&id).filter(|s| s.process == process) {
                    return scheduler.on(timer, self.seed, fabric);
                }
            }
            Event::Node(id, process, timer) => {
                if let Some(node) = self.nodes.get_mut(&id).filter(|node| node.process == process) {
                    node.on(timer, fabric);
                }
            }
            Event::User => self.user.step(fabric),
            Event::Storm | Event::Fault(_) if self.user.quiet => {}
            Event::Storm => strike(self),
            Event::Fault(fault) => befall(self, fault),
        }
        Ok(())
    }

    fn arrive(&mut self, from: Host, to: Host, packet: Packet) -> Result<(), Broken> {
        let fabric = &mut self.fabric;
        if !fabric.arrives(from, to, &packet) {
            return Ok(());
        }
        match (to, packet) {
            (Host::Scheduler(id), packet) => {
                if let Some(scheduler) = self.schedulers.get_mut(&id) {
                    return scheduler.receive(from, packet, fabric);
                }
            }
            (Host::Node(id), packet) => {
                if let Some(node) = self.nodes.get_mut(&id).filter(|node| node.up) {
                    node.take_in(from, packet, fabric);
                }
            }
            (Host::User, Packet::Answer(answer)) => return self.user.hear(answer, fabric),
            (Host::User, _) => {}
        }
        Ok(())
    }
}

/// Leases and losses as close to each other as they may be, or less.
fn timing(dice: &mut Dice) -> Timing {
    let lease_ms = dice.range(3_000..7_000);
    let loss_ms = lease_ms + lease_ms / 4 + 1 + dice.range(0..2) * dice.range(0..3_000);
    Timing { heartbeat_ms: 1_000, lease_ms, loss_ms }
}
