//! Acting on a cgroup: make, enter, freeze, kill, remove.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use thiserror::Error;

use super::{Cgroup, Controller, Hierarchy, Version};

/// How long the kernel gets to freeze a container or to let go of a removed one.
const PATIENCE: Duration = Duration::from_secs(5);

/// Between two looks.
const PAUSE: Duration = Duration::from_micros(500);

/// Something couldn't be done to a cgroup.
#[derive(Debug, Error)]
pub enum CgroupError {
    /// The directory couldn't be made.
    #[error("create cgroup {path}")]
    Create {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// A control file couldn't be read.
    #[error("read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// A control file couldn't be written.
    #[error("write {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The node has no hierarchy for something that was asked for.
    #[error("the node has no cgroup hierarchy for {controller:?}")]
    Missing {
        /// What it would be for.
        controller: Controller,
    },
    /// The processes didn't stop in time: one is in an uninterruptible wait.
    #[error("cgroup {path} did not freeze within {seconds} s", seconds = PATIENCE.as_secs())]
    NotFrozen {
        /// The freezer's directory.
        path: PathBuf,
    },
    /// The directory couldn't be removed.
    #[error("remove cgroup {path}")]
    Remove {
        /// The directory.
        path: PathBuf,
        /// Why, after many tries.
        #[source]
        cause: io::Error,
    },
}

impl Cgroup {
    /// Makes the directories. Safe to repeat.
    ///
    /// # Errors
    /// When one can't be made.
    pub fn ensure(&self) -> Result<(), CgroupError> {
        self.dirs().try_for_each(|dir| {
            fs::create_dir_all(dir).map_err(|cause| CgroupError::Create { path: dir.to_owned(), cause })
        })
    }

    /// Opens the way in for a new process, which may lose sight of it.
    pub(crate) fn open_entry(&self) -> Result<Entry, CgroupError> {
        let mut entry = Entry { birthplace: None, doors: Vec::new() };
        for hierarchy in &self.hierarchies {
            match hierarchy.version {
                Version::V1 => entry.doors.push(Door::open(&hierarchy.dir)?),
                Version::V2 => {
                    let path = hierarchy.dir.clone();
                    let dir = File::open(&path).map_err(|cause| CgroupError::Read { path, cause })?;
                    entry.birthplace = Some(dir.into());
                }
            }
        }
        Ok(entry)
    }

