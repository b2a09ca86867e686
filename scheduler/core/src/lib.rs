//! The scheduler's decisions: what may be asked ([`command`]), what is
//! replicated ([`state`]), how a request changes it ([`apply()`]), what to do
//! next ([`plan()`]), what a node is told ([`assignment()`]), whom the leader
//! hears from ([`liveness`]), and one voter of the Raft group ([`replica`]).
//!
//! Nothing here does I/O or reads a clock: time, seeds and bytes are
//! arguments, results are values. The same commands in the same order make
//! the same state on every replica.

#![forbid(unsafe_code)]
#![warn(clippy::wildcard_enum_match_arm)]

pub mod apply;
pub mod assignment;
pub mod codec;
pub mod command;
pub mod liveness;
pub mod outcome;
pub mod place;
pub mod plan;
pub mod refusal;
pub mod replica;
pub mod state;
#[cfg(test)]
mod testing;

pub use apply::apply;
pub use assignment::assignment;
pub use command::{Command, Op};
pub use outcome::{Blocked, Change, Outcome, Reply, WorkloadChange};
pub use plan::plan;
pub use refusal::{Obstacle, Refusal};
pub use replica::Replica;
pub use state::State;
