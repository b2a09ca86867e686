//! Restores a container from a checkpoint. CRIU is our child, and so the restored init is too.
//!
//! Prepared in advance: cgroup, mounts and a CRIU that waits, so that little is left to do while the container is frozen
//! on both sides. The overlay is mounted last, because its upper directory is filled until then.
//!
//! Nothing of the container runs before the agent has answered the hook [`Hook::PostRestore`] with yes.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use container_checkpoint::criu::{Answer, Event as CriuEvent, Notification, Refused};
use container_checkpoint::dump::LogLevel;
use container_checkpoint::restore::{Prepared, RestoreError, prepare};
use container_checkpoint::{Criu, MountSource, RestoreSpec};
use rustix::fs::CWD;
use rustix::mount::{
    MountPropagationFlags, MoveMountFlags, OpenTreeFlags, mount_bind, mount_change, move_mount, open_tree,
};
use thiserror::Error;

use super::create::prepare_cgroup;
use super::life::now_ms;
use super::output::ContainerEnds;
use super::protocol::{Event, Refusal, RestoreOrder};
use super::requests::refused;
use super::state::{Backing, External, Hook, Phase, ProcessId};
use super::{Shim, complain};
use crate::client::Process;
use crate::error::chain;
use crate::namespaces::ensure_own_mounts;
use crate::rootfs::{self, Steps, What};
use crate::sys::trim_heap;

/// A restore that waits for its checkpoint.
#[derive(Debug)]
pub(super) struct Restore {
    criu: Prepared,
    root: PathBuf,
}

/// A mount can't be put where CRIU will find it.
#[derive(Debug, Error)]
#[error("stage {path}")]
struct StageError {
    path: PathBuf,
    #[source]
    cause: io::Error,
}

impl Shim {
    /// Makes ready for a checkpoint.
    pub(super) fn prepare(&mut self, order: &RestoreOrder) -> Result<(), Refusal> {
        self.require("prepare", Phase::Empty)?;
        self.state.created_at_ms = Some(now_ms());
        check_searchable(&self.run_dir).map_err(refused)?;
        ensure_own_mounts().map_err(refused)?;
        prepare_cgroup(&self.bundle).map_err(refused)?;
        let (steps, empty) = rootfs::prepare_mounts(&self.bundle).map_err(refused)?;
        let masked = self.bundle.spec.linux().as_ref().and_then(|linux| linux.masked_paths().clone());
        let externals = stage(&self.run_dir, steps, empty, &masked.unwrap_or_default()).map_err(refused)?;
        let ends = self.open_output().map_err(refused)?;
        let root = make_shared_root(&self.run_dir).map_err(refused)?;
        let criu = start_criu(order, &root, &externals, &self.bundle.cgroup, &ends).map_err(refused)?;
        self.prepared = Some(Restore { criu, root });
        self.state.externals = externals;
        self.state.phase = Phase::Prepared;
        self.record();
        Ok(())
    }

    /// The loop runs the restore when this request has been answered.
    pub(super) fn begin_restore(&mut self) -> Result<(), Refusal> {
        self.require("restore", Phase::Prepared)?;
        self.restore_verdict = None;
        self.state.phase = Phase::Restoring;
        self.record();
        Ok(())
    }

    /// Takes the agent's answer to the hook that is held.
    pub(super) fn answer(&mut self, hook: Hook, proceed: bool) -> Result<(), Refusal> {
        if self.state.held != Some(hook) {
            let reason = format!("{hook:?} isn't held, but {:?}", self.state.held);
            return Err(Refusal::Phase { request: "answer".to_owned(), reason });
        }
        if proceed && self.state.fenced {
            let reason = "the lease has run out".to_owned();
            return Err(Refusal::Phase { request: "answer".to_owned(), reason });
        }
        self.restore_verdict = Some(proceed);
        Ok(())
    }

