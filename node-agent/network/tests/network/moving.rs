//! An address moves from one node to another while a client on a third talks to it.

use std::io::Write;
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use container_network::Shield;

use crate::lab::{Container, Lab, hear, tell, underlay};
use crate::sys;

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 88, 1, 1);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 88, 1, 2);

/// Long enough for a kernel that wanted to answer, and for a peer that wanted to send again.
const FREEZE: Duration = Duration::from_millis(300);

struct Scene {
    lab: Lab,
    client: Container,
    near: TcpStream,
    far: TcpStream,
}

/// A server on node 0, its client on node 2, and a connection between them.
async fn scene() -> Scene {
    let lab = Lab::new(3).await;
    let (server, client) = (lab.container(0, "s-0@1", SERVER).await, lab.container(2, "c-0@1", CLIENT).await);
    lab.forward(&[(SERVER, 0), (CLIENT, 2)]).await;
    let (listener, address) = server.listen();
    let mut near = client.connect(address).unwrap();
    let (mut far, _) = listener.accept().unwrap();
    tell(&mut far, &mut near, b"hello");
    tell(&mut near, &mut far, b"before");
    // The container's namespace stays until its veth pair goes; only the connection is taken out of it.
    Scene { lab, client, near, far }
}

#[tokio::test]
async fn an_address_moves_with_its_connection() {
    let Scene { lab, client, mut near, far } = scene().await;
    let (source, target) = (&lab.nodes[0], &lab.nodes[1]);

    let hold = source.prepare_incoming(SERVER).unwrap();
    source.begin_incoming(&hold).await.unwrap();
    source.raise_shield("s-0@1").await.unwrap();
    let connection = sys::take(far);
    // More than a packet: segments that the kernel hands around whole, checksums still to be filled in.
    let during = vec![7; 50_000];
    near.write_all(&during).unwrap();

    // The target's namespace has the address but no sockets yet, and hears nothing that it could refuse.
    let moved = lab.shielded(1, "s-0@2", SERVER).await;
    assert_eq!(target.shield("s-0@2").await.unwrap(), Some(Shield::Up));
    let outgoing = target.hold_outgoing("s-0@2").await.unwrap();
    std::thread::sleep(FREEZE);
    let mut far = moved.namespace.run(|| sys::give(&connection)).unwrap();

    let committed = Instant::now();
    target.lower_shield("s-0@2", SERVER).await.unwrap();
    target.announce(SERVER).unwrap();
    lab.nodes[2].flip(SERVER, underlay(1)).await.unwrap();
    let sent = target.release_outgoing(outgoing).unwrap();
    let received = source.release_to_node(hold, underlay(1)).await.unwrap();
    assert_eq!(hear(&mut far, during.len()), during);
    tell(&mut far, &mut near, b"after");
    eprintln!("answered {:?} after the commit; {received:?}, {sent:?}", committed.elapsed());
    assert!(committed.elapsed() < Duration::from_millis(100), "{received:?}, {sent:?}");
    tell(&mut near, &mut far, &[1; 100_000]);

    // What the nodes are told later agrees with what was done.
    lab.forward(&[(SERVER, 1), (CLIENT, 2)]).await;
    source.delete_veth("s-0@1").await.unwrap();
    tell(&mut near, &mut far, b"settled");
    drop(client);
}

#[tokio::test]
async fn an_aborted_move_leaves_the_connection_at_the_source() {
    let Scene { lab, client, mut near, mut far } = scene().await;
    let (source, target) = (&lab.nodes[0], &lab.nodes[1]);
    let hold = source.prepare_incoming(SERVER).unwrap();
    source.begin_incoming(&hold).await.unwrap();
    source.raise_shield("s-0@1").await.unwrap();
    let moved = lab.shielded(1, "s-0@2", SERVER).await;
    near.write_all(b"during").unwrap();

    target.delete_veth(&moved.instance).await.unwrap();
    source.lower_shield("s-0@1", SERVER).await.unwrap();
    source.release_to_instance(hold, "s-0@1").await.unwrap();
    assert_eq!(hear(&mut far, 6), b"during");
    tell(&mut far, &mut near, b"after");
    drop(client);
}

#[tokio::test]
async fn a_namespace_without_sockets_does_not_reset_its_peers() {
    let Scene { lab, client, mut near, far } = scene().await;
    let (source, target) = (&lab.nodes[0], &lab.nodes[1]);
    source.raise_shield("s-0@1").await.unwrap();
    let connection = sys::take(far);
    // Everybody already sends to the target, nobody keeps anything, and the target has no sockets yet.
    let moved = lab.shielded(1, "s-0@2", SERVER).await;
    lab.forward(&[(SERVER, 1), (CLIENT, 2)]).await;
    near.write_all(b"during").unwrap();
    std::thread::sleep(FREEZE);
    let mut far = moved.namespace.run(|| sys::give(&connection)).unwrap();
    target.lower_shield("s-0@2", SERVER).await.unwrap();
    // Slower, because the peer has to repeat itself, and still without a reset or a lost byte.
    assert_eq!(hear(&mut far, 6), b"during");
    tell(&mut far, &mut near, b"after");
    drop(client);
}
