//! The veth pair that connects an instance: its host end on the node, `eth0` in the container's namespace.
//!
//! A host end is named after its instance, carries the instance's id as its alias, and is made *shielded*:
//! nothing reaches a new namespace until [`crate::shield`] says so. The container's network namespace
//! belongs to the container's user namespace; root on the node has all capabilities there.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use rtnetlink::packet_route::link::{InfoData, InfoVeth};
use rtnetlink::{LinkUnspec, LinkVeth, RouteMessageBuilder};

use crate::address::{HOST_END_PREFIX, Mac, host_end_name};
use crate::netlink::{Link, LinkError, Netlink, by_index, errno};
use crate::netns::NetNs;
use crate::node::NodeNetwork;
use crate::shield::Shield;

/// Name of the link inside the container.
pub const CONTAINER_END: &str = "eth0";

/// What connects one instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VethSpec<'a> {
    /// The instance's id, `<task>@<epoch>`.
    pub instance: &'a str,
    /// The task's address; its prefix is the cluster's.
    pub address: Ipv4Addr,
}

/// A host end found on the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostEnd {
    /// The link's name.
    pub link: String,
    /// The instance it belongs to; `None` if its maker died between making and naming it.
    pub instance: Option<String>,
    /// Whether packets pass.
    pub shield: Shield,
}

/// Why an instance could not be connected.
#[derive(Debug, thiserror::Error)]
pub enum VethError {
    /// The name that follows from the instance's id belongs to another instance.
    #[error("link {link} belongs to instance {owner}, not to {instance}")]
    Taken {
        /// The link.
        link: String,
        /// Who has it.
        owner: String,
        /// Who wants it.
        instance: String,
    },
    /// A link could not be made as wanted.
    #[error(transparent)]
    Link(#[from] LinkError),
}

/// What to do about an instance's pair.
#[derive(Clone, Debug, PartialEq, Eq)]
enum PairStep {
    /// Delete a host end whose other end is not in the instance's namespace.
    Delete,
    /// Make the pair.
    Create,
    /// Write the instance's id on the host end.
    Name,
}

/// Lists what to do about a pair of this instance. Pure.
fn plan_pair(
    spec: &VethSpec<'_>,
    host: Option<&Link>,
    container: Option<&Link>,
) -> Result<Vec<PairStep>, VethError> {
    let Some(link) = host else { return Ok(vec![PairStep::Create, PairStep::Name]) };
    match link.alias.as_deref() {
        Some(owner) if owner != spec.instance => Err(VethError::Taken {
            link: link.name.clone(),
            owner: owner.to_owned(),
            instance: spec.instance.to_owned(),
        }),
        _ if container.is_none() => Ok(vec![PairStep::Delete, PairStep::Create, PairStep::Name]),
        None => Ok(vec![PairStep::Name]),
        Some(_) => Ok(Vec::new()),
    }
}

impl NodeNetwork {
    /// Connects an instance whose network namespace is `container`, with its address, MAC and default route
    /// set and its links up. A new pair starts shielded; an existing one keeps its shield as it is.
    pub async fn ensure_veth(&self, spec: &VethSpec<'_>, container: &NetNs) -> Result<(), VethError> {
        let name = host_end_name(spec.instance);
        let inside = Netlink::open_in(container)?;
        let host = self.netlink().find(&name).await?;
        for step in plan_pair(spec, host.as_ref(), inside.find(CONTAINER_END).await?.as_ref())? {
            self.apply_pair_step(spec, container, &name, &step).await?;
        }
        self.configure_inside(spec, &inside).await?;
        Ok(())
    }

    /// Disconnects an instance; says whether it was connected.
    pub async fn delete_veth(&self, instance: &str) -> Result<bool, LinkError> {
        self.netlink().delete(&host_end_name(instance)).await
    }

    /// Deletes a host end that was found, also one without an instance; says whether it was there.
    pub async fn delete_host_end(&self, end: &HostEnd) -> Result<bool, LinkError> {
        self.netlink().delete(&end.link).await
    }

