//! One cluster, through the commands a user has.

use crate::audit::Baseline;
use crate::client::{Counting, Job};
use crate::faults::{Action, Failpoint, Point};
use crate::leaks::{Machine, Marks};
use crate::process;
use crate::view::{Event, List, Migration, Node, Task};
use crate::wait;
use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::de::DeserializeOwned;
use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

/// How long anything that needs no waiting may take.
const SOON: Duration = Duration::from_secs(30);
/// How many lines of each log a failure shows.
const LOG_TAIL: usize = 60;

/// How many of each, and with which timing.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Voters.
    pub schedulers: u8,
    /// Nodes.
    pub nodes: u8,
}

/// A running cluster; stopped and removed when dropped.
#[derive(Debug)]
pub struct Cluster {
    dir: PathBuf,
    size: Size,
    marks: Marks,
    pub(crate) baseline: Baseline,
    /// Held as long as the cluster runs: one at a time on a machine.
    _lock: File,
}

/// Starts a cluster, runs `body`, and looks whether everything is as it should be: each task runs exactly once
/// during its life, and nothing of the cluster is left after it. A failure shows the daemons' logs.
///
/// # Errors
/// The body's, or what is not as it should be.
pub fn with(name: &str, size: Size, body: impl FnOnce(&mut Cluster) -> Result<()>) -> Result<()> {
    let lock = lock()?;
    let before = Machine::look();
    let mut cluster = Cluster::start(name, size, lock)?;
    let result = body(&mut cluster).and_then(|()| cluster.audit().context("after the test"));
    if result.is_err() {
        cluster.tell_story();
    }
    let marks = cluster.marks.clone();
    let down = cluster.down();
    result?;
    down?;
    before.same_as_now(&marks)
}

/// Where these clusters live; one directory each.
#[must_use]
pub fn home() -> PathBuf {
    "/var/lib/dray/e2e".into()
}

/// One cluster of tests at a time, also for plain `cargo test`.
fn lock() -> Result<File> {
    let home = home();
    std::fs::create_dir_all(&home).with_context(|| home.display().to_string())?;
    let lock = File::create(home.join("lock")).context("open the lock")?;
    lock.lock().context("wait for the lock")?;
    Ok(lock)
}

/// A program that was built together with this one.
///
/// # Errors
/// When it isn't there.
pub fn program(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("find the own program")?;
    let dirs = own.ancestors().skip(1).take(2);
    let found = dirs.map(|dir| dir.join(name)).find(|path| path.is_file());
    found.ok_or_else(|| anyhow!("{name} is not beside {}: build the whole workspace first", own.display()))
}

impl Cluster {
    /// Starts one in a directory of its own, and waits until all its nodes are ready.
    fn start(name: &str, size: Size, lock: File) -> Result<Cluster> {
        let dir = home().join(name);
        let failpoints = dir.join("failpoints");
        let mut cluster =
            Cluster { dir, size, marks: Marks::default(), baseline: Baseline::default(), _lock: lock };
        // Left by a run that was killed.
        cluster.down()?;
        std::fs::create_dir_all(failpoints)?;
        cluster.up().inspect_err(|_| cluster.tell_story())?;
        cluster.marks = Marks::of(&cluster)?;
        cluster.baseline = Baseline::of(&cluster)?;
        Ok(cluster)
    }

    /// Starts what isn't running, and waits until all nodes are ready.
    ///
    /// # Errors
    /// When a process doesn't start or a node doesn't get ready.
    pub fn up(&self) -> Result<()> {
        let Size { schedulers, nodes } = self.size;
        let numbers = [schedulers.to_string(), nodes.to_string()];
        self.ctl(&["local", "up", "--schedulers", &numbers[0], "--nodes", &numbers[1]])?;
        wait::settled("all nodes to be ready", SOON, || {
            let ready = self.nodes()?.iter().filter(|node| node.liveness == "ready").count();
            ensure!(ready == usize::from(nodes), "{ready} of {nodes} nodes are ready");
            Ok(())
        })
    }

    /// Stops and removes everything.
    fn down(&self) -> Result<()> {
        self.ctl(&["local", "down"])?;
        match std::fs::remove_dir_all(&self.dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _gone => Ok(()),
        }
    }

    /// The cluster's directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The nodes' names.
    #[must_use]
    pub fn node_names(&self) -> Vec<String> {
        (1..=self.size.nodes).map(|number| format!("node-{number}")).collect()
    }

    /// All processes' names.
    #[must_use]
    pub fn daemon_names(&self) -> Vec<String> {
        (1..=self.size.schedulers)
            .map(|number| format!("scheduler-{number}"))
            .chain(self.node_names())
            .collect()
    }

    // --- clusterctl

