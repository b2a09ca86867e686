//! From a directory of images to a container that is the caller's child.
//!
//! ```text
//! prepare: CRIU starts, waits ─► run ─► setup-namespaces ─► post-restore ─► (pre-, post-resume) ─► runs
//!                                        in its cgroups,     nothing has run:
//!                                        network still empty  the last no
//! ```
//!
//! The restored init is a child of the process that calls this: the shim. CRIU itself is started in a cgroup namespace
//! rooted at the container's cgroups, which the container inherits, but it stays in the cgroups of the caller, so that
//! neither the container's limits nor its freezer touch it.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::criu::rpc::{CgroupMode, InheritFd, Kind, NetworkLock, Options, Request};
use crate::criu::session::{Answer, Event, Notification, Place, Refused, SessionError};
use crate::criu::{Criu, Session};
use crate::dump::{LogLevel, refusal};
use crate::manifest::{Manifest, ManifestError, StdioPipes, mount_key};

/// The log's name within the log directory.
const LOG: &str = "restore.log";

/// What to restore, and into what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreSpec {
    /// The images.
    pub images: PathBuf,
    /// Where the log goes.
    pub logs: PathBuf,
    /// The mount point that becomes the root: mounted like the dumped one, in the caller's mount namespace.
    pub root: PathBuf,
    /// What the dumped container had mounted from outside.
    pub mounts: Vec<MountSource>,
    /// The container's cgroups, one directory for each hierarchy.
    pub cgroups: Vec<PathBuf>,
    /// How much CRIU logs.
    pub log_level: LogLevel,
}

/// One mount from outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountSource {
    /// Where the container sees it.
    pub path: PathBuf,
    /// What it is here: **a mount point that has the wanted flags already**. CRIU binds it, and does not always set
    /// the flags that the dumped mount had.
    pub source: PathBuf,
}

/// Standard input, output and error: the container's ends of new pipes. None where the dumped one had no pipe.
pub type Stdio<'a> = [Option<BorrowedFd<'a>>; 3];

/// A CRIU that waits for images.
#[derive(Debug)]
pub struct Prepared {
    spec: RestoreSpec,
    session: Session,
    /// Numbers of the descriptors CRIU has inherited.
    stdio: [Option<i32>; 3],
}

/// A restored container. It runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restored {
    /// Its init, a child of the caller.
    pub init: i32,
    /// How long it took.
    pub phases: RestorePhases,
}

/// How long each part of a restore took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RestorePhases {
    /// From the request until the container was complete, without the hook for `setup-namespaces`.
    pub restore: Duration,
    /// In the hook for `setup-namespaces`.
    pub network: Duration,
    /// In the hook for `post-restore`: held.
    pub held: Duration,
    /// From the release until it ran.
    pub resume: Duration,
}

