//! TCP connections that were left in repair mode.
//!
//! While CRIU holds a container in `post-dump` its TCP sockets are in repair mode. CRIU takes them out again when it
//! is told to abort; when it is killed instead, nobody does, and the first segment after a thaw resets the connection.
//! While the container is still frozen that can be put right from outside.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use thiserror::Error;

use crate::freezer::{Freezer, FreezerError};
use crate::sys;

/// The sockets of a container could not all be looked at.
#[derive(Debug, Error)]
pub enum RepairError {
    /// Its processes are unknown.
    #[error("list the container's processes")]
    List(#[source] FreezerError),
    /// A process's descriptors can't be listed or fetched.
    #[error("fetch the sockets of process {pid}")]
    Fetch {
        /// The process.
        pid: i32,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// A socket refuses to leave repair mode.
    #[error("take socket {fd} of process {pid} out of repair mode")]
    Leave {
        /// The process.
        pid: i32,
        /// Its descriptor.
        fd: i32,
        /// Why.
        #[source]
        cause: io::Error,
    },
}

/// Takes every TCP socket of a **frozen** container out of repair mode and returns how many there were. Safe to repeat.
///
/// Call it before thawing a container whose dump ended in an unknown way.
///
/// # Errors
/// When a socket can't be reached; the connection behind it would be reset by a thaw.
pub fn leave_repair(freezer: &Freezer) -> Result<usize, RepairError> {
    let mut healed = 0;
    for pid in freezer.pids().map_err(RepairError::List)? {
        for (fd, socket) in sockets(pid).map_err(|cause| RepairError::Fetch { pid, cause })? {
            // Sockets that aren't TCP don't know the option.
            if sys::is_in_repair(socket.as_fd()).unwrap_or(false) {
                sys::leave_repair(socket.as_fd()).map_err(|cause| RepairError::Leave { pid, fd, cause })?;
                healed += 1;
            }
        }
    }
    Ok(healed)
}

/// Duplicates of every socket a process holds, by its descriptor number. A process that has gone has none.
pub(crate) fn sockets(pid: i32) -> io::Result<Vec<(i32, OwnedFd)>> {
    let Some(target) = Pid::from_raw(pid) else { return Ok(Vec::new()) };
    let process = match pidfd_open(target, PidfdFlags::empty()) {
        Ok(process) => process,
        Err(rustix::io::Errno::SRCH) => return Ok(Vec::new()),
        Err(errno) => return Err(errno.into()),
    };
    let mut found = Vec::new();
    for fd in socket_numbers(pid)? {
        match pidfd_getfd(process.as_fd(), fd, PidfdGetfdFlags::empty()) {
            Ok(socket) => found.push((fd, socket)),
            // Closed since we looked: the process isn't frozen, or is gone.
            Err(rustix::io::Errno::BADF | rustix::io::Errno::SRCH) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(found)
}

fn socket_numbers(pid: i32) -> io::Result<Vec<i32>> {
    let dir = match fs::read_dir(format!("/proc/{pid}/fd")) {
        Ok(dir) => dir,
        Err(cause) if cause.raw_os_error() == Some(Errno::ENOENT as i32) => return Ok(Vec::new()),
        Err(cause) => return Err(cause),
    };
    let mut numbers = Vec::new();
    for entry in dir {
        let entry = entry?;
        let is_socket =
            fs::read_link(entry.path()).is_ok_and(|to| to.to_string_lossy().starts_with("socket:"));
        numbers.extend(
            entry.file_name().to_str().filter(|_| is_socket).and_then(|name| name.parse::<i32>().ok()),
        );
    }
    Ok(numbers)
}
