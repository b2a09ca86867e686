//! Pins of namespaces: the files that keep a member's network and mount namespace alive without a process.
//!
//! Network namespaces are pinned where `ip netns` looks, in the way it does. A node's mount namespace is
//! pinned too: its agent may die and be started again, and must find its `/run` and its containers' mounts
//! as they were. That pin lies in a private mount, because a mount namespace can't be propagated into
//! another one.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context, Result, anyhow};
use container_network::NetNs;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

use super::layout::{Layout, Member, NETNS_DIR, Role};

/// No value for an argument of mount(2).
const NONE: Option<&str> = None;

/// Makes the network namespace that this file stands for, or opens it.
pub(crate) fn ensure_netns(pin: &Path) -> Result<NetNs> {
    let _held = lock_netns_dir()?;
    if is_mount_point(pin)? {
        return Ok(NetNs::open(pin)?);
    }
    ensure_netns_dir()?;
    let namespace = NetNs::create()?;
    bind_namespace(&namespace, pin)?;
    Ok(namespace)
}

/// Removes network namespaces. The last one takes the mount with it that `ip netns` and we need for them; it
/// is made again when it is needed. Tries all, and returns the failures.
pub(crate) fn remove_netns(pins: &[PathBuf]) -> Result<Vec<anyhow::Error>> {
    let _held = lock_netns_dir()?;
    let failures = pins.iter().filter_map(|pin| remove_pin(pin).err()).collect();
    if fs::read_dir(NETNS_DIR).with_context(|| format!("read {NETNS_DIR}"))?.next().is_none() {
        unmount(Path::new(NETNS_DIR))?;
    }
    Ok(failures)
}

/// Several clusters may be made and removed at once.
fn lock_netns_dir() -> Result<Flock<File>> {
    fs::create_dir_all(NETNS_DIR).with_context(|| format!("make {NETNS_DIR}"))?;
    let dir = File::open(NETNS_DIR).with_context(|| format!("open {NETNS_DIR}"))?;
    let locked = Flock::lock(dir, FlockArg::LockExclusive).map_err(|(_, errno)| errno);
    locked.with_context(|| format!("lock {NETNS_DIR}"))
}

/// Removes a pin and its file; not having it is success.
fn remove_pin(pin: &Path) -> Result<()> {
    unmount(pin)?;
    match fs::remove_file(pin) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", pin.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Makes a node's mount namespace if it isn't pinned: a copy of ours in which `/run` is a tmpfs, and from
/// which nothing comes back.
pub(crate) fn ensure_mount_namespace(layout: &Layout, node: Member) -> Result<()> {
    let pin = layout.mount_pin(node);
    if is_mount_point(&pin)? {
        return Ok(());
    }
    ensure_private_mount(&layout.pins())?;
    let namespace = on_thread(make_mount_namespace).context("make a mount namespace")?;
    bind_namespace(&namespace, &pin)
}

/// Removes all pins of mount namespaces and what holds them.
pub(crate) fn remove_mount_pins(layout: &Layout) -> Result<()> {
    let pins = layout.pins();
    let entries = match fs::read_dir(&pins) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.with_context(|| format!("read {}", pins.display()))?,
    };
    for entry in entries {
        remove_pin(&entry?.path())?;
    }
    unmount(&pins)
}

/// Namespaces of one cluster that are there, whatever the cluster's size was.
pub(crate) fn find_netns(layout: &Layout) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(NETNS_DIR) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| format!("read {NETNS_DIR}"))?,
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut found: Vec<_> = names.filter(|name| layout.owns_netns(name)).collect();
    found.sort_unstable();
    Ok(found.into_iter().map(|name| Path::new(NETNS_DIR).join(name)).collect())
}

