//! The bridges of a node: `dray0`, which connects its containers, and `dray-void`, which connects nothing.
//!
//! A port of a bridge that is down neither receives nor sends, and the node's own network stack never
//! sees its frames: that is what a shielded instance is attached to (see [`crate::shield`]).
//!
//! Ports of `dray0` never learn; see the crate's documentation.

use ipnet::Ipv4Net;
use rtnetlink::{LinkBridge, LinkBridgePort};

use crate::address::Mac;
use crate::netlink::{Link, LinkError, Netlink, by_index};

/// The bridge that connects a node's containers.
pub const BRIDGE: &str = "dray0";

/// The bridge that is always down; its ports are cut off.
pub const VOID: &str = "dray-void";

/// What a bridge should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BridgeSpec {
    /// Its name.
    pub name: &'static str,
    /// Its Ethernet address; `None` leaves the kernel's choice.
    pub mac: Option<Mac>,
    /// Its only IPv4 address, with the prefix; `None` for no address at all.
    pub address: Option<Ipv4Net>,
    /// Largest packet in bytes.
    pub mtu: u32,
    /// Whether it forwards.
    pub up: bool,
}

/// One change to a bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BridgeStep {
    /// Make it, with the right MAC.
    Create,
    /// Give it its MAC.
    SetMac(Mac),
    /// Give it its packet size.
    SetMtu(u32),
    /// Take an address away.
    DropAddress(Ipv4Net),
    /// Give it an address.
    AddAddress(Ipv4Net),
    /// Let it forward.
    Up,
    /// Stop it forwarding.
    Down,
}

/// Lists what to change so that the bridge is as wanted. Pure.
pub fn plan_bridge(want: &BridgeSpec, have: Option<&Link>, addresses: &[Ipv4Net]) -> Vec<BridgeStep> {
    let mut steps = Vec::new();
    match (have, want.mac) {
        (None, _) => steps.push(BridgeStep::Create),
        (Some(link), Some(mac)) if link.mac != Some(mac) => steps.push(BridgeStep::SetMac(mac)),
        (Some(_), _) => {}
    }
    if have.is_none_or(|link| link.mtu != want.mtu) {
        steps.push(BridgeStep::SetMtu(want.mtu));
    }
    let unwanted = addresses.iter().filter(|&&address| want.address != Some(address));
    steps.extend(unwanted.map(|&address| BridgeStep::DropAddress(address)));
    let missing = want.address.filter(|address| !addresses.contains(address));
    steps.extend(missing.map(BridgeStep::AddAddress));
    match (have.is_some_and(|link| link.up), want.up) {
        (false, true) => steps.push(BridgeStep::Up),
        (true, false) => steps.push(BridgeStep::Down),
        (true, true) | (false, false) => {}
    }
    steps
}

/// Makes the bridge as wanted and returns it.
pub async fn ensure_bridge(netlink: &Netlink, want: &BridgeSpec) -> Result<Link, LinkError> {
    let have = netlink.find(want.name).await?;
    let addresses = match &have {
        Some(link) => netlink.addresses(link).await?,
        None => Vec::new(),
    };
    for step in plan_bridge(want, have.as_ref(), &addresses) {
        apply_bridge_step(netlink, want, step).await?;
    }
    netlink.get(want.name).await
}

async fn apply_bridge_step(netlink: &Netlink, want: &BridgeSpec, step: BridgeStep) -> Result<(), LinkError> {
    let name = want.name;
    if step == BridgeStep::Create {
        return create_bridge(netlink, want).await;
    }
    let link = netlink.get(name).await?;
    let change = by_index(link.index);
    match step {
        BridgeStep::Create => Ok(()),
        BridgeStep::SetMac(mac) => {
            netlink.change("set the address of", name, change.address(mac.0.to_vec()).build()).await
        }
        BridgeStep::SetMtu(mtu) => netlink.change("set the MTU of", name, change.mtu(mtu).build()).await,
        BridgeStep::DropAddress(address) => netlink.drop_address(&link, address).await,
        BridgeStep::AddAddress(address) => netlink.add_address(&link, address).await,
        BridgeStep::Up => netlink.change("bring up", name, change.up().build()).await,
        BridgeStep::Down => netlink.change("bring down", name, change.down().build()).await,
    }
}

