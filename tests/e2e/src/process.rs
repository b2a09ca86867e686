//! The processes of this machine, from `/proc`.

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A process at one moment.
#[derive(Debug, Clone)]
pub struct Process {
    /// Its id.
    pub pid: i32,
    /// Its command line.
    pub arguments: Vec<String>,
    /// Its cgroup in each hierarchy.
    pub cgroups: Vec<PathBuf>,
}

/// All processes, without kernel threads and zombies.
#[must_use]
pub fn all() -> Vec<Process> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(read).collect()
}

/// One process; `None` when it is gone, a zombie or a kernel thread.
fn read(pid: i32) -> Option<Process> {
    let dir = PathBuf::from(format!("/proc/{pid}"));
    let line = std::fs::read(dir.join("cmdline")).ok().filter(|line| !line.is_empty())?;
    let arguments = line.split(|byte| *byte == 0).filter(|part| !part.is_empty());
    let cgroups = std::fs::read_to_string(dir.join("cgroup")).ok()?;
    Some(Process {
        pid,
        arguments: arguments.map(|part| String::from_utf8_lossy(part).into_owned()).collect(),
        cgroups: cgroups.lines().filter_map(|line| line.splitn(3, ':').nth(2)).map(PathBuf::from).collect(),
    })
}

impl std::fmt::Display for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let line: String = self.arguments.join(" ").chars().take(120).collect();
        write!(f, "{} ({line})", self.pid)
    }
}

impl Process {
    /// Whether it is a daemon whose configuration file is below `dir`.
    #[must_use]
    pub fn is_daemon_of(&self, dir: &Path) -> bool {
        let config = self.arguments.windows(2).find(|pair| pair[0] == "--config");
        config.is_some_and(|pair| Path::new(&pair[1]).starts_with(dir))
    }

    /// Whether a path below `dir` is in its command line.
    #[must_use]
    pub fn names(&self, dir: &Path) -> bool {
        self.arguments.iter().any(|argument| Path::new(argument).starts_with(dir))
    }

    /// The inode numbers of its network and mount namespaces.
    #[must_use]
    pub fn namespaces(&self) -> BTreeSet<u64> {
        namespaces(self.pid)
    }
}

/// The inode numbers of a process' network and mount namespaces.
#[must_use]
pub fn namespaces(pid: i32) -> BTreeSet<u64> {
    use std::os::unix::fs::MetadataExt;
    let inode = |kind: &str| std::fs::metadata(format!("/proc/{pid}/ns/{kind}")).map(|meta| meta.ino());
    ["net", "mnt"].into_iter().filter_map(|kind| inode(kind).ok()).collect()
}

/// Whether a process has ended, or has a SIGKILL pending: it runs no further instruction.
#[must_use]
pub fn is_dying(pid: i32) -> bool {
    let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/status")) else { return true };
    let field =
        |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim();
    let pending = |name: &str| u64::from_str_radix(field(name), 16).unwrap_or(0);
    let ended = field("State:").starts_with(['Z', 'X']);
    ended || (pending("SigPnd:") | pending("ShdPnd:")) & (1 << 8) != 0
}

/// Whether the freezer of a process' cgroup, in either version, holds it. A process that is gone doesn't run either.
#[must_use]
pub fn is_frozen(pid: i32) -> bool {
    let Ok(text) = std::fs::read_to_string(format!("/proc/{pid}/cgroup")) else { return true };
    let says = |file: &str, words: &str| std::fs::read_to_string(file).is_ok_and(|said| said.contains(words));
    text.lines().filter_map(|line| line.split_once(':')).any(|(_, line)| match line.split_once(':') {
        Some(("freezer", path)) => says(&format!("/sys/fs/cgroup/freezer{path}/freezer.state"), "FROZEN"),
        Some(("", path)) => ["", "/unified"]
            .iter()
            .any(|top| says(&format!("/sys/fs/cgroup{top}{path}/cgroup.events"), "frozen 1")),
        Some(_) | None => false,
    })
}

/// Sends SIGKILL and waits until the process has ended.
///
/// # Errors
/// When it can't be signalled or doesn't end.
pub fn kill_hard(pid: i32) -> Result<()> {
    match signal::kill(Pid::from_raw(pid), Signal::SIGKILL) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(cause) => return Err(cause).with_context(|| format!("kill {pid}")),
    }
    crate::wait::until(&format!("process {pid} to end"), Duration::from_secs(10), || {
        Ok(read(pid).is_none().then_some(()))
    })
}
