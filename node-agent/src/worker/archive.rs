//! What a container takes along: a note, its checkpoint, its own files, and
//! what is in its tmpfs mounts.

use super::send::{fresh_dir, images_dir};
use crate::context::{Context, runtime_id};
use crate::failpoint;
use crate::transfer::{Reader, Sender};
use anyhow::{Context as _, Result, bail};
use dray_model::ids::InstanceId;
use serde::{Deserialize, Serialize};
use std::fs::{Permissions, set_permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use tokio::runtime::Handle;

/// The note: what the target must know beside the files.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Carried {
    /// When the source froze it, in Unix µs.
    pub(crate) frozen_us: u64,
}

/// The longest note, in bytes.
const NOTE_BYTES_MAX: u64 = 64 << 10;

/// One part of what is carried, in the order in which they are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Archive {
    /// [`Carried`] as JSON.
    Note,
    /// CRIU's images.
    Checkpoint,
    /// The overlay's upper directory.
    Upper,
}

impl Archive {
    fn name(self) -> &'static str {
        match self {
            Archive::Note => "note",
            Archive::Checkpoint => "checkpoint",
            Archive::Upper => "files",
        }
    }
}

impl std::str::FromStr for Archive {
    type Err = anyhow::Error;
    fn from_str(name: &str) -> Result<Self> {
        let all = [Archive::Note, Archive::Checkpoint, Archive::Upper];
        match all.into_iter().find(|archive| archive.name() == name) {
            Some(archive) => Ok(archive),
            None => bail!("the source sends {name:?}, which this version doesn't know"),
        }
    }
}

/// Sends everything of a frozen container.
pub(super) fn pack(context: &Context, id: &InstanceId, note: &Carried, sender: &mut Sender) -> Result<()> {
    let mut writer = sender.archive(Archive::Note.name());
    serde_json::to_writer(&mut writer, note)?;
    writer.flush()?;
    Handle::current().block_on(failpoint::reach(&context.config.name, "source-sending"))?;
    for archive in [Archive::Checkpoint, Archive::Upper] {
        let dir = dir(context, id, archive);
        let mut writer = sender.archive(archive.name());
        files::pack(&dir, &mut writer).with_context(|| format!("send {}", dir.display()))?;
        writer.flush()?;
    }
    Ok(())
}

/// Writes one part where the restore looks for it.
pub(crate) fn unpack(
    context: &Context,
    id: &InstanceId,
    archive: Archive,
    mut reader: Reader,
) -> Result<Option<Carried>> {
    match archive {
        Archive::Note => {
            let mut note = Vec::new();
            reader.take(NOTE_BYTES_MAX).read_to_end(&mut note)?;
            Ok(Some(serde_json::from_slice(&note).context("understand the source's note")?))
        }
        Archive::Checkpoint => {
            let dir = dir(context, id, archive);
            fresh_dir(&dir)?;
            files::unpack(&mut reader, &dir)?;
            give(&dir, group(context, id)?)?;
            Ok(None)
        }
        Archive::Upper => {
            files::unpack(&mut reader, &dir(context, id, archive))?;
            Ok(None)
        }
    }
}

/// The group of the container's root, as this machine numbers it.
fn group(context: &Context, id: &InstanceId) -> Result<u32> {
    let assignment = context.assignment.borrow().clone();
    let migration =
        assignment.migrations.values().find(|m| m.task.task == id.task && m.task.epoch == id.epoch);
    let ip = migration.context("the migration is over")?.task.ip;
    context.place()?.cidr.id_base(ip).context("the task's address is outside of the cluster's range")
}

/// CRIU's child reads the images first as the node's root without
/// capabilities, then as the container's root; nobody else may.
fn give(dir: &Path, group: u32) -> Result<()> {
    for entry in std::fs::read_dir(dir)? {
        share(&entry?.path(), group, 0o640)?;
    }
    share(dir, group, 0o750)
}

fn share(path: &Path, group: u32, mode: u32) -> Result<()> {
    chown(path, Some(0), Some(group))?;
    Ok(set_permissions(path, Permissions::from_mode(mode))?)
}

fn dir(context: &Context, id: &InstanceId, archive: Archive) -> PathBuf {
    match archive {
        Archive::Note | Archive::Checkpoint => images_dir(context, id),
        Archive::Upper => context.runtime.instance_dir(&runtime_id(id)).join("writable").join("upper"),
    }
}

mod files {
    use std::io::{Read, Write};
    use std::path::Path;
    pub(super) fn pack(dir: &Path, to: &mut dyn Write) -> std::io::Result<()> {
        let mut b = tar::Builder::new(to);
        b.follow_symlinks(false);
        b.append_dir_all(".", dir)?;
        b.finish()
    }
    pub(super) fn unpack(from: &mut dyn Read, dir: &Path) -> std::io::Result<()> {
        let mut a = tar::Archive::new(from);
        a.set_preserve_permissions(true);
        a.set_preserve_ownerships(true);
        a.set_preserve_mtime(true);
        a.unpack(dir)
    }
}
