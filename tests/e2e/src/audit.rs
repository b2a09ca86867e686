//! What really runs on the nodes, past everything the cluster says of itself:
//! processes by their cgroups, directories, mounts, links.

use crate::cluster::Cluster;
use crate::process::{self, Process};
use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Clean-up after a failure may take the cluster so long.
const LIMIT: Duration = Duration::from_secs(30);

/// What each node has without any task.
#[derive(Debug, Default)]
pub struct Baseline {
    links: BTreeMap<String, usize>,
}

impl Baseline {
    /// Looks at a cluster that has no tasks yet.
    pub(crate) fn of(cluster: &Cluster) -> Result<Baseline> {
        let links = cluster.node_names().into_iter().map(|node| Ok((node.clone(), links(cluster, &node)?)));
        Ok(Baseline { links: links.collect::<Result<_>>()? })
    }
}

/// The part of an agent's configuration that says where its things are.
#[derive(Debug, Deserialize)]
pub(crate) struct NodeConfig {
    /// The node's durable state.
    pub(crate) data_dir: PathBuf,
    /// Where its containers' cgroups are.
    pub(crate) cgroup: String,
}

impl NodeConfig {
    /// Reads it from the node's directory.
    pub(crate) fn of(cluster: &Cluster, node: &str) -> Result<NodeConfig> {
        let dir = cluster.dir().join(node);
        let files = std::fs::read_dir(&dir).with_context(|| dir.display().to_string())?.flatten();
        let mut paths = files.map(|file| file.path());
        let path = paths.find(|path| path.extension().is_some_and(|extension| extension == "toml"));
        let path = path.with_context(|| format!("no configuration file in {}", dir.display()))?;
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        toml::from_str(&text).with_context(|| path.display().to_string())
    }

    /// The instance that a cgroup of this node belongs to.
    fn instance_of(&self, cgroup: &Path) -> Option<String> {
        let (_, below) =
            cgroup.to_str()?.split_once(&format!("/{}/", self.cgroup.trim_start_matches('/')))?;
        below.split('/').next().filter(|name| name.contains('@')).map(str::to_owned)
    }
}

impl Cluster {
    /// Every task runs exactly once, where and at the epoch the cluster says, and no node has anything of a task
    /// that isn't there. Waits for clean-up that is under way.
    ///
    /// # Errors
    /// The first thing that is not so, after half a minute.
    pub fn audit(&self) -> Result<()> {
        crate::wait::settled("each task to run exactly once", LIMIT, || {
            let expected = self.expected()?;
            for node in self.node_names() {
                let wanted = expected.get(&node).cloned().unwrap_or_default();
                self.audit_node(&node, &wanted).with_context(|| node.clone())?;
            }
            Ok(())
        })
    }

    /// The processes of a task's container, by node and instance.
    ///
    /// # Errors
    /// When a node's configuration can't be read.
    pub fn processes_of(&self, task: &str) -> Result<BTreeMap<(String, String), Vec<i32>>> {
        let mut found = BTreeMap::new();
        for node in self.node_names() {
            for (instance, pids) in instances(&NodeConfig::of(self, &node)?) {
                if instance.rsplit_once('@').is_some_and(|(name, _)| name == task) {
                    found.insert((node.clone(), instance), pids);
                }
            }
        }
        Ok(found)
    }

    /// The nodes on which a task's processes can run: have any, and aren't frozen or being killed.
    ///
    /// # Errors
    /// When a node's configuration can't be read.
    pub fn runs_on(&self, task: &str) -> Result<Vec<String>> {
        let all = self.processes_of(task)?;
        let awake = all
            .into_iter()
            .filter(|(_, pids)| !pids.iter().all(|pid| process::is_frozen(*pid) || process::is_dying(*pid)));
        Ok(awake.map(|((node, _), _)| node).collect())
    }

    /// Ends everything that runs on a node at once, as when its power fails. What is on its disk stays.
    ///
    /// # Errors
    /// When its agent doesn't run, or a process doesn't end.
    pub fn power_off(&self, node: &str) -> Result<()> {
        let config = NodeConfig::of(self, node)?;
        let agent = self.pid(node)?;
        // Children first would let the agent report their end.
        process::kill_hard(agent)?;
        let all = process::all();
        let shims = all.iter().filter(|process| shim_of(process, &config.data_dir).is_some()).map(|p| p.pid);
        let contained = instances(&config).into_values().flatten();
        shims.chain(contained).collect::<Vec<_>>().into_iter().try_for_each(process::kill_hard)
    }

    /// Instances by node, as the cluster says.
    fn expected(&self) -> Result<BTreeMap<String, BTreeSet<String>>> {
        let mut expected: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for task in self.tasks()? {
            ensure!(task.phase == "running", "{} is {}: {}", task.name, task.phase, task.message);
            ensure!(task.migration.is_empty(), "{} is part of {}", task.name, task.migration);
            expected.entry(task.node).or_default().insert(format!("{}@{}", task.name, task.epoch));
        }
        Ok(expected)
    }

