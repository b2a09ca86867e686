//! What breaks, and when. Each run draws its own climate first: some are
//! calm, some are all at once, and some have a plot: a sequence that chance
//! alone would hardly find.

use crate::dice::Dice;
use crate::fabric::{Event, Fabric, Host, Weather};
use crate::scheduler::Scheduler;
use crate::world::World;
use scheduler_core::Replica;

/// How often things break in one run.
#[derive(Debug, Clone, Copy)]
pub struct Climate {
    /// The shortest and longest time between two faults.
    pause_ms: (u64, u64),
    /// The network's and the disks' part of it.
    pub weather: Weather,
    /// Whether machines boot, beside all else.
    boots: bool,
}

impl Climate {
    /// Draws a climate.
    pub fn draw(dice: &mut Dice) -> Climate {
        let longest = dice.range(1_000..12_000);
        let rough = dice.chance(500);
        Climate {
            pause_ms: (300, longest),
            weather: Weather {
                loss: if rough { dice.range(0..80) } else { 0 },
                doubled: dice.range(0..60),
                breaks: dice.range(0..10),
                slow_writes: if rough { 20 } else { dice.range(0..400) },
            },
            boots: dice.chance(600),
        }
    }
}

/// One thing that breaks or is mended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The network works again.
    Mend,
    /// One machine reaches nobody.
    Isolate(Host),
    /// One machine reaches only some.
    IsolatePartly(Host),
    /// Nothing gets from one machine to another.
    CutOneWay(Host, Host),
    /// One scheduler doesn't reach the others; all nodes reach it.
    SplitScheduler(u64),
    /// So many nodes reach no scheduler, but each other.
    Orphan(u64),
    /// The leader reaches no other scheduler, and is stopped for so many
    /// milliseconds; a node reaches no scheduler but this one.
    Depose(u64, u64),
    /// A scheduler's process is killed.
    KillScheduler(u64),
    /// All are, for a long while.
    KillSchedulers,
    /// A scheduler's process is stopped for so many milliseconds.
    PauseScheduler(u64, u64),
    /// An agent's process is killed.
    KillAgent(u64),
    /// A machine boots.
    Reboot(u64),
    /// A container ends by itself.
    Fall(u64),
}

/// Draws the next fault of a storm.
fn draw(world: &mut World) -> Fault {
    let nodes = world.nodes.len() as u64;
    let dice = &mut world.fabric.dice;
    let node = dice.range(1..nodes + 1);
    let scheduler = dice.range(1..4);
    let host = if dice.chance(500) { Host::Node(node) } else { Host::Scheduler(scheduler) };
    let other = if dice.chance(500) { Host::Node(nodes + 1 - node) } else { Host::Scheduler(4 - scheduler) };
    match dice.range(0..100) {
        0..=29 => Fault::Mend,
        30..=36 => Fault::Isolate(host),
        37..=44 => Fault::IsolatePartly(host),
        45..=53 => Fault::CutOneWay(host, other),
        54..=60 => Fault::SplitScheduler(scheduler),
        61..=63 => Fault::Orphan(dice.range(1..nodes + 1)),
        64..=70 => Fault::KillScheduler(scheduler),
        71..=77 => Fault::PauseScheduler(scheduler, dice.range(500..16_000)),
        78..=87 => Fault::KillAgent(node),
        88..=91 if world.climate.boots => Fault::Reboot(node),
        92 => Fault::KillSchedulers,
        _ => Fault::Fall(node),
    }
}

/// The faults of a plot, each with its time in milliseconds.
pub fn plot(dice: &mut Dice, nodes: u64, loss_ms: u64) -> Vec<(u64, Fault)> {
    let node = dice.range(1..nodes + 1);
    let begin_ms = dice.range(12_000..20_000);
    let lost_ms = begin_ms + loss_ms;
    let later_ms = lost_ms + dice.range(1_000..6_000);
    match dice.range(0..8) {
        // A node is cut off until its tasks run elsewhere; then nobody leads.
        0 => vec![
            (begin_ms, Fault::Isolate(Host::Node(node))),
            (later_ms, Fault::KillSchedulers),
            (later_ms + dice.range(0..1_000), Fault::Mend),
        ],
        // More than half of the nodes think that nobody leads.
        1 => vec![(begin_ms, Fault::Orphan(nodes / 2 + 1)), (later_ms + 10_000, Fault::Mend)],
        // A leader is deposed and doesn't know, and some node still hears it.
        2 => vec![(begin_ms, Fault::Depose(node, dice.range(0..3_000))), (later_ms, Fault::Mend)],
        // A node comes back just when it is declared lost.
        3 => vec![
            (begin_ms, Fault::Isolate(Host::Node(node))),
            (lost_ms - 600 + dice.range(0..800), Fault::Mend),
        ],
        _ => Vec::new(),
    }
}

