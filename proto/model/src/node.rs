//! Nodes: machines that run an agent.

use crate::ids::NodeName;
use crate::resources::Amounts;
use crate::spec::Labels;
use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, SocketAddr};

/// A machine that runs an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its name.
    pub name: NodeName,
    /// What its agent said of it at the last start.
    pub about: About,
    /// The node's own address in the cluster's range.
    pub overlay_ip: Ipv4Addr,
    /// Written by the leader.
    pub liveness: Liveness,
    /// Since when it is live or lost, in Unix milliseconds.
    pub since_ms: u64,
    /// Whether an operator keeps new tasks away.
    pub cordoned: bool,
    /// Whether an operator wants its tasks moved away.
    pub draining: bool,
    /// When it first joined, in Unix milliseconds.
    pub registered_ms: u64,
}

impl Node {
    /// Whether a task may be placed on it at all.
    pub fn is_open(&self) -> bool {
        self.liveness == Liveness::Ready && !self.cordoned && !self.draining
    }
}

/// What an agent says of its machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// Changes with each boot of the machine.
    pub boot_id: String,
    /// For selecting.
    pub labels: Labels,
    /// What its tasks may take together.
    pub capacity: Amounts,
    /// Where its agent serves other agents and the schedulers.
    pub peer_address: SocketAddr,
    /// Where tunnelled frames go.
    pub underlay_ip: Ipv4Addr,
    /// What its kernel and tools can do.
    pub capabilities: Capabilities,
}

/// What a node's kernel and tools can do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// `uname -r`.
    pub kernel: String,
    /// CRIU's version; empty where there is none that works.
    pub criu: String,
    /// `v1`, `v2` or `hybrid`.
    pub cgroup: String,
    /// The agent's version.
    pub agent_version: String,
    /// Processors.
    pub cpus: u32,
}

/// Whether the leader hears from a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Liveness {
    /// Yes.
    Ready,
    /// Not for longer than the node-loss timeout.
    Lost,
}
