//! What follows from an address or a name by arithmetic alone: MACs and link names.
//!
//! Both sides of a migration compute the same values without asking anyone. Pure.

use std::fmt;
use std::net::Ipv4Addr;

/// First two bytes of every MAC here: locally administered, unicast, ours.
const MAC_PREFIX: [u8; 2] = [0x02, 0xd7];

/// Start of the name of every instance's host end; [`crate::veth`] and its janitor go by it.
pub const HOST_END_PREFIX: &str = "dv";

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// The MAC of whoever owns `ip` in the cluster: `02:d7` and the four bytes of the address.
    pub fn of(ip: Ipv4Addr) -> Self {
        let [a, b, c, d] = ip.octets();
        Self([MAC_PREFIX[0], MAC_PREFIX[1], a, b, c, d])
    }

    /// The address this MAC was derived from, if it is one of ours.
    pub fn ip(self) -> Option<Ipv4Addr> {
        let [p, q, a, b, c, d] = self.0;
        ([p, q] == MAC_PREFIX).then(|| Ipv4Addr::new(a, b, c, d))
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// Name of the host end of an instance's veth pair: at most 15 bytes, the same after every restart.
pub fn host_end_name(instance: &str) -> String {
    let hash = stable_hash(instance.as_bytes());
    format!("{HOST_END_PREFIX}{:013x}", hash >> 12)
}

/// FNV-1a, 64 bits: the same for ever, which the standard library's hasher does not promise.
pub fn stable_hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_follows_from_its_ip_and_back() {
        let ip = Ipv4Addr::new(10, 88, 1, 200);
        assert_eq!(Mac::of(ip).to_string(), "02:d7:0a:58:01:c8");
        assert_eq!(Mac::of(ip).ip(), Some(ip));
        assert_eq!(Mac([0x02, 0x42, 10, 88, 1, 200]).ip(), None);
    }

    #[test]
    fn host_end_names_are_short_stable_and_differ() {
        assert_eq!(host_end_name("redis-0@3"), "dv8bb31de5f6b45");
        assert_eq!(host_end_name(&"long".repeat(60)).len(), 15);
        assert_ne!(host_end_name("redis-0@3"), host_end_name("redis-0@4"));
    }
}