    /// Runs `clusterctl` and gives what it printed.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub fn ctl(&self, arguments: &[&str]) -> Result<String> {
        self.ctl_with(arguments, b"")
    }

    /// As [`Cluster::ctl`], with bytes on its standard input.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub fn ctl_with(&self, arguments: &[&str], input: &[u8]) -> Result<String> {
        let output = self.ctl_output(arguments, input)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "clusterctl {}: {}", arguments.join(" "), said.trim());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs `clusterctl`, which must fail with exit code 1, and gives what it said.
    ///
    /// # Errors
    /// When it doesn't fail, or in another way.
    pub fn ctl_refused(&self, arguments: &[&str], input: &[u8]) -> Result<String> {
        let output = self.ctl_output(arguments, input)?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let line = arguments.join(" ");
        let printed = String::from_utf8_lossy(&output.stdout);
        let code = output.status.code();
        ensure!(code == Some(1), "clusterctl {line}: {} and said {said:?}, {printed:?}", output.status);
        Ok(said)
    }

    /// Runs `clusterctl` to its end.
    ///
    /// # Errors
    /// When it can't be run.
    pub fn ctl_output(&self, arguments: &[&str], input: &[u8]) -> Result<Output> {
        let mut child = self.command(arguments)?.stdin(Stdio::piped()).spawn().context("start clusterctl")?;
        let mut stdin = child.stdin.take().context("a pipe was asked for")?;
        let input = input.to_owned();
        // It may refuse before it has read everything.
        let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let output = child.wait_with_output().context("wait for clusterctl")?;
        writer.join().map_err(|_| anyhow!("the writer panicked"))?;
        Ok(output)
    }

    /// `clusterctl` for this cluster, with its output in pipes, not started.
    ///
    /// # Errors
    /// When it wasn't built.
    pub fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(program("clusterctl")?);
        command
            .args(arguments)
            .env("DRAY_LOCAL_DIR", &self.dir)
            .env("DRAY_FAILPOINTS", self.dir.join("failpoints"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok(command)
    }

    fn list<T: DeserializeOwned>(&self, kind: &str) -> Result<Vec<T>> {
        let text = self.ctl(&["get", kind, "-o", "json"])?;
        let list: List<T> = serde_json::from_str(&text).with_context(|| format!("{kind}: {text}"))?;
        Ok(list.items)
    }

    /// All tasks.
    ///
    /// # Errors
    /// When the cluster doesn't answer.
    pub fn tasks(&self) -> Result<Vec<Task>> {
        self.list("tasks")
    }

    /// All nodes.
    ///
    /// # Errors
    /// When the cluster doesn't answer.
    pub fn nodes(&self) -> Result<Vec<Node>> {
        self.list("nodes")
    }

    /// All migrations, oldest first.
    ///
    /// # Errors
    /// When the cluster doesn't answer.
    pub fn migrations(&self) -> Result<Vec<Migration>> {
        self.list("migrations")
    }

    /// The latest events.
    ///
    /// # Errors
    /// When the cluster doesn't answer.
    pub fn events(&self) -> Result<Vec<Event>> {
        self.list("events")
    }

    /// One task.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn task(&self, name: &str) -> Result<Task> {
        let found = self.tasks()?.into_iter().find(|task| task.name == name);
        found.with_context(|| format!("there is no task {name}"))
    }

    /// Applies a manifest.
    ///
    /// # Errors
    /// When it is refused.
    pub fn apply(&self, manifest: &str) -> Result<()> {
        self.ctl_with(&["apply", "-f", "-"], manifest.as_bytes()).map(drop)
    }

    /// Imports an example image.
    ///
    /// # Errors
    /// When it wasn't made, or is refused.
    pub fn import(&self, image: &str) -> Result<()> {
        let archive = repository().join("target/images").join(format!("{image}.tar"));
        ensure!(archive.is_file(), "{} is missing: run `make images`", archive.display());
        self.ctl(&["image", "import", &archive.to_string_lossy()]).map(drop)
    }

    /// Waits until a task runs, and gives it.
    ///
    /// # Errors
    /// When it doesn't.
    pub fn running(&self, name: &str) -> Result<Task> {
        wait::until(&format!("{name} to run"), SOON, || {
            let task = self.task(name)?;
            let runs = task.phase == "running" && !task.node.is_empty();
            ensure!(runs, "it is {} on {:?}: {}", task.phase, task.node, task.message);
            Ok(Some(task))
        })
    }

    /// Starts a migration and gives its name; doesn't wait for its end.
    ///
    /// # Errors
    /// When it is refused.
    pub fn migrate(&self, task: &str, target: &str) -> Result<String> {
        let known: Vec<String> = self.migrations()?.into_iter().map(|migration| migration.name).collect();
        self.ctl(&["migrate", task, "--to", target])?;
        let new = self.migrations()?.into_iter().find(|migration| !known.contains(&migration.name));
        Ok(new.with_context(|| format!("no new migration of {task}"))?.name)
    }

    /// Waits for a migration's end.
    ///
    /// # Errors
    /// When it doesn't end within a minute.
    pub fn migration_over(&self, name: &str) -> Result<Migration> {
        wait::until(&format!("{name} to end"), Duration::from_secs(60), || {
            let found = self.migrations()?.into_iter().find(|migration| migration.name == name);
            let migration = found.with_context(|| format!("there is no migration {name}"))?;
            ensure!(migration.is_over(), "it is {}", migration.phase);
            Ok(Some(migration))
        })
    }

    /// Moves a task and waits until that is done.
    ///
    /// # Errors
    /// When it is refused or aborted.
    pub fn moved(&self, task: &str, target: &str) -> Result<Migration> {
        let migration = self.migration_over(&self.migrate(task, target)?)?;
        ensure!(migration.phase == "cleaned", "{}: {}", migration.phase, migration.failure);
        ensure!(self.task(task)?.node == target, "{task} is not on {target}");
        Ok(migration)
    }

    // --- processes

    /// The process of a scheduler or an agent.
    ///
    /// # Errors
    /// When it doesn't run.
    pub fn pid(&self, daemon: &str) -> Result<i32> {
        let dir = self.dir.join(daemon);
        let found: Vec<i32> =
            process::all().iter().filter(|process| process.is_daemon_of(&dir)).map(|p| p.pid).collect();
        match found.as_slice() {
            [pid] => Ok(*pid),
            [] => bail!("{daemon} does not run"),
            several => bail!("{daemon} runs more than once: {several:?}"),
        }
    }

    /// Kills a scheduler or an agent with SIGKILL.
    ///
    /// # Errors
    /// When it doesn't run.
    pub fn kill(&self, daemon: &str) -> Result<()> {
        process::kill_hard(self.pid(daemon)?)
    }

    /// The scheduler that leads.
    ///
    /// # Errors
    /// When there is none within 20 s.
    pub fn leader(&self) -> Result<String> {
        self.leader_after("")
    }

    /// The scheduler that leads now that another has been killed.
    ///
    /// # Errors
    /// When there is none within 20 s.
    pub fn leader_after(&self, killed: &str) -> Result<String> {
        wait::until("a leader", Duration::from_secs(20), || {
            let text = self.ctl(&["cluster", "status", "-o", "json"])?;
            let status: serde_json::Value = serde_json::from_str(&text)?;
            let schedulers = status["schedulers"].as_array().context("no schedulers in the status")?;
            let leaders = schedulers.iter().filter(|scheduler| scheduler["leader"] == true);
            let mut names =
                leaders.filter_map(|leader| Some(format!("scheduler-{}", leader["id"].as_u64()?)));
            Ok(names.find(|name| name != killed))
        })
    }

    /// A file that stands for a node's network namespace as long as its agent runs.
    ///
    /// # Errors
    /// When the agent doesn't run.
    pub fn netns(&self, node: &str) -> Result<PathBuf> {
        Ok(format!("/proc/{}/ns/net", self.pid(node)?).into())
    }

    /// A Redis client inside a node's network, counting on a task.
    ///
    /// # Errors
    /// When it gets no first reply.
    pub fn count(&self, task: &str, from: &str) -> Result<Counting> {
        Counting::start(Job {
            netns: Some(self.netns(from)?),
            address: SocketAddr::new(self.task(task)?.ip.into(), 6379),
            key: "counter".into(),
            limit: Duration::from_secs(300),
        })
    }

    /// Sets a failpoint.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn failpoint(&self, node: &str, point: Point, action: Action) -> Result<Failpoint> {
        Failpoint::set(&self.dir.join("failpoints"), node, point, action)
    }

    /// Prints what a person wants to see when something went wrong.
    fn tell_story(&self) {
        for kind in ["tasks", "nodes", "migrations", "events"] {
            let said = self.ctl(&["get", kind, "-o", "wide"]).unwrap_or_else(|error| format!("{error:#}\n"));
            eprint!("--- {kind}\n{said}");
        }
        for daemon in self.daemon_names() {
            let log = std::fs::read(self.dir.join("logs").join(format!("{daemon}.log"))).unwrap_or_default();
            let log = String::from_utf8_lossy(&log);
            // Raft's own remarks fill pages.
            let lines: Vec<&str> = log.lines().filter(|line| !line.contains(" slog: ")).collect();
            let tail = &lines[lines.len().saturating_sub(LOG_TAIL)..];
            eprintln!("--- {daemon}\n{}", tail.join("\n"));
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Err(error) = self.down() {
            eprintln!("stop the cluster in {}: {error:#}", self.dir.display());
        }
    }
}

/// The root of this repository.
#[must_use]
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
