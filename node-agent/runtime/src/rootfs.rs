//! The container's mounts that are made outside of it, as detached mounts: overlay root, tmpfs, binds, cgroup.
//!
//! Works as the node's root, in the shim. The results are plain file descriptors: init attaches them in its own mount
//! namespace, a restore attaches them where CRIU finds them. Nothing becomes visible on the node.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, mkdirat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, open_tree,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::bundle::Bundle;
use crate::cgroup::{Cgroup, Hierarchy};
use crate::devices::{DeviceError, fill_dev};
use crate::mounts::{KernelFs, MountKind, MountPlan, MountPlanError, plan_mounts};
use crate::namespaces::{IdmapNamespace, NamespaceError};
use crate::overlay::{Layer, Overlay, OverlayError};
use crate::shim::state::Backing;
use crate::sys::{Depth, MountAttr, mount_setattr};

/// A mount couldn't be made.
#[derive(Debug, Error)]
pub(crate) enum RootfsError {
    #[error(transparent)]
    Plan(#[from] MountPlanError),
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    #[error("fill /dev")]
    Devices(#[from] DeviceError),
    #[error("create {path}")]
    Create {
        path: PathBuf,
        #[source]
        cause: io::Error,
    },
    #[error("{what} {path}")]
    Mount {
        what: &'static str,
        path: PathBuf,
        #[source]
        cause: io::Error,
    },
    #[error(transparent)]
    Overlay(#[from] OverlayError),
}

/// Attributes of everything that holds no programs and no devices.
const INERT: u64 = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;

/// One mount below the root.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Step {
    /// Where the container sees it.
    pub destination: PathBuf,
    pub what: What,
}

/// How a mount comes to be.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum What {
    /// It is there, detached, and only wants attaching.
    Attach(Backing),
    /// It shows a namespace, so init makes it.
    Make {
        fs: KernelFs,
        /// `MOUNT_ATTR_*` flags.
        attributes: u64,
        data: Vec<(String, Option<String>)>,
    },
}

/// What is mounted below the root, in this order, and the detached mounts for those steps that attach one.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    pub steps: Vec<Step>,
    pub mounts: Vec<OwnedFd>,
}

impl Steps {
    fn attach(&mut self, destination: PathBuf, backing: Backing, mount: OwnedFd) {
        self.steps.push(Step { destination, what: What::Attach(backing) });
        self.mounts.push(mount);
    }
}

/// A container's file system, in pieces.
#[derive(Debug)]
pub(crate) struct Rootfs {
    /// The overlay.
    pub root: OwnedFd,
    /// What goes below it.
    pub below: Steps,
    /// An empty read-only directory, for masked ones.
    pub empty: OwnedFd,
}

/// Makes everything that `bundle` asks for, with the ids of `userns`.
pub(crate) fn prepare(bundle: &Bundle, userns: Option<BorrowedFd<'_>>) -> Result<Rootfs, RootfsError> {
    Ok(Rootfs {
        root: overlay(bundle, userns)?,
        below: prepare_steps(bundle, userns)?,
        empty: empty_dir(bundle)?,
    })
}

/// The overlay alone, for a restore.
pub(crate) fn prepare_root(bundle: &Bundle) -> Result<OwnedFd, RootfsError> {
    let userns = bundle.idmap.map(IdmapNamespace::new).transpose()?;
    overlay(bundle, userns.as_ref().map(AsFd::as_fd))
}

/// All but the overlay, whose upper directory may still be filled: an overlay must not be mounted then. Also an empty
/// directory, for masked ones.
pub(crate) fn prepare_mounts(bundle: &Bundle) -> Result<(Steps, OwnedFd), RootfsError> {
    let userns = bundle.idmap.map(IdmapNamespace::new).transpose()?;
    Ok((prepare_steps(bundle, userns.as_ref().map(AsFd::as_fd))?, empty_dir(bundle)?))
}

fn prepare_steps(bundle: &Bundle, userns: Option<BorrowedFd<'_>>) -> Result<Steps, RootfsError> {
    let plans = plan_mounts(bundle.spec.mounts().as_deref().unwrap_or_default())?;
    let mut steps = Steps::default();
    plans.into_iter().try_for_each(|plan| prepare_mount(bundle, plan, userns, &mut steps))?;
    Ok(steps)
}

