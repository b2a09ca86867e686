//! The machine before and after a cluster: nothing may be left.

use crate::audit::{NodeConfig, names_in};
use crate::cluster::Cluster;
use crate::process::{self, Process};
use anyhow::{Result, ensure};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The kernel removes namespaces and their links in the background.
const LIMIT: Duration = Duration::from_secs(15);

/// What is on the machine, apart from processes.
#[derive(Debug)]
pub struct Machine {
    facts: BTreeSet<String>,
}

/// By what a process or a cgroup of a cluster is recognised after its end.
#[derive(Debug, Clone, Default)]
pub struct Marks {
    dir: PathBuf,
    cgroups: Vec<String>,
    namespaces: BTreeSet<u64>,
}

impl Marks {
    /// Notes them while the cluster runs.
    pub(crate) fn of(cluster: &Cluster) -> Result<Marks> {
        // The schedulers share the caller's mount namespace, which need not be that of PID 1.
        let host = process::namespaces(i32::try_from(std::process::id())?);
        let mut namespaces = BTreeSet::new();
        for daemon in cluster.daemon_names() {
            namespaces.extend(process::namespaces(cluster.pid(&daemon)?).difference(&host));
        }
        let configs = cluster.node_names().into_iter().map(|node| NodeConfig::of(cluster, &node));
        let cgroups = configs.map(|config| Ok(format!("/{}/", config?.cgroup.trim_start_matches('/'))));
        Ok(Marks { dir: cluster.dir().to_owned(), cgroups: cgroups.collect::<Result<_>>()?, namespaces })
    }

    /// Whether a fact may be this cluster's: others of Dray's clusters and tests may come and go on this machine.
    fn may_own(&self, fact: &str) -> bool {
        !fact.contains("dray-")
            || self.cgroups.iter().filter_map(|cgroup| tag(cgroup)).any(|tag| fact.contains(tag))
    }

    fn are_on(&self, process: &Process) -> bool {
        let in_cgroup = |path: &Path| {
            let path = path.to_string_lossy();
            self.cgroups.iter().any(|cgroup| path.contains(cgroup.as_str()))
        };
        process.names(&self.dir)
            || process.cgroups.iter().any(|path| in_cgroup(path))
            || !process.namespaces().is_disjoint(&self.namespaces)
    }
}

impl Machine {
    /// Looks at links, addresses, mounts, named network namespaces and cgroups.
    #[must_use]
    pub fn look() -> Machine {
        let mut facts = BTreeSet::new();
        facts.extend(lines("link", &["-oneline", "link"]));
        facts.extend(lines("address", &["-oneline", "address"]));
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        facts
            .extend(mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(|at| format!("mount {at}")));
        let named = std::fs::read_dir("/run/netns").into_iter().flatten().flatten();
        facts.extend(named.map(|entry| format!("namespace {}", entry.file_name().to_string_lossy())));
        add_cgroups(Path::new("/sys/fs/cgroup"), &mut facts);
        Machine { facts }
    }

    /// Nothing is there now that wasn't, and no process has a mark.
    ///
    /// # Errors
    /// What is left after 15 s.
    pub fn same_as_now(&self, marks: &Marks) -> Result<()> {
        crate::wait::settled("everything to be cleaned up", LIMIT, || {
            let now = Machine::look();
            let new: Vec<&String> =
                now.facts.difference(&self.facts).filter(|fact| marks.may_own(fact)).collect();
            ensure!(new.is_empty(), "left behind: {new:?}");
            let left = process::all().into_iter().filter(|process| marks.are_on(process));
            let left: Vec<String> = left.map(|process| process.to_string()).collect();
            ensure!(left.is_empty(), "processes left behind: {left:?}");
            Ok(())
        })
    }
}

/// The part of `/dray-local-x40b43/node-1/` that is in all names of a cluster.
fn tag(cgroup: &str) -> Option<&str> {
    cgroup.split('/').find_map(|part| part.strip_prefix("dray-local-"))
}

/// What `ip` says of this machine's own network namespace, without the parts that change by themselves.
fn lines(what: &str, arguments: &[&str]) -> Vec<String> {
    let output = Command::new("ip").args(arguments).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    // `2: eth0    inet 10.0.0.1/24 brd ...`, `2: eth0: <BROADCAST> ...`
    let facts = text.lines().map(|line| line.split_whitespace().skip(1).take(3).collect::<Vec<_>>());
    let keep = if what == "link" { 1 } else { 3 };
    facts.map(|words| format!("{what} {}", words[..words.len().min(keep)].join(" "))).collect()
}

/// All directories below one.
fn add_cgroups(dir: &Path, facts: &mut BTreeSet<String>) {
    for name in names_in(dir) {
        let below = dir.join(name);
        facts.insert(format!("cgroup {}", below.display()));
        // Not through links such as cpu -> cpu,cpuacct.
        if !below.is_symlink() {
            add_cgroups(&below, facts);
        }
    }
}
