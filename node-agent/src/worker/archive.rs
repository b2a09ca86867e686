//! What a container takes along: a note, its checkpoint, its own files, and
//! what is in its tmpfs mounts.

use super::send::{fresh_dir, images_dir};
use crate::context::{Context, runtime_id};
use crate::failpoint;
use crate::transfer::{Reader, Sender};
use anyhow::{Context as _, Result, bail};
use container_checkpoint::files;
use container_runtime::{Adopted, Backing, State};
use dray_model::ids::InstanceId;
use serde::{Deserialize, Serialize};
use std::fmt;
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

/// One part of what is carried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Archive {
    /// [`Carried`] as JSON.
    Note,
    /// CRIU's images.
    Checkpoint,
    /// The overlay's upper directory.
    Files,
    /// The tmpfs that the container sees at a path.
    Tmpfs(PathBuf),
}

impl fmt::Display for Archive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Archive::Note => f.write_str("note"),
            Archive::Checkpoint => f.write_str("checkpoint"),
            Archive::Files => f.write_str("files"),
            Archive::Tmpfs(path) => write!(f, "tmpfs:{}", path.display()),
        }
    }
}

impl std::str::FromStr for Archive {
    type Err = anyhow::Error;
    fn from_str(name: &str) -> Result<Self> {
        match name.split_once(':') {
            Some(("tmpfs", path)) => Ok(Archive::Tmpfs(path.into())),
            None if name == "note" => Ok(Archive::Note),
            None if name == "checkpoint" => Ok(Archive::Checkpoint),
            None if name == "files" => Ok(Archive::Files),
            Some(_) | None => bail!("the source sends {name:?}, which this version doesn't know"),
        }
    }
}

/// Sends everything of a frozen container.
pub(super) fn pack(context: &Context, id: &InstanceId, note: &Carried, sender: &mut Sender) -> Result<()> {
    let mut writer = sender.archive("note");
    serde_json::to_writer(&mut writer, note)?;
    writer.flush()?;
    Handle::current().block_on(failpoint::reach(&context.config.name, "source-sending"))?;
    let state = state(context, id)?;
    let tmpfs = state.externals.iter().filter(|external| external.backing == Backing::Tmpfs);
    let tmpfs = tmpfs.map(|external| Archive::Tmpfs(external.path.clone()));
    for archive in [Archive::Checkpoint, Archive::Files].into_iter().chain(tmpfs) {
        let dir = source_dir(context, id, &state, &archive)?;
        let name = archive.to_string();
        let mut writer = sender.archive(&name);
        files::pack(&dir, &mut writer).with_context(|| format!("send {name}"))?;
        writer.flush()?;
    }
    Ok(())
}

fn source_dir(context: &Context, id: &InstanceId, state: &State, archive: &Archive) -> Result<PathBuf> {
    match archive {
        Archive::Note | Archive::Checkpoint => Ok(images_dir(context, id)),
        Archive::Files => Ok(upper_dir(context, id)),
        // As the frozen container sees it; its root can't be left through a
        // link, because the mount's own root is opened.
        Archive::Tmpfs(path) => {
            let init = state.init.context("the container has no init")?.pid;
            Ok(below(&format!("/proc/{init}/root"), path))
        }
    }
}

/// Writes one part where the restore looks for it.
pub(crate) fn unpack(
    context: &Context,
    id: &InstanceId,
    archive: &Archive,
    mut reader: Reader,
) -> Result<Option<Carried>> {
    match archive {
        Archive::Note => {
            let mut note = Vec::new();
            reader.take(NOTE_BYTES_MAX).read_to_end(&mut note)?;
            return Ok(Some(serde_json::from_slice(&note).context("understand the source's note")?));
        }
        Archive::Checkpoint => {
            let dir = images_dir(context, id);
            fresh_dir(&dir)?;
            files::unpack(&mut reader, &dir)?;
            give(&dir, group(context, id)?)?;
        }
        Archive::Files => {
            let dir = upper_dir(context, id);
            fresh_dir(&dir)?;
            files::unpack(&mut reader, &dir)?;
        }
        Archive::Tmpfs(path) => {
            let state = state(context, id)?;
            let external = state.externals.iter().find(|external| external.path == *path);
            let staged = external
                .filter(|external| external.backing == Backing::Tmpfs)
                .and_then(|e| e.staged.as_ref());
            let staged = staged.with_context(|| format!("there is no tmpfs at {} here", path.display()))?;
            files::unpack(&mut reader, &below(&format!("/proc/{}/root", state.shim.pid), staged))?;
        }
    }
    Ok(None)
}

fn state(context: &Context, id: &InstanceId) -> Result<State> {
    match context.runtime.adopt(&runtime_id(id))? {
        Adopted::Live(_, state) => Ok(*state),
        Adopted::Dead(_) => bail!("its shim is gone"),
    }
}

fn upper_dir(context: &Context, id: &InstanceId) -> PathBuf {
    context.runtime.instance_dir(&runtime_id(id)).join("writable").join("upper")
}

/// An absolute path as another process sees it.
fn below(root: &str, path: &Path) -> PathBuf {
    Path::new(root).join(path.strip_prefix("/").unwrap_or(path))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_archives_survive_the_wire() {
        for archive in [Archive::Note, Archive::Checkpoint, Archive::Files, Archive::Tmpfs("/dev/shm".into())]
        {
            assert_eq!(archive.to_string().parse::<Archive>().unwrap(), archive);
        }
        assert!("pages".parse::<Archive>().is_err());
    }
}
