//! The scheduler process: wires the decisions of `scheduler-core` to a disk,
//! a clock and the network.
//!
//! ```text
//! users, agents, peers -> server -> api, session, raft::service
//!                                     -> cluster -> raft::host -> scheduler-core
//!                                        leader  ->
//! ```

#![forbid(unsafe_code)]

pub mod api;
pub mod app;
pub mod auth;
pub mod cluster;
pub mod config;
pub mod contacts;
pub mod leader;
pub mod raft;
pub mod server;
pub mod session;
pub mod telemetry;
