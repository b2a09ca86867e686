//! What `/proc` says about a container's processes. Only reading; what it means is judged elsewhere.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{major, minor};
use rustix::net::sockopt::{socket_domain, socket_protocol, socket_type};
use rustix::param::page_size;

use super::Name;
use crate::sockets;

/// Namespaces that all processes of a container must share.
const SHARED: [&str; 7] = ["user", "net", "pid", "ipc", "uts", "cgroup", "time"];

/// One process.
#[derive(Debug, Clone)]
pub(super) struct Process {
    /// As this machine numbers it.
    pub(super) pid: i32,
    pub(super) name: Name,
    pub(super) parent: i32,
    /// Its session as the container numbers it; 0: one from outside.
    pub(super) session: i32,
    /// The process that traces it, or 0.
    pub(super) tracer: i32,
    pub(super) resident_bytes: u64,
    /// Inodes of its namespaces.
    pub(super) namespaces: BTreeMap<String, u64>,
    pub(super) descriptors: Vec<Descriptor>,
}

/// One open file.
#[derive(Debug, Clone)]
pub(super) struct Descriptor {
    /// What `/proc` calls it.
    pub(super) link: String,
    /// The mount it is on.
    pub(super) mount: u64,
    pub(super) device: Option<Device>,
    pub(super) socket: Option<SocketFacts>,
}

/// A device.
#[derive(Debug, Clone, Copy)]
pub(super) struct Device {
    pub(super) block: bool,
    pub(super) major: u32,
    pub(super) minor: u32,
}

/// A socket.
#[derive(Debug, Clone, Copy)]
pub(super) struct SocketFacts {
    pub(super) family: i32,
    pub(super) kind: i32,
    pub(super) protocol: i32,
}

/// One mount.
#[derive(Debug, Clone)]
pub(super) struct Mount {
    pub(super) id: u64,
    pub(super) point: PathBuf,
    /// The type of the file system.
    pub(super) kind: String,
    /// `major:minor` of the file system.
    pub(super) device: String,
}

impl Device {
    /// Whether CRIU can open it again: memory devices, terminals, and TUN/TAP (the kernel's devices.txt).
    pub(super) fn is_carried(self) -> bool {
        let terminal = matches!(self.major, 4 | 5 | 136..=143);
        !self.block && (self.major == 1 || terminal || (self.major, self.minor) == (10, 200))
    }
}

impl fmt::Display for SocketFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "address family {}, type {}, protocol {}", self.family, self.kind, self.protocol)
    }
}

/// Reads all about one process.
pub(super) fn process(pid: i32) -> io::Result<Process> {
    let base = PathBuf::from(format!("/proc/{pid}"));
    let status = fs::read_to_string(base.join("status"))?;
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let number =
        |name: &str| field(name).and_then(|value| value.split_whitespace().last()?.parse::<i32>().ok());
    Ok(Process {
        pid,
        name: Name {
            pid: number("NSpid").unwrap_or(pid),
            command: field("Name").unwrap_or_default().trim().to_owned(),
        },
        parent: number("PPid").unwrap_or(0),
        session: number("NSsid").unwrap_or(0),
        tracer: number("TracerPid").unwrap_or(0),
        resident_bytes: resident(&fs::read_to_string(base.join("statm"))?),
        namespaces: namespaces(&base)?,
        descriptors: descriptors(pid, &base)?,
    })
}

/// The second field, in pages.
fn resident(statm: &str) -> u64 {
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * page_size() as u64
}

fn namespaces(base: &Path) -> io::Result<BTreeMap<String, u64>> {
    let mut found = BTreeMap::new();
    for kind in SHARED {
        match fs::metadata(base.join("ns").join(kind)) {
            Ok(meta) => found.insert(kind.to_owned(), meta.ino()),
            // A kernel without this kind.
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => continue,
            Err(cause) => return Err(cause),
        };
    }
    Ok(found)
}

fn descriptors(pid: i32, base: &Path) -> io::Result<Vec<Descriptor>> {
    let mut sockets: BTreeMap<i32, SocketFacts> = BTreeMap::new();
    for (fd, socket) in sockets::sockets(pid)? {
        let protocol = socket_protocol(&socket)?.map_or(0, |protocol| protocol.as_raw().get().cast_signed());
        let family = i32::from(socket_domain(&socket)?.as_raw());
        sockets
            .insert(fd, SocketFacts { family, kind: socket_type(&socket)?.as_raw().cast_signed(), protocol });
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(base.join("fd"))? {
        let entry = entry?;
        let Some(fd) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        // Closed meanwhile.
        let Ok(link) = fs::read_link(entry.path()) else { continue };
        let mount = fs::read_to_string(base.join("fdinfo").join(entry.file_name())).unwrap_or_default();
        let mount = mount.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse::<u64>().ok());
        found.push(Descriptor {
            link: link.to_string_lossy().into_owned(),
            mount: mount.unwrap_or(0),
            device: device(&entry.path()),
            socket: sockets.get(&fd).copied(),
        });
    }
    Ok(found)
}

/// What a descriptor is open on, if that is a device.
fn device(path: &Path) -> Option<Device> {
    let meta = fs::metadata(path).ok()?;
    let block = meta.file_type().is_block_device();
    (block || meta.file_type().is_char_device()).then(|| Device {
        block,
        major: major(meta.rdev()),
        minor: minor(meta.rdev()),
    })
}

/// The mounts a process sees (proc_pid_mountinfo(5)).
pub(super) fn mounts(pid: i32) -> io::Result<Vec<Mount>> {
    let table = fs::read_to_string(format!("/proc/{pid}/mountinfo"))?;
    Ok(table.lines().filter_map(mount).collect())
}

fn mount(line: &str) -> Option<Mount> {
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ');
    Some(Mount {
        id: left.next()?.parse::<u64>().ok()?,
        device: left.nth(1)?.to_owned(),
        point: PathBuf::from(unescaped(left.nth(1)?)),
        kind: right.split(' ').next()?.to_owned(),
    })
}

/// Space, tab, newline and backslash are written as octal numbers.
fn unescaped(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .into_iter()
        .fold(text.to_owned(), |text, (code, plain)| text.replace(code, plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_lines() {
        let found = mount(r"36 35 98:0 /r /mnt\040x rw,noatime master:1 - ext3 /dev/root rw").unwrap();
        assert_eq!((found.id, found.device.as_str(), found.kind.as_str()), (36, "98:0", "ext3"));
        assert_eq!(found.point, Path::new("/mnt x"));
    }

    #[test]
    fn this_process_can_be_read() {
        let _socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let found = process(std::process::id().cast_signed()).unwrap();
        assert!(found.resident_bytes > 0 && found.namespaces.len() == SHARED.len());
        assert!(found.descriptors.iter().any(|fd| {
            fd.socket
                .is_some_and(|socket| (socket.family, socket.protocol) == (libc::AF_INET, libc::IPPROTO_UDP))
        }));
    }
}
