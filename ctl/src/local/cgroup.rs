//! The cgroups that the cluster's nodes make their containers' cgroups in: where they are, and removing them
//! with everything that runs in them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::process::{self, Process};

const MOUNT: &str = "/sys/fs/cgroup";

/// How long killed processes and their cgroups may take to go.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where one cluster's cgroups are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// What agents are told, see the agent's configuration.
    pub(crate) configured: String,
    /// The directories that this means, one in each hierarchy.
    pub(crate) dirs: Vec<PathBuf>,
}

/// Finds the place for the cgroup of this name. On a v2 tree it is at the top, because the cgroup we are in
/// holds processes and therefore cannot hold cgroups with controllers; with v1 hierarchies it is below our
/// own, whose limits then hold for the cluster too.
pub(crate) fn place(name: &str) -> Result<Place> {
    if Path::new(MOUNT).join("cgroup.controllers").exists() {
        return Ok(Place { configured: format!("/{name}"), dirs: vec![Path::new(MOUNT).join(name)] });
    }
    let read = |file: &str| fs::read_to_string(file).with_context(|| format!("read {file}"));
    let own = own_dirs(&read("/proc/self/mountinfo")?, &read("/proc/self/cgroup")?);
    Ok(Place { configured: name.to_owned(), dirs: own.into_iter().map(|dir| dir.join(name)).collect() })
}

/// The directories of the cgroup that a process with this `/proc/self/cgroup` is in.
fn own_dirs(mountinfo: &str, own: &str) -> Vec<PathBuf> {
    let mounts = mountinfo.lines().filter_map(cgroup_mount);
    let dir = |(point, options): (&str, &str)| {
        let path = own.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (controllers, path) = (fields.next()?, fields.next()?);
            same_hierarchy(controllers, options).then_some(path)
        })?;
        Some(Path::new(point).join(path.trim_start_matches('/')))
    };
    mounts.filter_map(dir).collect()
}

/// Mount point and options of a cgroup mount; the options of a v2 mount are empty.
fn cgroup_mount(line: &str) -> Option<(&str, &str)> {
    let (left, right) = line.split_once(" - ")?;
    let point = left.split(' ').nth(4)?;
    let mut right = right.split(' ');
    match right.next()? {
        "cgroup" => Some((point, right.nth(1)?)),
        "cgroup2" => Some((point, "")),
        _ => None,
    }
}

/// Whether the controllers of a line in `/proc/self/cgroup` are those of a mount with these options.
fn same_hierarchy(controllers: &str, options: &str) -> bool {
    match controllers {
        "" => options.is_empty(),
        controllers => controllers.split(',').all(|one| options.split(',').any(|option| option == one)),
    }
}

/// Kills everything in these cgroups and the ones below, and removes them. Not having them is success.
pub(crate) fn remove(dirs: &[PathBuf]) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !try_remove(dirs)? {
        if Instant::now() > deadline {
            bail!("the cgroups {dirs:?} can't be removed: something in them does not end");
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// One attempt; says whether nothing is left. All hierarchies are thawed before anything is killed: a
/// process is in all of them, and one that is frozen in any does not die.
fn try_remove(dirs: &[PathBuf]) -> Result<bool> {
    let all: Vec<PathBuf> = dirs.iter().flat_map(|dir| tree(dir)).collect();
    all.iter().for_each(|dir| thaw(dir));
    process::kill(&processes(&all))?;
    for dir in all.iter().rev() {
        match fs::remove_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => return Ok(false),
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("remove {}", dir.display()));
            }
            Ok(()) | Err(_) => {}
        }
    }
    Ok(true)
}

/// A directory and all below it, parents first.
fn tree(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = dir.exists().then(|| dir.to_owned()).into_iter().collect();
    let mut next = 0;
    while let Some(dir) = found.get(next) {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        let below: Vec<PathBuf> = entries
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|e| e.path())
            .collect();
        found.extend(below);
        next += 1;
    }
    found
}

/// Where there is no such file, there is nothing to do.
fn thaw(dir: &Path) {
    for (file, value) in [("freezer.state", "THAWED"), ("cgroup.freeze", "0")] {
        let file = dir.join(file);
        if file.exists() {
            let _ = fs::write(file, value);
        }
    }
}

fn processes(dirs: &[PathBuf]) -> Vec<Process> {
    let lists = dirs.iter().filter_map(|dir| fs::read_to_string(dir.join("cgroup.procs")).ok());
    let pids: Vec<i32> =
        lists.flat_map(|list| list.lines().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect();
    pids.into_iter().filter_map(Process::find).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    const HYBRID_MOUNTS: &str = "\
24 1 0:22 / /proc rw - proc proc rw
30 24 0:26 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
31 24 0:27 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
32 24 0:28 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
33 24 0:29 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw";
    const HYBRID_OWN: &str = "3:memory:/jobs/7\n2:cpu,cpuacct:/\n1:name=systemd:/\n0::/";

    #[test]
    fn every_hierarchy_is_found() {
        let dirs = own_dirs(HYBRID_MOUNTS, HYBRID_OWN);
        let want =
            ["cpu,cpuacct", "memory/jobs/7", "systemd", "unified"].map(|dir| Path::new(MOUNT).join(dir));
        assert_eq!(dirs, want);
    }

    #[test]
    fn nothing_to_remove_is_removed() {
        remove(&[Path::new(MOUNT).join("dray-there-is-no-such-cgroup")]).unwrap();
    }

    #[test]
    fn everything_in_a_cgroup_goes_with_it() {
        let place = place(&format!("dray-test-{}", std::process::id())).unwrap();
        let dirs: Vec<PathBuf> = place.dirs.iter().map(|dir| dir.join("node-1/inner")).collect();
        dirs.iter().for_each(|dir| fs::create_dir_all(dir).unwrap());
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        for dir in &dirs {
            // A cpuset hierarchy takes no process before it has CPUs; one is enough for the test.
            let _ = fs::write(dir.join("cgroup.procs"), child.id().to_string());
        }
        for dir in dirs.iter().filter(|dir| dir.join("freezer.state").exists()) {
            fs::write(dir.join("freezer.state"), "FROZEN").unwrap();
        }
        let removed = remove(&place.dirs);
        // The child is ours to collect, whatever became of it.
        child.kill().unwrap();
        assert!(!child.wait().unwrap().success());
        removed.unwrap();
        assert!(place.dirs.iter().all(|dir| !dir.exists()));
    }
}
