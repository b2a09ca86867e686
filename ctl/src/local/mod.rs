//! `clusterctl local`: a whole cluster on this machine, for trying, demonstrating and testing.
//!
//! ```text
//!   fabric namespace:  one bridge, the wire
//!        |             |              |               |
//!   scheduler-1 ..  scheduler-N    node-1 ..       client        one network namespace each, on 10.77.0.0/24
//!        |                            |
//!   api.sock in DIR             own mount namespace with its own /run, own bridge and VXLAN
//! ```
//!
//! The machine's own network namespace is not touched: the schedulers are reached through Unix sockets in the
//! cluster's directory. Everything that `up` makes follows from that directory and a record in it, and `down`
//! removes exactly that.

mod cgroup;
mod config;
mod down;
mod layout;
mod namespaces;
mod process;
mod ready;
mod state;
mod status;
#[cfg(test)]
mod tests;
mod tls;
mod up;

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Subcommand;
use container_network::Wire;
use nix::sys::signal::Signal;

use self::down::Leave;
use self::layout::{DEFAULT_DIR, Layout, MAX_NODES, MAX_SCHEDULERS, Member};
use self::process::Process;
use self::state::Record;
use self::up::{Programs, Wish};
use crate::output::progress::Waiting;
use crate::output::{Format, Out};

/// What to do with which local cluster.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The cluster's directory
    #[arg(long, global = true, env = "DRAY_LOCAL_DIR", value_name = "DIR", default_value = DEFAULT_DIR)]
    dir: PathBuf,
    #[command(subcommand)]
    command: Command,
}

const UP_EXAMPLES: &str = "\
Examples:
  clusterctl local up                              3 schedulers and 3 nodes
  clusterctl local up --schedulers 1 --nodes 2
  clusterctl local up --nodes 5                    add nodes to a cluster that has fewer
  clusterctl local up --label node-1:disk=ssd --timing tick_ms=20";
const DOWN_EXAMPLES: &str = "\
Examples:
  clusterctl local down
  clusterctl local down --keep-data                `local up` goes on from there";
const STATUS_EXAMPLES: &str = "\
Examples:
  clusterctl local status
  clusterctl local status -o json";
const KILL_EXAMPLES: &str = "\
Examples:
  clusterctl local kill scheduler-2
  clusterctl local kill node-1 --signal STOP       its containers run on";
const START_EXAMPLES: &str = "\
Examples:
  clusterctl local start scheduler-2";
const CUT_EXAMPLES: &str = "\
Examples:
  clusterctl local cut node-1                      as if its cable were broken
  clusterctl local join node-1";
const EXEC_EXAMPLES: &str = "\
Examples:
  clusterctl local exec node-1 -- ip addr
  clusterctl local exec client -- bash";