    /// All host ends on this node, for finding those whose instance is gone.
    pub async fn host_ends(&self) -> Result<Vec<HostEnd>, LinkError> {
        let links = self.netlink().list().await?;
        let ours = links.into_iter().filter(|link| link.name.starts_with(HOST_END_PREFIX));
        let found = ours.filter(|link| [self.bridge(), self.void()].map(Some).contains(&link.controller));
        Ok(found.map(|link| self.host_end(link)).collect())
    }

    fn host_end(&self, link: Link) -> HostEnd {
        let shield = Shield::of(&link, self.bridge());
        HostEnd { link: link.name, instance: link.alias, shield }
    }

    async fn apply_pair_step(
        &self,
        spec: &VethSpec<'_>,
        container: &NetNs,
        name: &str,
        step: &PairStep,
    ) -> Result<(), LinkError> {
        match step {
            PairStep::Delete => self.netlink().delete(name).await.map(drop),
            PairStep::Create => self.create_pair(spec, container, name).await,
            PairStep::Name => {
                let link = self.netlink().get(name).await?;
                let message = by_index(link.index).alias(spec.instance).build();
                self.netlink().change("name the instance of", name, message).await
            }
        }
    }

    /// One message makes both ends, the container's in its namespace and the host's in the void, so that
    /// there is no moment when either is somewhere else.
    async fn create_pair(&self, spec: &VethSpec<'_>, container: &NetNs, name: &str) -> Result<(), LinkError> {
        let inner = LinkUnspec::new_with_name(CONTAINER_END)
            .address(Mac::of(spec.address).0.to_vec())
            .mtu(self.mtu())
            .setns_by_fd(container.raw())
            .build();
        let message = LinkVeth::new(name, CONTAINER_END)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(inner)))
            .mtu(self.mtu())
            .controller(self.void())
            .up()
            .build();
        self.netlink().create(name, message).await
    }

    async fn configure_inside(&self, spec: &VethSpec<'_>, inside: &Netlink) -> Result<(), LinkError> {
        let overlay = self.spec().overlay;
        let address = Ipv4Net::new_assert(spec.address, overlay.prefix_len());
        let link = inside.get(CONTAINER_END).await?;
        inside.bring_up("lo").await?;
        inside.add_address(&link, address).await?;
        inside.bring_up(CONTAINER_END).await?;
        add_default_route(inside, overlay.addr()).await
    }
}

/// Routes everything else through the node; having that route already is success.
async fn add_default_route(inside: &Netlink, gateway: Ipv4Addr) -> Result<(), LinkError> {
    let route = RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).build();
    match inside.handle().route().add(route).execute().await {
        Err(cause) if errno(&cause) != Some(libc::EEXIST) => {
            Err(LinkError::of("add a default route through", CONTAINER_END)(cause))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(alias: Option<&str>) -> Link {
        Link {
            index: 5,
            name: host_end_name("redis-0@3"),
            controller: None,
            mtu: 1450,
            mac: None,
            up: true,
            alias: alias.map(str::to_owned),
            tunnel: None,
        }
    }

    #[test]
    fn plans() {
        let spec = VethSpec { instance: "redis-0@3", address: Ipv4Addr::new(10, 88, 1, 1) };
        let check = |host: Option<Link>, container: Option<Link>, want: &[PairStep]| {
            assert_eq!(plan_pair(&spec, host.as_ref(), container.as_ref()).unwrap(), want);
        };
        use PairStep::{Create, Delete, Name};
        check(None, None, &[Create, Name]);
        check(Some(link(Some("redis-0@3"))), Some(link(None)), &[]);
        check(Some(link(None)), Some(link(None)), &[Name]);
        check(Some(link(Some("redis-0@3"))), None, &[Delete, Create, Name]);
        check(Some(link(None)), None, &[Delete, Create, Name]);
        let taken = plan_pair(&spec, Some(&link(Some("web-7@1"))), None).unwrap_err();
        assert!(taken.to_string().ends_with("belongs to instance web-7@1, not to redis-0@3"), "{taken}");
    }
}
