//! A whole cluster in one thread, under virtual time: three schedulers, some
//! nodes, a user, and everything that can go wrong between them.
//!
//! What is shipped runs here as it is: `scheduler-core`'s replicas, planner,
//! tracker and assignments, and `agent-core`'s reconciling, observing and
//! reporting. What is around them is made of this crate: hosts ([`scheduler`],
//! [`node`]) that follow the rules written in those crates, a network
//! ([`fabric`]) that loses, delays, reorders and cuts, disks that forget what
//! wasn't synced, clocks that run at different speeds, and a kernel
//! ([`kernel`]) whose containers count while they run.
//!
//! After **every** event [`check`] asks whether the promises of the design
//! hold. A run is a function of its seed: a failure prints it.

#![forbid(unsafe_code)]
#![deny(clippy::wildcard_enum_match_arm)]

pub mod check;
pub mod dice;
pub mod fabric;
pub mod faults;
pub mod kernel;
pub mod node;
pub mod scheduler;
pub mod user;
pub mod world;

pub use check::Broken;
pub use world::{Figures, World};

/// Runs one seed to its end.
///
/// # Errors
/// A promise was broken; the error says which, when, and what led to it.
pub fn run(seed: u64, trace: bool) -> Result<Figures, Box<Failure>> {
    let mut world = World::new(seed, trace);
    match world.run() {
        Ok(()) => Ok(world.figures()),
        Err(broken) => {
            let at_ms = world.fabric.now_ms;
            Err(Box::new(Failure { seed, at_ms, broken, lately: world.fabric.take_trace() }))
        }
    }
}

/// A broken promise.
#[derive(Debug)]
pub struct Failure {
    /// How to see it again.
    pub seed: u64,
    /// When, in milliseconds of virtual time.
    pub at_ms: u64,
    /// What.
    pub broken: Broken,
    /// What happened before, if it was traced.
    pub lately: Vec<String>,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for line in &self.lately {
            writeln!(f, "{line}")?;
        }
        writeln!(f, "seed {}, {} ms: {}", self.seed, self.at_ms, self.broken)?;
        write!(f, "replay: cargo run -p dray-sim -- --first {} --trace", self.seed)
    }
}
