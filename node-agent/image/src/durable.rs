//! Files that are either entirely there or not at all, also after a power loss; and locks between processes.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

/// Holds a lock file's lock until dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

/// How a lock is shared.
#[derive(Clone, Copy)]
pub(crate) enum Sharing {
    Shared,
    Exclusive,
}

impl Lock {
    /// Waits for the lock. Each call opens the file anew, so threads of one process exclude each other too.
    pub(crate) fn wait(path: &Path, sharing: Sharing) -> io::Result<Self> {
        let operation = match sharing {
            Sharing::Shared => FlockOperation::LockShared,
            Sharing::Exclusive => FlockOperation::LockExclusive,
        };
        let file = open_lock(path)?;
        flock(&file, operation)?;
        Ok(Self { _file: file })
    }

    /// Takes the lock alone, or answers `None` when someone else has it.
    pub(crate) fn try_exclusive(path: &Path) -> io::Result<Option<Self>> {
        let file = open_lock(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(cause) => Err(cause.into()),
        }
    }
}

fn open_lock(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).truncate(false).write(true).open(path)
}

/// Makes a rename, creation or removal in this directory durable.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Replaces a file's content in one step. `temporary` is a directory on the same file system.
pub(crate) fn replace_file(path: &Path, temporary: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(temporary)?;
    file.write_all(content)?;
    // The content must be on disk before its name is.
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    path.parent().map_or(Ok(()), sync_directory)
}
