//! A node's container network, in the network namespace the agent runs in.
//!
//! ```text
//!            +--------------------- dray0 (bridge, node's overlay address) ---------------------+
//!            |                         |                          |                              |
//!     dv<hash> (instance)       dv<hash> (instance)        dray-vx (VXLAN)                 dray-hold
//!            |                         |                          |                              |
//!      eth0 in its netns         eth0 in its netns        other nodes' tunnels          dray-held: frames kept
//!                                                                                        for a frozen instance
//!     dray-void (bridge, always down): shielded host ends are its ports, so nothing reaches or leaves them
//! ```
//!
//! Nothing here learns. Which way a MAC lies is programmed from the cluster's state, so that no stale
//! guess can outlive a migration: [`forwarding`] owns the entries of remote tasks, [`shield`] those of
//! local ones, [`hold`] those of frozen ones. Unknown addresses are flooded, which is slow but right.
//!
//! This crate knows nothing of workloads, schedulers or migrations; it is told names, addresses and
//! peers. Each module plans in a pure function and acts in a short loop over the plan; every action
//! may be repeated.

pub mod address;
pub mod arp;
pub mod bridge;
pub mod forwarding;
pub mod hold;
pub mod netlink;
pub mod netns;
pub mod node;
pub mod shield;
mod sys;
pub mod veth;
pub mod vxlan;
pub mod wire;

pub use address::Mac;
pub use arp::AnnounceError;
pub use forwarding::Forwarding;
pub use hold::{HoldError, Incoming, Outgoing, Released};
pub use netlink::{LinkError, Netlink};
pub use netns::{NetNs, NetNsError};
pub use node::{NodeError, NodeNetwork, NodeSpec};
pub use shield::Shield;
pub use veth::{HostEnd, VethError, VethSpec};
pub use wire::Wire;
