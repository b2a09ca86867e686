//! Finds the node's cgroup layout, and the part of it that is ours: a directory below our own cgroup.
//!
//! Parsing is separate from reading, so that the layouts we can't boot here are tables in the tests.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use thiserror::Error;

use super::{Cgroup, Controller, Hierarchy, Version};
use crate::bundle::InstanceId;

/// The leaf that the agent moves itself into on the v2 tree, where a cgroup with children can't hold processes.
const AGENT_LEAF: &str = "dray-agent";

/// The directory below which one agent makes its containers' cgroups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CgroupRoot {
    /// The root itself, seen as a cgroup.
    root: Cgroup,
    /// The caller's own cgroup, the root's ancestor.
    own: Cgroup,
}

/// The cgroup layout couldn't be found out, or not be prepared.
#[derive(Debug, Error)]
pub enum LayoutError {
    /// A file of `/proc/self` couldn't be read.
    #[error("read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// No hierarchy offers what containers need.
    #[error("no cgroup hierarchy with a freezer is mounted")]
    NoFreezer,
    /// The path can't name a cgroup below another.
    #[error("{path:?} can't be the containers' cgroup: it must name a directory, without `.` and `..`")]
    BadPath {
        /// The path.
        path: PathBuf,
    },
    /// A directory or a file below our own cgroup couldn't be written.
    #[error("write {path}")]
    Write {
        /// The directory or file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
}

impl CgroupRoot {
    /// Finds out the layout. Changes nothing. `path` is the root below our own cgroup, for example `dray`; or, with a
    /// leading slash, below the top of each hierarchy.
    ///
    /// On the v2 tree under systemd use the latter: a service's cgroup that hands controllers down can't take its
    /// restarted main process ("Device or resource busy").
    ///
    /// # Errors
    /// When `/proc` can't be read, no freezer is mounted, or `path` is empty or has `.` or `..` in it.
    pub fn discover(path: &Path) -> Result<Self, LayoutError> {
        let read = |path: &str| {
            fs::read_to_string(path).map_err(|cause| LayoutError::Read { path: path.into(), cause })
        };
        let mounts = read("/proc/self/mountinfo")?;
        let mut own = own_cgroup(&mounts, &read("/proc/self/cgroup")?, &offered_by_v2);
        if own.hierarchy(Controller::Freezer).is_none() {
            return Err(LayoutError::NoFreezer);
        }
        if path.is_absolute() {
            own.hierarchies.iter_mut().for_each(|hierarchy| hierarchy.dir = hierarchy.mount_point.clone());
        }
        let relative = path.strip_prefix("/").unwrap_or(path);
        let plain = |part: Component<'_>| matches!(part, Component::Normal(_));
        if relative.as_os_str().is_empty() || !relative.components().all(plain) {
            return Err(LayoutError::BadPath { path: path.to_owned() });
        }
        Ok(Self { root: below(&own, relative), own })
    }

    /// Makes the root's directories and, on the v2 tree, hands the controllers down to it. Safe to repeat.
    ///
    /// On the v2 tree the calling process is moved into a leaf beside the root, because the kernel refuses to hand
    /// controllers down from a cgroup that holds processes.
    ///
    /// # Errors
    /// When a directory can't be made or a control file can't be written.
    pub fn ensure(&self) -> Result<(), LayoutError> {
        for (own, root) in self.own.hierarchies.iter().zip(&self.root.hierarchies) {
            make_dir(&root.dir)?;
            let wanted = delegated(root);
            if !wanted.is_empty() {
                leave_own(own)?;
                delegate(own, root, &wanted)?;
            }
        }
        Ok(())
    }

    /// The cgroup of one container. Makes nothing.
    #[must_use]
    pub fn instance(&self, instance: &InstanceId) -> Cgroup {
        below(&self.root, Path::new(instance.as_str()))
    }

