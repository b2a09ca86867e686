//! The scheduler process: wires the decisions of `scheduler-core` to a disk,
//! a clock and the network.

#![forbid(unsafe_code)]

pub mod config;
pub mod raft;
pub mod telemetry;
