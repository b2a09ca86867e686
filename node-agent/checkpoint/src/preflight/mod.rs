//! What would make a dump fail, found while the container runs.
//!
//! [`inspect`] reads facts from `/proc` and judges them. The judgement can't be complete (a program may do something
//! else a moment later, and CRIU has the last word), but what it names is certain: a container with a blocker can't be
//! dumped now. Each blocker is a sentence for the user who asked for the move.

mod facts;

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::freezer::{Freezer, FreezerError};
use facts::{Descriptor, Mount, Process, SocketFacts};

/// What was found out about a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What would make a dump fail.
    pub blockers: Vec<Blocker>,
    /// How many processes there are.
    pub processes: usize,
    /// What the processes have in memory, in bytes; pages they share are counted for each.
    pub resident_bytes: u64,
}

/// A container could not be inspected.
#[derive(Debug, Error)]
pub enum PreflightError {
    /// Its processes are unknown.
    #[error("list the container's processes")]
    List(#[from] FreezerError),
    /// Its init is gone, or can't be looked at.
    #[error("look at the container's init {init}")]
    Init {
        /// The init.
        init: i32,
        /// Why not.
        #[source]
        cause: io::Error,
    },
}

/// One reason why a container can't be dumped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Blocker {
    /// A process has something open that CRIU can't carry.
    Descriptor {
        /// Who.
        process: Name,
        /// What, for example `an io_uring`.
        what: String,
    },
    /// A process has a file open that isn't in the container.
    OutsideFile {
        /// Who.
        process: Name,
        /// Which file.
        path: PathBuf,
    },
    /// A debugger is attached.
    Traced {
        /// Who.
        process: Name,
        /// By which process.
        by: i32,
    },
    /// A process was started in the container from outside and still runs.
    Entered {
        /// Who.
        process: Name,
    },
    /// A process has a namespace of its own.
    Namespace {
        /// Who.
        process: Name,
        /// Which kind, for example `net`.
        kind: String,
    },
    /// Something is mounted that neither CRIU nor Dray can mount again.
    Mount {
        /// Where.
        path: PathBuf,
        /// What type of file system.
        kind: String,
    },
}

/// A process, as a user knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// Its number within the container.
    pub pid: i32,
    /// What it runs.
    pub command: String,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} ({})", self.pid, self.command)
    }
}

impl fmt::Display for Blocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Descriptor { process, what } => write!(f, "{process} uses {what}, which can't be moved"),
            Self::OutsideFile { process, path } => {
                write!(f, "{process} has {} open, which is outside of the container", path.display())
            }
            Self::Traced { process, by } => {
                write!(f, "{process} is being traced by process {by} of the node: detach the debugger")
            }
            Self::Entered { process } => {
                write!(f, "{process} was started in the container from outside (exec): wait for it or end it")
            }
            Self::Namespace { process, kind } => {
                write!(f, "{process} has a {kind} namespace of its own, which can't be moved")
            }
            Self::Mount { path, kind } => {
                write!(f, "{} is a mount of type {kind}, which can't be moved", path.display())
            }
        }
    }
}

/// Inspects a container. `mounts` are the mount points that a restore will provide, as the container sees them.
///
/// # Errors
/// When the container is gone or can't be looked at.
pub fn inspect(init: i32, freezer: &Freezer, mounts: &[PathBuf]) -> Result<Report, PreflightError> {
    let failed = |cause| PreflightError::Init { init, cause };
    let mounted = facts::mounts(init).map_err(failed)?;
    let leader = facts::process(init).map_err(failed)?;
    // Processes come and go meanwhile; one that has gone blocks nothing.
    let processes: Vec<Process> =
        freezer.pids()?.iter().filter_map(|pid| facts::process(*pid).ok()).collect();
    let mut blockers = judge_mounts(&mounted, mounts);
    let members: BTreeSet<i32> = processes.iter().map(|process| process.pid).collect();
    let inside: BTreeSet<u64> = mounted.iter().map(|mount| mount.id).collect();
    for process in &processes {
        blockers.extend(judge_process(process, &leader, &members));
        blockers.extend(process.descriptors.iter().filter_map(|fd| judge_descriptor(process, fd, &inside)));
    }
    let resident_bytes = processes.iter().map(|process| process.resident_bytes).sum();
    Ok(Report { blockers, processes: processes.len(), resident_bytes })
}

