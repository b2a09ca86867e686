//! Where everything of a local cluster is: names, addresses, directories. Pure: it all follows from the
//! cluster's directory and its two numbers, so that `down` finds what a crashed `up` left.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};

use container_network::address::stable_hash;
use serde::{Deserialize, Serialize};

/// Where a local cluster lives unless told otherwise.
pub(crate) const DEFAULT_DIR: &str = "/var/lib/dray/local";

/// The overlay's addresses; also a scheduler's default.
pub(crate) const CLUSTER_CIDR: &str = "10.88.0.0/16";

/// Where named network namespaces are, for `ip netns` too.
pub(crate) const NETNS_DIR: &str = "/run/netns";

/// A node's `run_dir`: on the tmpfs of the node's own mount namespace.
pub(crate) const RUN_DIR: &str = "/run/dray";

/// Prefix of the network between the members.
pub(crate) const UNDERLAY_PREFIX: u8 = 24;

pub(crate) const MAX_SCHEDULERS: u8 = 9;
pub(crate) const MAX_NODES: u8 = 150;

/// A local cluster's directory and size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Layout {
    /// The directory, absolute.
    pub(crate) dir: PathBuf,
    /// How many schedulers.
    pub(crate) schedulers: u8,
    /// How many nodes.
    pub(crate) nodes: u8,
}

/// What a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    /// Runs a scheduler.
    Scheduler,
    /// Runs an agent.
    Node,
    /// Runs nothing; a place for clients outside of the cluster.
    Client,
}

/// One machine of the local cluster: a network namespace on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Member {
    /// What it is.
    pub(crate) role: Role,
    /// Its number among those, from 1.
    pub(crate) number: u8,
}

impl fmt::Display for Member {
    /// Its name, as in `clusterctl local exec NAME`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.role {
            Role::Scheduler => write!(f, "scheduler-{}", self.number),
            Role::Node => write!(f, "node-{}", self.number),
            Role::Client => f.write_str("client"),
        }
    }
}

impl Member {
    pub(crate) fn scheduler(number: u8) -> Self {
        Self { role: Role::Scheduler, number }
    }

    pub(crate) fn node(number: u8) -> Self {
        Self { role: Role::Node, number }
    }

    /// Whether it runs a process of ours.
    pub(crate) fn has_process(self) -> bool {
        self.role != Role::Client
    }

    /// Its address on the network between the members.
    pub(crate) fn underlay(self) -> Ipv4Addr {
        let host = match self.role {
            Role::Scheduler => self.number,
            Role::Node => 10 + self.number,
            Role::Client => 200,
        };
        Ipv4Addr::new(10, 77, 0, host)
    }

    /// Where its process serves.
    pub(crate) fn listen(self) -> SocketAddrV4 {
        let port = match self.role {
            Role::Scheduler => 7000,
            Role::Node | Role::Client => 7100,
        };
        SocketAddrV4::new(self.underlay(), port)
    }
}

impl fmt::Display for Layout {
    /// Its size.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = |n: u8| if n == 1 { "" } else { "s" };
        let Self { schedulers, nodes, .. } = *self;
        write!(f, "{schedulers} scheduler{} and {nodes} node{}", plural(schedulers), plural(nodes))
    }
}

impl Layout {
    /// All members, in the order they are started.
    pub(crate) fn members(&self) -> Vec<Member> {
        let schedulers = (1..=self.schedulers).map(Member::scheduler);
        let nodes = (1..=self.nodes).map(Member::node);
        let client = Member { role: Role::Client, number: 1 };
        schedulers.chain(nodes).chain([client]).collect()
    }

    /// The member of this name.
    pub(crate) fn member(&self, name: &str) -> Option<Member> {
        self.members().into_iter().find(|member| member.to_string() == name)
    }

    /// A member's directory.
    pub(crate) fn member_dir(&self, member: Member) -> PathBuf {
        self.dir.join(member.to_string())
    }

    /// A member's durable state.
    pub(crate) fn data_dir(&self, member: Member) -> PathBuf {
        self.member_dir(member).join("data")
    }

    /// A scheduler's API socket.
    pub(crate) fn socket(&self, member: Member) -> PathBuf {
        self.member_dir(member).join("api.sock")
    }

    /// What a member's process prints.
    pub(crate) fn log(&self, member: Member) -> PathBuf {
        self.dir.join("logs").join(format!("{member}.log"))
    }

    /// Where the nodes' mount namespaces are pinned.
    pub(crate) fn pins(&self) -> PathBuf {
        self.dir.join("ns")
    }

