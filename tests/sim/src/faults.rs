//! What breaks, and when. Each run draws its own climate first: some are
//! calm, some are all at once.

use crate::dice::Dice;
use crate::fabric::{Event, Fabric, Host, Weather};
use crate::world::World;

/// How often things break in one run.
#[derive(Debug, Clone, Copy)]
pub struct Climate {
    /// The shortest and longest time between two faults.
    pause_ms: (u64, u64),
    weather: Weather,
    /// Whether machines boot, beside all else.
    boots: bool,
    /// Whether all schedulers go at once, now and then.
    outages: bool,
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
            },
            boots: dice.chance(600),
            outages: dice.chance(300),
        }
    }

    /// The network's part of it.
    pub fn weather(self) -> Weather {
        self.weather
    }
}

/// Breaks or mends one thing.
pub fn strike(world: &mut World) {
    let climate = world.climate;
    let wait_ms = world.fabric.dice.range(climate.pause_ms.0..climate.pause_ms.1);
    world.fabric.after(wait_ms, Event::Fault);
    match world.fabric.dice.range(0..100) {
        0..=29 => mend(&mut world.fabric),
        30..=44 => isolate(world),
        45..=54 => cut_one_way(world),
        55..=62 => split_schedulers(world),
        63..=70 => crash_scheduler(world),
        71..=77 => pause_scheduler(world),
        78..=87 => crash_agent(world),
        88..=91 if climate.boots => reboot(world),
        92..=94 if climate.outages => crash_all_schedulers(world),
        _ => fall(world),
    }
}

fn mend(fabric: &mut Fabric) {
    fabric.note(|| "the network is mended".into());
    fabric.mend();
}

fn machines(world: &World) -> Vec<Host> {
    let nodes = world.nodes.keys().map(|id| Host::Node(*id));
    nodes.chain(world.schedulers.keys().map(|id| Host::Scheduler(*id))).collect()
}

/// One machine reaches nobody, or only some.
fn isolate(world: &mut World) {
    let hosts = machines(world);
    let Some(alone) = world.fabric.dice.pick(&hosts) else { return };
    let partly = world.fabric.dice.chance(500);
    world.fabric.note(|| format!("{alone} is cut off{}", if partly { " from some" } else { "" }));
    for other in hosts {
        if other != alone && (!partly || world.fabric.dice.chance(600)) {
            world.fabric.set_cut(alone, other, true);
            world.fabric.set_cut(other, alone, true);
        }
    }
}

fn cut_one_way(world: &mut World) {
    let hosts = machines(world);
    if let (Some(from), Some(to)) = (world.fabric.dice.pick(&hosts), world.fabric.dice.pick(&hosts)) {
        world.fabric.note(|| format!("nothing gets from {from} to {to}"));
        world.fabric.set_cut(from, to, true);
    }
}

/// One scheduler can't reach the others, but the nodes can reach all.
fn split_schedulers(world: &mut World) {
    let alone = world.fabric.dice.range(1..4);
    world.fabric.note(|| format!("scheduler-{alone} is cut off from the others"));
    for other in (1..4).filter(|other| *other != alone) {
        world.fabric.set_cut(Host::Scheduler(alone), Host::Scheduler(other), true);
        world.fabric.set_cut(Host::Scheduler(other), Host::Scheduler(alone), true);
    }
}

fn crash_scheduler(world: &mut World) {
    let id = world.fabric.dice.range(1..4);
    if let Some(scheduler) = world.schedulers.get_mut(&id).filter(|s| s.replica.is_some()) {
        scheduler.crash(&mut world.fabric);
    }
}

fn crash_all_schedulers(world: &mut World) {
    for scheduler in world.schedulers.values_mut().filter(|s| s.replica.is_some()) {
        scheduler.crash(&mut world.fabric);
    }
}

fn pause_scheduler(world: &mut World) {
    let (id, ms) = (world.fabric.dice.range(1..4), world.fabric.dice.range(500..16_000));
    if let Some(scheduler) = world.schedulers.get_mut(&id).filter(|s| s.replica.is_some()) {
        scheduler.pause(ms, &mut world.fabric);
    }
}

fn crash_agent(world: &mut World) {
    let ids: Vec<u64> = world.nodes.values().filter(|node| node.up).map(|node| node.id).collect();
    if let Some(node) = world.fabric.dice.pick(&ids).and_then(|id| world.nodes.get_mut(&id)) {
        node.crash(&mut world.fabric);
    }
}

fn reboot(world: &mut World) {
    let ids: Vec<u64> = world.nodes.values().filter(|node| node.up).map(|node| node.id).collect();
    if let Some(node) = world.fabric.dice.pick(&ids).and_then(|id| world.nodes.get_mut(&id)) {
        node.reboot(&mut world.fabric);
    }
}

/// Some container ends by itself.
fn fall(world: &mut World) {
    let ids: Vec<u64> = world.nodes.keys().copied().collect();
    let Some(node) = world.fabric.dice.pick(&ids).and_then(|id| world.nodes.get_mut(&id)) else { return };
    let instances: Vec<_> = node.kernel.containers.keys().cloned().collect();
    if let Some(id) = world.fabric.dice.pick(&instances) {
        node.fall(&id, &mut world.fabric);
    }
}
