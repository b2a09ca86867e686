//! The processes of a local cluster: starting them as daemons, knowing them again, ending exactly them.
//!
//! A process is known by its id *and* the time it was started, because ids are used again. Nothing here goes
//! by a program's name.

use std::ffi::{CString, OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc;
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::Mode;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// How often to look whether a process is gone.
const POLL: Duration = Duration::from_millis(10);

/// One process that was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    /// Its id.
    pub(crate) pid: i32,
    /// When it was started, in the kernel's ticks since boot.
    pub(crate) started: u64,
}

/// What to start.
#[derive(Debug)]
pub(crate) struct Daemon<'a> {
    /// The program.
    pub(crate) program: &'a Path,
    /// Its configuration file.
    pub(crate) config: &'a Path,
    /// Where its output is appended.
    pub(crate) log: &'a Path,
}

impl Process {
    /// The process that has this id now; `None` if none has, or it is dead and only not yet collected.
    pub(crate) fn find(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name, in parentheses, may contain anything.
        let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
        let state = fields.next()?;
        let started = fields.nth(18)?.parse().ok()?;
        (!["Z", "X"].contains(&state)).then_some(Self { pid, started })
    }

    /// Whether it still runs.
    pub(crate) fn is_alive(self) -> bool {
        Self::find(self.pid) == Some(self)
    }

    /// Sends it a signal; says whether it was there. The id could only be another's by now if it was given
    /// out again between two system calls.
    pub(crate) fn signal(self, signal: Signal) -> Result<bool> {
        if !self.is_alive() {
            return Ok(false);
        }
        match nix::sys::signal::kill(Pid::from_raw(self.pid), signal) {
            Err(Errno::ESRCH) => Ok(false),
            sent => sent.map(|()| true).with_context(|| format!("send {signal} to process {}", self.pid)),
        }
    }

    /// Reads the record of a process; `None` if there is none, or it makes no sense.
    pub(crate) fn load(record: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(record).ok()?).ok()
    }

    /// Writes the record of a process.
    pub(crate) fn store(self, record: &Path) -> Result<()> {
        let fresh = record.with_extension("new");
        let written = fs::write(&fresh, serde_json::to_vec(&self)?).and_then(|()| fs::rename(&fresh, record));
        written.with_context(|| format!("write {}", record.display()))
    }
}

/// Starts a daemon in the namespaces of the calling thread, in a session of its own.
pub(crate) fn start(daemon: &Daemon<'_>) -> Result<Process> {
    let text = |text: &OsStr| CString::new(text.as_bytes()).context("a zero byte in an argument");
    let arguments =
        [text(daemon.program.as_os_str())?, c"--config".to_owned(), text(daemon.config.as_os_str())?];
    // Its output goes to a file, where colours are noise.
    let plain = (OsString::from("NO_COLOR"), OsString::from("1"));
    let environment = std::env::vars_os()
        .filter(|(key, _)| *key != plain.0)
        .chain([plain.clone()])
        .map(|(key, value)| text(&[key.as_os_str(), value.as_os_str()].join(OsStr::new("="))))
        .collect::<Result<Vec<_>>>()?;
    let actions = streams(daemon.log)?;
    let pid = posix_spawn(daemon.program, &actions, &attributes()?, &arguments, &environment)
        .with_context(|| format!("start {}", daemon.program.display()))?;
    Process::find(pid.as_raw()).with_context(|| format!("{} ended at once", daemon.program.display()))
}

fn streams(log: &Path) -> Result<PosixSpawnFileActions> {
    let mut actions = PosixSpawnFileActions::init()?;
    actions.add_open(libc::STDIN_FILENO, "/dev/null", OFlag::O_RDONLY, Mode::empty())?;
    let append = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_APPEND;
    actions.add_open(libc::STDOUT_FILENO, log, append, Mode::S_IRUSR | Mode::S_IWUSR)?;
    actions.add_dup2(libc::STDOUT_FILENO, libc::STDERR_FILENO)?;
    Ok(actions)
}

/// A session of its own, no signal blocked or ignored.
fn attributes() -> Result<PosixSpawnAttr> {
    let mut attributes = PosixSpawnAttr::init()?;
    let new_session = PosixSpawnFlags::from_bits_retain(libc::POSIX_SPAWN_SETSID.into());
    let signals = PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF | PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK;
    attributes.set_flags(new_session | signals)?;
    attributes.set_sigmask(&SigSet::empty())?;
    let mut ignored_by_rust = SigSet::empty();
    ignored_by_rust.add(Signal::SIGPIPE);
    attributes.set_sigdefault(&ignored_by_rust)?;
    Ok(attributes)
}