    fn audit_node(&self, node: &str, wanted: &BTreeSet<String>) -> Result<()> {
        let config = NodeConfig::of(self, node)?;
        let agent = self.pid(node)?;
        let same = |what: &str, found: BTreeSet<String>| {
            ensure!(found == *wanted, "{what}: there are {found:?}, there should be {wanted:?}");
            Ok(())
        };
        same("containers with processes", instances(&config).into_keys().collect())?;
        same("shims", shims(&config.data_dir)?)?;
        same("directories", names_in(&config.data_dir.join("containers")))?;
        for hierarchy in cgroup_dirs(agent, &config) {
            same(&hierarchy.display().to_string(), names_in(&hierarchy))?;
        }
        let mounted = mounted_instances(agent)?;
        ensure!(mounted.is_subset(wanted), "mounts: there are {mounted:?}, there should be {wanted:?}");
        let (now, before) = (links(self, node)?, self.baseline.links.get(node).copied().unwrap_or_default());
        ensure!(now == before + wanted.len(), "{now} links, {before} of them before the first task");
        Ok(())
    }
}

/// Instances of a node that have processes.
fn instances(config: &NodeConfig) -> BTreeMap<String, Vec<i32>> {
    let mut found: BTreeMap<String, Vec<i32>> = BTreeMap::new();
    for process in process::all() {
        if let Some(instance) = process.cgroups.iter().find_map(|cgroup| config.instance_of(cgroup)) {
            found.entry(instance).or_default().push(process.pid);
        }
    }
    found
}

/// The instance whose shim a process is.
fn shim_of(process: &Process, data_dir: &Path) -> Option<String> {
    let pair = process.arguments.windows(2).find(|pair| pair[0] == "--instance-dir")?;
    let dir = Path::new(&pair[1]).strip_prefix(data_dir).ok()?;
    Some(dir.file_name()?.to_string_lossy().into_owned())
}

/// Instances that have a shim.
fn shims(data_dir: &Path) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for instance in process::all().iter().filter_map(|process| shim_of(process, data_dir)) {
        ensure!(found.insert(instance.clone()), "two shims for {instance}");
    }
    Ok(found)
}

/// The node's directory in each cgroup hierarchy in which its agent's is.
fn cgroup_dirs(agent: i32, config: &NodeConfig) -> Vec<PathBuf> {
    let own = std::fs::read_to_string(format!("/proc/{agent}/cgroup")).unwrap_or_default();
    let mounts =
        std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
    let tops: Vec<PathBuf> = mounts.chain([PathBuf::from("/sys/fs/cgroup")]).collect();
    let mut dirs = BTreeSet::new();
    for top in &tops {
        for path in own.lines().filter_map(|line| line.splitn(3, ':').nth(2)) {
            dirs.insert(top.join(path.trim_start_matches('/')).join(config.cgroup.trim_start_matches('/')));
        }
    }
    dirs.into_iter().filter(|dir| dir.is_dir()).collect()
}

/// The instances that have mounts in a process' mount namespace.
fn mounted_instances(pid: i32) -> Result<BTreeSet<String>> {
    let path = format!("/proc/{pid}/mountinfo");
    let text = std::fs::read_to_string(&path).context(path)?;
    let names = text.lines().filter_map(|line| line.split(' ').nth(4)).filter_map(|point| {
        let (_, below) = point.split_once("/containers/")?;
        below.split('/').next().map(str::to_owned)
    });
    Ok(names.collect())
}

/// How many links a node has.
fn links(cluster: &Cluster, node: &str) -> Result<usize> {
    let net = format!("--net={}", cluster.netns(node)?.display());
    let output =
        Command::new("nsenter").args([&net, "ip", "-oneline", "link"]).output().context("nsenter")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count())
}

/// Names of the directories in a directory; none where it isn't there.
pub(crate) fn names_in(dir: &Path) -> BTreeSet<String> {
    let entries =
        std::fs::read_dir(dir).into_iter().flatten().flatten().filter(|entry| entry.path().is_dir());
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_tells_its_instance() {
        let config = NodeConfig { data_dir: "/d".into(), cgroup: "dray-local/node-1".into() };
        for (cgroup, instance) in [
            ("/api/dray-local/node-1/redis-0@3", Some("redis-0@3")),
            ("/dray-local/node-1/redis-0@3/below", Some("redis-0@3")),
            ("/dray-local/node-10/redis-0@3", None),
            ("/dray-local/node-1/agent", None),
            ("/dray-local/node-1", None),
            ("/", None),
        ] {
            assert_eq!(config.instance_of(Path::new(cgroup)).as_deref(), instance, "{cgroup}");
        }
    }
}
