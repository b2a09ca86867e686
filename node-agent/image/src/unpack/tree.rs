//! A directory tree that nothing written through it can leave.
//!
//! Every path is resolved by `openat2` with `RESOLVE_IN_ROOT`: symbolic links of the layer, absolute ones too, lead
//! to places within the layer only. The last component is never followed.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{
    AtFlags, Dev, FileType, Gid, Mode, OFlags, RawMode, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags,
    chmodat, chownat, linkat, lsetxattr, makedev, mkdirat, mknodat, openat, openat2, statat, symlinkat,
    unlinkat, utimensat,
};
use rustix::io::Errno;

use super::entry::Metadata;

const OPAQUE: &str = "trusted.overlay.opaque";
const IMPLIED_MODE: u32 = 0o755;
/// `openat2` answers EAGAIN when a rename anywhere could have disturbed its `..` checks.
const MAX_RESOLVE_TRIES: usize = 64;

/// The root of a layer that is being unpacked.
pub(super) struct Tree {
    root: Rc<OwnedFd>,
    /// Entries come directory by directory; this saves a resolution for most.
    last_parent: Option<(PathBuf, Rc<OwnedFd>)>,
    /// Set at the end, because creating entries changes them.
    directory_times: BTreeMap<PathBuf, Timespec>,
}

/// A name in an open directory.
pub(super) struct Place {
    parent: Rc<OwnedFd>,
    name: OsString,
}

/// What is at a place already.
enum Occupant {
    Nobody,
    Directory,
    Whiteout,
    Other,
}

impl Tree {
    /// Takes an empty directory as the root.
    pub(super) fn new(root: &Path) -> io::Result<Self> {
        let fd = rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        chmodat(&fd, ".", Mode::from_raw_mode(IMPLIED_MODE), AtFlags::empty())?;
        Ok(Self { root: Rc::new(fd), last_parent: None, directory_times: BTreeMap::new() })
    }