/// Runs `work` on a thread of its own that is in a member's namespaces. What it starts is there too.
pub(crate) fn inside<T: Send>(
    layout: &Layout,
    member: Member,
    work: impl FnOnce() -> Result<T> + Send,
) -> Result<T> {
    let open = |pin: &Path| File::open(pin).with_context(|| format!("open {}", pin.display()));
    let network = open(&layout.netns(member))?;
    let mounts = match member.role {
        Role::Node => Some(open(&layout.mount_pin(member))?),
        Role::Scheduler | Role::Client => None,
    };
    on_thread(move || {
        setns(&network, CloneFlags::CLONE_NEWNET).with_context(|| format!("join {member}'s network"))?;
        if let Some(mounts) = mounts {
            // A thread shares its root and working directory until it says otherwise.
            unshare(CloneFlags::CLONE_FS).context("leave the process's directories")?;
            setns(&mounts, CloneFlags::CLONE_NEWNS).with_context(|| format!("join {member}'s mounts"))?;
        }
        work()
    })
}

/// Our changes must not reach the machine, and the machine's unmounts must reach us: slave, not private.
fn make_mount_namespace() -> Result<OwnedFd> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_SLAVE, NONE).context("make / a slave")?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), "/run", Some("tmpfs"), flags, Some("mode=0755")).context("mount /run")?;
    Ok(File::open("/proc/thread-self/ns/mnt")?.into())
}

/// What `ip netns add` does: the directory is a shared mount, so that namespaces are removed everywhere at
/// once, and so that its own later preparations change nothing.
fn ensure_netns_dir() -> Result<()> {
    let dir = Path::new(NETNS_DIR);
    let share = || mount(NONE, dir, NONE, MsFlags::MS_SHARED | MsFlags::MS_REC, NONE);
    match share() {
        Err(Errno::EINVAL) => {
            mount(Some(dir), dir, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE)
                .with_context(|| format!("bind {NETNS_DIR}"))?;
            share().with_context(|| format!("share {NETNS_DIR}"))
        }
        shared => shared.with_context(|| format!("share {NETNS_DIR}")),
    }
}

fn ensure_private_mount(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
    if !is_mount_point(dir)? {
        mount(Some(dir), dir, NONE, MsFlags::MS_BIND, NONE)
            .with_context(|| format!("bind {}", dir.display()))?;
    }
    mount(NONE, dir, NONE, MsFlags::MS_PRIVATE, NONE)
        .with_context(|| format!("make {} private", dir.display()))
}

/// Pins an open namespace to a file.
fn bind_namespace(namespace: &impl AsFd, pin: &Path) -> Result<()> {
    File::create(pin).with_context(|| format!("make {}", pin.display()))?;
    let source = format!("/proc/self/fd/{}", namespace.as_fd().as_raw_fd());
    mount(Some(source.as_str()), pin, NONE, MsFlags::MS_BIND, NONE)
        .with_context(|| format!("pin a namespace to {}", pin.display()))
}

/// Unmounts everything that is mounted on a path; nothing being there is success.
fn unmount(path: &Path) -> Result<()> {
    loop {
        match umount2(path, MntFlags::MNT_DETACH) {
            Ok(()) => {}
            Err(Errno::EINVAL | Errno::ENOENT) => return Ok(()),
            Err(errno) => return Err(errno).with_context(|| format!("unmount {}", path.display())),
        }
    }
}

/// Unmounts whatever is mounted below a directory, deepest first. For what a crash left.
pub(crate) fn unmount_below(dir: &Path) -> Result<()> {
    let mut points: Vec<_> = mount_points()?.into_iter().filter(|point| point.starts_with(dir)).collect();
    points.sort_unstable();
    points.iter().rev().try_for_each(|point| unmount(point))
}

fn is_mount_point(path: &Path) -> Result<bool> {
    Ok(mount_points()?.iter().any(|point| point == path))
}

fn mount_points() -> Result<Vec<PathBuf>> {
    let table = fs::read_to_string("/proc/self/mountinfo").context("read /proc/self/mountinfo")?;
    Ok(table.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape).collect())
}

/// The kernel writes space, tab, newline and backslash as octal.
fn unescape(field: &str) -> PathBuf {
    let plain = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    plain.iter().fold(field.to_owned(), |text, (from, to)| text.replace(from, to)).into()
}

/// Runs `work` on a thread of its own, which may leave its namespaces because it ends there.
fn on_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let worker = thread::Builder::new().spawn_scoped(scope, work).context("start a thread")?;
        worker.join().map_err(|_| anyhow!("a thread panicked"))?
    })
}
