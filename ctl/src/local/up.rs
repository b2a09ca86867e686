//! Bringing a local cluster up: namespaces, wire, certificates, configuration, processes.
//!
//! Every step makes what is missing and leaves the rest, so that the same command starts a cluster, starts it
//! again with the state it had, adds nodes, and finishes what an interrupted one began.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use container_network::Wire;
use ipnet::Ipv4Net;

use super::config::{self, Choices};
use super::layout::{Layout, Member, Role, UNDERLAY_PREFIX};
use super::namespaces;
use super::process::{self, Daemon, Process};
use super::state::{self, Record};
use super::{cgroup, tls};

/// Size of a cluster when nothing is said, and what its nodes offer.
const SCHEDULERS: u8 = 3;
const NODES: u8 = 3;
const CPU: &str = "2000m";
const MEMORY: &str = "4Gi";

/// What the user asked for; `None` leaves what is there, or the default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Wish {
    pub(crate) schedulers: Option<u8>,
    pub(crate) nodes: Option<u8>,
    pub(crate) timing: Option<Vec<(String, u64)>>,
    pub(crate) labels: Option<Vec<(u8, String, String)>>,
    pub(crate) cpu: Option<String>,
    pub(crate) memory: Option<String>,
}

/// The daemons' programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Programs {
    pub(crate) scheduler: PathBuf,
    pub(crate) agent: PathBuf,
}

impl Programs {
    /// The ones in the directory of the running program.
    pub(crate) fn beside_this_one() -> Result<Self> {
        let this = std::env::current_exe().context("find the running program")?;
        let dir = this.parent().context("the running program is in no directory")?;
        let find = |name: &str| {
            let program = dir.join(name);
            ensure!(
                program.exists(),
                "{} is missing: build or install it beside clusterctl",
                program.display()
            );
            Ok(program)
        };
        Ok(Self { scheduler: find("dray-scheduler")?, agent: find("dray-node-agent")? })
    }

    fn of(&self, role: Role) -> Option<&Path> {
        match role {
            Role::Scheduler => Some(&self.scheduler),
            Role::Node => Some(&self.agent),
            Role::Client => None,
        }
    }
}

/// Decides what the cluster in a directory becomes. Pure but for finding the place of its cgroups.
pub(crate) fn plan_cluster(dir: &Path, existing: Option<Record>, wish: &Wish) -> Result<Record> {
    let Some(mut record) = existing else { return new_cluster(dir, wish) };
    let Layout { schedulers, nodes, .. } = record.layout;
    let wanted = (wish.schedulers.unwrap_or(schedulers), wish.nodes.unwrap_or(nodes));
    if wanted.0 != schedulers || wanted.1 < nodes {
        bail!(
            "{} holds a cluster of {}, and nodes are all that can be added; remove it first with \
             `clusterctl local down`",
            dir.display(),
            record.layout,
        );
    }
    record.layout.nodes = wanted.1;
    choose(&mut record.choices, wish);
    Ok(record)
}

fn new_cluster(dir: &Path, wish: &Wish) -> Result<Record> {
    let layout = Layout {
        dir: dir.to_owned(),
        schedulers: wish.schedulers.unwrap_or(SCHEDULERS),
        nodes: wish.nodes.unwrap_or(NODES),
    };
    let place = cgroup::place(&layout.cgroup())?;
    let mut choices = Choices {
        cpu: CPU.to_owned(),
        memory: MEMORY.to_owned(),
        cgroup: place.configured,
        ..Choices::default()
    };
    choose(&mut choices, wish);
    Ok(Record { layout, choices, cgroups: place.dirs })
}

fn choose(choices: &mut Choices, wish: &Wish) {
    let Wish { timing, labels, cpu, memory, .. } = wish.clone();
    choices.timing = timing.unwrap_or_else(|| std::mem::take(&mut choices.timing));
    choices.labels = labels.unwrap_or_else(|| std::mem::take(&mut choices.labels));
    choices.cpu = cpu.unwrap_or_else(|| std::mem::take(&mut choices.cpu));
    choices.memory = memory.unwrap_or_else(|| std::mem::take(&mut choices.memory));
}

