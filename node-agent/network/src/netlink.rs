//! Route netlink: one connection per network namespace, and the requests that several facilities share.
//!
//! It decodes links into plain values for the planners and names link and operation in every error. It
//! decides nothing.

use std::io;
use std::net::Ipv4Addr;

use futures::TryStreamExt;
use ipnet::Ipv4Net;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{InfoData, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use rtnetlink::{Error, Handle, LinkMessageBuilder, LinkUnspec};

use crate::address::Mac;
use crate::netns::{NetNs, NetNsError};

/// A connection to the kernel's network configuration in one namespace. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Netlink {
    handle: Handle,
}

/// Why a request about a link failed.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The kernel refused, or did not answer.
    #[error("{operation} {link}")]
    Request {
        /// What was being done, such as `create`.
        operation: &'static str,
        /// To which link.
        link: String,
        /// The kernel's answer.
        #[source]
        cause: Error,
    },
    /// A link that must be there is not.
    #[error("link {link} does not exist")]
    Missing {
        /// Its name.
        link: String,
    },
    /// The connection itself failed.
    #[error("open a netlink connection")]
    Connect(#[source] io::Error),
    /// The namespace could not be joined.
    #[error("reach a network namespace")]
    Namespace(#[from] NetNsError),
}

impl LinkError {
    /// Makes an adapter for `map_err` that names the operation and the link.
    pub(crate) fn of(operation: &'static str, link: &str) -> impl FnOnce(Error) -> Self {
        let link = link.to_owned();
        move |cause| Self::Request { operation, link, cause }
    }
}

/// What the kernel says about one link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its index, unique in its namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Index of the bridge it is a port of.
    pub controller: Option<u32>,
    /// Largest packet in bytes.
    pub mtu: u32,
    /// Its Ethernet address.
    pub mac: Option<Mac>,
    /// Whether it is administratively up.
    pub up: bool,
    /// Its free-form alias.
    pub alias: Option<String>,
    /// What a tunnel was made with.
    pub tunnel: Option<Tunnel>,
}

/// The settings of a VXLAN link that cannot be changed after it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// Network identifier.
    pub vni: u32,
    /// UDP port.
    pub port: u16,
    /// The underlay address it sends from.
    pub local: Option<Ipv4Addr>,
    /// Whether it learns where addresses are from what it receives.
    pub learning: bool,
}

