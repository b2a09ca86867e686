//! From a running container to a directory of images.
//!
//! ```text
//! CRIU starts ─► freeze ─► frozen() ─► CRIU dumps ─► freeze again ─► held() ─┬─ Kill: all killed, then thawed
//!     runs        stopped from here on                                      └─ Keep: CRIU lets go, stays frozen
//! ```
//!
//! What holds the container is the cgroup freezer, not CRIU: once `frozen()` has been called, only [`Freezer::thaw`]
//! lets it run again, and this module thaws nothing but what it has killed. That is so whatever happens: CRIU fails,
//! CRIU is killed, the hook refuses, or the caller's process dies while it holds. (CRIU then sees its socket closed,
//! lets go, and restores the frozen state that it found.) Whoever knows that the container may run, thaws it.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::criu::image::give_own_network;
use crate::criu::rpc::{CgroupMode, Kind, NetworkLock, Options, Request};
use crate::criu::session::{Answer, Event, Notification, Place, Refused, SessionError};
use crate::criu::{Criu, Session};
use crate::freezer::{Freezer, FreezerError};
use crate::manifest::{Manifest, StdioPipes, mount_key};
use crate::sockets::{self, RepairError};

/// The log's name within the log directory.
const LOG: &str = "dump.log";

/// How long the container gets to stop. It usually takes a millisecond.
const PATIENCE: Duration = Duration::from_secs(5);

/// The largest file that was deleted while open and is carried in the images, in bytes.
const GHOST_BYTES: u32 = 256 << 20;

/// How much CRIU logs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogLevel {
    /// Warnings and errors.
    #[default]
    Errors,
    /// Everything. Slow: for finding out why something failed.
    Everything,
}

impl LogLevel {
    pub(crate) fn number(self) -> i32 {
        match self {
            Self::Errors => 2,
            Self::Everything => 4,
        }
    }
}

/// What to dump, and where to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DumpSpec {
    /// The container's init, as this machine numbers it.
    pub init: i32,
    /// The container's freezer.
    pub freezer: Freezer,
    /// Where the images go: an empty directory, best on a tmpfs.
    pub images: PathBuf,
    /// Where the log goes.
    pub logs: PathBuf,
    /// Mount points that the restore will provide, as the container sees them.
    pub mounts: Vec<PathBuf>,
    /// The pipes that the shim holds.
    pub stdio: StdioPipes,
    /// How much CRIU logs.
    pub log_level: LogLevel,
}

/// What becomes of a container whose images are complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It runs elsewhere: kill it. None of its tasks runs another instruction, and no peer hears of it.
    Kill,
    /// Leave it as it was, frozen.
    Keep,
}

/// What the caller does at the two points where CRIU waits.
pub struct DumpHooks<'a> {
    /// The container has just been frozen, CRIU has touched nothing: raise the shield. A refusal ends the dump.
    pub frozen: &'a mut dyn FnMut() -> Answer,
    /// The images are complete, and the container is held: decide. May take as long as it needs.
    pub held: &'a mut dyn FnMut(&Phases) -> Fate,
}

/// How long each part took, so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Phases {
    /// CRIU's start. The container ran.
    pub start: Duration,
    /// Stopping the tasks, and the `frozen` hook.
    pub freeze: Duration,
    /// The dump itself. The container was frozen.
    pub dump: Duration,
    /// Held, until the caller had decided.
    pub held: Duration,
    /// Killing, or letting go.
    pub finish: Duration,
}

/// How a dump ended.
#[derive(Debug)]
pub enum Outcome {
    /// The container has been killed. Its init is left for its parent to reap.
    Killed {
        /// How long it took.
        phases: Phases,
        /// What CRIU found to complain about after the container had been killed.
        complaint: Option<SessionError>,
    },
    /// The container is as it was, and frozen.
    Kept {
        /// How long it took.
        phases: Phases,
    },
}