/// Made down, explicitly: the library's message would bring it up. Snooping is off so that multicast within
/// the flat network works without a querier.
async fn create_bridge(netlink: &Netlink, want: &BridgeSpec) -> Result<(), LinkError> {
    let mut message = LinkBridge::new(want.name).mcast_snooping(false).down();
    if let Some(mac) = want.mac {
        message = message.address(mac.0.to_vec());
    }
    netlink.create(want.name, message.build()).await
}

/// Makes a link a port of `bridge`; being one already is success.
pub(crate) async fn attach(netlink: &Netlink, port: &Link, bridge: u32) -> Result<(), LinkError> {
    if port.controller == Some(bridge) {
        return Ok(());
    }
    let message = by_index(port.index).controller(bridge).build();
    netlink.change("change the bridge of", &port.name, message).await
}

/// Whether a port receives frames that nobody claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flooding {
    /// Broadcast and unknown addresses too.
    Everything,
    /// Only frames whose address points at it.
    Nothing,
}

/// Switches learning off on a port of a bridge and sets its flooding. To be repeated whenever the port
/// joined a bridge, because leaving one forgets it.
pub(crate) async fn set_port(netlink: &Netlink, port: &Link, flooding: Flooding) -> Result<(), LinkError> {
    let flood = flooding == Flooding::Everything;
    let message = LinkBridgePort::new(port.index)
        .learning(false)
        .flood(flood)
        .mcast_flood(flood)
        .bcast_flood(flood)
        .build();
    netlink.change("set bridge port options of", &port.name, message).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> BridgeSpec {
        let address: Ipv4Net = "10.88.0.2/16".parse().unwrap();
        BridgeSpec {
            name: BRIDGE,
            mac: Some(Mac::of(address.addr())),
            address: Some(address),
            mtu: 1450,
            up: true,
        }
    }

    fn link() -> Link {
        let spec = spec();
        Link {
            index: 2,
            name: spec.name.to_owned(),
            controller: None,
            mtu: spec.mtu,
            mac: spec.mac,
            up: true,
            alias: None,
            tunnel: None,
        }
    }

    #[test]
    fn plans() {
        let address = spec().address.unwrap();
        let other: Ipv4Net = "10.88.0.3/16".parse().unwrap();
        let check = |have: Option<Link>, addresses: &[Ipv4Net], want: &[BridgeStep]| {
            assert_eq!(plan_bridge(&spec(), have.as_ref(), addresses), want, "{have:?} {addresses:?}");
        };
        use BridgeStep::{AddAddress, Create, DropAddress, SetMac, SetMtu, Up};
        check(None, &[], &[Create, SetMtu(1450), AddAddress(address), Up]);
        check(Some(link()), &[address], &[]);
        check(Some(link()), &[], &[AddAddress(address)]);
        check(Some(link()), &[other], &[DropAddress(other), AddAddress(address)]);
        check(Some(Link { mtu: 1500, ..link() }), &[address], &[SetMtu(1450)]);
        check(Some(Link { up: false, ..link() }), &[address], &[Up]);
        check(Some(Link { mac: None, ..link() }), &[address], &[SetMac(Mac::of(address.addr()))]);
    }

    #[test]
    fn the_void_is_brought_down_and_stripped_of_addresses() {
        let void = BridgeSpec { name: VOID, mac: None, address: None, mtu: 1450, up: false };
        let stray: Ipv4Net = "10.1.1.1/24".parse().unwrap();
        assert_eq!(
            plan_bridge(&void, Some(&link()), &[stray]),
            [BridgeStep::DropAddress(stray), BridgeStep::Down]
        );
    }
}
