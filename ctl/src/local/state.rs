//! What a local cluster's directory says about it, and who may change it right now.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use super::config::Choices;
use super::layout::Layout;

/// The record of a cluster. Written before anything is made, so that everything made can be found again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Directory and size.
    pub(crate) layout: Layout,
    /// What was chosen for its configuration.
    pub(crate) choices: Choices,
    /// The containers' cgroups, one directory in each hierarchy.
    pub(crate) cgroups: Vec<PathBuf>,
}

/// The right to change a cluster; others wait for nobody and fail.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: Flock<File>,
}

impl Record {
    /// Reads a cluster's record; `None` if there is no cluster.
    pub(crate) fn load(dir: &Path) -> Result<Option<Self>> {
        let file = record_file(dir);
        match fs::read(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            bytes => {
                let bytes = bytes.with_context(|| format!("read {}", file.display()))?;
                let record: Self =
                    serde_json::from_slice(&bytes).with_context(|| format!("read {}", file.display()))?;
                Ok(Some(record))
            }
        }
    }

    /// Writes the record, whole or not at all.
    pub(crate) fn store(&self) -> Result<()> {
        let file = record_file(&self.layout.dir);
        let fresh = file.with_extension("new");
        let text = serde_json::to_vec_pretty(self)?;
        let written = fs::write(&fresh, text).and_then(|()| fs::rename(&fresh, &file));
        written.with_context(|| format!("write {}", file.display()))
    }
}

/// The file a cluster's record is in.
pub(crate) fn record_file(dir: &Path) -> PathBuf {
    dir.join("cluster.json")
}

/// The file that a [`Lock`] locks.
pub(crate) fn lock_file(dir: &Path) -> PathBuf {
    dir.join("lock")
}

/// Takes the right to change the cluster in a directory, which must exist.
pub(crate) fn lock(dir: &Path) -> Result<Lock> {
    let file = lock_file(dir);
    let open = File::create(&file).with_context(|| format!("open {}", file.display()))?;
    match Flock::lock(open, FlockArg::LockExclusiveNonblock) {
        Ok(file) => Ok(Lock { _file: file }),
        Err((_, Errno::EWOULDBLOCK)) => {
            bail!("another `clusterctl local` is at work in {}; wait until it is done", dir.display())
        }
        Err((_, errno)) => Err(anyhow!(errno)).with_context(|| format!("lock {}", file.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let held = lock(dir.path()).unwrap();
        assert!(lock(dir.path()).unwrap_err().to_string().starts_with("another `clusterctl local`"));
        drop(held);
        lock(dir.path()).unwrap();
    }

    #[test]
    fn a_record_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Record::load(dir.path()).unwrap(), None);
        let layout = Layout { dir: dir.path().to_owned(), schedulers: 3, nodes: 2 };
        let record = Record { layout, choices: Choices::default(), cgroups: vec!["/sys/fs/cgroup/x".into()] };
        record.store().unwrap();
        assert_eq!(Record::load(dir.path()).unwrap(), Some(record));
    }
}
