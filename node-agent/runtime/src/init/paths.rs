//! Resolves paths inside of a root that isn't ours yet and may be hostile: nothing leads out of it.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags, mkdirat, openat, openat2};
use rustix::io::Errno;

/// What a missing destination is made as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    File,
}

/// How symbolic links of the image are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Links {
    /// Followed, within the root.
    Followed,
    /// Refused: what is mounted must be exactly there, because programs trust it.
    Refused,
}

/// Opens `path` (absolute, as the container sees it) below `root` for use as a place, not for reading.
pub(super) fn open(root: BorrowedFd<'_>, path: &Path, links: Links) -> io::Result<OwnedFd> {
    let inside = match links {
        Links::Followed => ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
        Links::Refused => ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS,
    };
    loop {
        match openat2(root, relative(path), OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), inside) {
            // The kernel couldn't prove in one go that a rename hasn't led us out (openat2(2)).
            Err(Errno::AGAIN) => {}
            opened => return Ok(opened?),
        }
    }
}

/// Like [`open`], but makes what is missing: directories on the way, and the last part as `kind`.
pub(super) fn open_or_make(
    root: BorrowedFd<'_>,
    path: &Path,
    links: Links,
    kind: Kind,
) -> io::Result<OwnedFd> {
    match open(root, path, links) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
        opened => return opened,
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::NotFound.into());
    };
    let parent = open_or_make(root, parent, links, Kind::Directory)?;
    make(parent.as_fd(), name, kind)?;
    open(root, path, links)
}

/// Makes an entry of a directory that was resolved already; never follows a link.
fn make(parent: BorrowedFd<'_>, name: &OsStr, kind: Kind) -> io::Result<()> {
    match kind {
        Kind::Directory => mkdirat(parent, name, Mode::from_raw_mode(0o755))?,
        Kind::File => {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            drop(openat(parent, name, flags, Mode::from_raw_mode(0o644))?);
        }
    }
    Ok(())
}

/// The kernel resolves an absolute path within the root as well; an empty one means the root itself.
fn relative(path: &Path) -> &Path {
    if path.as_os_str().is_empty() { Path::new("/") } else { path }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn root() -> (tempfile::TempDir, OwnedFd) {
        let dir = tempfile::tempdir().expect("a directory");
        let fd = fs::File::open(dir.path()).expect("open").into();
        (dir, fd)
    }

    #[test]
    fn missing_directories_and_files_are_made_inside() {
        let (dir, fd) = root();
        open_or_make(fd.as_fd(), Path::new("/a/b/c"), Links::Followed, Kind::Directory).expect("made");
        open_or_make(fd.as_fd(), Path::new("/a/f"), Links::Refused, Kind::File).expect("made");
        assert!(dir.path().join("a/b/c").is_dir() && dir.path().join("a/f").is_file());
    }

    #[test]
    fn links_stay_inside_or_are_refused() {
        let (dir, fd) = root();
        fs::create_dir(dir.path().join("etc")).expect("mkdir");
        symlink("/etc", dir.path().join("absolute")).expect("link");
        symlink("../../../../etc", dir.path().join("upwards")).expect("link");
        for path in ["/absolute/made", "/upwards/made-too"] {
            open_or_make(fd.as_fd(), Path::new(path), Links::Followed, Kind::Directory).expect("inside");
            let refused = open_or_make(fd.as_fd(), Path::new(path), Links::Refused, Kind::Directory);
            assert_eq!(refused.expect_err("refused").raw_os_error(), Some(libc::ELOOP));
        }
        assert!(dir.path().join("etc/made").is_dir() && dir.path().join("etc/made-too").is_dir());
    }

    #[test]
    fn a_dangling_link_is_not_written_through() {
        let (dir, fd) = root();
        symlink("/nowhere", dir.path().join("link")).expect("link");
        let refused = open_or_make(fd.as_fd(), Path::new("/link"), Links::Followed, Kind::File);
        assert_eq!(refused.expect_err("refused").kind(), io::ErrorKind::AlreadyExists);
    }
}
