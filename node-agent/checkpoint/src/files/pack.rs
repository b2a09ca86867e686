//! From a directory tree to a stream.

use std::collections::HashMap;
use std::ffi::{CString, OsStr};
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, SeekFrom, Stat, fstat, lgetxattr, llistxattr, major,
    minor, open, openat, openat2, readlinkat, seek, statat,
};
use rustix::io::{Errno, pread};
use thiserror::Error;

use super::Summary;
use super::frame::{FrameError, FrameWriter};
use super::record::{
    Attribute, BLOCK_BYTES, Block, Entry, FORMAT, InvalidPath, Kind, Record, Start, checked,
};

/// Attributes in which an overlay notes things about this machine's layers (Documentation/filesystems/overlayfs.rst):
/// file handles and inode numbers that mean nothing elsewhere.
const LOCAL: [&[u8]; 5] = [
    b"trusted.overlay.origin",
    b"trusted.overlay.impure",
    b"trusted.overlay.nlink",
    b"trusted.overlay.upper",
    b"trusted.overlay.uuid",
];

/// Beneath its directory and through no symlink.
const INSIDE: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

/// A tree could not be packed.
#[derive(Debug, Error)]
pub enum PackError {
    /// A file or directory can't be read.
    #[error("{what} {path}")]
    Read {
        /// What was tried.
        what: &'static str,
        /// With what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        cause: Errno,
    },
    /// A path can't be carried.
    #[error(transparent)]
    Path(#[from] InvalidPath),
    /// Something is mounted in the tree.
    #[error("{path} is on another file system")]
    OtherFileSystem {
        /// Where.
        path: PathBuf,
    },
    /// Somebody writes to the tree.
    #[error("{path} changed while it was packed")]
    Changed {
        /// Which file.
        path: PathBuf,
    },
    /// The stream failed.
    #[error("send the packed tree")]
    Send(#[from] FrameError),
}

/// Packs the tree below `root` into `out`. The tree must hold still.
///
/// # Errors
/// When something can't be read or carried, or `out` fails.
pub fn pack(root: &Path, out: impl Write) -> Result<Summary, PackError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = open(root, flags, Mode::empty()).map_err(|cause| PackError::Read {
        what: "open",
        path: root.to_owned(),
        cause,
    })?;
    let stat =
        fstat(&fd).map_err(|cause| PackError::Read { what: "look at", path: root.to_owned(), cause })?;
    let mut packer = Packer {
        root: fd,
        device: stat.st_dev,
        out: FrameWriter::new(out),
        links: HashMap::new(),
        pending: vec![PathBuf::new()],
        summary: Summary::default(),
    };
    packer.send(&Record::Start(Start { format: FORMAT }))?;
    packer.root_entry(&stat)?;
    while let Some(directory) = packer.pending.pop() {
        packer.directory(&directory)?;
    }
    let stream_bytes = packer.out.finish()?;
    Ok(Summary { stream_bytes, ..packer.summary })
}

struct Packer<W> {
    root: OwnedFd,
    device: u64,
    out: FrameWriter<W>,
    /// Names already sent of files that have several.
    links: HashMap<u64, PathBuf>,
    /// Directories whose entry has been sent and whose children haven't.
    pending: Vec<PathBuf>,
    summary: Summary,
}

impl<W: Write> Packer<W> {
    fn send(&mut self, record: &Record<'_>) -> Result<(), PackError> {
        match record {
            Record::Start(_) => {}
            Record::Entry(_) => self.summary.entries += 1,
            Record::Block(block) => self.summary.data_bytes += block.data.len() as u64,
        }
        let (head, data) = record.encode();
        Ok(self.out.write(&head, data)?)
    }

    fn root_entry(&mut self, stat: &Stat) -> Result<(), PackError> {
        let mut entry = described(Path::new(""), stat);
        entry.kind = Kind::Directory as i32;
        entry.attributes = attributes(&self.root, OsStr::new("."), Path::new("."))?;
        self.send(&Record::Entry(entry))
    }

    fn directory(&mut self, path: &Path) -> Result<(), PackError> {
        let failed = |cause| PackError::Read { what: "open directory", path: path.to_owned(), cause };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let here = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let directory = openat2(&self.root, here, flags, Mode::empty(), INSIDE).map_err(failed)?;
        for name in names(&directory).map_err(failed)? {
            self.child(&directory, OsStr::from_bytes(name.as_bytes()), path)?;
        }
        Ok(())
    }

    fn child(&mut self, directory: &OwnedFd, name: &OsStr, parent: &Path) -> Result<(), PackError> {
        let path = parent.join(name);
        checked(path.as_os_str().as_bytes())?;
        let stat = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).map_err(|cause| PackError::Read {
            what: "look at",
            path: path.clone(),
            cause,
        })?;
        if stat.st_dev != self.device {
            return Err(PackError::OtherFileSystem { path });
        }
        let mut entry = described(&path, &stat);
        if let Some(first) = self.other_name(&stat, &path) {
            entry.kind = Kind::HardLink as i32;
            entry.target = first.as_os_str().as_bytes().to_vec();
            return self.send(&Record::Entry(entry));
        }
        entry.attributes = attributes(directory, name, &path)?;
        self.described_child(directory, name, entry, &stat)
    }

