//! The cluster's flat address range and what follows from a task's address:
//! its MAC and its private range of user ids. All of it is the same on every
//! node, so that a moved container finds what it left.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::Ipv4Addr;

/// How many user ids one container may have.
pub const ID_RANGE: u32 = 1 << 16;

/// The cluster's address range: an IPv4 network of at least 16 hosts and at
/// most 65,536, because a host's index numbers its id range, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "ipnet::Ipv4Net", into = "ipnet::Ipv4Net")]
pub struct ClusterCidr(ipnet::Ipv4Net);

/// The range is too small or too large.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} can't be the cluster's address range: use an IPv4 prefix of /16 to /28")]
pub struct CidrError(ipnet::Ipv4Net);

impl TryFrom<ipnet::Ipv4Net> for ClusterCidr {
    type Error = CidrError;
    fn try_from(net: ipnet::Ipv4Net) -> Result<Self, CidrError> {
        if (16..=28).contains(&net.prefix_len()) { Ok(Self(net.trunc())) } else { Err(CidrError(net)) }
    }
}

impl From<ClusterCidr> for ipnet::Ipv4Net {
    fn from(cidr: ClusterCidr) -> Self {
        cidr.0
    }
}

impl std::str::FromStr for ClusterCidr {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let net: ipnet::Ipv4Net = text.parse().map_err(|e| format!("{text:?}: {e}"))?;
        net.try_into().map_err(|e: CidrError| e.to_string())
    }
}

impl fmt::Display for ClusterCidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl ClusterCidr {
    /// The prefix length in bits.
    pub fn prefix_len(self) -> u8 {
        self.0.prefix_len()
    }

    /// How many host addresses there are (without network and broadcast).
    pub fn hosts(self) -> u32 {
        (1 << (32 - u32::from(self.0.prefix_len()))) - 2
    }

    /// The address with a host index of 1 to [`ClusterCidr::hosts`].
    pub fn host(self, index: u32) -> Option<Ipv4Addr> {
        let valid = (1..=self.hosts()).contains(&index);
        valid.then(|| Ipv4Addr::from(u32::from(self.0.network()) + index))
    }

    /// The host index of an address in the range.
    pub fn index(self, ip: Ipv4Addr) -> Option<u32> {
        let index = u32::from(ip).checked_sub(u32::from(self.0.network()))?;
        (1..=self.hosts()).contains(&index).then_some(index)
    }

    /// First host user id of the private range that belongs to an address.
    pub fn id_base(self, ip: Ipv4Addr) -> Option<u32> {
        self.index(ip).map(|index| index * ID_RANGE)
    }
}

/// An Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// The locally administered address that belongs to a task's IP.
    pub fn of(ip: Ipv4Addr) -> Mac {
        let [a, b, c, d] = ip.octets();
        Mac([0x02, 0xd7, a, b, c, d])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_tells_mac_and_id_range() {
        let cidr: ClusterCidr = "10.88.0.0/16".parse().unwrap();
        let ip = cidr.host(300).unwrap();
        assert_eq!(ip, Ipv4Addr::new(10, 88, 1, 44));
        assert_eq!(cidr.index(ip), Some(300));
        assert_eq!(cidr.id_base(ip), Some(300 * 65_536));
        assert_eq!(Mac::of(ip).to_string(), "02:d7:0a:58:01:2c");
    }

    #[test]
    fn the_last_id_range_stays_below_the_invalid_id() {
        let cidr: ClusterCidr = "10.88.0.0/16".parse().unwrap();
        let last = cidr.id_base(cidr.host(cidr.hosts()).unwrap()).unwrap();
        assert!(last.checked_add(ID_RANGE).is_some());
    }

    #[test]
    fn edges_are_not_hosts() {
        let cidr: ClusterCidr = "10.0.0.0/28".parse().unwrap();
        assert_eq!((cidr.host(0), cidr.host(15)), (None, None));
        assert_eq!(cidr.index(Ipv4Addr::new(10, 0, 0, 15)), None);
        assert!("10.0.0.0/8".parse::<ClusterCidr>().is_err());
    }
}
