//! Finding CRIU, and asking it what it is.

use std::env;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::cache::{CacheError, KernelCache};
use super::rpc::{Features, Kind, Request};
use super::session::{Place, Session, SessionError};

/// Names CRIU, before anything else is tried.
pub const ENVIRONMENT: &str = "DRAY_CRIU";

/// Where `deploy/setup-host.sh` puts it.
const INSTALLED: &str = "/opt/dray/criu/criu";

/// The oldest version whose notifications and options are those this crate uses.
const OLDEST: Version = Version { major: 4, minor: 0, sublevel: 0 };

/// CRIU on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Criu {
    program: PathBuf,
    cache: KernelCache,
}

/// CRIU can't be used.
#[derive(Debug, Error)]
pub enum CriuError {
    /// It isn't there.
    #[error("no CRIU at {tried}: run deploy/setup-host.sh, or set {ENVIRONMENT}")]
    Missing {
        /// Where it was looked for.
        tried: String,
    },
    /// It doesn't answer.
    #[error("ask {program} what it is")]
    Ask {
        /// The program.
        program: PathBuf,
        /// Why not.
        #[source]
        cause: SessionError,
    },
    /// It is too old.
    #[error("{program} is CRIU {version}; {OLDEST} or later is needed: run deploy/setup-host.sh")]
    Old {
        /// The program.
        program: PathBuf,
        /// Its version.
        version: Version,
    },
}

/// A version of CRIU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The first number.
    pub major: i32,
    /// The second number.
    pub minor: i32,
    /// The third number.
    pub sublevel: i32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.sublevel)
    }
}

/// What CRIU and the kernel can do together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Description {
    /// CRIU's version.
    pub version: Version,
    /// Changed pages can be tracked by soft-dirty: pre-dumps work.
    pub track_memory: bool,
    /// Pages can be served after a restore.
    pub lazy_pages: bool,
}

impl Criu {
    /// Looks for CRIU: `DRAY_CRIU`, `/opt/dray/criu/criu`, then `criu` in `PATH`.
    ///
    /// # Errors
    /// When there is none; the text says what to run.
    pub fn find() -> Result<Self, CriuError> {
        let mut tried = Vec::new();
        for program in candidates() {
            if program.is_file() {
                return Ok(Self::at(program));
            }
            tried.push(program.display().to_string());
        }
        Err(CriuError::Missing { tried: tried.join(", ") })
    }

    /// The CRIU at `program`.
    #[must_use]
    pub fn at(program: PathBuf) -> Self {
        Self { program, cache: KernelCache::default() }
    }

    /// The program.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Makes sure that CRIU's probing of the kernel (30 to 45 ms) is cached for the starts to come. Worth doing once
    /// when an agent starts, and before a restore.
    ///
    /// # Errors
    /// When CRIU can't be asked or the cache can't be kept; everything works without, only slower.
    pub fn warm(&mut self) -> Result<(), CacheError> {
        self.cache = KernelCache::warm(&self.program)?;
        Ok(())
    }

    /// Starts CRIU in `place`. It waits there for a request.
    ///
    /// # Errors
    /// When the place can't be opened or the program can't be started.
    pub fn start(&self, place: Place) -> Result<Session, SessionError> {
        let mut setup = place.setup()?;
        setup.mounts.extend(self.cache.mount());
        Session::start(&self.program, setup)
    }

    /// Asks for version and features.
    ///
    /// # Errors
    /// When CRIU doesn't start, or is too old.
    pub fn describe(&self) -> Result<Description, CriuError> {
        let ask = |cause: SessionError| CriuError::Ask { program: self.program.clone(), cause };
        let mut session = self.start(Place::default()).map_err(ask)?;
        let request = Request { keep_open: Some(true), ..Request::of(Kind::Version) };
        let numbers = session.call(&request).map_err(ask)?.version.unwrap_or_default();
        let version =
            Version { major: numbers.major, minor: numbers.minor, sublevel: numbers.sublevel.unwrap_or(0) };
        if version < OLDEST {
            return Err(CriuError::Old { program: self.program.clone(), version });
        }
        let features = session.call(&feature_check()).map_err(ask)?.features.unwrap_or_default();
        Ok(Description {
            version,
            track_memory: features.mem_track.unwrap_or(false),
            lazy_pages: features.lazy_pages.unwrap_or(false),
        })
    }
}