    /// Sends an entry with what belongs to its kind.
    fn described_child(
        &mut self,
        directory: &OwnedFd,
        name: &OsStr,
        mut entry: Entry,
        stat: &Stat,
    ) -> Result<(), PackError> {
        let path = PathBuf::from(OsStr::from_bytes(&entry.path));
        let kind = kind_of(FileType::from_raw_mode(stat.st_mode));
        entry.kind = kind as i32;
        match kind {
            Kind::Directory => self.pending.push(path),
            Kind::Symlink => {
                let text = readlinkat(directory, name, Vec::new()).map_err(|cause| PackError::Read {
                    what: "read symlink",
                    path,
                    cause,
                })?;
                entry.target = text.into_bytes();
            }
            Kind::File => {
                let size = entry.size;
                self.send(&Record::Entry(entry))?;
                return self.content(&opened(directory, name, stat, &path)?, size, &path);
            }
            Kind::CharacterDevice | Kind::BlockDevice => {
                (entry.major, entry.minor) = (major(stat.st_rdev), minor(stat.st_rdev));
            }
            Kind::Fifo | Kind::Socket | Kind::HardLink | Kind::Unknown => {}
        }
        self.send(&Record::Entry(entry))
    }

    /// The name under which a file with several has been sent already.
    fn other_name(&mut self, stat: &Stat, path: &Path) -> Option<PathBuf> {
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory || stat.st_nlink < 2 {
            return None;
        }
        let first = self.links.get(&stat.st_ino).cloned();
        if first.is_none() {
            self.links.insert(stat.st_ino, path.to_owned());
        }
        first
    }

    /// Sends what isn't a hole.
    fn content(&mut self, file: &OwnedFd, size: u64, path: &Path) -> Result<(), PackError> {
        let failed = |cause| PackError::Read { what: "read", path: path.to_owned(), cause };
        let mut buffer = vec![0; BLOCK_BYTES.min(usize::try_from(size).unwrap_or(BLOCK_BYTES))];
        let mut at = 0;
        while at < size {
            let begin = match seek(file, SeekFrom::Data(at)) {
                Ok(begin) => begin,
                // Nothing but a hole up to the end.
                Err(Errno::NXIO) => break,
                Err(cause) => return Err(failed(cause)),
            };
            let end = seek(file, SeekFrom::Hole(begin)).map_err(failed)?.min(size);
            at = begin;
            while at < end {
                let want = buffer.len().min(usize::try_from(end - at).unwrap_or(usize::MAX));
                let got = pread(file, &mut buffer[..want], at).map_err(failed)?;
                if got == 0 {
                    return Err(PackError::Changed { path: path.to_owned() });
                }
                self.send(&Record::Block(Block { offset: at, data: &buffer[..got] }))?;
                at += got as u64;
            }
        }
        Ok(())
    }
}

/// Opens a file, and makes sure that it is the one that was looked at.
fn opened(directory: &OwnedFd, name: &OsStr, stat: &Stat, path: &Path) -> Result<OwnedFd, PackError> {
    let failed = |cause| PackError::Read { what: "open", path: path.to_owned(), cause };
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = openat(directory, name, flags, Mode::empty()).map_err(failed)?;
    let found = fstat(&file).map_err(failed)?;
    if (found.st_dev, found.st_ino, found.st_size) != (stat.st_dev, stat.st_ino, stat.st_size) {
        return Err(PackError::Changed { path: path.to_owned() });
    }
    Ok(file)
}

/// The names in a directory, sorted, so that equal trees make equal streams.
fn names(directory: &OwnedFd) -> Result<Vec<CString>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let name = entry?.file_name().to_owned();
        if !matches!(name.as_bytes(), b"." | b"..") {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn kind_of(found: FileType) -> Kind {
    match found {
        FileType::Directory => Kind::Directory,
        FileType::RegularFile => Kind::File,
        FileType::Symlink => Kind::Symlink,
        FileType::CharacterDevice => Kind::CharacterDevice,
        FileType::BlockDevice => Kind::BlockDevice,
        FileType::Fifo => Kind::Fifo,
        FileType::Socket => Kind::Socket,
        FileType::Unknown => Kind::Unknown,
    }
}

/// What a stat says, without what depends on the kind.
fn described(path: &Path, stat: &Stat) -> Entry {
    Entry {
        path: path.as_os_str().as_bytes().to_vec(),
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime_seconds: stat.st_mtime,
        mtime_nanoseconds: u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
        size: u64::try_from(stat.st_size).unwrap_or(0),
        ..Entry::default()
    }
}

/// The extended attributes of a directory's entry, which is not followed if it is a symlink.
fn attributes(directory: &OwnedFd, name: &OsStr, path: &Path) -> Result<Vec<Attribute>, PackError> {
    let failed = |cause| PackError::Read { what: "read the attributes of", path: path.to_owned(), cause };
    let entry = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
    let mut list = Vec::with_capacity(1 << 16);
    match llistxattr(&entry, rustix::buffer::spare_capacity(&mut list)) {
        Ok(_) => {}
        Err(Errno::NOTSUP) => return Ok(Vec::new()),
        Err(cause) => return Err(failed(cause)),
    }
    let mut found = Vec::new();
    for name in list.split(|byte| *byte == 0).filter(|name| !name.is_empty() && !LOCAL.contains(name)) {
        let mut value = Vec::with_capacity(1 << 16);
        lgetxattr(&entry, name, rustix::buffer::spare_capacity(&mut value)).map_err(failed)?;
        found.push(Attribute { name: name.to_vec(), value: value.to_vec() });
    }
    found.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}