    /// Restores, to the end: running, or nothing left.
    pub(super) fn run_restore(&mut self, restore: Restore) {
        let Restore { criu, root } = restore;
        let mounted = rootfs::prepare_root(&self.bundle)
            .map_err(|error| chain(&error))
            .and_then(|overlay| attach(&overlay, &root).map_err(|error| chain(&error)));
        let restored = mounted.and_then(|()| {
            criu.run(&mut |notification| self.on_hook(&notification)).map_err(|error| chain(&error))
        });
        match restored {
            Ok(restored) => self.restored(restored.init),
            Err(message) => self.restore_failed(message),
        }
    }

    /// A point of CRIU's work. Most pass.
    fn on_hook(&mut self, notification: &Notification) -> Answer {
        let hook = match &notification.event {
            CriuEvent::SetupNamespaces => Hook::SetupNamespaces,
            CriuEvent::PostRestore => Hook::PostRestore,
            CriuEvent::PreDump
            | CriuEvent::PostDump
            | CriuEvent::PreRestore
            | CriuEvent::PostSetupNamespaces
            | CriuEvent::OrphanPtsMaster
            | CriuEvent::PreResume
            | CriuEvent::PostResume
            | CriuEvent::Other(_) => return Ok(()),
        };
        if let Some(init) = notification.pid.and_then(ProcessId::of) {
            self.state.init = Some(init);
        }
        self.hold_hook(hook)
    }

    /// Waits for the agent's answer, and goes on serving meanwhile.
    fn hold_hook(&mut self, hook: Hook) -> Answer {
        let pid = self.state.init.map(|init| init.pid);
        let pid = pid.ok_or_else(|| Refused::because("CRIU didn't name the restored init"))?;
        self.state.held = Some(hook);
        self.record();
        self.tell(&Event::Held { hook, pid });
        while self.restore_verdict.is_none() {
            self.turn().map_err(|error| Refused::because(chain(&error)))?;
        }
        self.state.held = None;
        self.record();
        match self.restore_verdict {
            Some(true) => {
                self.restore_verdict = None;
                Ok(())
            }
            // A no stays: no later hook may overrule it.
            Some(false) | None => Err(Refused::because("the agent said no")),
        }
    }

    fn restored(&mut self, pid: i32) {
        let pidfd = rustix::process::Pid::from_raw(pid)
            .and_then(|pid| rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok());
        // Our own child: its pid can't be another's before we have reaped it.
        let Some(pidfd) = pidfd else { return self.restore_failed("CRIU named no restored init".to_owned()) };
        self.state.init = ProcessId::of(pid).or(self.state.init);
        self.init = Some(pidfd);
        self.state.phase = Phase::Running;
        self.state.started_at_ms = Some(now_ms());
        self.record();
        self.tell(&Event::Restored { pid });
        // What restoring it took isn't needed any more.
        trim_heap();
        if self.state.fenced {
            // The lease ran out after the last hook.
            self.on_lease_end();
        }
    }

    /// CRIU has killed what it had made; its init is our child to reap.
    fn restore_failed(&mut self, message: String) {
        if let Err(error) = self.bundle.cgroup.kill_all() {
            complain("kill what is left of a restore", &error);
        }
        if let Some(Ok(Some(init))) = self.state.init.map(Process::open)
            && let Err(cause) = init.kill().and_then(|()| init.wait(std::time::Duration::from_secs(10)))
        {
            complain("reap a restored init", &cause);
        }
        self.tell(&Event::RestoreFailed { message: message.clone() });
        self.finish((255, None), Some(message));
    }
}

fn start_criu(
    order: &RestoreOrder,
    root: &Path,
    externals: &[External],
    cgroup: &crate::cgroup::Cgroup,
    ends: &ContainerEnds,
) -> Result<Prepared, RestoreError> {
    let mut criu = Criu::at(order.criu.clone());
    if let Err(error) = criu.warm() {
        complain("cache what CRIU knows of the kernel", &error);
    }
    let mount = |external: &External| {
        Some(MountSource { path: external.path.clone(), source: external.staged.clone()? })
    };
    let spec = RestoreSpec {
        images: order.images_dir.clone(),
        logs: order.log_dir.clone(),
        root: root.to_owned(),
        mounts: externals.iter().filter_map(mount).collect(),
        cgroups: cgroup.dirs().map(Path::to_owned).collect(),
        log_level: LogLevel::Errors,
    };
    prepare(&criu, spec, [None, Some(ends.stdout.as_fd()), Some(ends.stderr.as_fd())])
}