/// Types of file systems that CRIU makes again by itself.
const OWN_MOUNTS: [&str; 7] = ["proc", "sysfs", "devpts", "mqueue", "tmpfs", "cgroup", "cgroup2"];

fn judge_mounts(mounted: &[Mount], provided: &[PathBuf]) -> Vec<Blocker> {
    let is_provided = |mount: &&Mount| mount.point == Path::new("/") || provided.contains(&mount.point);
    // Another mount of a file system that is provided is bound from it.
    let devices: BTreeSet<&str> =
        mounted.iter().filter(is_provided).map(|mount| mount.device.as_str()).collect();
    let foreign = |mount: &&Mount| {
        !devices.contains(mount.device.as_str()) && !OWN_MOUNTS.contains(&mount.kind.as_str())
    };
    let blocker = |mount: &Mount| Blocker::Mount { path: mount.point.clone(), kind: mount.kind.clone() };
    mounted.iter().filter(foreign).map(blocker).collect()
}

fn judge_process(process: &Process, init: &Process, members: &BTreeSet<i32>) -> Vec<Blocker> {
    let name = || process.name.clone();
    let mut blockers = Vec::new();
    if process.tracer != 0 {
        blockers.push(Blocker::Traced { process: name(), by: process.tracer });
    }
    // The init's parent is outside of the container: that is what an init is.
    let born_inside = process.pid == init.pid || members.contains(&process.parent);
    if !born_inside || process.session == 0 {
        blockers.push(Blocker::Entered { process: name() });
    }
    let other = |kind: &&String| process.namespaces.get(*kind) != init.namespaces.get(*kind);
    let own = init.namespaces.keys().filter(other);
    blockers.extend(own.map(|kind| Blocker::Namespace { process: name(), kind: kind.clone() }));
    blockers
}

fn judge_descriptor(process: &Process, fd: &Descriptor, inside: &BTreeSet<u64>) -> Option<Blocker> {
    let process = || process.name.clone();
    if let Some(what) = unsupported(fd) {
        return Some(Blocker::Descriptor { process: process(), what });
    }
    // A memory file is on a mount of the kernel's own.
    let is_file = fd.link.starts_with('/') && !fd.link.starts_with("/memfd:");
    (is_file && !inside.contains(&fd.mount))
        .then(|| Blocker::OutsideFile { process: process(), path: PathBuf::from(&fd.link) })
}

/// Kinds of kernel objects without a name that CRIU can make again.
const CARRIED: [&str; 7] = ["eventfd", "eventpoll", "inotify", "signalfd", "timerfd", "fanotify", "pidfd"];

/// Names what CRIU can't carry.
fn unsupported(fd: &Descriptor) -> Option<String> {
    if let Some(kind) = fd.link.strip_prefix("anon_inode:") {
        let kind = kind.trim_matches(['[', ']']);
        return (!CARRIED.contains(&kind)).then(|| format!("a kernel object of type {kind}"));
    }
    if let Some(socket) = &fd.socket {
        return (!is_carried(socket)).then(|| format!("a socket of {socket}"));
    }
    match fd.device {
        Some(device) if !device.is_carried() => Some(format!("the device {}", fd.link)),
        Some(_) | None => None,
    }
}