    /// Where a path leads; parents that no entry has named are created.
    pub(super) fn place(&mut self, path: &Path) -> io::Result<Place> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Ok(Place { parent: Rc::clone(&self.root), name: ".".into() });
        };
        if let Some((last, fd)) = &self.last_parent
            && last == parent
        {
            return Ok(Place { parent: Rc::clone(fd), name: name.to_owned() });
        }
        let fd = Rc::new(self.ensure_directories(parent)?);
        self.last_parent = Some((parent.to_owned(), Rc::clone(&fd)));
        Ok(Place { parent: fd, name: name.to_owned() })
    }

    /// Where a path leads that must exist already.
    pub(super) fn existing_place(&self, path: &Path) -> io::Result<Place> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::IsADirectory.into());
        };
        Ok(Place { parent: Rc::new(self.resolve(parent)?), name: name.to_owned() })
    }

    fn resolve(&self, path: &Path) -> io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        for _ in 0..MAX_RESOLVE_TRIES {
            match openat2(&*self.root, path, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN) => {}
                result => return Ok(result?),
            }
        }
        Err(Errno::AGAIN.into())
    }

    fn ensure_directories(&mut self, path: &Path) -> io::Result<OwnedFd> {
        match self.resolve(path) {
            // A whiteout may be in the way of a directory that is only implied.
            Err(cause) if matches!(cause.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
            result => return result,
        }
        let mut prefix = PathBuf::new();
        for component in path.components() {
            let parent = Rc::new(self.resolve(&prefix)?);
            prefix.push(component);
            if self.resolve(&prefix).is_err() {
                let place = Place { parent, name: component.as_os_str().to_owned() };
                place.create_directory_unless_taken()?;
            }
        }
        self.resolve(path)
    }

    /// Creates a directory, or takes the one that is there. Its mode and owner are still to be set.
    pub(super) fn directory(&mut self, place: &Place) -> io::Result<()> {
        match place.occupant()? {
            Occupant::Nobody | Occupant::Whiteout => place.create_directory_unless_taken(),
            Occupant::Directory => Ok(()),
            Occupant::Other => {
                self.clear(place)?;
                place.create_directory_unless_taken()
            }
        }
    }

    /// Creates a file and opens it for writing.
    pub(super) fn file(&mut self, place: &Place) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let create = || openat(&*place.parent, &place.name, flags, Mode::RUSR | Mode::WUSR);
        self.replacing(place, create).map(File::from)
    }

    /// Creates a symbolic link; its target is not looked at.
    pub(super) fn symlink(&mut self, place: &Place, target: &OsStr) -> io::Result<()> {
        self.replacing(place, || symlinkat(target, &*place.parent, &place.name))
    }

    /// Gives an existing file another name.
    pub(super) fn hard_link(&mut self, place: &Place, target: &Place) -> io::Result<()> {
        self.replacing(place, || {
            linkat(&*target.parent, &target.name, &*place.parent, &place.name, AtFlags::empty())
        })
    }

    /// Creates a device or a FIFO.
    pub(super) fn special(&mut self, place: &Place, kind: FileType, device: Dev) -> io::Result<()> {
        self.replacing(place, || mknodat(&*place.parent, &place.name, kind, Mode::empty(), device))
    }

    /// Hides what lower layers have at this place.
    pub(super) fn whiteout(&mut self, place: &Place) -> io::Result<()> {
        match place.occupant()? {
            Occupant::Nobody => Ok(mknodat(
                &*place.parent,
                &place.name,
                FileType::CharacterDevice,
                Mode::empty(),
                makedev(0, 0),
            )?),
            // The layer brings its own directory of that name: it stays, and hides the lower one's content.
            Occupant::Directory => place.make_opaque(),
            Occupant::Whiteout | Occupant::Other => Ok(()),
        }
    }

    /// Hides everything lower layers have in the directory that holds this place.
    pub(super) fn opaque_parent(&self, place: &Place) -> io::Result<()> {
        Place { parent: Rc::clone(&place.parent), name: ".".into() }.make_opaque()
    }

    /// Remembers a directory's time for [`finish`](Self::finish).
    pub(super) fn time_directory(&mut self, path: &Path, modified: Timespec) {
        self.directory_times.insert(path.to_owned(), modified);
    }

    /// Sets the directories' times.
    pub(super) fn finish(mut self) -> io::Result<()> {
        for (path, modified) in std::mem::take(&mut self.directory_times) {
            let place =
                if path.as_os_str().is_empty() { self.place(&path) } else { self.existing_place(&path) };
            // A later entry may have replaced the directory, or one above it, by something else.
            match place.and_then(|place| place.set_time(modified)) {
                Err(cause)
                    if !matches!(cause.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
                {
                    return Err(cause);
                }
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// Creates; if something is in the way, removes it first. Archives may list a path twice, and the last one counts.
    fn replacing<T>(&mut self, place: &Place, create: impl Fn() -> Result<T, Errno>) -> io::Result<T> {
        match create() {
            Err(Errno::EXIST) => {
                self.clear(place)?;
                Ok(create()?)
            }
            result => Ok(result?),
        }
    }

    fn clear(&mut self, place: &Place) -> io::Result<()> {
        // The cached directory may be within what goes.
        self.last_parent = None;
        match place.occupant()? {
            Occupant::Nobody => Ok(()),
            Occupant::Directory => fs::remove_dir_all(place.path()),
            Occupant::Whiteout | Occupant::Other => {
                Ok(unlinkat(&*place.parent, &place.name, AtFlags::empty())?)
            }
        }
    }
}

impl Place {
    /// A path to the place for calls that take no directory descriptor.
    fn path(&self) -> PathBuf {
        Path::new("/proc/self/fd").join(self.parent.as_raw_fd().to_string()).join(&self.name)
    }

    fn occupant(&self) -> io::Result<Occupant> {
        let stat = match statat(&*self.parent, &self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(Occupant::Nobody),
            Err(cause) => return Err(cause.into()),
        };
        Ok(match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Occupant::Directory,
            FileType::CharacterDevice if stat.st_rdev == makedev(0, 0) => Occupant::Whiteout,
            _ => Occupant::Other,
        })
    }

    /// A directory in place of a whiteout hides what the whiteout hid.
    fn create_directory_unless_taken(&self) -> io::Result<()> {
        let whiteout = matches!(self.occupant()?, Occupant::Whiteout);
        if whiteout {
            unlinkat(&*self.parent, &self.name, AtFlags::empty())?;
        }
        mkdirat(&*self.parent, &self.name, Mode::from_raw_mode(IMPLIED_MODE))?;
        // mkdir(2) obeys the process' umask.
        chmodat(&*self.parent, &self.name, Mode::from_raw_mode(IMPLIED_MODE), AtFlags::empty())?;
        if whiteout { self.make_opaque() } else { Ok(()) }
    }

    fn make_opaque(&self) -> io::Result<()> {
        Ok(lsetxattr(self.path(), OPAQUE, b"y", XattrFlags::empty())?)
    }

    /// Sets owner, mode and extended attributes, in the order in which they do not undo each other.
    pub(super) fn set_metadata(&self, metadata: &Metadata, is_symlink: bool) -> io::Result<()> {
        let (uid, gid) = (Uid::from_raw(metadata.uid), Gid::from_raw(metadata.gid));
        chownat(&*self.parent, &self.name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        if !is_symlink {
            let mode = Mode::from_raw_mode(RawMode::from(metadata.mode));
            chmodat(&*self.parent, &self.name, mode, AtFlags::empty())?;
        }
        for (name, value) in &metadata.xattrs {
            lsetxattr(self.path(), name, value, XattrFlags::empty())?;
        }
        Ok(())
    }

    /// Sets the time of last modification, and of last access to the same.
    pub(super) fn set_time(&self, modified: Timespec) -> io::Result<()> {
        let times = Timestamps { last_access: modified, last_modification: modified };
        Ok(utimensat(&*self.parent, &self.name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
    }
}
