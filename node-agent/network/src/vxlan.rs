//! The VXLAN device `dray-vx` that carries frames between nodes. It learns nothing; [`crate::forwarding`]
//! programs it.

use std::net::Ipv4Addr;

use rtnetlink::LinkVxlan;

use crate::bridge::{self, Flooding};
use crate::netlink::{Link, LinkError, Netlink, Tunnel, by_index};

/// Name of the tunnel device.
pub const TUNNEL: &str = "dray-vx";

/// Bytes that VXLAN over IPv4 adds to a packet: Ethernet 14, IP 20, UDP 8, VXLAN 8.
pub const OVERHEAD_BYTES: u32 = 50;

/// What the tunnel should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TunnelSpec {
    /// Network identifier, the same on all nodes of a cluster.
    pub vni: u32,
    /// UDP port, the same on all nodes of a cluster.
    pub port: u16,
    /// This node's address on the network between the nodes.
    pub local: Ipv4Addr,
    /// Largest packet it carries, in bytes: the underlay's less [`OVERHEAD_BYTES`].
    pub mtu: u32,
}

/// One change to the tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunnelStep {
    /// Delete it, because it was made with other settings.
    Delete,
    /// Make it.
    Create,
    /// Give it its packet size.
    SetMtu,
    /// Make it a port of the bridge.
    Attach,
    /// Bring it up.
    Up,
}

/// Lists what to change so that the tunnel is as wanted. Pure.
pub fn plan_tunnel(want: &TunnelSpec, have: Option<&Link>, bridge: u32) -> Vec<TunnelStep> {
    let settings = Tunnel { vni: want.vni, port: want.port, local: Some(want.local), learning: false };
    let fresh = [TunnelStep::Create, TunnelStep::SetMtu, TunnelStep::Attach, TunnelStep::Up];
    let Some(link) = have else { return fresh.to_vec() };
    if link.tunnel != Some(settings) {
        return [TunnelStep::Delete].into_iter().chain(fresh).collect();
    }
    let needed = [
        (link.mtu != want.mtu, TunnelStep::SetMtu),
        (link.controller != Some(bridge), TunnelStep::Attach),
        (!link.up, TunnelStep::Up),
    ];
    needed.into_iter().filter_map(|(needed, step)| needed.then_some(step)).collect()
}

/// Makes the tunnel as wanted, a port of the bridge with this index, and returns it.
pub async fn ensure_tunnel(netlink: &Netlink, want: &TunnelSpec, bridge: u32) -> Result<Link, LinkError> {
    let have = netlink.find(TUNNEL).await?;
    for step in plan_tunnel(want, have.as_ref(), bridge) {
        apply_tunnel_step(netlink, want, bridge, step).await?;
    }
    let link = netlink.get(TUNNEL).await?;
    bridge::set_port(netlink, &link, Flooding::Everything).await?;
    Ok(link)
}

async fn apply_tunnel_step(
    netlink: &Netlink,
    want: &TunnelSpec,
    bridge: u32,
    step: TunnelStep,
) -> Result<(), LinkError> {
    match step {
        TunnelStep::Delete => netlink.delete(TUNNEL).await.map(drop),
        TunnelStep::Create => {
            let message = LinkVxlan::new(TUNNEL, want.vni).local(want.local).port(want.port).learning(false);
            netlink.create(TUNNEL, message.build()).await
        }
        TunnelStep::SetMtu => {
            let link = netlink.get(TUNNEL).await?;
            netlink.change("set the MTU of", TUNNEL, by_index(link.index).mtu(want.mtu).build()).await
        }
        TunnelStep::Attach => bridge::attach(netlink, &netlink.get(TUNNEL).await?, bridge).await,
        TunnelStep::Up => netlink.bring_up(TUNNEL).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans() {
        let want = TunnelSpec { vni: 88, port: 4789, local: Ipv4Addr::new(10, 77, 0, 11), mtu: 1450 };
        let tunnel = Tunnel { vni: 88, port: 4789, local: Some(want.local), learning: false };
        let link = Link {
            index: 7,
            name: TUNNEL.to_owned(),
            controller: Some(3),
            mtu: 1450,
            mac: None,
            up: true,
            alias: None,
            tunnel: Some(tunnel),
        };
        let check = |have: Option<&Link>, steps: &[TunnelStep]| {
            assert_eq!(plan_tunnel(&want, have, 3), steps, "{have:?}");
        };
        use TunnelStep::{Attach, Create, Delete, SetMtu, Up};
        check(None, &[Create, SetMtu, Attach, Up]);
        check(Some(&link), &[]);
        check(Some(&Link { controller: None, ..link.clone() }), &[Attach]);
        check(Some(&Link { up: false, mtu: 1500, ..link.clone() }), &[SetMtu, Up]);
        let again = [Delete, Create, SetMtu, Attach, Up];
        for other in [
            Tunnel { vni: 89, ..tunnel },
            Tunnel { port: 8472, ..tunnel },
            Tunnel { local: None, ..tunnel },
            Tunnel { learning: true, ..tunnel },
        ] {
            check(Some(&Link { tunnel: Some(other), ..link.clone() }), &again);
        }
        check(Some(&Link { tunnel: None, ..link.clone() }), &again);
    }
}
