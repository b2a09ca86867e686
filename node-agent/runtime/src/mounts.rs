//! Reads the OCI specification's mounts into values: what to mount, where, with which attributes. Decides, mounts nothing.

use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::Mount;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::shim::state::Backing;

/// One mount of a container, below its root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MountPlan {
    /// Absolute, as the container sees it, without `..`.
    pub destination: PathBuf,
    pub kind: MountKind,
    /// `MOUNT_ATTR_*` flags.
    pub attributes: u64,
    /// The file system's own options.
    pub data: Vec<(String, Option<String>)>,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MountKind {
    /// Made by init in its own namespaces.
    Kernel(KernelFs),
    /// Made by the shim, content carried in a migration.
    Tmpfs,
    /// `/dev`: a tmpfs of device nodes, made by the shim.
    Devices,
    /// The container's own cgroup, read-only.
    Cgroup,
    /// A file or directory of the node.
    Bind { source: PathBuf, recursive: bool, idmapped: bool },
}

/// A file system that shows a namespace, and so must be mounted from inside of it. CRIU mounts these anew itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum KernelFs {
    Proc,
    Sysfs,
    Devpts,
    Mqueue,
}

impl KernelFs {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Proc => "proc",
            Self::Sysfs => "sysfs",
            Self::Devpts => "devpts",
            Self::Mqueue => "mqueue",
        }
    }
}

/// A mount that the specification asks for, and that we can't make.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum MountPlanError {
    #[error("mount destination {0:?} is no absolute path without `..`")]
    Destination(PathBuf),
    #[error("mount {destination:?}: unknown option {option:?}")]
    Option { destination: PathBuf, option: String },
    #[error("mount {destination:?}: unknown type {kind:?}")]
    Type { destination: PathBuf, kind: String },
    #[error("mount {0:?}: a bind mount needs an absolute source")]
    Source(PathBuf),
}

/// Reads all mounts, in the order given.
pub(crate) fn plan_mounts(mounts: &[Mount]) -> Result<Vec<MountPlan>, MountPlanError> {
    mounts.iter().map(plan_mount).collect()
}

impl MountPlan {
    /// What CRIU must know about it; `None` if it is CRIU's own to mount.
    pub(crate) fn backing(&self) -> Option<Backing> {
        match &self.kind {
            MountKind::Kernel(_) => None,
            MountKind::Tmpfs => Some(Backing::Tmpfs),
            MountKind::Devices => Some(Backing::Devices),
            MountKind::Cgroup | MountKind::Bind { .. } => Some(Backing::Bind),
        }
    }
}

fn plan_mount(mount: &Mount) -> Result<MountPlan, MountPlanError> {
    let destination = check_destination(mount.destination())?;
    let options = Options::read(mount.options().as_deref().unwrap_or_default());
    let kind = kind_of(mount, &destination, &options)?;
    let takes_data =
        matches!(kind, MountKind::Tmpfs | MountKind::Devices | MountKind::Kernel(KernelFs::Devpts));
    if let (false, Some((option, _))) = (takes_data, options.data.first()) {
        return Err(MountPlanError::Option { destination, option: option.clone() });
    }
    Ok(MountPlan { destination, kind, attributes: options.attributes, data: options.data })
}

fn check_destination(path: &Path) -> Result<PathBuf, MountPlanError> {
    let valid = path.is_absolute()
        && path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)))
        && path.components().count() > 1;
    // Collecting the components drops double and trailing slashes.
    if valid { Ok(path.components().collect()) } else { Err(MountPlanError::Destination(path.to_owned())) }
}

fn kind_of(mount: &Mount, destination: &Path, options: &Options) -> Result<MountKind, MountPlanError> {
    let kind = mount.typ().as_deref().unwrap_or_default();
    if options.bind.is_some() || kind == "bind" {
        let source = mount.source().clone().filter(|source| source.is_absolute());
        let source = source.ok_or_else(|| MountPlanError::Source(destination.to_owned()))?;
        let recursive = options.bind == Some(BindDepth::Tree);
        return Ok(MountKind::Bind { source, recursive, idmapped: options.idmapped });
    }
    match kind {
        "proc" => Ok(MountKind::Kernel(KernelFs::Proc)),
        "sysfs" => Ok(MountKind::Kernel(KernelFs::Sysfs)),
        "devpts" => Ok(MountKind::Kernel(KernelFs::Devpts)),
        "mqueue" => Ok(MountKind::Kernel(KernelFs::Mqueue)),
        "cgroup" | "cgroup2" => Ok(MountKind::Cgroup),
        "tmpfs" if destination == Path::new("/dev") => Ok(MountKind::Devices),
        "tmpfs" => Ok(MountKind::Tmpfs),
        other => Err(MountPlanError::Type { destination: destination.to_owned(), kind: other.to_owned() }),
    }
}

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum BindDepth {
    One,
    Tree,
}

