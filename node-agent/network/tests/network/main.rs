//! The container network on the real kernel: three nodes made of namespaces. Needs root.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod figures;
mod lab;
mod moving;
mod sys;

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use container_network::{NetNs, Netlink, NodeNetwork, Shield, VethSpec, Wire};
use lab::{Container, Lab, hear, spec, tell};

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 88, 1, 1);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 88, 1, 2);

#[tokio::test]
async fn containers_on_two_nodes_talk() {
    let lab = Lab::new(3).await;
    let (server, client) = (lab.container(0, "s-0@1", SERVER).await, lab.container(1, "c-0@1", CLIENT).await);
    // Before any node is told where they are, flooding finds them.
    for tasks in [&[][..], &[(SERVER, 0), (CLIENT, 1)][..]] {
        lab.forward(tasks).await;
        let (listener, address) = server.listen();
        let mut near = client.connect(address).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        let bulk = vec![7_u8; 1 << 20];
        let echo = std::thread::spawn(move || {
            let heard = hear(&mut far, bulk.len());
            far.write_all(&heard).unwrap();
        });
        near.write_all(&vec![7_u8; 1 << 20]).unwrap();
        assert_eq!(hear(&mut near, 1 << 20).len(), 1 << 20);
        echo.join().unwrap();
    }
}

#[tokio::test]
async fn a_namespace_may_belong_to_a_user_namespace() {
    let lab = Lab::new(1).await;
    let mut process = sys::start_in_user_namespace();
    let namespace = NetNs::of_pid(process.id()).unwrap();
    let connected = lab.nodes[0].ensure_veth(&VethSpec { instance: "u-0@1", address: SERVER }, &namespace);
    connected.await.unwrap();
    lab.nodes[0].lower_shield("u-0@1", SERVER).await.unwrap();
    let server = Container { namespace, instance: "u-0@1".to_owned(), address: SERVER };
    let (listener, address) = server.listen();
    let client = lab.container(0, "c-0@1", CLIENT).await;
    let mut near = client.connect(address).unwrap();
    tell(&mut near, &mut listener.accept().unwrap().0, b"hello");
    process.kill().unwrap();
    process.wait().unwrap();
}

#[tokio::test]
async fn a_wire_can_be_cut_and_joined() {
    let (wire, machines) = (NetNs::create().unwrap(), [1, 2].map(|n| (n, NetNs::create().unwrap())));
    let switch = Wire::ensure(&wire).await.unwrap();
    for (n, machine) in &machines {
        let address = format!("10.77.0.{n}/24").parse().unwrap();
        switch.ensure_cable(&format!("port{n}"), machine, address).await.unwrap();
        switch.ensure_cable(&format!("port{n}"), machine, address).await.unwrap();
    }
    let refused = || {
        let target = ([10, 77, 0, 2], 9).into();
        let connect = || TcpStream::connect_timeout(&target, Duration::from_millis(100)).unwrap_err();
        machines[0].1.run(connect).unwrap().kind() == ErrorKind::ConnectionRefused
    };
    assert!(refused());
    switch.cut("port2").await.unwrap();
    assert!(!refused() && !switch.is_connected("port2").await.unwrap());
    switch.join("port2").await.unwrap();
    assert!(refused() && switch.is_connected("port2").await.unwrap());
}

#[tokio::test]
async fn making_it_again_changes_nothing() {
    let lab = Lab::new(2).await;
    let container = lab.container(0, "s-0@1", SERVER).await;
    let tasks = [(SERVER, 0)];
    lab.forward(&tasks).await;
    let links = || async { Netlink::open_in(lab.nodes[0].namespace()).unwrap().list().await.unwrap() };
    let before = links().await;
    let again = NodeNetwork::ensure_in(lab.nodes[0].namespace().try_clone().unwrap(), spec(0)).await.unwrap();
    again.ensure_veth(&container.spec(), &container.namespace).await.unwrap();
    assert_eq!(again.ensure_forwarding(&lab.wanted(0, &tasks)).await.unwrap(), 0);
    assert_eq!(links().await, before);
    assert_eq!(again.shield("s-0@1").await.unwrap(), Some(Shield::Down));
}