impl Netlink {
    /// Opens a connection in the calling thread's namespace. Needs a tokio runtime.
    pub fn open() -> Result<Self, LinkError> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(LinkError::Connect)?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// Opens a connection in another namespace. Needs a tokio runtime.
    pub fn open_in(namespace: &NetNs) -> Result<Self, LinkError> {
        let runtime = tokio::runtime::Handle::current();
        namespace.run(move || {
            let _entered = runtime.enter();
            Self::open()
        })?
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Looks a link up by name.
    pub async fn find(&self, name: &str) -> Result<Option<Link>, LinkError> {
        let mut answers = self.handle.link().get().match_name(name).execute();
        match answers.try_next().await {
            Ok(answer) => Ok(answer.map(decode_link)),
            Err(cause) if errno(&cause) == Some(libc::ENODEV) => Ok(None),
            Err(cause) => Err(LinkError::of("look up", name)(cause)),
        }
    }

    /// Looks up a link that must be there.
    pub async fn get(&self, name: &str) -> Result<Link, LinkError> {
        self.find(name).await?.ok_or_else(|| LinkError::Missing { link: name.to_owned() })
    }

    /// All links of the namespace.
    pub async fn list(&self) -> Result<Vec<Link>, LinkError> {
        let answers = self.handle.link().get().execute();
        answers.map_ok(decode_link).try_collect().await.map_err(LinkError::of("list", "all links"))
    }

    /// Creates a link; an error if the name is taken.
    pub async fn create(&self, name: &str, message: LinkMessage) -> Result<(), LinkError> {
        self.handle.link().add(message).execute().await.map_err(LinkError::of("create", name))
    }

    /// Changes a link; `operation` is for the error.
    pub async fn change(
        &self,
        operation: &'static str,
        name: &str,
        message: LinkMessage,
    ) -> Result<(), LinkError> {
        self.handle.link().change(message).execute().await.map_err(LinkError::of(operation, name))
    }

    /// Deletes a link if it is there; says whether it was.
    pub async fn delete(&self, name: &str) -> Result<bool, LinkError> {
        let Some(link) = self.find(name).await? else { return Ok(false) };
        match self.handle.link().del(link.index).execute().await {
            Ok(()) => Ok(true),
            Err(cause) if errno(&cause) == Some(libc::ENODEV) => Ok(false),
            Err(cause) => Err(LinkError::of("delete", name)(cause)),
        }
    }

    /// Brings a link up.
    pub async fn bring_up(&self, name: &str) -> Result<(), LinkError> {
        self.change("bring up", name, LinkUnspec::new_with_name(name).up().build()).await
    }

    /// IPv4 addresses of a link, each with its prefix.
    pub async fn addresses(&self, link: &Link) -> Result<Vec<Ipv4Net>, LinkError> {
        Ok(self.address_messages(link).await?.iter().filter_map(decode_address).collect())
    }

    /// Adds an address to a link; having it already is success.
    pub async fn add_address(&self, link: &Link, address: Ipv4Net) -> Result<(), LinkError> {
        let request = self.handle.address().add(link.index, address.addr().into(), address.prefix_len());
        match request.execute().await {
            Err(cause) if errno(&cause) != Some(libc::EEXIST) => {
                Err(LinkError::of("add an address to", &link.name)(cause))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Takes an address off a link; not having it is success.
    pub async fn drop_address(&self, link: &Link, address: Ipv4Net) -> Result<(), LinkError> {
        for message in self.address_messages(link).await? {
            if decode_address(&message) == Some(address) {
                let request = self.handle.address().del(message);
                request.execute().await.map_err(LinkError::of("take an address off", &link.name))?;
            }
        }
        Ok(())
    }

    async fn address_messages(&self, link: &Link) -> Result<Vec<AddressMessage>, LinkError> {
        let answers = self.handle.address().get().set_link_index_filter(link.index).execute();
        answers.try_collect().await.map_err(LinkError::of("list addresses of", &link.name))
    }
}

/// The kernel's error number in a netlink answer.
pub(crate) fn errno(error: &Error) -> Option<i32> {
    match error {
        Error::NetlinkError(answer) => answer.code.map(|code| -code.get()),
        _ => None,
    }
}

/// A message builder for changes of the link with this index.
pub(crate) fn by_index(index: u32) -> LinkMessageBuilder<LinkUnspec> {
    LinkUnspec::new_with_index(index)
}

fn decode_link(message: LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        controller: None,
        mtu: 0,
        mac: None,
        up: message.header.flags.contains(LinkFlags::Up),
        alias: None,
        tunnel: None,
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Controller(index) => link.controller = Some(index),
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Address(bytes) => link.mac = bytes.try_into().ok().map(Mac),
            LinkAttribute::IfAlias(alias) => link.alias = Some(alias),
            LinkAttribute::LinkInfo(infos) => link.tunnel = infos.into_iter().find_map(decode_tunnel),
            _ => {}
        }
    }
    link
}

fn decode_tunnel(info: LinkInfo) -> Option<Tunnel> {
    let LinkInfo::Data(InfoData::Vxlan(settings)) = info else { return None };
    let mut tunnel = Tunnel { vni: 0, port: 0, local: None, learning: false };
    for setting in settings {
        match setting {
            InfoVxlan::Id(vni) => tunnel.vni = vni,
            InfoVxlan::Port(port) => tunnel.port = port,
            InfoVxlan::Local(local) => tunnel.local = Some(local),
            InfoVxlan::Learning(learning) => tunnel.learning = learning,
            _ => {}
        }
    }
    Some(tunnel)
}

fn decode_address(message: &AddressMessage) -> Option<Ipv4Net> {
    let ip = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(std::net::IpAddr::V4(ip)) => Some(*ip),
        _ => None,
    })?;
    Ipv4Net::new(ip, message.header.prefix_len).ok()
}
