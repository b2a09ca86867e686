//! Network namespaces: opening, making and running code in one.
//!
//! Joining a namespace changes the calling *thread* only, so all of it happens on short-lived threads:
//! a thread of the async runtime never leaves the namespace it was started in. A socket belongs to the
//! namespace it was made in for ever, which is why a netlink connection opened on such a thread can be
//! used from anywhere afterwards.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};

/// An open network namespace; it stays alive while this value does.
#[derive(Debug)]
pub struct NetNs {
    fd: OwnedFd,
}

/// Why a namespace could not be opened, made or joined.
#[derive(Debug, thiserror::Error)]
pub enum NetNsError {
    /// The namespace's file could not be opened.
    #[error("open network namespace {path}")]
    Open {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        cause: io::Error,
    },
    /// The namespace could not be made (needs `CAP_SYS_ADMIN`).
    #[error("make a network namespace")]
    Make(#[source] io::Error),
    /// A thread could not join the namespace.
    #[error("join a network namespace")]
    Join(#[source] io::Error),
    /// No thread could be started.
    #[error("start a thread for a network namespace")]
    Thread(#[source] io::Error),
}

impl NetNs {
    /// The calling thread's own namespace.
    pub fn current() -> Result<Self, NetNsError> {
        Self::open(Path::new("/proc/thread-self/ns/net"))
    }

    /// The namespace of process `pid`.
    pub fn of_pid(pid: u32) -> Result<Self, NetNsError> {
        Self::open(&PathBuf::from(format!("/proc/{pid}/ns/net")))
    }

    /// The namespace a file stands for, such as a pin below `/run/netns`.
    pub fn open(path: &Path) -> Result<Self, NetNsError> {
        let file = File::open(path).map_err(|cause| NetNsError::Open { path: path.to_owned(), cause })?;
        Ok(Self { fd: file.into() })
    }

    /// A new, empty namespace.
    pub fn create() -> Result<Self, NetNsError> {
        on_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).map_err(|e| NetNsError::Make(e.into()))?;
            Self::current()
        })
    }

    /// Another handle on the same namespace.
    pub fn try_clone(&self) -> Result<Self, NetNsError> {
        let fd = self.fd.try_clone().map_err(NetNsError::Join)?;
        Ok(Self { fd })
    }

    /// Runs `work` on a thread of its own inside the namespace and waits for it.
    ///
    /// Needs `CAP_SYS_ADMIN` in the user namespace that owns the network namespace; root of the parent user
    /// namespace has it.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NetNsError> {
        on_thread(|| {
            setns(&self.fd, CloneFlags::CLONE_NEWNET).map_err(|e| NetNsError::Join(e.into()))?;
            Ok(work())
        })
    }

    pub(crate) fn raw(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<OwnedFd> for NetNs {
    /// Takes a descriptor of a namespace, such as one received over a socket.
    fn from(fd: OwnedFd) -> Self {
        Self { fd }
    }
}

/// Runs `work` on a thread of its own, which may leave its namespaces because it ends there.
fn on_thread<T: Send>(work: impl FnOnce() -> Result<T, NetNsError> + Send) -> Result<T, NetNsError> {
    thread::scope(|scope| {
        let worker = thread::Builder::new()
            .name("netns".to_owned())
            .spawn_scoped(scope, work)
            .map_err(NetNsError::Thread)?;
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