    /// Where a node's mount namespace is pinned.
    pub(crate) fn mount_pin(&self, member: Member) -> PathBuf {
        self.pins().join(format!("{member}.mnt"))
    }

    /// The file that stands for a member's network namespace.
    pub(crate) fn netns(&self, member: Member) -> PathBuf {
        self.netns_of(&member.to_string())
    }

    /// The namespace the wire is in.
    pub(crate) fn fabric(&self) -> PathBuf {
        self.netns_of("fabric")
    }

    /// Whether a file in [`NETNS_DIR`] is a namespace of this cluster, whatever its size was.
    pub(crate) fn owns_netns(&self, file_name: &str) -> bool {
        let Some(name) = file_name.strip_prefix(&self.netns_prefix()) else { return false };
        let numbered = |prefix: &str| name.strip_prefix(prefix).is_some_and(|n| n.parse::<u8>().is_ok());
        name == "fabric" || name == "client" || numbered("scheduler-") || numbered("node-")
    }

    /// Name of the cgroup that all containers of this cluster are below.
    pub(crate) fn cgroup(&self) -> String {
        match self.tag() {
            Some(tag) => format!("dray-local-{tag}"),
            None => "dray-local".to_owned(),
        }
    }

    fn netns_of(&self, name: &str) -> PathBuf {
        Path::new(NETNS_DIR).join(format!("{}{name}", self.netns_prefix()))
    }

    fn netns_prefix(&self) -> String {
        match self.tag() {
            Some(tag) => format!("dray-{tag}-"),
            None => "dray-".to_owned(),
        }
    }

    /// Keeps clusters in different directories apart; the default one's names stay short.
    fn tag(&self) -> Option<String> {
        let hash = stable_hash(self.dir.as_os_str().as_encoded_bytes());
        (self.dir != Path::new(DEFAULT_DIR)).then(|| format!("x{:05x}", hash >> 44))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(dir: &str) -> Layout {
        Layout { dir: dir.into(), schedulers: 3, nodes: 2 }
    }

    #[test]
    fn members_have_names_and_addresses() {
        let all: Vec<String> = layout(DEFAULT_DIR)
            .members()
            .into_iter()
            .map(|member| {
                format!("{member} {} {}", member.listen(), layout(DEFAULT_DIR).netns(member).display())
            })
            .collect();
        assert_eq!(
            all,
            [
                "scheduler-1 10.77.0.1:7000 /run/netns/dray-scheduler-1",
                "scheduler-2 10.77.0.2:7000 /run/netns/dray-scheduler-2",
                "scheduler-3 10.77.0.3:7000 /run/netns/dray-scheduler-3",
                "node-1 10.77.0.11:7100 /run/netns/dray-node-1",
                "node-2 10.77.0.12:7100 /run/netns/dray-node-2",
                "client 10.77.0.200:7100 /run/netns/dray-client",
            ]
        );
        assert_eq!(layout(DEFAULT_DIR).member("node-2"), Some(Member::node(2)));
        assert_eq!(layout(DEFAULT_DIR).member("node-3"), None);
    }

    #[test]
    fn the_largest_cluster_fits_its_network() {
        let largest = Layout { schedulers: MAX_SCHEDULERS, nodes: MAX_NODES, ..layout(DEFAULT_DIR) };
        let mut addresses: Vec<Ipv4Addr> = largest.members().into_iter().map(Member::underlay).collect();
        addresses.sort_unstable();
        addresses.dedup();
        assert_eq!(addresses.len(), largest.members().len());
    }

    #[test]
    fn clusters_in_different_directories_do_not_meet() {
        let (default, one, other) = (layout(DEFAULT_DIR), layout("/tmp/one"), layout("/tmp/other"));
        let node =
            |layout: &Layout| layout.netns(Member::node(1)).file_name().unwrap().to_str().unwrap().to_owned();
        for (owner, name, owns) in [
            (&default, node(&default), true),
            (&default, node(&one), false),
            (&one, node(&one), true),
            (&one, node(&other), false),
            (&one, node(&default), false),
            (&default, "dray-fabric".to_owned(), true),
            (&default, "dray-node-99".to_owned(), true),
            (&default, "dray-node-x".to_owned(), false),
            (&default, "dray".to_owned(), false),
        ] {
            assert_eq!(owner.owns_netns(&name), owns, "{name}");
        }
        assert_ne!(one.cgroup(), other.cgroup());
    }
}