    /// Stops every process, and returns when all have stopped.
    ///
    /// # Errors
    /// When they don't stop within 5 s, or the freezer can't be used.
    pub fn freeze(&self) -> Result<(), CgroupError> {
        let freezer = self.freezer()?;
        write_freezer(freezer, true)?;
        let deadline = Instant::now() + PATIENCE;
        while !is_frozen(freezer)? {
            if Instant::now() > deadline {
                return Err(CgroupError::NotFrozen { path: freezer.dir.clone() });
            }
            thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// Lets every process go on.
    ///
    /// # Errors
    /// When the freezer can't be used.
    pub fn thaw(&self) -> Result<(), CgroupError> {
        write_freezer(self.freezer()?, false)
    }

    /// Whether every process is stopped.
    ///
    /// # Errors
    /// When the freezer can't be read.
    pub fn is_frozen(&self) -> Result<bool, CgroupError> {
        is_frozen(self.freezer()?)
    }

    /// Kills every process, frozen or not. A cgroup that doesn't exist has none.
    ///
    /// # Errors
    /// When the kernel refuses for another reason.
    pub fn kill_all(&self) -> Result<(), CgroupError> {
        let freezer = self.freezer()?;
        if freezer.version == Version::V2 && write_existing(&freezer.dir.join("cgroup.kill"), "1")? {
            return Ok(());
        }
        for pid in self.pids()? {
            // A process that has gone meanwhile is as dead as wanted.
            let _gone = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        match freezer.version {
            // A process frozen by the v1 freezer takes the signal when it is thawed.
            Version::V1 => write_existing(&freezer.dir.join("freezer.state"), "THAWED").map(drop),
            Version::V2 => Ok(()),
        }
    }

    /// The pids of all processes, as the node sees them. Empty if the cgroup doesn't exist.
    ///
    /// # Errors
    /// When the list can't be read.
    pub fn pids(&self) -> Result<Vec<i32>, CgroupError> {
        let mut pids: Vec<i32> = Vec::new();
        for dir in self.dirs() {
            let text = read_existing(&dir.join("cgroup.procs"))?;
            pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
        }
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }

    /// Kills what is left inside and removes the directories, those of nested cgroups too. Safe to repeat.
    ///
    /// # Errors
    /// When a directory stays busy for 5 s.
    pub fn remove(&self) -> Result<(), CgroupError> {
        let deadline = Instant::now() + PATIENCE;
        self.dirs().try_for_each(|dir| {
            loop {
                match remove_tree(dir) {
                    Ok(()) => return Ok(()),
                    Err(cause) if Instant::now() > deadline => {
                        return Err(CgroupError::Remove { path: dir.to_owned(), cause });
                    }
                    Err(_busy) => {
                        self.kill_all()?;
                        thread::sleep(PAUSE);
                    }
                }
            }
        })
    }

    fn freezer(&self) -> Result<&Hierarchy, CgroupError> {
        self.hierarchy(Controller::Freezer).ok_or(CgroupError::Missing { controller: Controller::Freezer })
    }
}

/// The way into a cgroup for a process that has one thread.
///
/// Moving another process costs the kernel a grace period (8 to 15 ms here), because it must keep that one from forking
/// meanwhile. This way is free: on the v2 tree a process is born into its cgroup, and on v1 it moves its only thread itself.
#[derive(Debug)]
pub(crate) struct Entry {
    birthplace: Option<OwnedFd>,
    doors: Vec<Door>,
}

impl Entry {
    /// Where the process must be born, see [`crate::sys::CloneOptions`].
    pub(crate) fn birthplace(&self) -> Option<BorrowedFd<'_>> {
        self.birthplace.as_ref().map(AsFd::as_fd)
    }

    /// Moves the calling process in where it wasn't born.
    pub(crate) fn pass(&self) -> Result<(), CgroupError> {
        self.doors.iter().try_for_each(|door| {
            // "0" is the caller.
            let moved = rustix::io::write(&door.file, b"0");
            moved
                .map(drop)
                .map_err(|errno| CgroupError::Write { path: door.path.clone(), cause: errno.into() })
        })
    }
}

/// An open `tasks`: the kernel checks the rights of who opened it.
#[derive(Debug)]
struct Door {
    path: PathBuf,
    file: File,
}

impl Door {
    fn open(dir: &Path) -> Result<Self, CgroupError> {
        let path = dir.join("tasks");
        match OpenOptions::new().write(true).open(&path) {
            Ok(file) => Ok(Self { path, file }),
            Err(cause) => Err(CgroupError::Write { path, cause }),
        }
    }
}

fn write_freezer(freezer: &Hierarchy, frozen: bool) -> Result<(), CgroupError> {
    let (file, value) = match (freezer.version, frozen) {
        (Version::V1, true) => ("freezer.state", "FROZEN"),
        (Version::V1, false) => ("freezer.state", "THAWED"),
        (Version::V2, true) => ("cgroup.freeze", "1"),
        (Version::V2, false) => ("cgroup.freeze", "0"),
    };
    let path = freezer.dir.join(file);
    fs::write(&path, value).map_err(|cause| CgroupError::Write { path, cause })
}

fn is_frozen(freezer: &Hierarchy) -> Result<bool, CgroupError> {
    let (file, line) = match freezer.version {
        Version::V1 => ("freezer.state", "FROZEN"),
        Version::V2 => ("cgroup.events", "frozen 1"),
    };
    let path = freezer.dir.join(file);
    let text = fs::read_to_string(&path).map_err(|cause| CgroupError::Read { path, cause })?;
    Ok(text.lines().any(|l| l == line))
}

/// Writes a control file; `false` if there is none (or its cgroup is gone).
fn write_existing(path: &Path, value: &str) -> Result<bool, CgroupError> {
    match fs::write(path, value) {
        Ok(()) => Ok(true),
        Err(cause) if is_gone(&cause) => Ok(false),
        Err(cause) => Err(CgroupError::Write { path: path.to_owned(), cause }),
    }
}

/// Reads a control file; nothing if there is none (or its cgroup is gone).
pub(super) fn read_existing(path: &Path) -> Result<String, CgroupError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text),
        Err(cause) if is_gone(&cause) => Ok(String::new()),
        Err(cause) => Err(CgroupError::Read { path: path.to_owned(), cause }),
    }
}

/// The kernel says `ENODEV` for a file that was open, or being opened, when its cgroup was removed.
fn is_gone(cause: &io::Error) -> bool {
    cause.kind() == ErrorKind::NotFound || cause.raw_os_error() == Some(libc::ENODEV)
}

/// Removes a cgroup directory with those inside of it. Control files go by themselves.
fn remove_tree(dir: &Path) -> io::Result<()> {
    match fs::remove_dir(dir) {
        Err(cause) if cause.kind() == ErrorKind::NotFound => return Ok(()),
        Ok(()) => return Ok(()),
        Err(_has_children_or_processes) => {}
    }
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(dir)
}