/// What to do.
#[derive(Debug, Subcommand)]
enum Command {
    /// Start a cluster, start it again, or add nodes to it
    #[command(after_help = UP_EXAMPLES)]
    Up(UpArgs),
    /// Stop the cluster and remove everything it made
    #[command(after_help = DOWN_EXAMPLES)]
    Down {
        /// Leave data, certificates and logs for the next `up`
        #[arg(long)]
        keep_data: bool,
    },
    /// Show processes, namespaces, addresses and health
    #[command(after_help = STATUS_EXAMPLES)]
    Status {
        /// Output format: table or json
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Send a signal to one scheduler or agent
    #[command(after_help = KILL_EXAMPLES)]
    Kill {
        /// Whose process, for instance scheduler-2 or node-1
        name: String,
        /// Which signal
        #[arg(long, default_value = "KILL", value_parser = parse_signal)]
        signal: Signal,
    },
    /// Start one scheduler or agent that does not run
    #[command(after_help = START_EXAMPLES)]
    Start {
        /// Whose process, for instance scheduler-2 or node-1
        name: String,
    },
    /// Cut one member off from the others' network
    #[command(after_help = CUT_EXAMPLES)]
    Cut {
        /// Which, for instance scheduler-2 or node-1
        name: String,
    },
    /// Join a member that was cut off
    #[command(after_help = CUT_EXAMPLES)]
    Join {
        /// Which, for instance scheduler-2 or node-1
        name: String,
    },
    /// Run a command in a member's network namespace, and a node's mount namespace
    #[command(after_help = EXEC_EXAMPLES)]
    Exec {
        /// Where, for instance node-1 or client
        name: String,
        /// The command and its arguments
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
}

/// What to start.
#[derive(Debug, clap::Args)]
struct UpArgs {
    /// How many schedulers, 3 if not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=i64::from(MAX_SCHEDULERS)))]
    schedulers: Option<u8>,
    /// How many nodes, 3 if not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=i64::from(MAX_NODES)))]
    nodes: Option<u8>,
    /// What each node offers of the CPU, 2000m if not given
    #[arg(long, value_name = "QUANTITY")]
    cpu: Option<String>,
    /// What each node offers of the memory, 4Gi if not given
    #[arg(long, value_name = "QUANTITY")]
    memory: Option<String>,
    /// A label of one node; may be given several times
    #[arg(long, value_name = "NODE:KEY=VALUE", value_parser = parse_label)]
    label: Vec<(u8, String, String)>,
    /// A setting of the schedulers' timing; may be given several times
    #[arg(long, value_name = "KEY=NUMBER", value_parser = parse_timing)]
    timing: Vec<(String, u64)>,
    /// How long to wait until everything is ready
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = humantime::parse_duration)]
    wait: Duration,
}

