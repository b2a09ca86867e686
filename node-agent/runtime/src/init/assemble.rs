//! Puts the container's file system together, from inside of its namespaces, and makes it the root.

use std::fs::{OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::{fchdir, pivot_root};
use rustix::fs::{CWD, FileType};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create, fsmount, fsopen, move_mount,
    open_tree,
};
use thiserror::Error;

use super::paths::{Kind, Links, open, open_or_make};
use crate::bundle::{Bundle, SeedFile};
use crate::mounts::KernelFs;
use crate::rootfs::{Rootfs, Step, What, attribute_flags, set_data, set_read_only};
use crate::shim::state::{Backing, External};
use crate::sys::Depth;

/// The file system couldn't be put together.
#[derive(Debug, Error)]
pub(super) enum AssembleError {
    #[error("make all mounts private")]
    Private(#[source] io::Error),
    #[error("make the image the root directory")]
    Root(#[source] io::Error),
    #[error("{path} in the image is, or leads through, a symbolic link: nothing can safely be mounted there")]
    Link { path: PathBuf },
    #[error("{what} {path}")]
    Path {
        what: &'static str,
        path: PathBuf,
        #[source]
        cause: io::Error,
    },
}

impl AssembleError {
    pub(super) fn is_images_fault(&self) -> bool {
        matches!(self, Self::Link { .. })
    }
}

/// Assembles all and enters it. Returns what was masked, for a checkpoint to know.
pub(super) fn assemble(bundle: &Bundle, rootfs: &Rootfs) -> Result<Vec<External>, AssembleError> {
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .map_err(|errno| AssembleError::Private(errno.into()))?;
    let root = rootfs.root.as_fd();
    // Over the present root: the container's root user may not even reach any other directory of the node.
    attach(root, "/", CWD).map_err(AssembleError::Root)?;
    let mut mounts = rootfs.below.mounts.iter();
    rootfs.below.steps.iter().try_for_each(|step| perform(root, step, &mut mounts))?;
    bundle.files.iter().try_for_each(|file| write_seed(root, file))?;
    enter(root).map_err(AssembleError::Root)?;
    let linux = bundle.spec.linux().as_ref();
    for path in linux.and_then(|linux| linux.readonly_paths().as_deref()).unwrap_or_default() {
        make_read_only(root, Path::new(path))?;
    }
    let masked = linux.and_then(|linux| linux.masked_paths().as_deref()).unwrap_or_default();
    let masked = mask_all(root, masked, rootfs.empty.as_fd())?;
    if bundle.spec.root().as_ref().and_then(oci_spec::runtime::Root::readonly) == Some(true) {
        set_read_only(root, Depth::One).map_err(AssembleError::Root)?;
    }
    Ok(masked)
}

/// Performs one mount below the root; `mounts` are the detached ones still to be attached.
fn perform<'a>(
    root: BorrowedFd<'_>,
    step: &Step,
    mounts: &mut impl Iterator<Item = &'a OwnedFd>,
) -> Result<(), AssembleError> {
    let path = step.destination.as_path();
    let missing = || failed("find the mount for", path)(io::ErrorKind::NotFound.into());
    let made;
    let (mount, links) = match &step.what {
        What::Attach(Backing::Tmpfs | Backing::Bind) => (mounts.next().ok_or_else(missing)?, Links::Followed),
        What::Attach(Backing::Devices | Backing::NullFile | Backing::EmptyDir) => {
            (mounts.next().ok_or_else(missing)?, Links::Refused)
        }
        What::Make { fs, attributes, data } => {
            made = make_kernel_fs(*fs, *attributes, data).map_err(failed("mount", path))?;
            (&made, Links::Refused)
        }
    };
    let place = open_or_make(root, path, links, kind_of(mount).map_err(failed("look at", path))?);
    let place = place.map_err(|cause| place_error("make the mount point", path, cause))?;
    attach(mount.as_fd(), "", place.as_fd()).map_err(failed("mount", path))
}

fn place_error(what: &'static str, path: &Path, cause: io::Error) -> AssembleError {
    match cause.raw_os_error() {
        Some(libc::ELOOP) => AssembleError::Link { path: path.to_owned() },
        _other => failed(what, path)(cause),
    }
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> AssembleError {
    move |cause| AssembleError::Path { what, path: path.to_owned(), cause }
}

fn kind_of(mount: &OwnedFd) -> io::Result<Kind> {
    let stat = rustix::fs::fstat(mount)?;
    let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    Ok(if is_dir { Kind::Directory } else { Kind::File })
}

/// Attaches a detached mount at `path` relative to `place`, or at `place` itself if `path` is empty.
fn attach(mount: BorrowedFd<'_>, path: &str, place: BorrowedFd<'_>) -> io::Result<()> {
    let to_place =
        if path.is_empty() { MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH } else { MoveMountFlags::empty() };
    Ok(move_mount(mount, "", place, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | to_place)?)
}

/// A file system of this process's namespaces.
fn make_kernel_fs(fs: KernelFs, attributes: u64, data: &[(String, Option<String>)]) -> io::Result<OwnedFd> {
    let context = fsopen(fs.name(), FsOpenFlags::FSOPEN_CLOEXEC)?;
    set_data(&context, data, 0)?;
    fsconfig_create(&context)?;
    Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attribute_flags(attributes))?)
}