fn empty_dir(bundle: &Bundle) -> Result<OwnedFd, RootfsError> {
    let data = [("mode".to_owned(), Some("555".to_owned())), ("size".to_owned(), Some("4k".to_owned()))];
    tmpfs(Path::new("(masked)"), &data, libc::MOUNT_ATTR_RDONLY | INERT, bundle.root_id())
}

fn prepare_mount(
    bundle: &Bundle,
    plan: MountPlan,
    userns: Option<BorrowedFd<'_>>,
    steps: &mut Steps,
) -> Result<(), RootfsError> {
    let owner = bundle.root_id();
    let mount = match &plan.kind {
        MountKind::Kernel(fs) => {
            let what = What::Make { fs: *fs, attributes: plan.attributes, data: plan.data };
            steps.steps.push(Step { destination: plan.destination, what });
            return Ok(());
        }
        MountKind::Cgroup => return cgroup_mounts(&bundle.cgroup, &plan, owner, steps),
        MountKind::Tmpfs => tmpfs(&plan.destination, &plan.data, plan.attributes, owner)?,
        MountKind::Devices => devices(bundle, &plan)?,
        MountKind::Bind { source, recursive, idmapped } => {
            let attr = MountAttr { set: plan.attributes, ..MountAttr::default() };
            let attr = with_idmap(attr, userns.filter(|_| *idmapped));
            bind(source, *recursive, attr)?
        }
    };
    let backing = plan.backing().unwrap_or(Backing::Bind);
    steps.attach(plan.destination, backing, mount);
    Ok(())
}

/// The overlay over all layers, with the ids of `userns`.
fn overlay(bundle: &Bundle, userns: Option<BorrowedFd<'_>>) -> Result<OwnedFd, RootfsError> {
    make_dir(&bundle.upper_dir(), 0o755)?;
    make_dir(&bundle.work_dir(), 0o700)?;
    let read_only = MountAttr { set: libc::MOUNT_ATTR_RDONLY, ..MountAttr::default() };
    let layer = |path: &PathBuf, attr| Ok(Layer { path: path.clone(), mount: bind(path, false, attr)? });
    let lower = |path: &PathBuf| layer(path, with_idmap(read_only, userns));
    let layers = bundle.layers.iter().map(lower).collect::<Result<Vec<_>, RootfsError>>()?;
    let writable = layer(&bundle.writable_dir, idmap_attr(userns))?;
    Ok(Overlay { layers, writable, owner: bundle.root_id() }.mount()?)
}

/// A detached copy of the mount at `path`.
fn bind(path: &Path, recursive: bool, attr: MountAttr) -> Result<OwnedFd, RootfsError> {
    let failed = |what| move |cause: io::Error| RootfsError::Mount { what, path: path.to_owned(), cause };
    let depth = if recursive { OpenTreeFlags::AT_RECURSIVE } else { OpenTreeFlags::empty() };
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | depth;
    let mount = open_tree(CWD, path, flags).map_err(io::Error::from).map_err(failed("open"))?;
    mount_setattr(mount.as_fd(), MountAttr { propagation: libc::MS_PRIVATE, ..attr }, Depth::Tree)
        .map_err(failed("set up"))?;
    Ok(mount)
}

/// Forbids writing.
pub(crate) fn set_read_only(mount: BorrowedFd<'_>, depth: Depth) -> io::Result<()> {
    mount_setattr(mount, MountAttr { set: libc::MOUNT_ATTR_RDONLY, ..MountAttr::default() }, depth)
}

fn with_idmap(attr: MountAttr, userns: Option<BorrowedFd<'_>>) -> MountAttr {
    let idmap = idmap_attr(userns);
    MountAttr { set: attr.set | idmap.set, userns_fd: idmap.userns_fd, ..attr }
}

fn idmap_attr(userns: Option<BorrowedFd<'_>>) -> MountAttr {
    userns.map_or(MountAttr::default(), |fd| MountAttr {
        set: libc::MOUNT_ATTR_IDMAP,
        userns_fd: u64::from(fd.as_raw_fd().unsigned_abs()),
        ..MountAttr::default()
    })
}

