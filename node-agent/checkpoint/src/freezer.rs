//! The cgroup freezer, version 1 and 2.
//!
//! While a container is being moved this is what decides whether it runs: CRIU may come and go, the agent may die and
//! come back, and a frozen cgroup stays frozen until somebody thaws it.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Between two looks at the state. Freezing takes 0.5 to 1.5 ms; sleeping less costs more than it saves.
const PAUSE: Duration = Duration::from_micros(100);

/// After this the v1 freezer is asked again: it can stay in `FREEZING` when a task forked meanwhile.
const ASK_AGAIN: Duration = Duration::from_millis(10);

/// Which of the two interfaces a directory has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Interface {
    V1,
    V2,
}

/// A cgroup that can be frozen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Freezer {
    dir: PathBuf,
    interface: Interface,
}

/// A cgroup could not be frozen, thawed or read.
#[derive(Debug, Error)]
pub enum FreezerError {
    /// There is neither a v1 nor a v2 freezer.
    #[error("{path} is no cgroup that can be frozen: it has neither freezer.state nor cgroup.freeze")]
    NoFreezer {
        /// The directory.
        path: PathBuf,
    },
    /// A control file could not be read.
    #[error("read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// A control file could not be written.
    #[error("write {value:?} to {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What.
        value: &'static str,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// Some task did not stop: it is in an uninterruptible wait. The cgroup is left freezing.
    #[error("cgroup {path} was not frozen after {waited_ms} ms")]
    NotFrozen {
        /// The directory.
        path: PathBuf,
        /// How long it was given.
        waited_ms: u128,
    },
    /// A task could not be killed.
    #[error("kill process {pid} of cgroup {path}")]
    Kill {
        /// The directory.
        path: PathBuf,
        /// The process.
        pid: i32,
        /// Why.
        #[source]
        cause: io::Error,
    },
}

impl Freezer {
    /// The freezer of the cgroup at `dir`: on a v1 machine its directory in the freezer hierarchy.
    ///
    /// # Errors
    /// When the directory has no freezer.
    pub fn at(dir: impl Into<PathBuf>) -> Result<Self, FreezerError> {
        let dir = dir.into();
        if dir.join("freezer.state").exists() {
            Ok(Self { dir, interface: Interface::V1 })
        } else if dir.join("cgroup.freeze").exists() {
            Ok(Self { dir, interface: Interface::V2 })
        } else {
            Err(FreezerError::NoFreezer { path: dir })
        }
    }

    /// The cgroup's directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Stops every task, and returns when all have stopped. Safe to repeat.
    ///
    /// # Errors
    /// When a task has not stopped within `patience`; the cgroup is then left freezing, thaw it or try again.
    pub fn freeze(&self, patience: Duration) -> Result<(), FreezerError> {
        let begun = Instant::now();
        let mut asked: Option<Instant> = None;
        loop {
            if asked.is_none_or(|at| at.elapsed() > ASK_AGAIN) {
                self.set(true)?;
                asked = Some(Instant::now());
            }
            if self.is_frozen()? {
                return Ok(());
            }
            if begun.elapsed() > patience {
                return Err(self.not_frozen(begun.elapsed()));
            }
            thread::sleep(PAUSE);
        }
    }

    /// Lets every task go on. Safe to repeat.
    ///
    /// # Errors
    /// When the control file can't be written.
    pub fn thaw(&self) -> Result<(), FreezerError> {
        self.set(false)
    }

    /// Whether every task has stopped.
    ///
    /// # Errors
    /// When the control file can't be read.
    pub fn is_frozen(&self) -> Result<bool, FreezerError> {
        match self.interface {
            Interface::V1 => Ok(self.read("freezer.state")?.trim() == "FROZEN"),
            Interface::V2 => Ok(self.read("cgroup.events")?.lines().any(|line| line == "frozen 1")),
        }
    }

    /// Kills every task, and only then thaws: with the signal pending none runs another instruction of its own.
    ///
    /// # Errors
    /// When the tasks can't be listed, killed or thawed. Nothing is thawed unless everything has been killed.
    pub fn kill_all(&self) -> Result<(), FreezerError> {
        for pid in self.pids()? {
            match kill(Pid::from_raw(pid), Signal::SIGKILL) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(errno) => {
                    return Err(FreezerError::Kill { path: self.dir.clone(), pid, cause: errno.into() });
                }
            }
        }
        self.thaw()
    }

    /// Every process in the cgroup and below it.
    ///
    /// # Errors
    /// When a list can't be read.
    pub fn pids(&self) -> Result<Vec<i32>, FreezerError> {
        let mut pids = Vec::new();
        let mut dirs = vec![self.dir.clone()];
        while let Some(dir) = dirs.pop() {
            let list = dir.join("cgroup.procs");
            let text = fs::read_to_string(&list).map_err(|cause| FreezerError::Read { path: list, cause })?;
            pids.extend(text.lines().filter_map(|line| line.trim().parse::<i32>().ok()));
            dirs.extend(children(&dir).map_err(|cause| FreezerError::Read { path: dir, cause })?);
        }
        Ok(pids)
    }

    fn set(&self, frozen: bool) -> Result<(), FreezerError> {
        let (name, value) = match (self.interface, frozen) {
            (Interface::V1, true) => ("freezer.state", "FROZEN"),
            (Interface::V1, false) => ("freezer.state", "THAWED"),
            (Interface::V2, true) => ("cgroup.freeze", "1"),
            (Interface::V2, false) => ("cgroup.freeze", "0"),
        };
        let path = self.dir.join(name);
        let written =
            OpenOptions::new().write(true).open(&path).and_then(|mut file| file.write_all(value.as_bytes()));
        written.map_err(|cause| FreezerError::Write { path, value, cause })
    }

    fn read(&self, name: &str) -> Result<String, FreezerError> {
        let path = self.dir.join(name);
        fs::read_to_string(&path).map_err(|cause| FreezerError::Read { path, cause })
    }

    fn not_frozen(&self, waited: Duration) -> FreezerError {
        FreezerError::NotFrozen { path: self.dir.clone(), waited_ms: waited.as_millis() }
    }
}

fn children(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.push(entry.path());
        }
    }
    Ok(found)
}
