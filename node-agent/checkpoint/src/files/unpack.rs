//! From a stream to a directory tree.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, UTIME_OMIT, Uid,
    XattrFlags, chmodat, chownat, ftruncate, linkat, lsetxattr, makedev, mkdirat, mknodat, open, openat,
    openat2, symlinkat, utimensat,
};
use rustix::io::{Errno, pwrite};
use thiserror::Error;

use super::Summary;
use super::frame::{FrameError, FrameReader};
use super::record::{BLOCK_BYTES, Block, DecodeError, Entry, FORMAT, InvalidPath, Kind, Record, checked};

/// Beneath the root and through no symlink.
const INSIDE: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

/// A stream could not be unpacked. What has been unpacked is left behind.
#[derive(Debug, Error)]
pub enum UnpackError {
    /// The stream failed or is damaged.
    #[error("receive the packed tree")]
    Receive(#[from] FrameError),
    /// A record makes no sense.
    #[error("understand a record")]
    Decode(#[from] DecodeError),
    /// The records make no sense.
    #[error("the packed tree is not in order: {reason}")]
    Disorder {
        /// In which way.
        reason: &'static str,
    },
    /// The stream has another format.
    #[error("the packed tree has format {found}, this version reads {FORMAT}")]
    Format {
        /// What it has.
        found: u32,
    },
    /// A path may not be used.
    #[error(transparent)]
    Path(#[from] InvalidPath),
    /// The directory isn't empty.
    #[error("{path} is not empty")]
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// Something can't be made.
    #[error("{what} {path}")]
    Make {
        /// What was tried.
        what: &'static str,
        /// With what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        cause: Errno,
    },
}

/// Unpacks `source` into the empty directory `root`, which gets the packed root's owner, mode and attributes.
///
/// # Errors
/// When the stream is damaged, hostile or can't be written. What is there then is of no use; remove it.
pub fn unpack(source: impl Read, root: &Path) -> Result<Summary, UnpackError> {
    let failed = |what| move |cause| UnpackError::Make { what, path: root.to_owned(), cause };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = open(root, flags, Mode::empty()).map_err(failed("open"))?;
    if !is_empty(&fd).map_err(failed("list"))? {
        return Err(UnpackError::NotEmpty { path: root.to_owned() });
    }
    let mut frames = FrameReader::new(source);
    start(&mut frames)?;
    let mut unpacker =
        Unpacker { root: fd, parent: None, open: None, directories: Vec::new(), summary: Summary::default() };
    while let Some(payload) = frames.next()? {
        match Record::decode(payload)? {
            Record::Entry(entry) => unpacker.entry(entry)?,
            Record::Block(block) => unpacker.block(&block)?,
            Record::Start(_) => return disorder("a second beginning"),
        }
    }
    unpacker.finish()?;
    Ok(Summary { stream_bytes: frames.bytes(), ..unpacker.summary })
}

fn start(frames: &mut FrameReader<impl Read>) -> Result<(), UnpackError> {
    let Some(payload) = frames.next()? else { return disorder("it is empty") };
    match Record::decode(payload)? {
        Record::Start(start) if start.format == FORMAT => Ok(()),
        Record::Start(start) => Err(UnpackError::Format { found: start.format }),
        Record::Entry(_) | Record::Block(_) => disorder("it does not begin at the beginning"),
    }
}

fn disorder<T>(reason: &'static str) -> Result<T, UnpackError> {
    Err(UnpackError::Disorder { reason })
}

fn is_empty(directory: &OwnedFd) -> Result<bool, Errno> {
    for entry in Dir::read_from(directory)? {
        if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A file whose content is still coming.
struct OpenFile {
    fd: OwnedFd,
    entry: Entry,
    /// Where the last block ended.
    end: u64,
}

struct Unpacker {
    root: OwnedFd,
    /// The directory used last: most entries are beside the one before.
    parent: Option<(PathBuf, OwnedFd)>,
    open: Option<OpenFile>,
    /// Times are set at the end: each child changes them. Empty until the root's entry has come.
    directories: Vec<Entry>,
    summary: Summary,
}

impl Unpacker {
    fn entry(&mut self, entry: Entry) -> Result<(), UnpackError> {
        self.close_file()?;
        self.summary.entries += 1;
        if self.directories.is_empty() {
            return self.root_entry(entry);
        }
        check(&entry)?;
        let (directory, name) = checked(&entry.path)?;
        self.enter(directory)?;
        match entry.kind() {
            Kind::File => self.create(name, entry.clone()),
            Kind::HardLink => self.link(name, &entry),
            Kind::Directory => {
                self.make(name, &entry)?;
                self.directories.push(entry);
                Ok(())
            }
            Kind::Symlink | Kind::CharacterDevice | Kind::BlockDevice | Kind::Fifo | Kind::Socket => {
                self.make(name, &entry)?;
                self.set_times(name, &entry)
            }
            Kind::Unknown => disorder("an entry of unknown kind"),
        }
    }

    fn root_entry(&mut self, entry: Entry) -> Result<(), UnpackError> {
        if !entry.path.is_empty() || entry.kind() != Kind::Directory {
            return disorder("the first entry is not the root");
        }
        check(&entry)?;
        self.enter(Path::new(""))?;
        self.set_owner(OsStr::new("."), &entry)?;
        self.directories.push(entry);
        Ok(())
    }

    /// Opens the directory that the next entry is in.
    fn enter(&mut self, directory: &Path) -> Result<(), UnpackError> {
        if self.parent.as_ref().is_some_and(|(path, _)| path == directory) {
            return Ok(());
        }
        let fd = self.open_directory(directory)?;
        self.parent = Some((directory.to_owned(), fd));
        Ok(())
    }

    fn open_directory(&self, directory: &Path) -> Result<OwnedFd, UnpackError> {
        let here = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat2(&self.root, here, flags, Mode::empty(), INSIDE).map_err(|cause| UnpackError::Make {
            what: "enter",
            path: directory.to_owned(),
            cause,
        })
    }

    fn parent(&self) -> &OwnedFd {
        self.parent.as_ref().map_or(&self.root, |(_, fd)| fd)
    }

    fn create(&mut self, name: &OsStr, entry: Entry) -> Result<(), UnpackError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(self.parent(), name, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|cause| failed("create", &entry, cause))?;
        self.open = Some(OpenFile { fd, entry, end: 0 });
        Ok(())
    }

    fn link(&self, name: &OsStr, entry: &Entry) -> Result<(), UnpackError> {
        let (directory, other) = checked(&entry.target)?;
        let directory = self.open_directory(directory)?;
        // Without AT_SYMLINK_FOLLOW: another name of a symlink, not of what it points to.
        linkat(&directory, other, self.parent(), name, AtFlags::empty())
            .map_err(|cause| failed("link", entry, cause))
    }

    /// Makes everything that has no content, with its owner.
    fn make(&self, name: &OsStr, entry: &Entry) -> Result<(), UnpackError> {
        let (parent, mode) = (self.parent(), Mode::from_bits_truncate(entry.mode));
        let node = |kind, device| mknodat(parent, name, kind, mode, device);
        let device = makedev(entry.major, entry.minor);
        let made = match entry.kind() {
            Kind::Directory => mkdirat(parent, name, mode),
            Kind::Symlink => symlinkat(OsStr::from_bytes(&entry.target), parent, name),
            Kind::CharacterDevice => node(FileType::CharacterDevice, device),
            Kind::BlockDevice => node(FileType::BlockDevice, device),
            Kind::Fifo => node(FileType::Fifo, 0),
            Kind::Socket => node(FileType::Socket, 0),
            Kind::File | Kind::HardLink | Kind::Unknown => Err(Errno::INVAL),
        };
        made.map_err(|cause| failed("make", entry, cause))?;
        self.set_owner(name, entry)
    }

    /// Owner first: changing it clears set-uid bits and file capabilities.
    fn set_owner(&self, name: &OsStr, entry: &Entry) -> Result<(), UnpackError> {
        let parent = self.parent();
        let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
        chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|cause| failed("set the owner of", entry, cause))?;
        if entry.kind() != Kind::Symlink {
            // Not a symlink: it has just been made as something else, and nobody else can reach it yet.
            chmodat(parent, name, Mode::from_bits_truncate(entry.mode), AtFlags::empty())
                .map_err(|cause| failed("set the mode of", entry, cause))?;
        }
        let path = Path::new("/proc/self/fd").join(parent.as_raw_fd().to_string()).join(name);
        for attribute in &entry.attributes {
            lsetxattr(&path, attribute.name.as_slice(), &attribute.value, XattrFlags::empty())
                .map_err(|cause| failed("set an attribute of", entry, cause))?;
        }
        Ok(())
    }

    fn set_times(&self, name: &OsStr, entry: &Entry) -> Result<(), UnpackError> {
        let modified = Timespec { tv_sec: entry.mtime_seconds, tv_nsec: i64::from(entry.mtime_nanoseconds) };
        let accessed = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
        let times = Timestamps { last_access: accessed, last_modification: modified };
        utimensat(self.parent(), name, &times, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|cause| failed("set the time of", entry, cause))
    }

    fn block(&mut self, block: &Block<'_>) -> Result<(), UnpackError> {
        let Some(file) = &mut self.open else { return disorder("content without a file") };
        let end = block.offset.checked_add(block.data.len() as u64);
        let Some(end) = end.filter(|end| *end <= file.entry.size && block.data.len() <= BLOCK_BYTES) else {
            return disorder("content beyond its file's end");
        };
        if block.offset < file.end || block.data.is_empty() {
            return disorder("content out of order");
        }
        let (mut data, mut at) = (block.data, block.offset);
        while !data.is_empty() {
            let written = pwrite(&file.fd, data, at).map_err(|cause| failed("write", &file.entry, cause))?;
            data = &data[written..];
            at += written as u64;
        }
        file.end = end;
        self.summary.data_bytes += block.data.len() as u64;
        Ok(())
    }

    /// The content of the open file, if there is one, has come.
    fn close_file(&mut self) -> Result<(), UnpackError> {
        let Some(OpenFile { fd, entry, end }) = self.open.take() else { return Ok(()) };
        if end < entry.size {
            ftruncate(&fd, entry.size).map_err(|cause| failed("extend", &entry, cause))?;
        }
        let (directory, name) = checked(&entry.path)?;
        self.enter(directory)?;
        self.set_owner(name, &entry)?;
        self.set_times(name, &entry)
    }

    fn finish(&mut self) -> Result<(), UnpackError> {
        self.close_file()?;
        let directories = std::mem::take(&mut self.directories);
        if directories.is_empty() {
            return disorder("it has no root");
        }
        for entry in directories.iter().rev() {
            if entry.path.is_empty() {
                self.enter(Path::new(""))?;
                self.set_times(OsStr::new("."), entry)?;
            } else {
                let (directory, name) = checked(&entry.path)?;
                self.enter(directory)?;
                self.set_times(name, entry)?;
            }
        }
        Ok(())
    }
}

/// What must hold for an entry of any kind.
fn check(entry: &Entry) -> Result<(), UnpackError> {
    let mut names = BTreeSet::new();
    if !entry.attributes.iter().all(|attribute| names.insert(&attribute.name)) {
        return disorder("an attribute twice");
    }
    if entry.mtime_nanoseconds >= 1_000_000_000 || entry.mode > 0o7777 {
        return disorder("a mode or time that can't be");
    }
    if entry.uid == u32::MAX || entry.gid == u32::MAX {
        return disorder("an owner that can't be");
    }
    Ok(())
}

fn failed(what: &'static str, entry: &Entry, cause: Errno) -> UnpackError {
    UnpackError::Make { what, path: PathBuf::from(OsStr::from_bytes(&entry.path)), cause }
}