#[derive(Debug, Default)]
struct Options {
    attributes: u64,
    bind: Option<BindDepth>,
    idmapped: bool,
    data: Vec<(String, Option<String>)>,
}

impl Options {
    /// Sorts the option words. Propagation is always private here, so its words say nothing; what is left over belongs
    /// to the file system.
    fn read(words: &[String]) -> Self {
        let mut options = Self::default();
        for word in words {
            match word.as_str() {
                "ro" => options.attributes |= libc::MOUNT_ATTR_RDONLY,
                "nosuid" => options.attributes |= libc::MOUNT_ATTR_NOSUID,
                "nodev" => options.attributes |= libc::MOUNT_ATTR_NODEV,
                "noexec" => options.attributes |= libc::MOUNT_ATTR_NOEXEC,
                "noatime" => options.attributes |= libc::MOUNT_ATTR_NOATIME,
                "nodiratime" => options.attributes |= libc::MOUNT_ATTR_NODIRATIME,
                "strictatime" => options.attributes |= libc::MOUNT_ATTR_STRICTATIME,
                "bind" => options.bind = Some(BindDepth::One),
                "rbind" => options.bind = Some(BindDepth::Tree),
                "idmap" | "ridmap" => options.idmapped = true,
                "rw" | "suid" | "dev" | "exec" | "relatime" | "defaults" | "newinstance" => {}
                "private" | "rprivate" | "slave" | "rslave" => {}
                other => options.data.push(split_data(other)),
            }
        }
        options
    }
}

fn split_data(word: &str) -> (String, Option<String>) {
    match word.split_once('=') {
        Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
        None => (word.to_owned(), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Mount {
        let json = serde_json::json!({
            "destination": destination, "type": kind, "source": source, "options": options,
        });
        serde_json::from_value(json).expect("a mount")
    }

    #[test]
    fn the_default_mounts_are_understood() {
        let plans = plan_mounts(&oci_spec::runtime::get_default_mounts()).expect("plan");
        let kinds: Vec<_> =
            plans.iter().map(|p| format!("{} {:?}", p.destination.display(), p.kind)).collect();
        assert_eq!(
            kinds,
            [
                "/proc Kernel(Proc)",
                "/dev Devices",
                "/dev/pts Kernel(Devpts)",
                "/dev/shm Tmpfs",
                "/dev/mqueue Kernel(Mqueue)",
                "/sys Kernel(Sysfs)",
                "/sys/fs/cgroup Cgroup",
            ]
        );
        assert_eq!(
            plans[3].data,
            [("mode".into(), Some("1777".into())), ("size".into(), Some("65536k".into()))]
        );
    }

    #[test]
    fn a_bind_mount_keeps_source_and_attributes() {
        let plan =
            plan_mount(&mount("//data/", "none", "/srv/x", &["rbind", "ro", "nosuid", "idmap", "rprivate"]));
        assert_eq!(
            plan,
            Ok(MountPlan {
                destination: "/data".into(),
                kind: MountKind::Bind { source: "/srv/x".into(), recursive: true, idmapped: true },
                attributes: libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID,
                data: vec![],
            })
        );
    }

    #[test]
    fn what_can_not_be_mounted_is_refused_by_name() {
        let refusals = [
            (mount("data", "tmpfs", "", &[]), "mount destination \"data\" is no absolute path without `..`"),
            (mount("/", "tmpfs", "", &[]), "mount destination \"/\" is no absolute path without `..`"),
            (
                mount("/a/../b", "tmpfs", "", &[]),
                "mount destination \"/a/../b\" is no absolute path without `..`",
            ),
            (mount("/a", "ext4", "/dev/vda", &[]), "mount \"/a\": unknown type \"ext4\""),
            (mount("/a", "bind", "x", &[]), "mount \"/a\": a bind mount needs an absolute source"),
            (mount("/a", "bind", "/x", &["size=1"]), "mount \"/a\": unknown option \"size\""),
        ];
        for (mount, expected) in refusals {
            assert_eq!(plan_mount(&mount).expect_err("refused").to_string(), expected);
        }
    }
}