/// A new tmpfs, owned by `owner` unless its options say otherwise.
fn tmpfs(
    destination: &Path,
    data: &[(String, Option<String>)],
    attributes: u64,
    owner: u32,
) -> Result<OwnedFd, RootfsError> {
    let make = || {
        let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        for key in ["uid", "gid"] {
            fsconfig_set_string(&context, key, owner.to_string())?;
        }
        set_data(&context, data, owner)?;
        fsconfig_create(&context)?;
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attribute_flags(attributes))
    };
    make().map_err(|errno: Errno| RootfsError::Mount {
        what: "make the tmpfs for",
        path: destination.to_owned(),
        cause: errno.into(),
    })
}

/// Sets a file system's own options. Ids are the container's, so they are moved into its range (which starts at `base`).
pub(crate) fn set_data(context: &OwnedFd, data: &[(String, Option<String>)], base: u32) -> Result<(), Errno> {
    for (key, value) in data {
        match (key.as_str(), value) {
            ("uid" | "gid", Some(id)) => {
                let id: u32 = id.parse().map_err(|_| Errno::INVAL)?;
                fsconfig_set_string(context, key, id.saturating_add(base).to_string())?;
            }
            (_, Some(value)) => fsconfig_set_string(context, key, value)?,
            (_, None) => fsconfig_set_flag(context, key)?,
        }
    }
    Ok(())
}

/// The flags as the wrapper's type; the kernel's numbers are the same.
pub(crate) fn attribute_flags(attributes: u64) -> MountAttrFlags {
    MountAttrFlags::from_bits_retain(u32::try_from(attributes).unwrap_or(u32::MAX))
}

fn devices(bundle: &Bundle, plan: &MountPlan) -> Result<OwnedFd, RootfsError> {
    let mount = tmpfs(&plan.destination, &plan.data, plan.attributes, bundle.root_id())?;
    let extra = bundle.spec.linux().as_ref().and_then(|linux| linux.devices().as_deref()).unwrap_or_default();
    fill_dev(mount.as_fd(), extra, bundle.root_id())?;
    Ok(mount)
}

/// The container's own cgroup, read-only: the v2 directory itself, or a tmpfs with one directory per v1 hierarchy.
fn cgroup_mounts(
    cgroup: &Cgroup,
    plan: &MountPlan,
    owner: u32,
    steps: &mut Steps,
) -> Result<(), RootfsError> {
    let attr = MountAttr { set: plan.attributes | libc::MOUNT_ATTR_RDONLY | INERT, ..MountAttr::default() };
    let mut push = |destination, mount| steps.attach(destination, Backing::Bind, mount);
    if let Some(only) = cgroup.unified() {
        push(plan.destination.clone(), bind(&only.dir, false, attr)?);
        return Ok(());
    }
    let named: Vec<(&Hierarchy, &OsStr)> =
        cgroup.hierarchies.iter().filter_map(|h| Some((h, h.mount_point.file_name()?))).collect();
    let data = [("mode".to_owned(), Some("755".to_owned())), ("size".to_owned(), Some("64k".to_owned()))];
    let directory = tmpfs(&plan.destination, &data, INERT, owner)?;
    for (_, name) in &named {
        let made = mkdirat(&directory, *name, Mode::from_raw_mode(0o555));
        made.map_err(|errno| RootfsError::Create { path: plan.destination.join(name), cause: errno.into() })?;
    }
    set_read_only(directory.as_fd(), Depth::One).map_err(|cause| RootfsError::Mount {
        what: "make read-only",
        path: plan.destination.clone(),
        cause,
    })?;
    push(plan.destination.clone(), directory);
    for (hierarchy, name) in named {
        push(plan.destination.join(name), bind(&hierarchy.dir, false, attr)?);
    }
    Ok(())
}

fn make_dir(path: &Path, mode: u32) -> Result<(), RootfsError> {
    let made = fs::DirBuilder::new().recursive(true).mode(mode).create(path);
    made.map_err(|cause| RootfsError::Create { path: path.to_owned(), cause })
}