    /// The root seen as a cgroup, for example to remove it.
    #[must_use]
    pub fn cgroup(&self) -> &Cgroup {
        &self.root
    }
}

fn below(cgroup: &Cgroup, relative: &Path) -> Cgroup {
    let deeper = |h: &Hierarchy| Hierarchy { dir: h.dir.join(relative), ..h.clone() };
    Cgroup { hierarchies: cgroup.hierarchies.iter().map(deeper).collect() }
}

fn make_dir(dir: &Path) -> Result<(), LayoutError> {
    fs::create_dir_all(dir).map_err(|cause| LayoutError::Write { path: dir.to_owned(), cause })
}

fn write(path: PathBuf, text: &str) -> Result<(), LayoutError> {
    fs::write(&path, text).map_err(|cause| LayoutError::Write { path, cause })
}

/// The v2 controllers that must be switched on for children of `root`.
fn delegated(root: &Hierarchy) -> String {
    if root.version == Version::V1 {
        return String::new();
    }
    let name = |controller: &Controller| match controller {
        Controller::Cpu => Some("+cpu"),
        Controller::Memory => Some("+memory"),
        Controller::Pids => Some("+pids"),
        Controller::Cpuacct | Controller::Freezer => None,
    };
    root.controllers.iter().filter_map(name).collect::<Vec<_>>().join(" ")
}

/// Moves this process out of `own`, unless `own` is the tree's root, which alone may hold processes and delegate.
fn leave_own(own: &Hierarchy) -> Result<(), LayoutError> {
    if own.dir == own.mount_point {
        return Ok(());
    }
    let leaf = own.dir.join(AGENT_LEAF);
    make_dir(&leaf)?;
    write(leaf.join("cgroup.procs"), "0")
}

/// Switches the controllers on from `own` down to `root`.
fn delegate(own: &Hierarchy, root: &Hierarchy, wanted: &str) -> Result<(), LayoutError> {
    let mut downwards: Vec<&Path> =
        root.dir.ancestors().take_while(|dir| dir.starts_with(&own.dir)).collect();
    downwards.reverse();
    downwards.into_iter().try_for_each(|dir| write(dir.join("cgroup.subtree_control"), wanted))
}

/// The controllers that the v2 tree mounted at `mount_point` has (v1 may hold the others).
fn offered_by_v2(mount_point: &Path) -> String {
    fs::read_to_string(mount_point.join("cgroup.controllers")).unwrap_or_default()
}

/// Our own cgroup from the texts of `/proc/self/mountinfo` and `/proc/self/cgroup`.
fn own_cgroup(mountinfo: &str, memberships: &str, v2_controllers: &dyn Fn(&Path) -> String) -> Cgroup {
    let paths = parse_memberships(memberships);
    let mut hierarchies: Vec<Hierarchy> = Vec::new();
    for mount in mountinfo.lines().filter_map(parse_mount) {
        let mut controllers = match mount.version {
            Version::V1 => v1_controllers(&mount.options),
            Version::V2 => v2_purposes(&v2_controllers(&mount.point)),
        };
        controllers
            .retain(|c| !hierarchies.iter().any(|h| h.version == mount.version && h.controllers.contains(c)));
        let key = if mount.version == Version::V2 { "" } else { mount.first_option() };
        let own = paths.iter().find(|(names, _)| names.split(',').any(|name| name == key));
        if let (Some((_, path)), false) = (own, controllers.is_empty()) {
            let dir = mount.directory_of(path);
            hierarchies.push(Hierarchy {
                version: mount.version,
                controllers,
                mount_point: mount.point,
                dir,
            });
        }
    }
    prefer_v2(&mut hierarchies);
    Cgroup { hierarchies }
}

/// Leaves each controller to one hierarchy only: the v2 tree's, if it has it.
fn prefer_v2(hierarchies: &mut Vec<Hierarchy>) {
    let v2: Vec<Controller> = hierarchies
        .iter()
        .filter(|h| h.version == Version::V2)
        .flat_map(|h| h.controllers.iter().copied())
        .collect();
    for hierarchy in hierarchies.iter_mut().filter(|h| h.version == Version::V1) {
        hierarchy.controllers.retain(|controller| !v2.contains(controller));
    }
    hierarchies.retain(|hierarchy| !hierarchy.controllers.is_empty());
}

/// `/proc/self/cgroup`: controllers (comma-separated, empty for v2) and path, per line.
fn parse_memberships(text: &str) -> BTreeMap<&str, &str> {
    text.lines()
        .filter_map(|line| {
            let (_id, rest) = line.split_once(':')?;
            rest.split_once(':')
        })
        .collect()
}

struct CgroupMount<'a> {
    version: Version,
    /// The part of the hierarchy that is mounted.
    root: &'a str,
    point: PathBuf,
    /// The super block's options: among them the controllers, on v1.
    options: Vec<&'a str>,
}

impl CgroupMount<'_> {
    fn first_option(&self) -> &str {
        self.options.iter().copied().find(|option| v1_controller(option).is_some()).unwrap_or_default()
    }

    /// Where the cgroup `path` is seen through this mount. A leaf that we have moved into before is not where we belong.
    fn directory_of(&self, path: &str) -> PathBuf {
        let path = match self.version {
            Version::V1 => path,
            Version::V2 => path.strip_suffix(AGENT_LEAF).map_or(path, |parent| parent.trim_end_matches('/')),
        };
        let inside = Path::new(path).strip_prefix(self.root).unwrap_or(Path::new(""));
        if inside.as_os_str().is_empty() { self.point.clone() } else { self.point.join(inside) }
    }
}

/// One line of mountinfo, if it is a cgroup hierarchy: `id parent dev root point opts [tags] - type source superopts`.
fn parse_mount(line: &str) -> Option<CgroupMount<'_>> {
    let (left, right) = line.split_once(" - ")?;
    let mut right = right.split(' ');
    let version = match right.next()? {
        "cgroup" => Version::V1,
        "cgroup2" => Version::V2,
        _other => return None,
    };
    let options = right.nth(1).unwrap_or_default().split(',').collect();
    let mut left = left.split(' ').skip(3);
    Some(CgroupMount { version, root: left.next()?, point: PathBuf::from(left.next()?), options })
}

