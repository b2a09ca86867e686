//! Checkpoint and restore of containers: CRIU's RPC, and the files that move with a container.
//!
//! This crate knows one machine and no cluster. It never decides whether a container may run: a dump leaves it frozen
//! until the caller says kill or resume, a restore holds it back until the caller says go.
//!
//! - [`criu`]: the program, and a conversation with it
//! - [`dump()`]: a running container becomes a directory of images; held until its fate is decided
//! - [`restore()`]: a directory of images becomes a container, a child of the caller
//! - [`preflight`]: what would make a dump fail, found beforehand
//! - [`freezer`], [`sockets`]: what keeps a container stopped, and what heals it if CRIU was killed
//! - [`files`]: a directory tree as a stream of checked chunks, and back

pub mod criu;
pub mod dump;
pub mod files;
pub mod freezer;
pub mod manifest;
pub mod preflight;
pub mod restore;
pub mod sockets;
mod sys;

pub use criu::Criu;
pub use dump::{DumpHooks, DumpSpec, Fate, Outcome, dump};
pub use freezer::Freezer;
pub use restore::{MountSource, RestoreSpec, Restored, restore};