/// Breaks or mends the next thing of a storm, and looks for the one after.
pub fn strike(world: &mut World) {
    let (shortest, longest) = world.climate.pause_ms;
    let wait_ms = world.fabric.dice.range(shortest..longest);
    world.fabric.after(wait_ms, Event::Storm);
    let fault = draw(world);
    befall(world, fault);
}

/// Lets a fault happen.
pub fn befall(world: &mut World, fault: Fault) {
    world.fabric.note(|| format!("fault: {fault:?}"));
    let hosts = machines(world);
    let fabric = &mut world.fabric;
    match fault {
        Fault::Mend => fabric.mend(),
        Fault::Isolate(alone) => hosts.into_iter().for_each(|other| cut(fabric, alone, other)),
        Fault::IsolatePartly(alone) => {
            for other in hosts {
                if fabric.dice.chance(600) {
                    cut(fabric, alone, other);
                }
            }
        }
        Fault::CutOneWay(from, to) => fabric.set_cut(from, to, true),
        Fault::SplitScheduler(alone) => {
            (1..4).for_each(|other| cut(fabric, Host::Scheduler(alone), Host::Scheduler(other)));
        }
        Fault::Orphan(nodes) => {
            let pairs = (1..=nodes).flat_map(|node| (1..4).map(move |scheduler| (node, scheduler)));
            pairs.for_each(|(node, id)| cut(fabric, Host::Node(node), Host::Scheduler(id)));
        }
        Fault::Depose(node, ms) => depose(world, node, ms),
        Fault::KillScheduler(id) => kill_scheduler(world, id, None),
        Fault::KillSchedulers => {
            for id in 1..4 {
                let away_ms = world.fabric.dice.range(8_000..25_000);
                kill_scheduler(world, id, Some(away_ms));
            }
        }
        Fault::PauseScheduler(id, ms) => {
            if let Some(scheduler) = world.schedulers.get_mut(&id).filter(|s| s.replica.is_some()) {
                scheduler.pause(ms, fabric);
            }
        }
        Fault::KillAgent(id) => {
            if let Some(node) = world.nodes.get_mut(&id).filter(|node| node.up) {
                node.crash(fabric);
            }
        }
        Fault::Reboot(id) => {
            if let Some(node) = world.nodes.get_mut(&id).filter(|node| node.up) {
                node.reboot(fabric);
            }
        }
        Fault::Fall(id) => fall(world, id),
    }
}

fn machines(world: &World) -> Vec<Host> {
    let nodes = world.nodes.keys().map(|id| Host::Node(*id));
    nodes.chain(world.schedulers.keys().map(|id| Host::Scheduler(*id))).collect()
}

/// Both ways.
fn cut(fabric: &mut Fabric, one: Host, other: Host) {
    if one != other {
        fabric.set_cut(one, other, true);
        fabric.set_cut(other, one, true);
    }
}

fn depose(world: &mut World, node: u64, ms: u64) {
    let leads = |scheduler: &&mut Scheduler| scheduler.replica.as_ref().is_some_and(Replica::leads);
    let Some(leader) = world.schedulers.values_mut().find(leads) else { return };
    let others = (1..4).filter(|other| *other != leader.id);
    for other in others {
        cut(&mut world.fabric, Host::Scheduler(leader.id), Host::Scheduler(other));
        cut(&mut world.fabric, Host::Node(node), Host::Scheduler(other));
    }
    leader.pause(ms, &mut world.fabric);
}

fn kill_scheduler(world: &mut World, id: u64, away_ms: Option<u64>) {
    if let Some(scheduler) = world.schedulers.get_mut(&id).filter(|s| s.replica.is_some()) {
        scheduler.crash(away_ms, &mut world.fabric);
    }
}

/// Some container of a node ends by itself.
fn fall(world: &mut World, id: u64) {
    let Some(node) = world.nodes.get_mut(&id) else { return };
    let instances: Vec<_> = node.kernel.containers.keys().cloned().collect();
    if let Some(instance) = world.fabric.dice.pick(&instances) {
        node.fall(&instance, &mut world.fabric);
    }
}