/// Makes everything and starts every process that doesn't run. Says what it does through `say`.
pub(crate) async fn bring_up(
    record: &Record,
    programs: &Programs,
    say: &mut dyn FnMut(String),
) -> Result<()> {
    let layout = &record.layout;
    // First, so that whatever happens next can be undone.
    record.store()?;
    say("certificates and configuration".to_owned());
    make_files(record)?;
    say("network namespaces and the wire between them".to_owned());
    make_network(layout).await?;
    for member in layout.members() {
        if start_member(layout, member, programs)?.is_some() {
            say(format!("started {member}"));
        }
    }
    Ok(())
}

/// Starts a member's process if it doesn't run; says which it is then.
pub(crate) fn start_member(layout: &Layout, member: Member, programs: &Programs) -> Result<Option<Process>> {
    let Some(program) = programs.of(member.role) else { return Ok(None) };
    let record = process_record(layout, member);
    if Process::load(&record).is_some_and(Process::is_alive) {
        return Ok(None);
    }
    let (config, log) = (layout.member_dir(member).join("config.toml"), layout.log(member));
    let daemon = Daemon { program, config: &config, log: &log };
    let process = namespaces::inside(layout, member, || process::start(&daemon))?;
    process.store(&record)?;
    Ok(Some(process))
}

/// The file that says which process is a member's.
pub(crate) fn process_record(layout: &Layout, member: Member) -> PathBuf {
    layout.member_dir(member).join("process.json")
}

/// Makes the cluster's directory, which only root may look into, and takes the right to change it.
pub(crate) fn open_dir(dir: &Path) -> Result<state::Lock> {
    ensure!(!dir.starts_with("/run"), "{} is below /run, which every node has its own of", dir.display());
    make_dir(dir)?;
    state::lock(dir)
}

fn make_files(record: &Record) -> Result<()> {
    let layout = &record.layout;
    make_dir(&layout.dir.join("logs"))?;
    for member in layout.members() {
        let Some(text) = config::config(layout, member, &record.choices) else { continue };
        make_dir(&layout.data_dir(member))?;
        let file = layout.member_dir(member).join("config.toml");
        fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;
    }
    tls::ensure_certificates(layout)
}

async fn make_network(layout: &Layout) -> Result<()> {
    let wire = Wire::ensure(&namespaces::ensure_netns(&layout.fabric())?).await?;
    for member in layout.members() {
        let machine = namespaces::ensure_netns(&layout.netns(member))?;
        let address = Ipv4Net::new(member.underlay(), UNDERLAY_PREFIX)?;
        wire.ensure_cable(&member.to_string(), &machine, address).await?;
        if member.role == Role::Node {
            namespaces::ensure_mount_namespace(layout, member)?;
        }
    }
    Ok(())
}

fn make_dir(dir: &Path) -> Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(dir).with_context(|| format!("make {}", dir.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_cluster_has_defaults_and_an_old_one_keeps_its_choices() {
        let dir = Path::new("/tmp/a-cluster");
        let first = plan_cluster(dir, None, &Wish { nodes: Some(2), ..Wish::default() }).unwrap();
        assert_eq!((first.layout.schedulers, first.layout.nodes), (SCHEDULERS, 2));
        assert_eq!(first.choices.memory, MEMORY);
        assert_eq!(plan_cluster(dir, Some(first.clone()), &Wish::default()).unwrap(), first);

        let wish = Wish { nodes: Some(4), cpu: Some("500m".to_owned()), ..Wish::default() };
        let grown = plan_cluster(dir, Some(first), &wish).unwrap();
        assert_eq!((grown.layout.nodes, grown.choices.cpu.as_str()), (4, "500m"));
        assert_eq!(grown.choices.memory, MEMORY);
    }

    #[test]
    fn voters_are_fixed_and_nodes_are_not_taken_away() {
        let dir = Path::new("/tmp/a-cluster");
        let record = plan_cluster(dir, None, &Wish::default()).unwrap();
        for wish in [
            Wish { schedulers: Some(5), ..Wish::default() },
            Wish { schedulers: Some(1), ..Wish::default() },
            Wish { nodes: Some(2), ..Wish::default() },
        ] {
            let error = plan_cluster(dir, Some(record.clone()), &wish).unwrap_err().to_string();
            assert!(error.contains("3 schedulers and 3 nodes"), "{error}");
        }
    }

    #[test]
    fn a_directory_that_nodes_would_not_see_is_refused() {
        let error = open_dir(Path::new("/run/dray-local")).unwrap_err();
        assert!(error.to_string().contains("below /run"), "{error}");
    }
}
