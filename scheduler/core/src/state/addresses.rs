//! Who has which address of the cluster's range.

use dray_model::address::ClusterCidr;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

/// The first host of the range: every node's bridge answers for it, so that
/// a container's default route stays true when it moves.
const GATEWAY: u32 = 1;

/// The addresses in use. New ones are given out in turn, so that an address
/// that was freed isn't used again soon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    cidr: ClusterCidr,
    /// Where the search for the next free host index begins.
    next: u32,
    taken: BTreeSet<u32>,
}

impl Addresses {
    pub(super) fn new(cidr: ClusterCidr) -> Addresses {
        Addresses { cidr, next: GATEWAY + 1, taken: BTreeSet::from([GATEWAY]) }
    }

    /// The range.
    pub fn cidr(&self) -> ClusterCidr {
        self.cidr
    }

    /// How many addresses are taken, the gateway's included.
    pub fn taken(&self) -> usize {
        self.taken.len()
    }

    /// Takes a free address; `None` when there is none.
    pub(crate) fn allocate(&mut self) -> Option<Ipv4Addr> {
        let hosts = self.cidr.hosts();
        let index = (self.next..=hosts).chain(1..self.next).find(|index| !self.taken.contains(index))?;
        self.taken.insert(index);
        self.next = if index == hosts { 1 } else { index + 1 };
        self.cidr.host(index)
    }

    pub(super) fn release(&mut self, ip: Ipv4Addr) {
        if let Some(index) = self.cidr.index(ip) {
            self.taken.remove(&index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_given_out_in_turn_and_never_twice() {
        let mut addresses = Addresses::new("10.0.0.0/28".parse().unwrap());
        let all: Vec<_> = std::iter::from_fn(|| addresses.allocate()).collect();
        assert_eq!(all.len(), 13, "14 hosts less the gateway");
        assert_eq!(all.first(), Some(&Ipv4Addr::new(10, 0, 0, 2)));
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 13);
        addresses.release(all[4]);
        assert_eq!(addresses.allocate(), Some(all[4]));
        assert_eq!(addresses.allocate(), None);
    }

    #[test]
    fn a_freed_address_rests() {
        let mut addresses = Addresses::new("10.0.0.0/28".parse().unwrap());
        let first = addresses.allocate().unwrap();
        addresses.release(first);
        assert_ne!(addresses.allocate(), Some(first));
    }
}
