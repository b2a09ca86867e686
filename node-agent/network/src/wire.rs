//! A wire between namespaces: a bridge in a namespace of its own, and a cable from it to each machine that is
//! a namespace too. Local clusters and tests are joined by one, so that the host's own links, routes and
//! firewall don't matter. Real nodes have a real network and don't use this.

use ipnet::Ipv4Net;
use rtnetlink::packet_route::link::{InfoData, InfoVeth};
use rtnetlink::{LinkBridge, LinkUnspec, LinkVeth};

use crate::bridge::attach;
use crate::netlink::{LinkError, Netlink, by_index};
use crate::netns::NetNs;

/// The bridge in the wire's namespace.
const SWITCH: &str = "wire";

/// The link at the machine's end of a cable.
pub const MACHINE_END: &str = "eth0";

/// A wire in its namespace.
#[derive(Clone, Debug)]
pub struct Wire {
    netlink: Netlink,
    switch: u32,
}

impl Wire {
    /// Makes the wire in this namespace, or finds it there.
    pub async fn ensure(namespace: &NetNs) -> Result<Self, LinkError> {
        let netlink = Netlink::open_in(namespace)?;
        if netlink.find(SWITCH).await?.is_none() {
            netlink.create(SWITCH, LinkBridge::new(SWITCH).up().build()).await?;
        }
        let switch = netlink.get(SWITCH).await?.index;
        Ok(Self { netlink, switch })
    }

    /// Connects a machine through the port of this name and gives its end the address. A machine that has a
    /// cable keeps it.
    pub async fn ensure_cable(&self, port: &str, machine: &NetNs, address: Ipv4Net) -> Result<(), LinkError> {
        let inside = Netlink::open_in(machine)?;
        if inside.find(MACHINE_END).await?.is_none() {
            self.replace_cable(port, machine).await?;
        }
        self.join(port).await?;
        inside.bring_up("lo").await?;
        let end = inside.get(MACHINE_END).await?;
        inside.add_address(&end, address).await?;
        inside.bring_up(MACHINE_END).await
    }

    /// Cuts a machine off silently, as a broken switch would: its link stays up and its packets go nowhere.
    pub async fn cut(&self, port: &str) -> Result<(), LinkError> {
        let link = self.netlink.get(port).await?;
        self.netlink.change("cut", port, by_index(link.index).nocontroller().build()).await
    }

    /// Joins a machine again.
    pub async fn join(&self, port: &str) -> Result<(), LinkError> {
        attach(&self.netlink, &self.netlink.get(port).await?, self.switch).await
    }

    /// Whether a machine has a cable that is not cut.
    pub async fn is_connected(&self, port: &str) -> Result<bool, LinkError> {
        let link = self.netlink.find(port).await?;
        Ok(link.is_some_and(|link| link.controller == Some(self.switch)))
    }

    /// A port without its machine is what a deleted namespace may leave for a moment.
    async fn replace_cable(&self, port: &str, machine: &NetNs) -> Result<(), LinkError> {
        self.netlink.delete(port).await?;
        let inner = LinkUnspec::new_with_name(MACHINE_END).setns_by_fd(machine.raw()).build();
        let cable = LinkVeth::new(port, MACHINE_END)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(inner)))
            .controller(self.switch)
            .up();
        self.netlink.create(port, cable.build()).await
    }
}