fn v1_controller(option: &str) -> Option<Controller> {
    match option {
        "cpu" => Some(Controller::Cpu),
        "cpuacct" => Some(Controller::Cpuacct),
        "memory" => Some(Controller::Memory),
        "pids" => Some(Controller::Pids),
        "freezer" => Some(Controller::Freezer),
        _other => None,
    }
}

fn v1_controllers(options: &[&str]) -> Vec<Controller> {
    options.iter().filter_map(|option| v1_controller(option)).collect()
}

/// What the v2 tree does for us: freezing always; accounting of CPU time comes with its cpu controller.
fn v2_purposes(offered: &str) -> Vec<Controller> {
    let mut purposes = vec![Controller::Freezer];
    for name in offered.split_whitespace() {
        match name {
            "cpu" => purposes.extend([Controller::Cpu, Controller::Cpuacct]),
            "memory" => purposes.push(Controller::Memory),
            "pids" => purposes.push(Controller::Pids),
            _unused => {}
        }
    }
    purposes
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
37 31 0:34 / /sys/fs/cgroup/freezer rw,relatime - cgroup cgroup rw,freezer
39 31 0:36 / /sys/fs/cgroup/pids rw,relatime shared:9 - cgroup cgroup rw,pids
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";
    const HYBRID_SELF: &str =
        "8:pids:/\n6:freezer:/\n4:memory:/up/me\n1:cpu,cpuacct:/\n9:name=systemd:/\n0::/\n";
    const V2: &str = "25 30 0:22 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";

    fn describe(cgroup: &Cgroup) -> Vec<String> {
        let line = |h: &Hierarchy| format!("{:?} {:?} {}", h.version, h.controllers, h.dir.display());
        cgroup.hierarchies.iter().map(line).collect()
    }

    #[test]
    fn a_hybrid_layout_uses_v1_controllers_and_the_v2_freezer() {
        let cgroup = own_cgroup(HYBRID, HYBRID_SELF, &|_| String::new());
        assert_eq!(
            describe(&cgroup),
            [
                "V1 [Cpu, Cpuacct] /sys/fs/cgroup/cpu,cpuacct",
                "V1 [Memory] /sys/fs/cgroup/memory/up/me",
                "V1 [Pids] /sys/fs/cgroup/pids",
                "V2 [Freezer] /sys/fs/cgroup/unified",
            ]
        );
        assert!(cgroup.unified().is_none());
    }

    #[test]
    fn without_a_v2_mount_the_v1_freezer_is_used() {
        let mounts: String =
            HYBRID.lines().filter(|l| !l.contains("cgroup2")).map(|l| format!("{l}\n")).collect();
        let cgroup = own_cgroup(&mounts, HYBRID_SELF, &|_| String::new());
        assert_eq!(cgroup.freezer_dir(), Some(Path::new("/sys/fs/cgroup/freezer")));
    }

    #[test]
    fn a_pure_v2_layout_is_one_hierarchy_for_everything() {
        let cgroup =
            own_cgroup(V2, "0::/system.slice/dray.service\n", &|_| "cpuset cpu io memory pids\n".into());
        assert_eq!(
            describe(&cgroup),
            ["V2 [Freezer, Cpu, Cpuacct, Memory, Pids] /sys/fs/cgroup/system.slice/dray.service"]
        );
        assert!(cgroup.unified().is_some());
        assert_eq!(delegated(&cgroup.hierarchies[0]), "+cpu +memory +pids");
    }

    #[test]
    fn the_leaf_an_agent_has_moved_into_is_not_its_own_cgroup() {
        for (path, dir) in
            [("/x.service/dray-agent", "/sys/fs/cgroup/x.service"), ("/dray-agent", "/sys/fs/cgroup")]
        {
            let cgroup = own_cgroup(V2, &format!("0::{path}\n"), &|_| "memory".into());
            assert_eq!(cgroup.hierarchies[0].dir, Path::new(dir));
        }
    }

    #[test]
    fn a_mount_of_a_part_is_looked_at_from_that_part() {
        let mounts = "25 30 0:22 /outer /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        let cgroup = own_cgroup(mounts, "0::/outer/inner\n", &|_| "memory".into());
        assert_eq!(cgroup.hierarchies[0].dir, Path::new("/sys/fs/cgroup/inner"));
    }

    #[test]
    fn a_root_that_leads_elsewhere_is_refused() {
        for path in ["", "/", "../up", "a/../../b", "/../x"] {
            let refused = CgroupRoot::discover(Path::new(path));
            assert!(matches!(refused, Err(LayoutError::BadPath { .. })), "{path:?}: {refused:?}");
        }
    }
}