#[tokio::test]
async fn a_shielded_container_neither_hears_nor_answers() {
    let lab = Lab::new(2).await;
    let client = lab.container(1, "c-0@1", CLIENT).await;
    // No socket listens: without the shield the kernel refuses at once.
    let server = lab.container(0, "s-0@1", SERVER).await;
    let refused = client.connect((SERVER, 9).into()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    lab.nodes[0].raise_shield(&server.instance).await.unwrap();
    lab.nodes[0].raise_shield(&server.instance).await.unwrap();
    assert_eq!(lab.nodes[0].shield(&server.instance).await.unwrap(), Some(Shield::Up));
    let unanswered = client
        .namespace
        .run(|| TcpStream::connect_timeout(&(SERVER, 9).into(), Duration::from_millis(300)).unwrap_err());
    assert_eq!(unanswered.unwrap().kind(), ErrorKind::TimedOut);
    lab.nodes[0].lower_shield(&server.instance, SERVER).await.unwrap();
    assert_eq!(client.connect((SERVER, 9).into()).unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn what_was_sent_to_a_frozen_container_arrives_when_it_is_back() {
    let lab = Lab::new(2).await;
    let (server, client) = (lab.container(0, "s-0@1", SERVER).await, lab.container(1, "c-0@1", CLIENT).await);
    lab.forward(&[(SERVER, 0), (CLIENT, 1)]).await;
    let (listener, address) = server.listen();
    let mut near = client.connect(address).unwrap();
    let (mut far, _) = listener.accept().unwrap();
    tell(&mut near, &mut far, b"before");

    let node = &lab.nodes[0];
    let hold = node.prepare_incoming(SERVER).unwrap();
    node.begin_incoming(&hold).await.unwrap();
    node.raise_shield("s-0@1").await.unwrap();
    near.write_all(b"during").unwrap();
    far.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    assert_eq!(far.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    far.set_read_timeout(None).unwrap();

    let start = Instant::now();
    node.lower_shield("s-0@1", SERVER).await.unwrap();
    let released = node.release_to_instance(hold, "s-0@1").await.unwrap();
    assert_eq!(hear(&mut far, 6), b"during");
    eprintln!("released {released:?}; arrived {:?} after", start.elapsed());
    assert!(released.frames >= 1 && released.lost == 0, "{released:?}");
    tell(&mut far, &mut near, b"after");
}

#[tokio::test]
async fn removing_leaves_nothing() {
    let lab = Lab::new(1).await;
    let container = lab.container(0, "s-0@1", SERVER).await;
    let orphan = lab.shielded(0, "gone-0@1", CLIENT).await;
    let node = &lab.nodes[0];
    let mut found: Vec<_> = node.host_ends().await.unwrap();
    found.sort_by_key(|end| end.instance.clone());
    let shields: Vec<_> = found.iter().map(|end| (end.instance.as_deref(), end.shield)).collect();
    assert_eq!(shields, [(Some("gone-0@1"), Shield::Up), (Some("s-0@1"), Shield::Down)]);

    assert!(node.delete_host_end(&found[0]).await.unwrap());
    assert!(!node.delete_veth(&orphan.instance).await.unwrap());
    assert_eq!(node.shield(&orphan.instance).await.unwrap(), None);
    node.remove().await.unwrap();
    let left = Netlink::open_in(node.namespace()).unwrap().list().await.unwrap();
    let left: Vec<_> =
        left.iter().map(|link| link.name.as_str()).filter(|name| !is_kernels_own(name)).collect();
    assert_eq!(left, ["eth0"]);
    drop(container);
}

/// Links that a kernel puts into every new namespace.
fn is_kernels_own(name: &str) -> bool {
    ["lo", "tunl0", "sit0", "gre0", "ifb0", "ifb1"].contains(&name)
}