/// Asks processes to end, waits, and kills those that did not.
pub(crate) fn stop(processes: &[Process], grace: Duration) -> Result<()> {
    for process in processes {
        process.signal(Signal::SIGTERM)?;
    }
    if !wait_gone(processes, grace) {
        kill(processes)?;
    }
    Ok(())
}

/// Kills processes and waits until they are gone.
pub(crate) fn kill(processes: &[Process]) -> Result<()> {
    for process in processes {
        process.signal(Signal::SIGKILL)?;
    }
    let patience = Duration::from_secs(10);
    ensure!(wait_gone(processes, patience), "processes {processes:?} do not die");
    Ok(())
}

fn wait_gone(processes: &[Process], patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    loop {
        let left = processes.iter().any(|process| process.is_alive());
        if !left || Instant::now() > deadline {
            return !left;
        }
        thread::sleep(POLL);
    }
}

/// Every process that is in one of the namespaces these files stand for, except this one.
pub(crate) fn members_of(pins: &[PathBuf]) -> Result<Vec<Process>> {
    let wanted: Vec<_> = pins.iter().filter_map(|pin| identity(pin).ok()).collect();
    let mut found = Vec::new();
    for pid in all_pids()? {
        let ours = ["net", "mnt"].iter().any(|kind| {
            identity(Path::new(&format!("/proc/{pid}/ns/{kind}"))).is_ok_and(|id| wanted.contains(&id))
        });
        found.extend(Process::find(pid).filter(|_| ours));
    }
    Ok(found)
}

/// A namespace is the same if device and inode are.
fn identity(namespace: &Path) -> io::Result<(u64, u64)> {
    fs::metadata(namespace).map(|data| (data.dev(), data.ino()))
}

fn all_pids() -> Result<Vec<i32>> {
    let entries = fs::read_dir("/proc").context("read /proc")?;
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let this = i32::try_from(std::process::id()).context("this process's id")?;
    Ok(pids.filter(|&pid| pid != this).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn script(dir: &Path, text: &str) -> PathBuf {
        let file = dir.join("program");
        fs::write(&file, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        file
    }

    #[test]
    fn a_daemon_has_its_own_session_and_log() {
        let dir = tempfile::tempdir().unwrap();
        let program = script(dir.path(), "echo \"$1 $2\"; echo oops >&2; exec sleep 60");
        let log = dir.path().join("log");
        let daemon = Daemon { program: &program, config: Path::new("/c.toml"), log: &log };
        let process = start(&daemon).unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        while fs::read_to_string(&log).unwrap() != "--config /c.toml\noops\n" && Instant::now() < deadline {
            thread::sleep(POLL);
        }
        assert_eq!(fs::read_to_string(&log).unwrap(), "--config /c.toml\noops\n");
        let session = nix::unistd::getsid(Some(Pid::from_raw(process.pid))).unwrap();
        assert_eq!(session.as_raw(), process.pid);
        stop(&[process], Duration::from_secs(5)).unwrap();
        assert!(!process.is_alive());
        assert!(!process.signal(Signal::SIGTERM).unwrap());
    }

    #[test]
    fn one_that_ignores_the_request_is_killed() {
        let dir = tempfile::tempdir().unwrap();
        let program = script(dir.path(), "trap '' TERM; echo ready; while :; do sleep 1; done");
        let log = dir.path().join("log");
        let process = start(&Daemon { program: &program, config: Path::new("/c"), log: &log }).unwrap();
        while fs::read_to_string(&log).unwrap().is_empty() {
            thread::sleep(POLL);
        }
        stop(&[process], Duration::from_millis(50)).unwrap();
        assert!(!process.is_alive());
    }

    #[test]
    fn another_process_with_the_same_id_is_left_alone() {
        let this = Process::find(i32::try_from(std::process::id()).unwrap()).unwrap();
        let earlier = Process { started: this.started - 1, ..this };
        assert!(this.is_alive() && !earlier.is_alive());
        assert!(!earlier.signal(Signal::SIGKILL).unwrap());
    }

    #[test]
    fn records_survive_and_nonsense_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let record = dir.path().join("process.json");
        assert_eq!(Process::load(&record), None);
        let process = Process { pid: 7, started: 8 };
        process.store(&record).unwrap();
        assert_eq!(Process::load(&record), Some(process));
        fs::write(&record, "{").unwrap();
        assert_eq!(Process::load(&record), None);
    }
}
