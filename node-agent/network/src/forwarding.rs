//! Which way a MAC lies: the forwarding entries for everything that runs on *other* nodes.
//!
//! Two tables decide over a frame for a task elsewhere: the bridge's says "into the tunnel", the tunnel's
//! says to which node. Frames for unknown or broadcast addresses go to every peer. Entries of tasks on
//! this node belong to [`crate::shield`]: while a MAC points at a local instance, nothing here moves it,
//! however old the state we were given is.
//!
//! ```text
//!   a task moves from node 1 to node 2:   node 1: hold -> tunnel, tunnel: -> node 2
//!                                         node 2: tunnel -> local port (shield lowered)
//!                                         node 3:                 tunnel: node 1 -> node 2, one atomic replace
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use futures::{StreamExt, TryStreamExt};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{Error, NeighbourAddRequest};

use crate::address::Mac;
use crate::netlink::{LinkError, errno};
use crate::node::NodeNetwork;
use crate::vxlan::TUNNEL;

/// The address that stands for "everybody" in a tunnel's table.
const EVERYBODY: Mac = Mac([0; 6]);

/// Never ages, and is forwarded rather than delivered to the bridge itself: `NUD_NOARP | NUD_REACHABLE`.
/// The tunnel insists on the one flag, the bridge reads the other.
const STATIC: NeighbourState = NeighbourState::Other(0x42);

/// Where everything is, as the cluster's state says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forwarding {
    /// Every other node: its underlay address, and its address on the overlay.
    pub peers: BTreeMap<Ipv4Addr, Ipv4Addr>,
    /// Every task's address, and the underlay address of the node it runs on. Those of this node and of
    /// nodes that are no peers are ignored.
    pub tasks: BTreeMap<Ipv4Addr, Ipv4Addr>,
}

/// Where the bridge sends a MAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Into the tunnel.
    Tunnel,
    /// To an instance on this node.
    Local,
    /// To the frames kept for a frozen instance.
    Hold,
}

/// The tables as the kernel has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// Nodes that frames for everybody are sent to.
    pub flood: BTreeSet<Ipv4Addr>,
    /// The tunnel's table.
    pub nodes: BTreeMap<Mac, Ipv4Addr>,
    /// The bridge's table.
    pub ways: BTreeMap<Mac, Way>,
}

/// One change to the tables: one netlink message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Send frames for everybody to this node too.
    Flood(Ipv4Addr),
    /// Stop sending frames for everybody to this node.
    Unflood(Ipv4Addr),
    /// Send a MAC's frames that entered the tunnel to this node, from now on and instead of any other.
    Point(Mac, Ipv4Addr),
    /// Forget which node a MAC is on.
    Unpoint(Mac),
    /// Send a MAC's frames into the tunnel.
    Tunnel(Mac),
    /// Forget that a MAC is behind the tunnel.
    Untunnel(Mac),
}

/// Lists what to change so that the tables are as wanted. Pure. New nodes come first and a MAC's node
/// before its way, so that no frame is sent where nobody waits for it.
pub fn plan_forwarding(want: &Forwarding, have: &Tables) -> Vec<Change> {
    let wanted = wanted_nodes(want);
    let flood: BTreeSet<Ipv4Addr> = want.peers.keys().copied().collect();
    let mut changes: Vec<Change> = flood.difference(&have.flood).map(|&peer| Change::Flood(peer)).collect();
    for (&mac, &node) in &wanted {
        if have.nodes.get(&mac) != Some(&node) {
            changes.push(Change::Point(mac, node));
        }
        match have.ways.get(&mac) {
            None => changes.push(Change::Tunnel(mac)),
            // Whoever holds a task's frames decides where they go next.
            Some(Way::Tunnel | Way::Local | Way::Hold) => {}
        }
    }
    let stale_way = |(mac, way): &(&Mac, &Way)| **way == Way::Tunnel && !wanted.contains_key(*mac);
    changes.extend(have.ways.iter().filter(stale_way).map(|(&mac, _)| Change::Untunnel(mac)));
    let stale_node = |mac: &&Mac| !wanted.contains_key(*mac);
    changes.extend(have.nodes.keys().filter(stale_node).map(|&mac| Change::Unpoint(mac)));
    changes.extend(have.flood.difference(&flood).map(|&peer| Change::Unflood(peer)));
    changes
}