/// A dump failed. If it got as far as freezing the container, it is still frozen and otherwise as it was.
#[derive(Debug, Error)]
pub enum DumpError {
    /// A directory can't be used.
    #[error("open {path}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// CRIU failed, or a hook refused.
    #[error("dump process {init}")]
    Criu {
        /// The container's init.
        init: i32,
        /// Why.
        #[source]
        cause: SessionError,
    },
    /// CRIU was killed, and the container could not be frozen again: it may be running.
    #[error("freeze again after CRIU was killed")]
    Freeze(#[source] FreezerError),
    /// CRIU was killed, and the container's connections could not be put right: a thaw would reset them.
    #[error("heal the container's connections after CRIU was killed")]
    Heal(#[source] RepairError),
}

/// Dumps a container. Blocks until it has been decided what becomes of it; run it on a thread of its own.
///
/// # Errors
/// When the container can't be dumped; see [`DumpError`] for the state it is left in.
pub fn dump<'a>(criu: &Criu, spec: &'a DumpSpec, hooks: DumpHooks<'a>) -> Result<Outcome, DumpError> {
    let images = open(&spec.images)?;
    let logs = open(&spec.logs)?;
    let failed = |cause: SessionError| DumpError::Criu { init: spec.init, cause };
    let mut run = Run::new(spec, hooks);
    let place = Place { network: Some(format!("/proc/{}/ns/net", spec.init).into()), ..Place::default() };
    let mut session: Session = criu.start(place).map_err(failed)?;
    let request = request(spec, images.as_raw_fd(), logs.as_raw_fd());
    let result = session.run(&request, &spec.logs.join(LOG), &mut |notification| run.answer(&notification));
    drop(session);
    run.phases.finish = run.lap();
    let phases = run.phases;
    match (result, run.fate) {
        (result, Some(Decided::Killed)) => Ok(Outcome::Killed { phases, complaint: result.err() }),
        (Err(SessionError::Refused { .. }), Some(Decided::Kept)) => Ok(Outcome::Kept { phases }),
        (Err(cause @ SessionError::Gone { .. }), _) => {
            heal(&spec.freezer)?;
            Err(failed(cause))
        }
        (Err(cause), _) => Err(failed(cause)),
        // CRIU kills what it has dumped unless told otherwise, and says so only after a post-dump that we answer.
        (Ok(_), _) => Ok(Outcome::Killed { phases, complaint: None }),
    }
}

/// Puts a container in order whose CRIU has been killed: frozen, and its connections usable.
fn heal(freezer: &Freezer) -> Result<(), DumpError> {
    freezer.freeze(PATIENCE).map_err(DumpError::Freeze)?;
    sockets::leave_repair(freezer).map(drop).map_err(DumpError::Heal)
}

/// What CRIU is asked. Pure.
fn request(spec: &DumpSpec, images: i32, logs: i32) -> Request {
    let external = |path: &PathBuf| format!("mnt[{}]:{}", path.display(), mount_key(path));
    let options = Options {
        images_dir_fd: images,
        work_dir_fd: Some(logs),
        log_file: Some(LOG.to_owned()),
        log_level: Some(spec.log_level.number()),
        notify_scripts: Some(true),
        pid: Some(spec.init),
        external: spec.mounts.iter().map(external).collect(),
        freeze_cgroup: Some(spec.freezer.dir().display().to_string()),
        tcp_established: Some(true),
        file_locks: Some(true),
        link_remap: Some(true),
        ghost_limit: Some(GHOST_BYTES),
        orphan_pts_master: Some(true),
        manage_cgroups_mode: Some(CgroupMode::Ignore as i32),
        network_lock: Some(NetworkLock::Skip as i32),
        ..Options::default()
    };
    Request { options: Some(options), ..Request::of(Kind::Dump) }
}

pub(crate) fn open(dir: &Path) -> Result<File, DumpError> {
    File::open(dir).map_err(|cause| DumpError::Directory { path: dir.to_owned(), cause })
}

/// What was decided and done.
#[derive(Debug, Clone, Copy)]
enum Decided {
    Killed,
    Kept,
}

/// A dump under way.
struct Run<'a> {
    spec: &'a DumpSpec,
    hooks: DumpHooks<'a>,
    since: Instant,
    phases: Phases,
    fate: Option<Decided>,
}

impl<'a> Run<'a> {
    fn new(spec: &'a DumpSpec, hooks: DumpHooks<'a>) -> Self {
        Self { spec, hooks, since: Instant::now(), phases: Phases::default(), fate: None }
    }

    fn answer(&mut self, notification: &Notification) -> Answer {
        match notification.event {
            Event::PreDump => self.freeze(),
            Event::PostDump => self.hold(),
            Event::PreRestore
            | Event::SetupNamespaces
            | Event::PostSetupNamespaces
            | Event::OrphanPtsMaster
            | Event::PostRestore
            | Event::PreResume
            | Event::PostResume
            | Event::Other(_) => Ok(()),
        }
    }

    /// CRIU is ready: from here on the container stands still.
    fn freeze(&mut self) -> Answer {
        self.phases.start = self.lap();
        self.spec.freezer.freeze(PATIENCE).map_err(|error| refusal(&error))?;
        (self.hooks.frozen)()?;
        self.phases.freeze = self.lap();
        Ok(())
    }

    /// The images are complete. CRIU thawed the cgroup when it had seized the tasks; frozen again, they stay stopped
    /// even if CRIU is killed.
    fn hold(&mut self) -> Answer {
        self.phases.dump = self.lap();
        self.spec.freezer.freeze(PATIENCE).map_err(|error| refusal(&error))?;
        give_own_network(&self.spec.images).map_err(|error| refusal(&error))?;
        let manifest = Manifest::new(self.spec.stdio, self.spec.mounts.iter().cloned());
        manifest.write(&self.spec.images).map_err(|error| refusal(&error))?;
        let fate = (self.hooks.held)(&self.phases);
        self.phases.held = self.lap();
        match fate {
            Fate::Kill => {
                self.spec.freezer.kill_all().map_err(|error| refusal(&error))?;
                self.fate = Some(Decided::Killed);
                Ok(())
            }
            Fate::Keep => {
                self.fate = Some(Decided::Kept);
                Err(Refused::because("the container stays"))
            }
        }
    }

    fn lap(&mut self) -> Duration {
        let now = Instant::now();
        now.duration_since(std::mem::replace(&mut self.since, now))
    }
}

/// An error as a reason, with its causes: a refusal has only text.
pub(crate) fn refusal(error: &dyn std::error::Error) -> Refused {
    let mut reason = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        reason.push_str(&format!(": {error}"));
        cause = error.source();
    }
    Refused { reason }
}
