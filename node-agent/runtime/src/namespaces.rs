//! Namespaces: which ones a container gets, its id maps, and user namespaces for idmapped mounts.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use rustix::process::{WaitId, WaitIdOptions, waitid};
use thiserror::Error;

use crate::bundle::IdMap;
use crate::sys::{CloneOptions, Forked, clone3, exit_now, send_signal};

/// A user namespace couldn't be made or mapped.
#[derive(Debug, Error)]
pub(crate) enum NamespaceError {
    #[error("clone a process with a user namespace")]
    Clone(#[source] io::Error),
    #[error("write {path}")]
    Map {
        path: PathBuf,
        #[source]
        cause: io::Error,
    },
    #[error("open {path}")]
    Open {
        path: PathBuf,
        #[source]
        cause: io::Error,
    },
}

/// The `CLONE_NEW*` flags of a container's init.
///
/// All but the cgroup namespace, which init makes itself after it was put into its cgroup: its root is where a process
/// is when it is made. The time namespace keeps clocks right through a migration.
pub(crate) fn container_flags(idmap: Option<IdMap>) -> u64 {
    let always =
        libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC | libc::CLONE_NEWNET;
    let user = if idmap.is_some() { libc::CLONE_NEWUSER } else { 0 };
    u64::from((always | user | libc::CLONE_NEWTIME).cast_unsigned())
}

/// Gives this process a mount namespace of its own, once: what it mounts is seen by nobody else and goes with it. It follows
/// the node's unmounts, so that it keeps nothing busy there.
pub(crate) fn ensure_own_mounts() -> io::Result<()> {
    static DONE: AtomicBool = AtomicBool::new(false);
    if DONE.load(Ordering::Relaxed) {
        return Ok(());
    }
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&str>)?;
    DONE.store(true, Ordering::Relaxed);
    Ok(())
}

/// Maps the ids `0..size` of `pid`'s new user namespace, and opens it. Only its parent namespace's root may.
pub(crate) fn map_ids(pid: i32, idmap: IdMap) -> Result<OwnedFd, NamespaceError> {
    let line = format!("0 {} {}", idmap.base, idmap.size);
    for file in ["uid_map", "gid_map"] {
        let path = PathBuf::from(format!("/proc/{pid}/{file}"));
        fs::write(&path, &line).map_err(|cause| NamespaceError::Map { path, cause })?;
    }
    let path = PathBuf::from(format!("/proc/{pid}/ns/user"));
    fs::File::open(&path).map(OwnedFd::from).map_err(|cause| NamespaceError::Open { path, cause })
}

/// A user namespace with a given map, for `MOUNT_ATTR_IDMAP` in a restore.
///
/// The container's own can't be used: CRIU makes that one, after the mounts. An idmapped mount keeps the map, not the
/// namespace, so an equal map is as good.
#[derive(Debug)]
pub(crate) struct IdmapNamespace {
    namespace: OwnedFd,
    _holder: Holder,
}

/// The process that a user namespace must be made with. It has done its work when its namespace is open.
#[derive(Debug)]
struct Holder(OwnedFd);

impl AsFd for IdmapNamespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.namespace.as_fd()
    }
}

impl IdmapNamespace {
    /// Makes one.
    pub(crate) fn new(idmap: IdMap) -> Result<Self, NamespaceError> {
        let options =
            CloneOptions { namespaces: u64::from(libc::CLONE_NEWUSER.cast_unsigned()), cgroup: None };
        let (pid, holder) = match clone3(&options).map_err(NamespaceError::Clone)? {
            Forked::Parent(pid, pidfd) => (pid, Holder(pidfd)),
            Forked::Child => wait_to_be_killed(),
        };
        let namespace = map_ids(pid, idmap)?;
        holder.kill();
        Ok(Self { namespace, _holder: holder })
    }
}

fn wait_to_be_killed() -> ! {
    // If the parent dies first, so must this.
    if nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).is_err() {
        exit_now(1);
    }
    loop {
        nix::unistd::pause();
    }
}

impl Holder {
    fn kill(&self) {
        // Our child, not reaped yet: there is nothing that can fail.
        let _killed = send_signal(self.0.as_fd(), libc::SIGKILL);
    }
}

impl Drop for Holder {
    /// Reaps it: late, because dying takes it longer than us to go on.
    fn drop(&mut self) {
        self.kill();
        let _reaped = waitid(WaitId::PidFd(self.0.as_fd()), WaitIdOptions::EXITED);
    }
}