/// The tunnel's table as wanted: the peers' own addresses, and the tasks on them.
fn wanted_nodes(want: &Forwarding) -> BTreeMap<Mac, Ipv4Addr> {
    let peers = want.peers.iter().map(|(&underlay, &overlay)| (Mac::of(overlay), underlay));
    let on_a_peer = |(_, node): &(&Ipv4Addr, &Ipv4Addr)| want.peers.contains_key(*node);
    let tasks = want.tasks.iter().filter(on_a_peer).map(|(&task, &node)| (Mac::of(task), node));
    peers.chain(tasks).collect()
}

impl NodeNetwork {
    /// Makes the tables as wanted; returns how many entries had to change.
    pub async fn ensure_forwarding(&self, want: &Forwarding) -> Result<usize, LinkError> {
        let changes = plan_forwarding(want, &self.tables().await?);
        for &change in &changes {
            self.apply_forwarding(change).await?;
        }
        Ok(changes.len())
    }

    /// Sends a task's frames to `node` at once, without reading the tables first: a migration's flip. It
    /// overrules even a local instance, so it is for tasks whose commit to another node is known.
    pub async fn flip(&self, task: Ipv4Addr, node: Ipv4Addr) -> Result<(), LinkError> {
        let mac = Mac::of(task);
        self.apply_forwarding(Change::Point(mac, node)).await?;
        self.apply_forwarding(Change::Tunnel(mac)).await
    }

    /// Points a task's MAC at a node in the tunnel's table only.
    pub(crate) async fn point(&self, task: Ipv4Addr, node: Ipv4Addr) -> Result<(), LinkError> {
        self.apply_forwarding(Change::Point(Mac::of(task), node)).await
    }

    /// Forgets the ways of frames that nobody holds any more: those of a process that died.
    pub(crate) async fn forget_holds(&self) -> Result<(), LinkError> {
        let held = self.tables().await?.ways.into_iter().filter(|(_, way)| *way == Way::Hold);
        for (mac, _) in held {
            self.forget(entry_message(self.hold_port(), mac, NeighbourFlags::Controller, None)).await?;
        }
        Ok(())
    }

    /// Reads both tables.
    pub async fn tables(&self) -> Result<Tables, LinkError> {
        let request = self.netlink().handle().neighbours().get();
        let mut entries = request.set_address_family(AddressFamily::Bridge).execute();
        let mut tables = Tables::default();
        while let Some(entry) =
            entries.try_next().await.map_err(LinkError::of("list forwarding of", TUNNEL))?
        {
            self.note_entry(&mut tables, &entry);
        }
        Ok(tables)
    }

    fn note_entry(&self, tables: &mut Tables, entry: &NeighbourMessage) {
        let Some(mac) = link_address(entry) else { return };
        let port = entry.header.ifindex;
        match node_address(entry) {
            Some(node) if port == self.tunnel() && mac == EVERYBODY => {
                tables.flood.insert(node);
            }
            Some(node) if port == self.tunnel() => {
                tables.nodes.insert(mac, node);
            }
            None if is_static_entry_of(entry, self.bridge()) => {
                tables.ways.insert(mac, self.way_of(port));
            }
            Some(_) | None => {}
        }
    }

    fn way_of(&self, port: u32) -> Way {
        match port {
            port if port == self.tunnel() => Way::Tunnel,
            port if port == self.hold_port() => Way::Hold,
            _ => Way::Local,
        }
    }

    async fn apply_forwarding(&self, change: Change) -> Result<(), LinkError> {
        let tunnel = self.tunnel();
        match change {
            Change::Flood(peer) => self.flood(peer).await,
            Change::Point(mac, node) => {
                let entry = self.entry(tunnel, mac).flags(NeighbourFlags::Own).destination(node.into());
                entry.execute().await.map_err(LinkError::of("point an address at a node on", TUNNEL))
            }
            Change::Tunnel(mac) => self.steer(mac, tunnel, TUNNEL).await,
            Change::Unflood(peer) => {
                self.forget(entry_message(tunnel, EVERYBODY, NeighbourFlags::Own, Some(peer))).await
            }
            Change::Unpoint(mac) => self.forget(entry_message(tunnel, mac, NeighbourFlags::Own, None)).await,
            Change::Untunnel(mac) => {
                self.forget(entry_message(tunnel, mac, NeighbourFlags::Controller, None)).await
            }
        }
    }

