//! A node's network as a whole: made once when the agent starts, then handed to everything else here.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::sync::Mutex;

use ipnet::Ipv4Net;
use rtnetlink::LinkVeth;

use crate::address::{HOST_END_PREFIX, Mac};
use crate::bridge::{self, BRIDGE, BridgeSpec, Flooding, VOID};
use crate::hold::{HOLD, HOLD_TAIL};
use crate::netlink::{Link, LinkError, Netlink};
use crate::netns::NetNs;
use crate::sys::PacketSocket;
use crate::vxlan::{self, OVERHEAD_BYTES, TUNNEL, TunnelSpec};

/// What a node's network is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeSpec {
    /// The node's own address on the overlay, with the whole cluster's prefix.
    pub overlay: Ipv4Net,
    /// The node's address on the network between the nodes; some link must have it.
    pub underlay: Ipv4Addr,
    /// VXLAN network identifier of the cluster.
    pub vni: u32,
    /// VXLAN's UDP port.
    pub port: u16,
}

/// A node's network, ready for instances. Open it in the namespace it belongs to.
#[derive(Debug)]
pub struct NodeNetwork {
    netlink: Netlink,
    namespace: NetNs,
    spec: NodeSpec,
    mtu: u32,
    links: NodeLinks,
    /// Kept open, because opening and closing one takes longer than what it is for.
    sender: PacketSocket,
    /// Tasks whose frames are relayed to where they went; told to end when a task comes back.
    pub(crate) relays: Mutex<BTreeMap<Ipv4Addr, Arc<AtomicBool>>>,
}

/// Indexes of a node's own links.
#[derive(Clone, Copy, Debug)]
struct NodeLinks {
    bridge: u32,
    void: u32,
    tunnel: u32,
    hold: u32,
    hold_tail: u32,
}

