//! Gratuitous ARP: tells all neighbours at once where an address is.
//!
//! A task keeps its MAC when it moves and nothing of ours learns, so this is not what makes traffic flow.
//! It is for everything that isn't ours: a neighbour that probes its cache, a bridge between the nodes.

use std::io;
use std::net::Ipv4Addr;

use crate::address::Mac;
use crate::bridge::BRIDGE;
use crate::node::NodeNetwork;
use crate::sys::OFFLOAD_HEADER_BYTES;

/// Bytes of an ARP request in an Ethernet frame.
const FRAME_BYTES: usize = 42;

/// An announcement could not be sent.
#[derive(Debug, thiserror::Error)]
#[error("announce {address} from {BRIDGE}")]
pub struct AnnounceError {
    /// The address announced.
    pub address: Ipv4Addr,
    /// The system's answer.
    #[source]
    pub cause: io::Error,
}

impl NodeNetwork {
    /// Announces a task of this node to every container and node of the cluster, through the bridge.
    pub fn announce(&self, address: Ipv4Addr) -> Result<(), AnnounceError> {
        let mut message = vec![0; OFFLOAD_HEADER_BYTES];
        message.extend(announcement(address));
        let sent = self.sender().send(self.bridge(), &message);
        sent.map_err(|cause| AnnounceError { address, cause })
    }
}

/// An ARP announcement (RFC 5227, section 3): a request for the sender's own address, to everybody.
fn announcement(address: Ipv4Addr) -> [u8; FRAME_BYTES] {
    let (mac, ip) = (Mac::of(address).0, address.octets());
    let ethernet_ipv4_request = [0, 1, 8, 0, 6, 4, 0, 1];
    let parts: [&[u8]; 8] =
        [&[0xff; 6], &mac, &[0x08, 0x06], &ethernet_ipv4_request, &mac, &ip, &[0; 6], &ip];
    let mut frame = [0; FRAME_BYTES];
    frame.iter_mut().zip(parts.concat()).for_each(|(to, from)| *to = from);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_announcement_names_its_sender_twice() {
        let frame = announcement(Ipv4Addr::new(10, 88, 1, 2));
        let hex: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "ffffffffffff02d70a58010208060001080006040001\
             02d70a5801020a5801020000000000000a580102"
        );
    }
}
