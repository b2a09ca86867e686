//! Taking a local cluster down: every process, cgroup, mount, namespace and file that it made, and nothing
//! else.
//!
//! It goes by what is there, not by what should be: an interrupted `up`, a crash or a lost record leave
//! nothing behind. Each step is tried whatever became of the others, and all failures are told.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use super::layout::Layout;
use super::process::{self, Process};
use super::state::{Record, lock, lock_file, record_file};
use super::{cgroup, namespaces};

/// How long a daemon may take to end by itself when its data are kept.
const GRACE: Duration = Duration::from_secs(5);

/// What is to be left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leave {
    /// Nothing.
    Nothing,
    /// Data, certificates and configuration, for the next `up`.
    Data,
}

/// Takes down the cluster in this directory, if there is one. Says what it does through `say`.
pub(crate) fn take_down(dir: &Path, leave: Leave, say: &mut dyn FnMut(String)) -> Result<()> {
    let _held = dir.exists().then(|| lock(dir)).transpose()?;
    let mut failures = Vec::new();
    let record = Record::load(dir).unwrap_or_else(|error| {
        failures.push(error);
        None
    });
    let nameless = Layout { dir: dir.to_owned(), schedulers: 0, nodes: 0 };
    let layout = record.as_ref().map_or(nameless, |record| record.layout.clone());
    let cgroups = record.map(|record| record.cgroups).unwrap_or_default();

    say("processes".to_owned());
    failures.extend(stop_recorded(dir, leave).err());
    failures.extend(kill_members(&layout).err());
    failures.extend(cgroup::remove(&cgroups).err());
    say("namespaces and mounts".to_owned());
    failures.extend(namespaces::remove_mount_pins(&layout).err());
    failures.extend(remove_netns(&layout).err());
    failures.extend(namespaces::unmount_below(dir).err());
    // Not before everything is unmounted: what lies below a mount isn't ours to delete.
    if failures.is_empty() {
        say("files".to_owned());
        failures.extend(remove_files(dir, leave).err());
    }
    all_of(failures)
}

/// Ends the processes that were recorded: at once, or gently if they are to find their data again.
fn stop_recorded(dir: &Path, leave: Leave) -> Result<()> {
    let records = member_dirs(dir)?.into_iter().map(|member| member.join("process.json"));
    let recorded: Vec<Process> = records.filter_map(|record| Process::load(&record)).collect();
    match leave {
        Leave::Nothing => process::kill(&recorded),
        Leave::Data => process::stop(&recorded, GRACE),
    }
}

/// Kills everything that is in one of the cluster's namespaces: shims, shells, and daemons that were started
/// but not recorded. A process may start another while it is being killed, so look again until none is left.
fn kill_members(layout: &Layout) -> Result<()> {
    let mut pins = namespaces::find_netns(layout)?;
    pins.extend(entries(&layout.pins())?);
    loop {
        let members = process::members_of(&pins)?;
        if members.is_empty() {
            return Ok(());
        }
        process::kill(&members)?;
    }
}

fn remove_netns(layout: &Layout) -> Result<()> {
    match namespaces::find_netns(layout)?.as_slice() {
        [] => Ok(()),
        pins => all_of(namespaces::remove_netns(pins)?),
    }
}

fn remove_files(dir: &Path, leave: Leave) -> Result<()> {
    let members = member_dirs(dir)?;
    let doomed: Vec<PathBuf> = match leave {
        Leave::Data => {
            let temporary = |member: &PathBuf| ["process.json", "api.sock"].map(|file| member.join(file));
            members.iter().flat_map(temporary).chain([dir.join("ns")]).collect()
        }
        Leave::Nothing => {
            let ours = ["ca", "admin", "logs", "ns"].map(|name| dir.join(name));
            // The record goes last but for the lock: until then a failure can be repaired by trying again.
            members.into_iter().chain(ours).chain([record_file(dir), lock_file(dir)]).collect()
        }
    };
    for path in doomed {
        remove(&path)?;
    }
    if leave == Leave::Nothing {
        // Somebody else's files may be in it; then it stays.
        let _ = fs::remove_dir(dir);
    }
    Ok(())
}

fn remove(path: &Path) -> Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(data) if data.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Directories of members, whatever the cluster's size was.
fn member_dirs(dir: &Path) -> Result<Vec<PathBuf>> {
    let is_member = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let number = name.strip_prefix("scheduler-").or_else(|| name.strip_prefix("node-"));
        number.is_some_and(|number| number.parse::<u8>().is_ok())
    };
    Ok(entries(dir)?.into_iter().filter(is_member).collect())
}

/// What is in a directory; nothing if it isn't there.
fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        found => {
            let found = found.with_context(|| format!("read {}", dir.display()))?;
            Ok(found.filter_map(|entry| Some(entry.ok()?.path())).collect())
        }
    }
}

/// One error out of several.
fn all_of(failures: Vec<anyhow::Error>) -> Result<()> {
    if failures.is_empty() {
        return Ok(());
    }
    let told: Vec<String> = failures.iter().map(|failure| format!("{failure:#}")).collect();
    Err(anyhow!(told.join("; ")))
}
