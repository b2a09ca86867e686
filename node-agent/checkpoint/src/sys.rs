//! The system calls that have no safe wrapper: preparing a child between fork and exec, and TCP's repair mode.
#![expect(unsafe_code, reason = "pre_exec and setsockopt(TCP_REPAIR) have no safe wrapper")]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::write;

/// What a child does to itself between fork and exec. Everything is opened and allocated before the fork.
#[derive(Debug, Default)]
pub(crate) struct ChildSetup {
    /// Descriptors that stay open across exec, under their own numbers.
    pub(crate) inherit: Vec<OwnedFd>,
    /// The network namespace to enter.
    pub(crate) network: Option<OwnedFd>,
    /// The cgroup namespace to make.
    pub(crate) cgroups: Option<CgroupVisit>,
    /// Mounts to make in a mount namespace of its own; none: the parent's namespace is kept.
    pub(crate) mounts: Vec<ChildMount>,
}

/// A visit to other cgroups, during which a cgroup namespace is made that has them as its roots.
#[derive(Debug)]
pub(crate) struct CgroupVisit {
    /// `cgroup.procs` of the cgroups to visit.
    pub(crate) visit: Vec<OwnedFd>,
    /// `cgroup.procs` of the cgroups to come back to. Opened beforehand: from inside the new namespace the way back
    /// may be neither visible nor (with `nsdelegate`) allowed.
    pub(crate) back: Vec<OwnedFd>,
}

/// One mount.
#[derive(Debug)]
pub(crate) struct ChildMount {
    /// The file to bind, or the name of a new file system.
    pub(crate) source: CString,
    /// Where.
    pub(crate) target: CString,
    /// The type; none for a bind.
    pub(crate) kind: Option<CString>,
}

impl ChildSetup {
    /// Runs in the child. Must only make system calls: the parent may have had other threads, whose locks are held for ever here.
    fn perform(&self) -> io::Result<()> {
        for fd in &self.inherit {
            fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
        }
        if let Some(network) = &self.network {
            setns(network, CloneFlags::CLONE_NEWNET)?;
        }
        if let Some(cgroups) = &self.cgroups {
            enter(&cgroups.visit)?;
            let made = unshare(CloneFlags::CLONE_NEWCGROUP);
            enter(&cgroups.back)?;
            made?;
        }
        if !self.mounts.is_empty() {
            unshare(CloneFlags::CLONE_NEWNS)?;
            mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&str>)?;
            self.mounts.iter().try_for_each(ChildMount::perform)?;
        }
        Ok(())
    }
}

impl ChildMount {
    fn perform(&self) -> io::Result<()> {
        let flags = if self.kind.is_some() { MsFlags::empty() } else { MsFlags::MS_BIND };
        let (source, target) = (self.source.as_c_str(), self.target.as_c_str());
        mount(Some(source), target, self.kind.as_deref(), flags, None::<&str>)?;
        Ok(())
    }
}

/// Moves the calling process ("0") through every door.
fn enter(doors: &[OwnedFd]) -> io::Result<()> {
    for door in doors {
        write(door, b"0")?;
    }
    Ok(())
}

/// Makes `command`'s child perform `setup` before it becomes the program.
pub(crate) fn prepare(command: &mut Command, setup: ChildSetup) {
    // SAFETY: the closure runs in the forked child and calls only `perform`, which makes system calls on data that was
    // allocated before the fork: it allocates nothing, takes no lock and reads no environment.
    unsafe {
        command.pre_exec(move || setup.perform());
    }
}

/// Whether a TCP socket is in repair mode (tcp(7), `TCP_REPAIR`). Sockets of other kinds answer with an error.
pub(crate) fn is_in_repair(socket: BorrowedFd<'_>) -> io::Result<bool> {
    let mut value: libc::c_int = 0;
    let mut len = socklen_of_int();
    // SAFETY: `value` and `len` outlive the call, and `len` is the size of `value`; the kernel writes no more than that.
    let done = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_REPAIR,
            (&raw mut value).cast(),
            &raw mut len,
        )
    };
    if done == 0 { Ok(value != 0) } else { Err(io::Error::last_os_error()) }
}

/// Takes a TCP socket out of repair mode; the kernel then sends a window probe to the peer.
pub(crate) fn leave_repair(socket: BorrowedFd<'_>) -> io::Result<()> {
    let off: libc::c_int = 0;
    // SAFETY: `off` outlives the call, and the length given is its size.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_REPAIR,
            (&raw const off).cast(),
            socklen_of_int(),
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[expect(clippy::cast_possible_truncation, reason = "the size of an int is 4")]
fn socklen_of_int() -> libc::socklen_t {
    size_of::<libc::c_int>() as libc::socklen_t
}