/// Does it.
pub(crate) async fn run(args: &Args, out: &mut Out) -> Result<ExitCode> {
    let dir = std::path::absolute(&args.dir)?;
    match &args.command {
        Command::Up(up) => bring_up(&dir, up, out).await?,
        Command::Down { keep_data } => take_down(&dir, *keep_data, out)?,
        Command::Status { output } => return status::run(&existing(&dir)?.layout, *output, out).await,
        Command::Kill { name, signal } => kill(&existing(&dir)?.layout, name, *signal)?,
        Command::Start { name } => start(&existing(&dir)?.layout, name)?,
        Command::Cut { name } => wire(&existing(&dir)?.layout, name).await?.cut(name).await?,
        Command::Join { name } => wire(&existing(&dir)?.layout, name).await?.join(name).await?,
        Command::Exec { name, command } => exec(&existing(&dir)?.layout, name, command)?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn bring_up(dir: &Path, args: &UpArgs, out: &mut Out) -> Result<()> {
    require_root()?;
    let start = Instant::now();
    let programs = Programs::beside_this_one()?;
    let held = up::open_dir(dir)?;
    let record = up::plan_cluster(dir, Record::load(dir)?, &args.wish())?;
    let mut waiting = Waiting::new(out);
    let hint = "the cluster did not come up (`clusterctl local down` removes what was made)";
    up::bring_up(&record, &programs, &mut |text| waiting.say(out, text)).await.context(hint)?;
    drop(held);
    ready::wait(&record.layout, args.wait, &mut |text| waiting.say(out, text)).await.context(hint)?;
    drop(waiting);
    let Layout { schedulers, nodes, .. } = record.layout;
    let took = start.elapsed().as_secs_f64();
    out.note(format_args!(
        "{schedulers} schedulers and {nodes} nodes are ready in {} ({took:.1}s)",
        dir.display()
    ));
    Ok(())
}

fn take_down(dir: &Path, keep_data: bool, out: &mut Out) -> Result<()> {
    require_root()?;
    let mut waiting = Waiting::new(out);
    let leave = if keep_data { Leave::Data } else { Leave::Nothing };
    down::take_down(dir, leave, &mut |text| waiting.say(out, format!("removing {text}")))
        .context("some of it is left; run `clusterctl local down` again")
}

fn kill(layout: &Layout, name: &str, signal: Signal) -> Result<()> {
    require_root()?;
    let member = daemon(layout, name)?;
    let running = Process::load(&up::process_record(layout, member));
    let Some(process) = running.filter(|process| process.is_alive()) else { bail!("{name} does not run") };
    match signal {
        // Nobody wants to ask whether it is gone yet.
        Signal::SIGKILL => process::kill(&[process]),
        other => process.signal(other).map(drop),
    }
}

fn start(layout: &Layout, name: &str) -> Result<()> {
    require_root()?;
    let member = daemon(layout, name)?;
    match up::start_member(layout, member, &Programs::beside_this_one()?)? {
        Some(_) => Ok(()),
        None => bail!("{name} runs already"),
    }
}

/// The wire, if a member of this name is on it.
async fn wire(layout: &Layout, name: &str) -> Result<Wire> {
    require_root()?;
    member(layout, name)?;
    Ok(Wire::ensure(&namespaces::ensure_netns(&layout.fabric())?).await?)
}

/// Becomes the command; returns only if it can't.
fn exec(layout: &Layout, name: &str, command: &[OsString]) -> Result<()> {
    require_root()?;
    let [program, arguments @ ..] = command else { bail!("no command was given") };
    namespaces::inside(layout, member(layout, name)?, || {
        let failed = std::process::Command::new(program).args(arguments).exec();
        Err(failed).with_context(|| format!("run {}", program.display()))
    })
}

/// The cluster that must be in this directory.
fn existing(dir: &Path) -> Result<Record> {
    let missing =
        || format!("there is no local cluster in {}; start one with `clusterctl local up`", dir.display());
    Record::load(dir)?.with_context(missing)
}

fn member(layout: &Layout, name: &str) -> Result<Member> {
    let known = || layout.members().iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    layout.member(name).with_context(|| format!("there is no {name:?}; there are {}", known()))
}

fn daemon(layout: &Layout, name: &str) -> Result<Member> {
    let member = member(layout, name)?;
    ensure!(member.has_process(), "{name} has no process");
    Ok(member)
}

fn require_root() -> Result<()> {
    let root = nix::unistd::geteuid().is_root();
    ensure!(root, "a local cluster is made of namespaces, mounts and cgroups, which takes root: try sudo");
    Ok(())
}

impl UpArgs {
    fn wish(&self) -> Wish {
        let given = |list: &Vec<_>| (!list.is_empty()).then(|| list.clone());
        Wish {
            schedulers: self.schedulers,
            nodes: self.nodes,
            timing: (!self.timing.is_empty()).then(|| self.timing.clone()),
            labels: given(&self.label),
            cpu: self.cpu.clone(),
            memory: self.memory.clone(),
        }
    }
}

/// `KILL`, `SIGKILL` or `9`.
fn parse_signal(text: &str) -> Result<Signal, String> {
    let upper = text.to_uppercase();
    let name = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
    let by_number = || Signal::try_from(text.parse::<i32>().ok()?).ok();
    name.parse().ok().or_else(by_number).ok_or_else(|| "not a signal's name or number".to_owned())
}

/// `node-1:disk=ssd`.
fn parse_label(text: &str) -> Result<(u8, String, String), String> {
    let parsed = || {
        let (node, label) = text.split_once(':')?;
        let (key, value) = label.split_once('=')?;
        Some((node.strip_prefix("node-")?.parse().ok()?, key.to_owned(), value.to_owned()))
    };
    parsed().ok_or_else(|| "write NODE:KEY=VALUE, for instance node-1:disk=ssd".to_owned())
}

/// `tick_ms=20`.
fn parse_timing(text: &str) -> Result<(String, u64), String> {
    let parsed = || {
        let (key, value) = text.split_once('=')?;
        let plain = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        Some((key.to_owned(), value.parse().ok().filter(|_| plain)?))
    };
    parsed().ok_or_else(|| "write KEY=NUMBER, for instance tick_ms=20".to_owned())
}
