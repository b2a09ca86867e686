//! What was accepted from a leader, on disk before it is acted on.
//!
//! A restarted agent learns from it what its containers are, before any
//! scheduler answers. It grants no right to start anything: only a session
//! does.

use anyhow::{Context, Result};
use dray_model::ClusterCidr;
use dray_model::assignment::Assignment;
use serde::{Deserialize, Serialize};
use std::fs::{File, rename};
use std::io::{ErrorKind, Write};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

/// The file.
#[derive(Debug, Clone)]
pub(crate) struct Ledger {
    dir: PathBuf,
}

/// What it holds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Page {
    /// This node's place in the cluster, once known.
    pub(crate) place: Option<Place>,
    /// How long leases are, in milliseconds; zero while unknown.
    #[serde(default)]
    pub(crate) lease_ms: u64,
    /// The last assignment.
    pub(crate) assignment: Assignment,
}

/// This node's place in the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    /// The cluster's address range.
    pub(crate) cidr: ClusterCidr,
    /// The node's own address in it.
    pub(crate) overlay_ip: Ipv4Addr,
}

impl Ledger {
    /// The ledger in a directory, which is made.
    pub(crate) fn open(dir: PathBuf) -> Result<Ledger> {
        std::fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        Ok(Ledger { dir })
    }

    fn path(&self) -> PathBuf {
        self.dir.join("ledger.json")
    }

    /// Reads it; empty if there is none yet.
    pub(crate) fn read(&self) -> Result<Page> {
        let path = self.path();
        match std::fs::read(&path) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).with_context(|| format!("understand {}", path.display()))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Page::default()),
            Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
        }
    }

    /// Replaces it durably: after a crash it is the old one or the new.
    pub(crate) fn write(&self, page: &Page) -> Result<()> {
        let path = self.path();
        let bytes = serde_json::to_vec(page).context("encode the ledger")?;
        replace(&path, &bytes).with_context(|| format!("write {}", path.display()))
    }
}

fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_data()?;
    rename(&temporary, path)?;
    let dir = path.parent().unwrap_or(Path::new("/"));
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_survives() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(dir.path().join("ledger")).unwrap();
        assert_eq!(ledger.read().unwrap(), Page::default());
        let place = Place { cidr: "10.88.0.0/16".parse().unwrap(), overlay_ip: [10, 88, 0, 1].into() };
        let mut page = Page { place: Some(place), ..Page::default() };
        page.assignment.generation = 7;
        ledger.write(&page).unwrap();
        assert_eq!(ledger.read().unwrap(), page);
    }

    #[test]
    fn a_damaged_page_is_an_error_not_an_empty_one() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(dir.path().into()).unwrap();
        std::fs::write(ledger.path(), b"{\"place\":").unwrap();
        assert!(ledger.read().is_err());
    }
}