    /// Points a MAC at a port of the bridge, from now on and instead of any other; one atomic replace.
    pub(crate) async fn steer(&self, mac: Mac, port: u32, name: &str) -> Result<(), LinkError> {
        let entry = self.entry(port, mac).flags(NeighbourFlags::Controller);
        entry.execute().await.map_err(LinkError::of("point an address at", name))
    }

    fn entry(&self, port: u32, mac: Mac) -> NeighbourAddRequest {
        self.netlink().handle().neighbours().add_bridge(port, &mac.0).state(STATIC).replace()
    }

    /// Adds one more destination for everybody's frames. The library's request can only create or replace.
    async fn flood(&self, peer: Ipv4Addr) -> Result<(), LinkError> {
        let entry = entry_message(self.tunnel(), EVERYBODY, NeighbourFlags::Own, Some(peer));
        let mut request = NetlinkMessage::from(RouteNetlinkMessage::NewNeighbour(entry));
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_APPEND;
        let failed = LinkError::of("flood to a node from", TUNNEL);
        let mut answers = match self.netlink().handle().clone().request(request) {
            Ok(answers) => answers,
            Err(cause) => return Err(failed(cause)),
        };
        while let Some(answer) = answers.next().await {
            match answer.payload {
                NetlinkPayload::Error(error) if error.code.is_some() => {
                    return Err(failed(Error::NetlinkError(error)));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Deletes an entry; not having it is success.
    async fn forget(&self, entry: NeighbourMessage) -> Result<(), LinkError> {
        match self.netlink().handle().neighbours().del(entry).execute().await {
            Err(cause) if errno(&cause) != Some(libc::ENOENT) => {
                Err(LinkError::of("delete a forwarding entry of", TUNNEL)(cause))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

fn entry_message(port: u32, mac: Mac, flags: NeighbourFlags, node: Option<Ipv4Addr>) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = port;
    message.header.state = STATIC;
    message.header.flags = flags;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
    message.attributes.extend(node.map(|node| NeighbourAttribute::Destination(node.into())));
    message
}

fn link_address(entry: &NeighbourMessage) -> Option<Mac> {
    entry.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(bytes) => bytes.as_slice().try_into().ok().map(Mac),
        _ => None,
    })
}

/// The node of a tunnel's entry. The family of these messages is the bridge's, so the address comes raw.
fn node_address(entry: &NeighbourMessage) -> Option<Ipv4Addr> {
    entry.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(node)) => Some(*node),
        NeighbourAttribute::Destination(NeighbourAddress::Other(bytes)) => {
            <[u8; 4]>::try_from(bytes.as_slice()).ok().map(Ipv4Addr::from)
        }
        _ => None,
    })
}

/// Whether an entry is in `bridge`'s table and was programmed; the bridge's own addresses are permanent.
fn is_static_entry_of(entry: &NeighbourMessage, bridge: u32) -> bool {
    let ours = entry.attributes.contains(&NeighbourAttribute::Controller(bridge));
    ours && entry.header.state == NeighbourState::Noarp
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE_1: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 11);
    const NODE_2: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 12);
    const NODE_3: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 13);
    const TASK: Ipv4Addr = Ipv4Addr::new(10, 88, 1, 1);

    fn overlay(underlay: Ipv4Addr) -> Ipv4Addr {
        Ipv4Addr::new(10, 88, 0, underlay.octets()[3])
    }

    /// The state of a cluster as one of its nodes sees it.
    fn want(peers: &[Ipv4Addr], task_on: Option<Ipv4Addr>) -> Forwarding {
        Forwarding {
            peers: peers.iter().map(|&peer| (peer, overlay(peer))).collect(),
            tasks: task_on.map(|node| (TASK, node)).into_iter().collect(),
        }
    }

    /// Tables that are right for peers without tasks.
    fn have(peers: &[Ipv4Addr]) -> Tables {
        Tables {
            flood: peers.iter().copied().collect(),
            nodes: peers.iter().map(|&peer| (Mac::of(overlay(peer)), peer)).collect(),
            ways: peers.iter().map(|&peer| (Mac::of(overlay(peer)), Way::Tunnel)).collect(),
        }
    }

    /// Tables that also know where the task is.
    fn with_task(mut tables: Tables, node: Option<Ipv4Addr>, way: Option<Way>) -> Tables {
        tables.nodes.extend(node.map(|node| (Mac::of(TASK), node)));
        tables.ways.extend(way.map(|way| (Mac::of(TASK), way)));
        tables
    }

    #[test]
    fn peers_come_and_go() {
        let check = |want: Forwarding, have: Tables, changes: &[Change]| {
            assert_eq!(plan_forwarding(&want, &have), changes, "{want:?} from {have:?}");
        };
        let mac = Mac::of(overlay(NODE_2));
        check(want(&[], None), have(&[]), &[]);
        check(want(&[NODE_2], None), have(&[NODE_2]), &[]);
        let comes = [Change::Flood(NODE_2), Change::Point(mac, NODE_2), Change::Tunnel(mac)];
        check(want(&[NODE_2], None), have(&[]), &comes);
        check(want(&[NODE_2, NODE_3], None), have(&[NODE_3]), &comes);
        let goes = [Change::Untunnel(mac), Change::Unpoint(mac), Change::Unflood(NODE_2)];
        check(want(&[NODE_3], None), have(&[NODE_2, NODE_3]), &goes);
    }

    #[test]
    fn a_task_is_followed() {
        let (mac, peers) = (Mac::of(TASK), [NODE_2, NODE_3]);
        let check = |task_on: Option<Ipv4Addr>, node, way, changes: &[Change]| {
            let tables = with_task(have(&peers), node, way);
            assert_eq!(plan_forwarding(&want(&peers, task_on), &tables), changes, "{task_on:?} {way:?}");
        };
        // Placed, known already, moved between others, gone.
        check(Some(NODE_2), None, None, &[Change::Point(mac, NODE_2), Change::Tunnel(mac)]);
        check(Some(NODE_2), Some(NODE_2), Some(Way::Tunnel), &[]);
        check(Some(NODE_3), Some(NODE_2), Some(Way::Tunnel), &[Change::Point(mac, NODE_3)]);
        check(None, Some(NODE_2), Some(Way::Tunnel), &[Change::Untunnel(mac), Change::Unpoint(mac)]);
        // Frozen here and committed to another node: whoever holds its frames passes them on.
        check(Some(NODE_2), None, Some(Way::Hold), &[Change::Point(mac, NODE_2)]);
        // Frozen here and not committed: stays in the hold.
        check(Some(NODE_1), None, Some(Way::Hold), &[]);
    }

    #[test]
    fn what_runs_here_is_not_moved_by_old_state() {
        let (mac, peers) = (Mac::of(TASK), [NODE_2, NODE_3]);
        let arrived = with_task(have(&peers), Some(NODE_2), Some(Way::Local));
        assert_eq!(plan_forwarding(&want(&peers, Some(NODE_2)), &arrived), []);
        assert_eq!(plan_forwarding(&want(&peers, Some(NODE_1)), &arrived), [Change::Unpoint(mac)]);
    }

    #[test]
    fn tasks_on_unknown_nodes_are_left_to_flooding() {
        assert_eq!(plan_forwarding(&want(&[NODE_2], Some(NODE_3)), &have(&[NODE_2])), []);
    }

    #[test]
    fn applying_a_plan_leaves_nothing_to_plan() {
        let states = [want(&[], None), want(&[NODE_2], Some(NODE_2)), want(&[NODE_2, NODE_3], Some(NODE_3))];
        for from in &states {
            for to in &states {
                let mut tables = Tables::default();
                plan_forwarding(from, &Tables::default()).into_iter().for_each(|c| perform(&mut tables, c));
                plan_forwarding(to, &tables).into_iter().for_each(|c| perform(&mut tables, c));
                assert_eq!(plan_forwarding(to, &tables), [], "{from:?} -> {to:?}");
            }
        }
    }

    fn perform(tables: &mut Tables, change: Change) {
        match change {
            Change::Flood(peer) => assert!(tables.flood.insert(peer)),
            Change::Unflood(peer) => assert!(tables.flood.remove(&peer)),
            Change::Point(mac, node) => assert_ne!(tables.nodes.insert(mac, node), Some(node)),
            Change::Unpoint(mac) => assert!(tables.nodes.remove(&mac).is_some()),
            Change::Tunnel(mac) => assert_ne!(tables.ways.insert(mac, Way::Tunnel), Some(Way::Tunnel)),
            Change::Untunnel(mac) => assert_eq!(tables.ways.remove(&mac), Some(Way::Tunnel)),
        }
    }
}
