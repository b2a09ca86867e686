//! The packet shield of an instance: while it is up, nothing reaches or leaves the container.
//!
//! ```text
//!   up:   host end is a port of dray-void, which is down     (also: a new pair, and a dead agent's)
//!   down: host end is a port of dray0, and the task's MAC points at it
//! ```
//!
//! The shield is where the host end is attached, so it lives in the kernel: it survives the agent and can
//! be asked for. A restored namespace that has no sockets yet would answer its peers with a reset; behind
//! the shield it never hears them. As a port of a bridge that is down, a shielded host end also gives
//! nothing to the node's own network stack, which could answer ARP and IPv6 by itself.

use std::net::Ipv4Addr;

use crate::address::{Mac, host_end_name};
use crate::bridge::{self, Flooding};
use crate::netlink::{Link, LinkError};
use crate::node::NodeNetwork;

/// Whether packets pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shield {
    /// Nothing passes.
    Up,
    /// Everything passes.
    Down,
}

impl Shield {
    /// The shield of a host end on a node whose bridge has this index.
    pub(crate) fn of(host_end: &Link, bridge: u32) -> Self {
        if host_end.controller == Some(bridge) { Self::Down } else { Self::Up }
    }
}

impl NodeNetwork {
    /// Cuts an instance off. Frames for it are lost unless they are kept ([`crate::hold`]).
    pub async fn raise_shield(&self, instance: &str) -> Result<(), LinkError> {
        let link = self.netlink().get(&host_end_name(instance)).await?;
        bridge::attach(self.netlink(), &link, self.void()).await
    }

    /// Connects an instance whose task has this address, and makes this node the place its MAC points at.
    pub async fn lower_shield(&self, instance: &str, address: Ipv4Addr) -> Result<(), LinkError> {
        self.end_relay(address).await;
        let link = self.netlink().get(&host_end_name(instance)).await?;
        bridge::attach(self.netlink(), &link, self.bridge()).await?;
        bridge::set_port(self.netlink(), &link, Flooding::Everything).await?;
        self.steer(Mac::of(address), link.index, &link.name).await
    }

    /// Whether an instance is cut off; `None` if it has no host end.
    pub async fn shield(&self, instance: &str) -> Result<Option<Shield>, LinkError> {
        let link = self.netlink().find(&host_end_name(instance)).await?;
        Ok(link.map(|link| Shield::of(&link, self.bridge())))
    }
}
