//! Namespaces: which ones a container gets, its id maps, and user namespaces for idmapped mounts.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};
use thiserror::Error;

use crate::bundle::IdMap;
use crate::sys::{CloneOptions, Forked, clone3, exit_now};

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
    #[error("end the process that held a user namespace")]
    Reap(#[source] io::Error),
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

/// Maps the ids `0..size` of `pid`'s new user namespace. Only its parent namespace's root may.
pub(crate) fn write_id_maps(pid: i32, idmap: IdMap) -> Result<(), NamespaceError> {
    let line = format!("0 {} {}", idmap.base, idmap.size);
    for file in ["uid_map", "gid_map"] {
        let path = PathBuf::from(format!("/proc/{pid}/{file}"));
        fs::write(&path, &line).map_err(|cause| NamespaceError::Map { path, cause })?;
    }
    Ok(())
}

/// A user namespace with this map and no process in it, for `MOUNT_ATTR_IDMAP`.
///
/// The container's own can't be used: in a restore CRIU makes that one, after the mounts. An idmapped mount keeps the
/// map, not the namespace, so an equal map is as good.
pub(crate) fn idmap_namespace(idmap: IdMap) -> Result<OwnedFd, NamespaceError> {
    let options = CloneOptions { namespaces: u64::from(libc::CLONE_NEWUSER.cast_unsigned()), cgroup: None };
    let (pid, pidfd) = match clone3(&options).map_err(NamespaceError::Clone)? {
        Forked::Parent(pid, pidfd) => (pid, pidfd),
        Forked::Child => loop {
            // The parent's SIGKILL ends it; if the parent dies first, so must this.
            if nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).is_err() {
                exit_now(1);
            }
            nix::unistd::pause();
        },
    };
    let namespace = map_and_open(pid, idmap);
    let reaped = pidfd_send_signal(&pidfd, Signal::KILL)
        .and_then(|()| waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED));
    reaped.map_err(|errno| NamespaceError::Reap(errno.into()))?;
    namespace
}

fn map_and_open(pid: i32, idmap: IdMap) -> Result<OwnedFd, NamespaceError> {
    write_id_maps(pid, idmap)?;
    let path = PathBuf::from(format!("/proc/{pid}/ns/user"));
    fs::File::open(&path).map(OwnedFd::from).map_err(|cause| NamespaceError::Open { path, cause })
}