/// What CRIU's socket code accepts.
fn is_carried(socket: &SocketFacts) -> bool {
    match socket.family {
        libc::AF_UNIX | libc::AF_NETLINK | libc::AF_PACKET => true,
        libc::AF_INET | libc::AF_INET6 => {
            socket.kind == libc::SOCK_RAW
                || [libc::IPPROTO_TCP, libc::IPPROTO_UDP, libc::IPPROTO_UDPLITE].contains(&socket.protocol)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::facts::Device;
    use super::*;

    fn sample(pid: i32) -> Process {
        Process {
            pid,
            name: Name { pid: pid - 100, command: "prog".into() },
            parent: 101,
            session: 1,
            tracer: 0,
            resident_bytes: 0,
            namespaces: BTreeMap::from([("net".into(), 1), ("user".into(), 2)]),
            descriptors: Vec::new(),
        }
    }

    fn descriptor(link: &str) -> Descriptor {
        Descriptor { link: link.into(), mount: 7, device: None, socket: None }
    }

    #[track_caller]
    fn check_descriptor(fd: &Descriptor, says: Option<&str>) {
        let blocker = judge_descriptor(&sample(105), fd, &BTreeSet::from([7]));
        let text = blocker.map(|blocker| blocker.to_string());
        assert!(
            match (&text, says) {
                (Some(text), Some(says)) => text.contains(says),
                (None, None) => true,
                (Some(_), None) | (None, Some(_)) => false,
            },
            "{fd:?}: {text:?}, expected {says:?}"
        );
    }

    #[test]
    fn descriptors() {
        for carried in ["/etc/hosts", "pipe:[1]", "anon_inode:[eventpoll]", "anon_inode:inotify"] {
            check_descriptor(&descriptor(carried), None);
        }
        check_descriptor(
            &descriptor("anon_inode:[io_uring]"),
            Some("process 5 (prog) uses a kernel object of type io_uring"),
        );
        let elsewhere = |link| Descriptor { mount: 3, ..descriptor(link) };
        check_descriptor(&elsewhere("/dev/pts/4"), Some("/dev/pts/4 open, which is outside"));
        check_descriptor(&elsewhere("/memfd:jit (deleted)"), None);
        let device = |link, major, minor| Descriptor {
            device: Some(Device { block: false, major, minor }),
            ..descriptor(link)
        };
        check_descriptor(&device("/dev/null", 1, 3), None);
        check_descriptor(&device("/dev/pts/0", 136, 0), None);
        check_descriptor(&device("/dev/net/tun", 10, 200), None);
        check_descriptor(&device("/dev/kvm", 10, 232), Some("the device /dev/kvm"));
    }

    #[test]
    fn sockets() {
        let socket = |family, kind, protocol| Descriptor {
            socket: Some(SocketFacts { family, kind, protocol }),
            ..descriptor("socket:[1]")
        };
        check_descriptor(&socket(libc::AF_INET6, libc::SOCK_STREAM, libc::IPPROTO_TCP), None);
        check_descriptor(&socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP), None);
        check_descriptor(&socket(libc::AF_UNIX, libc::SOCK_STREAM, 0), None);
        check_descriptor(&socket(libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_ICMP), Some("a socket of"));
        check_descriptor(&socket(libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_MPTCP), Some("a socket of"));
        check_descriptor(&socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0), Some("a socket of"));
    }

    #[track_caller]
    fn check_process(process: &Process, says: &[&str]) {
        let members = BTreeSet::from([101, 105]);
        let found: Vec<String> =
            judge_process(process, &sample(101), &members).iter().map(ToString::to_string).collect();
        assert_eq!(found.len(), says.len(), "{found:?}");
        assert!(found.iter().zip(says).all(|(found, says)| found.contains(says)), "{found:?}");
    }

    #[test]
    fn processes() {
        check_process(&sample(101), &[]);
        check_process(&sample(105), &[]);
        check_process(&Process { tracer: 55, ..sample(105) }, &["traced by process 55"]);
        check_process(&Process { parent: 9, ..sample(105) }, &["from outside"]);
        check_process(&Process { session: 0, ..sample(105) }, &["from outside"]);
        check_process(&Process { parent: 9, ..sample(101) }, &[]);
        let namespaces = BTreeMap::from([("net".into(), 3), ("user".into(), 2)]);
        check_process(&Process { namespaces, ..sample(105) }, &["a net namespace"]);
    }

    #[test]
    fn mounts() {
        let mount = |id, point: &str, kind: &str, device: &str| Mount {
            id,
            point: point.into(),
            kind: kind.into(),
            device: device.into(),
        };
        let mounted = [
            mount(1, "/", "overlay", "0:40"),
            mount(2, "/proc", "proc", "0:41"),
            mount(3, "/data", "ext4", "8:1"),
            mount(4, "/data/again", "ext4", "8:1"),
            mount(5, "/mnt", "nfs4", "0:50"),
        ];
        let found = judge_mounts(&mounted, &[PathBuf::from("/data")]);
        assert_eq!(found, [Blocker::Mount { path: "/mnt".into(), kind: "nfs4".into() }]);
        assert_eq!(judge_mounts(&mounted, &[]).len(), 3);
    }
}