/// A feature check, which also makes CRIU probe the kernel. The conversation stays open.
pub(super) fn feature_check() -> Request {
    let features = Features { mem_track: Some(true), lazy_pages: Some(true) };
    Request { features: Some(features), keep_open: Some(true), ..Request::of(Kind::FeatureCheck) }
}

fn candidates() -> Vec<PathBuf> {
    if let Some(named) = env::var_os(ENVIRONMENT) {
        return vec![PathBuf::from(named)];
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let searched = env::split_paths(&path).map(|dir| dir.join("criu"));
    [PathBuf::from(INSTALLED)].into_iter().chain(searched).collect()
}

/// The directories of the cgroups this process is in, in the hierarchies that `dirs` belong to.
pub(super) fn own_cgroups(dirs: &[PathBuf]) -> io::Result<Vec<PathBuf>> {
    let table = fs::read_to_string("/proc/self/cgroup")?;
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    dirs.iter().map(|dir| own_cgroup(dir, &table, &mounts)).collect()
}

/// Finds the mount `dir` is below and the line of `/proc/self/cgroup` that belongs to it (proc_pid_mountinfo(5), cgroups(7)).
fn own_cgroup(dir: &Path, table: &str, mounts: &str) -> io::Result<PathBuf> {
    let missing = || io::Error::other(format!("{} is in no mounted cgroup hierarchy", dir.display()));
    let mount = mounts
        .lines()
        .filter_map(CgroupMount::parse)
        .filter(|mount| dir.starts_with(mount.point))
        .max_by_key(|mount| mount.point.len())
        .ok_or_else(missing)?;
    let line = table.lines().filter_map(|line| line.split_once(':')).find_map(|(_, rest)| {
        let (names, path) = rest.split_once(':')?;
        mount.is_for(names).then_some(path)
    });
    let path = line.ok_or_else(missing)?;
    let below = Path::new(path).strip_prefix(mount.root).map_err(|_| missing())?;
    Ok(Path::new(mount.point).join(below))
}

/// A mounted cgroup hierarchy.
struct CgroupMount<'a> {
    root: &'a str,
    point: &'a str,
    unified: bool,
    options: &'a str,
}

impl<'a> CgroupMount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ').skip(3);
        let mut right = right.split(' ');
        let unified = match right.next()? {
            "cgroup2" => true,
            "cgroup" => false,
            _ => return None,
        };
        Some(Self { root: left.next()?, point: left.next()?, unified, options: right.nth(1)? })
    }

    /// Whether a line of `/proc/self/cgroup` with these controllers is about this hierarchy.
    fn is_for(&self, names: &str) -> bool {
        if self.unified {
            return names.is_empty();
        }
        names.split(',').any(|name| !name.is_empty() && self.options.split(',').any(|option| option == name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
30 24 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs ro
31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct
32 30 0:28 /jail /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
33 30 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
34 30 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate";
    const TABLE: &str =
        "4:memory:/jail/agent\n3:cpu,cpuacct:/a\n2:name=systemd:/init.scope\n0::/user.slice/x";

    #[track_caller]
    fn check(dir: &str, own: Option<&str>) {
        assert_eq!(own_cgroup(Path::new(dir), TABLE, HYBRID).ok(), own.map(PathBuf::from), "{dir}");
    }

    #[test]
    fn finds_the_way_back_in_every_hierarchy() {
        check("/sys/fs/cgroup/memory/agent/c1", Some("/sys/fs/cgroup/memory/agent"));
        check("/sys/fs/cgroup/cpu,cpuacct/c1", Some("/sys/fs/cgroup/cpu,cpuacct/a"));
        check("/sys/fs/cgroup/systemd/c1", Some("/sys/fs/cgroup/systemd/init.scope"));
        check("/sys/fs/cgroup/unified/c1", Some("/sys/fs/cgroup/unified/user.slice/x"));
        check("/elsewhere/c1", None);
    }
}