/// CRIU's child enters the container's user namespace before it opens the mounts staged below `run_dir`.
fn check_searchable(run_dir: &Path) -> Result<(), StageError> {
    for dir in run_dir.ancestors() {
        let failed = |cause| StageError { path: dir.to_owned(), cause };
        if fs::metadata(dir).map_err(failed)?.permissions().mode() & 0o001 == 0 {
            let text = "containers' users must be able to search it (chmod 711)";
            return Err(failed(io::Error::new(io::ErrorKind::PermissionDenied, text)));
        }
    }
    Ok(())
}

/// Attaches every mount below `run_dir`, where CRIU will bind them from.
fn stage(
    run_dir: &Path,
    steps: Steps,
    empty: OwnedFd,
    masked: &[String],
) -> Result<Vec<External>, StageError> {
    let dir = run_dir.join("mounts");
    let mut externals = Vec::new();
    let mut null = None;
    let mut mounts = steps.mounts.into_iter();
    for step in steps.steps {
        let What::Attach(backing) = step.what else { continue };
        let Some(mount) = mounts.next() else { continue };
        let staged = dir.join(externals.len().to_string());
        attach(&mount, &staged)?;
        if backing == Backing::Devices {
            null = Some(stage_null(&staged, &dir.join("null"))?);
        }
        externals.push(External { path: step.destination, backing, staged: Some(staged) });
    }
    let empty_at = dir.join("empty");
    attach(&empty, &empty_at)?;
    for path in masked.iter().map(PathBuf::from) {
        // What a masked path is, if it is at all, the kernel decides: ours is the one that restores.
        let (backing, staged) = match fs::metadata(&path) {
            Ok(found) if found.is_dir() => (Backing::EmptyDir, Some(empty_at.clone())),
            Ok(_file) => (Backing::NullFile, null.clone()),
            Err(_missing) => continue,
        };
        externals.push(External { path, backing, staged });
    }
    Ok(externals)
}

/// A mount of its own for `/dev/null`: CRIU takes only mount points.
fn stage_null(dev: &Path, at: &Path) -> Result<PathBuf, StageError> {
    let failed = |cause: io::Error| StageError { path: at.to_owned(), cause };
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let null = open_tree(CWD, dev.join("null"), flags).map_err(|errno| failed(errno.into()))?;
    attach(&null, at)?;
    Ok(at.to_owned())
}

/// Attaches a detached mount at `place`, which is made as needed, privately.
fn attach(mount: &OwnedFd, place: &Path) -> Result<(), StageError> {
    let attach = || {
        let stat = rustix::fs::fstat(mount)?;
        if rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory {
            fs::create_dir_all(place)?;
        } else {
            fs::write(place, "")?;
        }
        move_mount(mount, "", CWD, place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
        mount_change(place, MountPropagationFlags::PRIVATE)?;
        Ok(())
    };
    attach().map_err(|cause| StageError { path: place.to_owned(), cause })
}

/// The directory that the root will be mounted at. CRIU may run in a copy of our mount namespace: what is mounted below a
/// shared mount later still gets there.
fn make_shared_root(run_dir: &Path) -> Result<PathBuf, StageError> {
    let shared = run_dir.join("rootfs");
    let root = shared.join("root");
    let make = || {
        fs::create_dir_all(&root)?;
        mount_bind(&shared, &shared)?;
        mount_change(&shared, MountPropagationFlags::SHARED)?;
        Ok(())
    };
    make().map_err(|cause| StageError { path: shared.clone(), cause })?;
    Ok(root)
}