/// A restore failed. Nothing of the container has run, and what there was has been killed: if its init existed, it is
/// a dead child of the caller, to be reaped.
#[derive(Debug, Error)]
pub enum RestoreError {
    /// A directory or descriptor can't be used.
    #[error("open {path}")]
    Open {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The checkpoint doesn't fit.
    #[error("use the checkpoint")]
    Manifest(#[from] ManifestError),
    /// CRIU failed, or a hook refused.
    #[error("restore from {images}")]
    Criu {
        /// The images.
        images: PathBuf,
        /// Why.
        #[source]
        cause: SessionError,
    },
}

/// Starts CRIU for a restore, before there is anything to restore.
///
/// # Errors
/// When CRIU can't be started there.
pub fn prepare(criu: &Criu, spec: RestoreSpec, stdio: Stdio<'_>) -> Result<Prepared, RestoreError> {
    let mut inherit = Vec::new();
    let mut numbers = [None; 3];
    for (stream, number) in stdio.into_iter().zip(&mut numbers) {
        let Some(stream) = stream else { continue };
        let copy: OwnedFd = stream
            .try_clone_to_owned()
            .map_err(|cause| RestoreError::Open { path: PathBuf::from("a standard stream"), cause })?;
        *number = Some(copy.as_raw_fd());
        inherit.push(copy);
    }
    let place = Place { network: None, cgroups: spec.cgroups.clone(), inherit };
    let session =
        criu.start(place).map_err(|cause| RestoreError::Criu { images: spec.images.clone(), cause })?;
    Ok(Prepared { spec, session, stdio: numbers })
}

/// [`prepare`] and [`Prepared::run`] in one.
///
/// # Errors
/// See [`RestoreError`].
pub fn restore(
    criu: &Criu,
    spec: RestoreSpec,
    stdio: Stdio<'_>,
    hook: &mut dyn FnMut(Notification) -> Answer,
) -> Result<Restored, RestoreError> {
    prepare(criu, spec, stdio)?.run(hook)
}

impl Prepared {
    /// Restores. `hook` hears of every event that CRIU waits at and may refuse until `post-restore`; the init is in
    /// its cgroups before `setup-namespaces` is passed on. Blocks; the hook may take as long as it needs.
    ///
    /// # Errors
    /// See [`RestoreError`].
    pub fn run(mut self, hook: &mut dyn FnMut(Notification) -> Answer) -> Result<Restored, RestoreError> {
        let manifest = Manifest::read(&self.spec.images)?;
        manifest.check_mounts(self.spec.mounts.iter().map(|mount| mount.path.as_path()))?;
        let images = open(&self.spec.images)?;
        let logs = open(&self.spec.logs)?;
        let inherited = inherited(&manifest.stdio, self.stdio);
        let request = request(&self.spec, inherited, images.as_fd(), logs.as_fd());
        let log = self.spec.logs.join(LOG);
        let mut run = Run {
            cgroups: &self.spec.cgroups,
            hook,
            init: None,
            since: Instant::now(),
            phases: RestorePhases::default(),
        };
        let result = self.session.run(&request, &log, &mut |notification| run.answer(notification));
        let last = run.lap();
        run.phases.resume += last;
        let (init, phases) = (run.init, run.phases);
        match result {
            Ok(response) => {
                let init = response.restore.map_or(-1, |restore| restore.pid);
                Ok(Restored { init, phases })
            }
            Err(cause) => {
                kill_orphan(&cause, init);
                Err(RestoreError::Criu { images: self.spec.images.clone(), cause })
            }
        }
    }
}

/// A CRIU that was killed leaves the tree behind, waiting for ever. The init is our child, so its number is still its own.
fn kill_orphan(cause: &SessionError, init: Option<i32>) {
    if let (SessionError::Gone { .. }, Some(init)) = (cause, init) {
        // It may have died with CRIU, which is what is wanted.
        let _gone = kill(Pid::from_raw(init), Signal::SIGKILL);
    }
}

/// Which descriptor replaces which pipe. Two streams on one pipe are one resource.
fn inherited(pipes: &StdioPipes, numbers: [Option<i32>; 3]) -> Vec<InheritFd> {
    let mut found: Vec<InheritFd> = Vec::new();
    for (pipe, number) in pipes.iter().zip(numbers) {
        let (Some(inode), Some(fd)) = (pipe, number) else { continue };
        let key = format!("pipe:[{inode}]");
        if !found.iter().any(|other| other.key == key) {
            found.push(InheritFd { key, fd });
        }
    }
    found
}

/// What CRIU is asked. Pure.
fn request(
    spec: &RestoreSpec,
    inherit_fd: Vec<InheritFd>,
    images: BorrowedFd<'_>,
    logs: BorrowedFd<'_>,
) -> Request {
    let external =
        |mount: &MountSource| format!("mnt[{}]:{}", mount_key(&mount.path), mount.source.display());
    let options = Options {
        images_dir_fd: images.as_raw_fd(),
        work_dir_fd: Some(logs.as_raw_fd()),
        log_file: Some(LOG.to_owned()),
        log_level: Some(spec.log_level.number()),
        notify_scripts: Some(true),
        root: Some(spec.root.display().to_string()),
        external: spec.mounts.iter().map(external).collect(),
        inherit_fd,
        rst_sibling: Some(true),
        empty_ns: Some(libc::CLONE_NEWNET.unsigned_abs()),
        tcp_established: Some(true),
        file_locks: Some(true),
        link_remap: Some(true),
        orphan_pts_master: Some(true),
        manage_cgroups_mode: Some(CgroupMode::Ignore as i32),
        network_lock: Some(NetworkLock::Skip as i32),
        ..Options::default()
    };
    Request { options: Some(options), ..Request::of(Kind::Restore) }
}

fn open(dir: &Path) -> Result<fs::File, RestoreError> {
    fs::File::open(dir).map_err(|cause| RestoreError::Open { path: dir.to_owned(), cause })
}

/// A restore under way.
struct Run<'a> {
    cgroups: &'a [PathBuf],
    hook: &'a mut dyn FnMut(Notification) -> Answer,
    init: Option<i32>,
    since: Instant,
    phases: RestorePhases,
}

impl Run<'_> {
    fn answer(&mut self, notification: Notification) -> Answer {
        let worked = self.lap();
        self.init = notification.pid.or(self.init);
        match notification.event {
            Event::SetupNamespaces => {
                self.phases.restore += worked;
                self.enter_cgroups()?;
                let answer = (self.hook)(notification);
                self.phases.network = self.lap();
                answer
            }
            Event::PostRestore => {
                self.phases.restore += worked;
                let answer = (self.hook)(notification);
                self.phases.held = self.lap();
                answer
            }
            Event::PreDump
            | Event::PostDump
            | Event::PreRestore
            | Event::PostSetupNamespaces
            | Event::OrphanPtsMaster
            | Event::Other(_) => {
                self.phases.restore += worked;
                (self.hook)(notification)
            }
            Event::PreResume | Event::PostResume => {
                self.phases.resume += worked;
                (self.hook)(notification)
            }
        }
    }

    /// The init is still alone: what it forks is born in its cgroups.
    fn enter_cgroups(&self) -> Answer {
        let init = self.init.ok_or_else(|| Refused::because("CRIU did not name the restored init"))?;
        self.cgroups.iter().try_for_each(|dir| {
            let door = dir.join("cgroup.procs");
            fs::write(&door, init.to_string())
                .map_err(|cause| refusal(&RestoreError::Open { path: door, cause }))
        })
    }

    fn lap(&mut self) -> Duration {
        let now = Instant::now();
        now.duration_since(std::mem::replace(&mut self.since, now))
    }
}