fn write_seed(root: BorrowedFd<'_>, file: &SeedFile) -> Result<(), AssembleError> {
    let write = || {
        let place = open_or_make(root, &file.path, Links::Followed, Kind::File)?;
        // Reopened through the descriptor that was resolved within the root. The node's /proc is still there.
        let path = format!("/proc/self/fd/{}", place.as_raw_fd());
        let mut open = OpenOptions::new().write(true).truncate(true).open(path)?;
        open.write_all(file.content.as_bytes())?;
        open.set_permissions(Permissions::from_mode(file.mode))
    };
    write().map_err(failed("write", &file.path))
}

/// Makes `root` the root directory and lets go of the old one.
fn enter(root: BorrowedFd<'_>) -> io::Result<()> {
    fchdir(root)?;
    // Old and new root trade places on the same directory; the old one is then on top and is taken off
    // (pivot_root(2), "pivot_root(".", ".")").
    pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    Ok(nix::unistd::chdir("/")?)
}

/// Puts a read-only copy of `path` over it. A path that doesn't exist is read-only already.
fn make_read_only(root: BorrowedFd<'_>, path: &Path) -> Result<(), AssembleError> {
    let Some(place) = existing(root, path)? else { return Ok(()) };
    let cover = || {
        let flags =
            OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
        let copy = open_tree(&place, "", flags | OpenTreeFlags::AT_EMPTY_PATH)?;
        set_read_only(copy.as_fd(), Depth::Tree)?;
        attach(copy.as_fd(), "", place.as_fd())
    };
    cover().map_err(failed("make read-only", path))
}

/// Hides files under `/dev/null` and directories under the empty one.
fn mask_all(
    root: BorrowedFd<'_>,
    paths: &[String],
    empty: BorrowedFd<'_>,
) -> Result<Vec<External>, AssembleError> {
    let mut masked = Vec::new();
    // A detached mount can't be copied (before Linux 6.15), so copies are made of the first one attached.
    let mut first_empty: Option<PathBuf> = None;
    for path in paths.iter().map(Path::new) {
        let Some(place) = existing(root, path)? else { continue };
        let backing = match kind_of(&place).map_err(failed("look at", path))? {
            Kind::File => Backing::NullFile,
            Kind::Directory => Backing::EmptyDir,
        };
        let cover = match (backing, &first_empty) {
            (Backing::EmptyDir, None) => attach(empty, "", place.as_fd()),
            (Backing::EmptyDir, Some(first)) => attach_copy(first, place.as_fd()),
            _file => attach_copy(Path::new("/dev/null"), place.as_fd()),
        };
        cover.map_err(failed("mask", path))?;
        if backing == Backing::EmptyDir && first_empty.is_none() {
            first_empty = Some(path.to_owned());
        }
        masked.push(External { path: path.to_owned(), backing, staged: None });
    }
    Ok(masked)
}

fn attach_copy(of: &Path, place: BorrowedFd<'_>) -> io::Result<()> {
    let copy = open_tree(CWD, of, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?;
    attach(copy.as_fd(), "", place)
}

/// Opens a path that should be covered; `None` if there is nothing.
fn existing(root: BorrowedFd<'_>, path: &Path) -> Result<Option<OwnedFd>, AssembleError> {
    match open(root, path, Links::Refused) {
        Ok(place) => Ok(Some(place)),
        Err(cause) if matches!(cause.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(cause) => Err(place_error("look at", path, cause)),
    }
}
