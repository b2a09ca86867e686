//! The overlay that is a container's root: read-only layers, and one writable directory on top.

use std::env::set_current_dir;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use caps::CapSet;
use nix::unistd::{Gid, Uid, setegid, seteuid};
use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, move_mount, unmount,
};
use thiserror::Error;

use crate::namespaces::ensure_own_mounts;

/// Options that keep an upper directory valid under another overlay of equal layers: nothing in it may depend on inode
/// numbers, file handles or data that stayed in a lower layer.
const MOVABLE: [(&str, &str); 4] =
    [("index", "off"), ("xino", "off"), ("metacopy", "off"), ("redirect_dir", "off")];

/// The kernel takes no longer option.
const OPTION_BYTES_MAX: usize = 255;

/// What an overlay is made of.
#[derive(Debug)]
pub(crate) struct Overlay {
    /// Lowest first.
    pub layers: Vec<Layer>,
    /// Holds the directories `upper` and `work`.
    pub writable: Layer,
    /// The node's id of the container's root.
    pub owner: u32,
}

/// A directory, and a detached mount of it with the ids mapped.
#[derive(Debug)]
pub(crate) struct Layer {
    pub path: PathBuf,
    pub mount: OwnedFd,
}

/// The overlay couldn't be mounted.
#[derive(Debug, Error)]
pub(crate) enum OverlayError {
    #[error("an image needs at least one layer")]
    NoLayers,
    #[error("this kernel (before Linux 6.7) can't mount an image of {0} layers")]
    TooManyLayers(usize),
    #[error("mount the overlay root file system: {step}")]
    Mount {
        step: &'static str,
        #[source]
        cause: io::Error,
    },
}

fn step(step: &'static str) -> impl FnOnce(io::Error) -> OverlayError {
    move |cause| OverlayError::Mount { step, cause }
}

fn failed(step: &'static str) -> impl FnOnce(Errno) -> OverlayError {
    move |errno| OverlayError::Mount { step, cause: errno.into() }
}

impl Layer {
    fn attach(&self) -> Result<(), Errno> {
        move_mount(&self.mount, "", CWD, &self.path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
    }
}

impl Overlay {
    /// Mounts it, detached.
    pub(crate) fn mount(&self) -> Result<OwnedFd, OverlayError> {
        if self.layers.is_empty() {
            return Err(OverlayError::NoLayers);
        }
        match self.mount_with(Self::name_layers_singly) {
            Err(OverlayError::Mount { cause, .. }) if cause.raw_os_error() == Some(libc::EINVAL) => {
                self.mount_on_older_kernel()
            }
            mounted => mounted,
        }
    }

    /// Before Linux 6.15 layers must be attached in our mount namespace, and before 6.7 they can't be named one by one.
    ///
    /// They are attached over their own directories, in a namespace of ours, for as long as it takes: the overlay then has
    /// its own copies of the mounts.
    fn mount_on_older_kernel(&self) -> Result<OwnedFd, OverlayError> {
        ensure_own_mounts().map_err(step("make a mount namespace"))?;
        let all = || self.layers.iter().chain([&self.writable]);
        let attached = all().try_for_each(Layer::attach).map_err(failed("attach the layers"));
        let mounted = attached.and_then(|()| self.mount_with(Self::name_layers_together));
        // Also after an error: nothing else of ours may see the directories with the container's ids. What wasn't
        // attached can't be detached, which is as well.
        for layer in all() {
            let _detached = unmount(&layer.path, UnmountFlags::DETACH);
        }
        mounted
    }

    fn mount_with(
        &self,
        name_layers: impl FnOnce(&Self, &OwnedFd) -> Result<(), OverlayError>,
    ) -> Result<OwnedFd, OverlayError> {
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(failed("open"))?;
        // Paths relative to our own descriptors: they reach detached mounts, and they are short.
        set_current_dir("/proc/self/fd").map_err(step("look at our own descriptors"))?;
        let made = name_layers(self, &context).and_then(|()| self.create(&context));
        set_current_dir("/").map_err(step("leave our own descriptors"))?;
        made?;
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_NODEV)
            .map_err(failed("mount"))
    }

    /// One option per layer (Linux 6.7). The kernel wants the highest first.
    fn name_layers_singly(&self, context: &OwnedFd) -> Result<(), OverlayError> {
        self.layers.iter().rev().try_for_each(|layer| {
            fsconfig_set_string(context, "lowerdir+", layer.mount.as_raw_fd().to_string())
                .map_err(failed("add a layer"))
        })
    }

    /// All layers in one option.
    fn name_layers_together(&self, context: &OwnedFd) -> Result<(), OverlayError> {
        let names: Vec<String> =
            self.layers.iter().rev().map(|layer| layer.mount.as_raw_fd().to_string()).collect();
        let names = names.join(":");
        if names.len() > OPTION_BYTES_MAX {
            return Err(OverlayError::TooManyLayers(self.layers.len()));
        }
        fsconfig_set_string(context, "lowerdir", names).map_err(failed("set the layers"))
    }

    fn create(&self, context: &OwnedFd) -> Result<(), OverlayError> {
        let writable = self.writable.mount.as_raw_fd();
        let set =
            |key: &'static str, value: &str| fsconfig_set_string(context, key, value).map_err(failed(key));
        set("upperdir", &format!("{writable}/upper"))?;
        set("workdir", &format!("{writable}/work"))?;
        MOVABLE.into_iter().try_for_each(|(key, value)| set(key, value))?;
        // With ids mapped, the node's root has no id inside of the upper directory: the mounter must be the container's
        // root, or the kernel can't make the work directory and quietly turns the mount read-only.
        as_owner(self.owner, || fsconfig_create(context)).map_err(failed("create"))
    }
}

/// Calls `act` with the effective ids of `owner` and all capabilities.
fn as_owner<T>(owner: u32, act: impl FnOnce() -> Result<T, Errno>) -> Result<T, Errno> {
    if owner == 0 {
        return act();
    }
    let errno = |errno: nix::Error| Errno::from_raw_os_error(errno as i32);
    setegid(Gid::from_raw(owner)).map_err(errno)?;
    seteuid(Uid::from_raw(owner)).map_err(errno)?;
    // Leaving uid 0 took the effective capabilities; the permitted ones stayed.
    let raised = caps::read(None, CapSet::Permitted).and_then(|all| caps::set(None, CapSet::Effective, &all));
    let result = raised.map_err(|_| Errno::PERM).and_then(|()| act());
    seteuid(Uid::from_raw(0)).map_err(errno)?;
    setegid(Gid::from_raw(0)).map_err(errno)?;
    result
}
