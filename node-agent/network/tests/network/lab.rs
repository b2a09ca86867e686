//! Nodes and containers made of network namespaces, joined by a wire that is one too. All of them are
//! anonymous: whatever becomes of a test, they vanish with its process.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::time::Duration;

use container_network::{Forwarding, NetNs, NodeNetwork, NodeSpec, VethSpec, Wire};
use ipnet::Ipv4Net;

/// The wire and what is on it.
pub(crate) struct Lab {
    pub(crate) nodes: Vec<NodeNetwork>,
    _wire: NetNs,
}

/// A container's namespace and what it is called.
pub(crate) struct Container {
    pub(crate) namespace: NetNs,
    pub(crate) instance: String,
    pub(crate) address: Ipv4Addr,
}

impl Lab {
    /// `count` nodes that know each other.
    pub(crate) async fn new(count: u8) -> Self {
        let wire = NetNs::create().unwrap();
        let switch = Wire::ensure(&wire).await.unwrap();
        let mut nodes = Vec::new();
        for index in 0..count {
            let namespace = NetNs::create().unwrap();
            let address = Ipv4Net::new_assert(underlay(index), 24);
            switch.ensure_cable(&format!("node-{index}"), &namespace, address).await.unwrap();
            nodes.push(NodeNetwork::ensure_in(namespace, spec(index)).await.unwrap());
        }
        let lab = Self { nodes, _wire: wire };
        lab.forward(&[]).await;
        lab
    }

    /// Tells every node that these tasks are on these nodes.
    pub(crate) async fn forward(&self, tasks: &[(Ipv4Addr, u8)]) {
        for index in 0..self.nodes.len() {
            self.nodes[index].ensure_forwarding(&self.wanted(index, tasks)).await.unwrap();
        }
    }

    /// What one node should be told.
    pub(crate) fn wanted(&self, index: usize, tasks: &[(Ipv4Addr, u8)]) -> Forwarding {
        let others = self.nodes.iter().enumerate().filter(|(other, _)| *other != index);
        Forwarding {
            peers: others.map(|(_, node)| (node.spec().underlay, node.spec().overlay.addr())).collect(),
            tasks: tasks.iter().map(|&(task, node)| (task, underlay(node))).collect(),
        }
    }

    /// A connected container behind its shield.
    pub(crate) async fn shielded(&self, node: usize, instance: &str, address: Ipv4Addr) -> Container {
        let namespace = NetNs::create().unwrap();
        let container = Container { namespace, instance: instance.to_owned(), address };
        self.nodes[node].ensure_veth(&container.spec(), &container.namespace).await.unwrap();
        container
    }

    /// A connected container that packets reach.
    pub(crate) async fn container(&self, node: usize, instance: &str, address: Ipv4Addr) -> Container {
        let container = self.shielded(node, instance, address).await;
        self.nodes[node].lower_shield(instance, address).await.unwrap();
        container
    }
}

impl Container {
    pub(crate) fn spec(&self) -> VethSpec<'_> {
        VethSpec { instance: &self.instance, address: self.address }
    }

    /// Listens inside, on a port of the kernel's choice.
    pub(crate) fn listen(&self) -> (TcpListener, SocketAddr) {
        let address = self.address;
        let listener = self.namespace.run(move || TcpListener::bind((address, 0)).unwrap()).unwrap();
        let local = listener.local_addr().unwrap();
        (listener, local)
    }

    /// Connects from inside.
    pub(crate) fn connect(&self, to: SocketAddr) -> std::io::Result<TcpStream> {
        let stream =
            self.namespace.run(move || TcpStream::connect_timeout(&to, Duration::from_secs(5))).unwrap()?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

pub(crate) fn underlay(node: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, 11 + node)
}

pub(crate) fn spec(node: u8) -> NodeSpec {
    NodeSpec {
        overlay: format!("10.88.0.{}/16", 2 + node).parse().unwrap(),
        underlay: underlay(node),
        vni: 88,
        port: 4789,
    }
}

/// Sends `said` one way and takes it in at the other end.
pub(crate) fn tell(from: &mut TcpStream, to: &mut TcpStream, said: &[u8]) {
    from.write_all(said).unwrap();
    assert_eq!(hear(to, said.len()), said);
}

/// Takes in so many bytes.
pub(crate) fn hear(stream: &mut TcpStream, length: usize) -> Vec<u8> {
    let mut heard = vec![0; length];
    stream.read_exact(&mut heard).unwrap();
    heard
}

pub(crate) fn v4(address: SocketAddr) -> SocketAddrV4 {
    match address {
        SocketAddr::V4(address) => address,
        SocketAddr::V6(_) => panic!("{address} is not IPv4"),
    }
}
