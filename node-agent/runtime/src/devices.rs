//! The nodes and links of a container's `/dev`.
//!
//! Made from outside, because nobody can make a device node in a user namespace. Only harmless devices are made, and
//! every other mount of the container is `nodev`.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxDevice, LinuxDeviceType};
use rustix::fs::{AtFlags, FileType, Mode, chmodat, chownat, makedev, mkdirat, mknodat, symlinkat};
use rustix::process::{Gid, Uid};
use thiserror::Error;

/// The devices that every container has: name, major, minor (runtime specification, "Default Devices").
const NODES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// Links (runtime specification, "Dev symbolic links").
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// Mount points.
const DIRS: [&str; 3] = ["pts", "shm", "mqueue"];

/// Something in `/dev` couldn't be made.
#[derive(Debug, Error)]
pub(crate) enum DeviceError {
    #[error("make {name}")]
    Make {
        name: PathBuf,
        #[source]
        cause: io::Error,
    },
    #[error("device {0:?} is not below /dev, or no plain device")]
    Unsupported(PathBuf),
}

/// Fills the empty directory `dev`. Everything in it belongs to `owner`.
pub(crate) fn fill_dev(dev: BorrowedFd<'_>, extra: &[LinuxDevice], owner: u32) -> Result<(), DeviceError> {
    for (name, major, minor) in NODES {
        let node =
            Node { file_type: FileType::CharacterDevice, mode: 0o666, major, minor, uid: owner, gid: owner };
        make_node(dev, Path::new(name), &node)?;
    }
    for name in DIRS {
        let made = mkdirat(dev, name, Mode::from_raw_mode(0o755))
            .and_then(|()| own(dev, Path::new(name), owner, owner));
        made.map_err(failed(Path::new(name)))?;
    }
    for (name, target) in LINKS {
        symlinkat(target, dev, name).map_err(failed(Path::new(name)))?;
    }
    extra.iter().try_for_each(|device| make_extra(dev, device, owner))
}

struct Node {
    file_type: FileType,
    mode: u32,
    major: u32,
    minor: u32,
    uid: u32,
    gid: u32,
}

/// A device the specification names. Its path's directories are made as needed.
fn make_extra(dev: BorrowedFd<'_>, device: &LinuxDevice, owner: u32) -> Result<(), DeviceError> {
    let unsupported = || DeviceError::Unsupported(device.path().clone());
    let name = device.path().strip_prefix("/dev").map_err(|_| unsupported())?;
    let number = |n: i64| u32::try_from(n).map_err(|_| unsupported());
    let file_type = match device.typ() {
        LinuxDeviceType::C | LinuxDeviceType::U => FileType::CharacterDevice,
        LinuxDeviceType::B => FileType::BlockDevice,
        LinuxDeviceType::P | LinuxDeviceType::A => return Err(unsupported()),
    };
    for parent in name.ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty()) {
        match mkdirat(dev, parent, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(errno) => return Err(failed(parent)(errno)),
        }
    }
    let node = Node {
        file_type,
        mode: device.file_mode().unwrap_or(0o666),
        major: number(device.major())?,
        minor: number(device.minor())?,
        uid: owner.saturating_add(device.uid().unwrap_or(0)),
        gid: owner.saturating_add(device.gid().unwrap_or(0)),
    };
    make_node(dev, name, &node)
}

fn make_node(dev: BorrowedFd<'_>, name: &Path, node: &Node) -> Result<(), DeviceError> {
    let mode = Mode::from_raw_mode(node.mode);
    let made = mknodat(dev, name, node.file_type, mode, makedev(node.major, node.minor))
        // The umask took bits away.
        .and_then(|()| chmodat(dev, name, mode, AtFlags::empty()))
        .and_then(|()| own(dev, name, node.uid, node.gid));
    made.map_err(failed(name))
}

fn own(dev: BorrowedFd<'_>, name: &Path, uid: u32, gid: u32) -> rustix::io::Result<()> {
    chownat(dev, name, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), AtFlags::SYMLINK_NOFOLLOW)
}

fn failed(name: &Path) -> impl FnOnce(rustix::io::Errno) -> DeviceError {
    let name = Path::new("/dev").join(name);
    move |errno| DeviceError::Make { name, cause: errno.into() }
}
