//! The program that shims and exec helpers re-exec: ourselves, through a read-only mount of our own.
//!
//! A container without a private user namespace runs with the node's root uid. Through `/proc/<pid>/exe` of a process
//! about to become the container it could otherwise open our binary for writing.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{OpenTreeFlags, open_tree};
use thiserror::Error;

use crate::sys::{Depth, MountAttr, mount_setattr};

/// An open program. Later changes of its path don't matter.
#[derive(Debug)]
pub(crate) struct Program {
    fd: OwnedFd,
}

/// The program couldn't be opened.
#[derive(Debug, Error)]
#[error("open the program {path}")]
pub struct ProgramError {
    path: PathBuf,
    #[source]
    cause: io::Error,
}

impl Program {
    /// Opens `path` through a private read-only mount, or plainly where that isn't allowed.
    pub(crate) fn open(path: &Path) -> Result<Self, ProgramError> {
        let plain = || rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        match read_only_mount(path) {
            Ok(fd) => Ok(Self { fd }),
            Err(_not_privileged) => plain()
                .map(|fd| Self { fd })
                .map_err(|cause| ProgramError { path: path.to_owned(), cause: cause.into() }),
        }
    }
}

impl AsRawFd for Program {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

fn read_only_mount(path: &Path) -> io::Result<OwnedFd> {
    let fd = open_tree(CWD, path, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?;
    let attr = MountAttr { set: libc::MOUNT_ATTR_RDONLY, ..MountAttr::default() };
    mount_setattr(fd.as_fd(), attr, Depth::One)?;
    Ok(fd)
}