/// Why a node's network could not be made.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// No link has the underlay address.
    #[error("no link of this machine has the underlay address {0}")]
    NoUnderlay(Ipv4Addr),
    /// The underlay's packets are too small to carry ours.
    #[error("MTU {mtu} of {link} is too small for VXLAN")]
    SmallUnderlay {
        /// The underlay's link.
        link: String,
        /// Its MTU in bytes.
        mtu: u32,
    },
    /// No socket for announcements (needs `CAP_NET_RAW`).
    #[error("open a packet socket")]
    Sender(#[source] io::Error),
    /// A link could not be made as wanted.
    #[error(transparent)]
    Link(#[from] LinkError),
}

impl NodeNetwork {
    /// Makes the node's bridges, tunnel and hold port in the calling thread's network namespace. What is
    /// there already and right stays untouched: containers do not notice an agent's restart.
    pub async fn ensure(spec: NodeSpec) -> Result<Self, NodeError> {
        let namespace = NetNs::current().map_err(LinkError::from)?;
        Self::ensure_in(namespace, spec).await
    }

    /// The same in another namespace.
    pub async fn ensure_in(namespace: NetNs, spec: NodeSpec) -> Result<Self, NodeError> {
        let netlink = Netlink::open_in(&namespace)?;
        let mtu = overlay_mtu(&netlink, spec.underlay).await?;
        let links = ensure_links(&netlink, &spec, mtu).await?;
        let sender =
            namespace.run(PacketSocket::sender).map_err(LinkError::from)?.map_err(NodeError::Sender)?;
        let network = Self { netlink, namespace, spec, mtu, links, sender, relays: Mutex::default() };
        network.forget_holds().await?;
        Ok(network)
    }

    /// Deletes everything of ours in the namespace, instances' links included.
    pub async fn remove(&self) -> Result<(), LinkError> {
        for link in self.netlink.list().await? {
            if is_ours(&link.name) {
                self.netlink.delete(&link.name).await?;
            }
        }
        Ok(())
    }

    /// What it was made from.
    pub fn spec(&self) -> &NodeSpec {
        &self.spec
    }

    /// Largest packet between containers, in bytes.
    pub fn mtu(&self) -> u32 {
        self.mtu
    }

    /// The namespace the network is in.
    pub fn namespace(&self) -> &NetNs {
        &self.namespace
    }

    pub(crate) fn netlink(&self) -> &Netlink {
        &self.netlink
    }

    pub(crate) fn sender(&self) -> &PacketSocket {
        &self.sender
    }

    pub(crate) fn bridge(&self) -> u32 {
        self.links.bridge
    }

    pub(crate) fn void(&self) -> u32 {
        self.links.void
    }

    pub(crate) fn tunnel(&self) -> u32 {
        self.links.tunnel
    }

    /// The port of the bridge that frames of frozen instances are sent to.
    pub(crate) fn hold_port(&self) -> u32 {
        self.links.hold
    }

    /// The link where frames sent to the hold port come out.
    pub(crate) fn hold_tail(&self) -> u32 {
        self.links.hold_tail
    }
}

fn is_ours(name: &str) -> bool {
    let fixed = [BRIDGE, VOID, TUNNEL, HOLD, HOLD_TAIL];
    fixed.contains(&name) || name.starts_with(HOST_END_PREFIX) && name.len() == 15
}

/// Packet size of the overlay: that of the link with the underlay address, less VXLAN's headers.
async fn overlay_mtu(netlink: &Netlink, underlay: Ipv4Addr) -> Result<u32, NodeError> {
    for link in netlink.list().await? {
        let addresses = netlink.addresses(&link).await?;
        if !addresses.iter().any(|address| address.addr() == underlay) {
            continue;
        }
        let Link { name, mtu, .. } = link;
        let fits = mtu.checked_sub(OVERHEAD_BYTES).filter(|&mtu| mtu >= 576);
        return fits.ok_or(NodeError::SmallUnderlay { link: name, mtu });
    }
    Err(NodeError::NoUnderlay(underlay))
}

async fn ensure_links(netlink: &Netlink, spec: &NodeSpec, mtu: u32) -> Result<NodeLinks, LinkError> {
    let void = BridgeSpec { name: VOID, mac: None, address: None, mtu, up: false };
    let void = bridge::ensure_bridge(netlink, &void).await?;
    let mac = Some(Mac::of(spec.overlay.addr()));
    let main = BridgeSpec { name: BRIDGE, mac, address: Some(spec.overlay), mtu, up: true };
    let main = bridge::ensure_bridge(netlink, &main).await?;
    let (hold, hold_tail) = ensure_hold(netlink, main.index, void.index).await?;
    let tunnel = TunnelSpec { vni: spec.vni, port: spec.port, local: spec.underlay, mtu };
    let tunnel = vxlan::ensure_tunnel(netlink, &tunnel, main.index).await?;
    Ok(NodeLinks {
        bridge: main.index,
        void: void.index,
        tunnel: tunnel.index,
        hold: hold.index,
        hold_tail: hold_tail.index,
    })
}

/// The hold port is one end of a veth pair; its tail is up, for capturing, but a port of the void, so that
/// nobody answers what comes out of it.
async fn ensure_hold(netlink: &Netlink, bridge: u32, void: u32) -> Result<(Link, Link), LinkError> {
    if netlink.find(HOLD).await?.is_none() {
        netlink.create(HOLD, LinkVeth::new(HOLD, HOLD_TAIL).build()).await?;
    }
    let (hold, tail) = (netlink.get(HOLD).await?, netlink.get(HOLD_TAIL).await?);
    bridge::attach(netlink, &tail, void).await?;
    bridge::attach(netlink, &hold, bridge).await?;
    bridge::set_port(netlink, &hold, Flooding::Nothing).await?;
    for link in [&hold, &tail].into_iter().filter(|link| !link.up) {
        netlink.bring_up(&link.name).await?;
    }
    Ok((hold, tail))
}
