//! The configuration file: what it may say, its defaults, and what is wrong
//! with one that can't be used. Reads one file and does nothing else.

use dray_model::ClusterCidr;
use dray_proto::tls;
use scheduler_core::liveness;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What one scheduler is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Its Raft id.
    pub id: u64,
    /// Where its log and snapshots are.
    pub data_dir: PathBuf,
    /// Where it serves users, agents and the other schedulers.
    pub listen: SocketAddr,
    /// Where it serves the machine's root, without TLS.
    pub unix_socket: PathBuf,
    /// The overlay addresses of tasks and nodes.
    pub cluster_cidr: ClusterCidr,
    /// Every voter, itself included.
    pub peers: BTreeMap<u64, SocketAddr>,
    /// Its certificate files.
    pub tls: tls::Files,
    /// How fast things happen.
    pub timing: Timing,
}

/// How fast things happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Timing {
    /// Raft's unit of time, in milliseconds.
    pub tick_ms: u64,
    /// Ticks without a leader before an election, at least; at most twice.
    pub election_ticks: usize,
    /// Ticks between a leader's heartbeats to its followers.
    pub heartbeat_ticks: usize,
    /// Milliseconds between an agent's heartbeats.
    pub heartbeat_ms: u64,
    /// How long an agent may run tasks that restart elsewhere, counted from
    /// the moment it sent the last heartbeat that was acknowledged.
    pub lease_ms: u64,
    /// How long the leader waits for a heartbeat before a node is lost.
    pub loss_ms: u64,
    /// Log entries between two snapshots.
    pub snapshot_entries: u64,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            tick_ms: 50,
            election_ticks: 10,
            heartbeat_ticks: 2,
            heartbeat_ms: 1_000,
            lease_ms: 10_000,
            loss_ms: 15_000,
            snapshot_entries: 10_000,
        }
    }
}

impl Timing {
    /// Raft's unit of time.
    pub fn tick(&self) -> Duration {
        Duration::from_millis(self.tick_ms)
    }

    /// The part about agents.
    pub fn liveness(&self) -> liveness::Timing {
        let Timing { heartbeat_ms, lease_ms, loss_ms, .. } = *self;
        liveness::Timing { heartbeat_ms, lease_ms, loss_ms }
    }

    fn check(&self) -> Result<(), String> {
        let rules = [
            (self.tick_ms >= 5, "tick_ms: must be 5 or more"),
            (self.heartbeat_ticks >= 1, "heartbeat_ticks: must be 1 or more"),
            (
                self.election_ticks > 2 * self.heartbeat_ticks,
                "election_ticks: must be more than twice heartbeat_ticks",
            ),
            (self.heartbeat_ms >= 10, "heartbeat_ms: must be 10 or more"),
            (self.lease_ms >= 2 * self.heartbeat_ms, "lease_ms: must be at least twice heartbeat_ms"),
            (
                self.liveness().is_safe(),
                "loss_ms: must be more than lease_ms by a quarter, or a task could run twice",
            ),
            (self.snapshot_entries >= 100, "snapshot_entries: must be 100 or more"),
        ];
        match rules.iter().find(|(fine, _)| !fine) {
            Some((_, problem)) => Err(format!("timing.{problem}")),
            None => Ok(()),
        }
    }
}

/// Why a configuration can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        cause: std::io::Error,
    },
    /// It isn't TOML, or has a key that is unknown or of the wrong type.
    #[error("{path}: {cause}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and what.
        cause: Box<toml::de::Error>,
    },
    /// A value makes no sense.
    #[error("{path}: {problem}")]
    Value {
        /// The file.
        path: PathBuf,
        /// Which, and what to do.
        problem: String,
    },
}

/// The file's shape.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    id: u64,
    data_dir: PathBuf,
    listen: SocketAddr,
    unix_socket: PathBuf,
    cluster_cidr: String,
    peers: BTreeMap<String, SocketAddr>,
    tls: TlsFiles,
    #[serde(default)]
    timing: Timing,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TlsFiles {
    ca: PathBuf,
    cert: PathBuf,
    key: PathBuf,
}

impl Config {
    /// Reads and checks a configuration file.
    ///
    /// # Errors
    /// Names the file, and the key that is wrong.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let text =
            std::fs::read_to_string(path).map_err(|cause| ConfigError::Read { path: path.into(), cause })?;
        let file = toml::from_str(&text)
            .map_err(|cause| ConfigError::Syntax { path: path.into(), cause: Box::new(cause) })?;
        Config::of(file).map_err(|problem| ConfigError::Value { path: path.into(), problem })
    }

    fn of(file: File) -> Result<Config, String> {
        let peers = file.peers.iter().map(|(id, address)| Ok((voter_id(id)?, *address)));
        let config = Config {
            id: file.id,
            data_dir: absolute("data_dir", file.data_dir)?,
            listen: file.listen,
            unix_socket: absolute("unix_socket", file.unix_socket)?,
            cluster_cidr: file.cluster_cidr.parse().map_err(|e| format!("cluster_cidr: {e}"))?,
            peers: peers.collect::<Result<_, String>>()?,
            tls: tls::Files {
                ca: absolute("tls.ca", file.tls.ca)?,
                cert: absolute("tls.cert", file.tls.cert)?,
                key: absolute("tls.key", file.tls.key)?,
            },
            timing: file.timing,
        };
        config.timing.check()?;
        if !config.peers.contains_key(&config.id) {
            return Err(format!("peers: must name this scheduler, too, whose id is {}", config.id));
        }
        Ok(config)
    }
}

fn voter_id(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(id) if id > 0 => Ok(id),
        Ok(_) | Err(_) => Err(format!("peers.{text}: an id is a whole number from 1")),
    }
}

fn absolute(key: &str, path: PathBuf) -> Result<PathBuf, String> {
    if path.is_absolute() { Ok(path) } else { Err(format!("{key}: {path:?} must be an absolute path")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        id = 2
        data_dir = "/d"
        listen = "10.77.0.2:7000"
        unix_socket = "/d/api.sock"
        cluster_cidr = "10.88.0.0/16"
        [peers]
        1 = "10.77.0.1:7000"
        2 = "10.77.0.2:7000"
        [tls]
        ca = "/t/ca.pem"
        cert = "/t/cert.pem"
        key = "/t/key.pem"
        [timing]
        tick_ms = 100
    "#;

    fn check(text: &str) -> Result<Config, String> {
        Config::of(toml::from_str(text).map_err(|e| e.to_string())?)
    }

    #[test]
    fn a_good_file_is_read() {
        let config = check(GOOD).unwrap();
        assert_eq!(config.peers.keys().copied().collect::<Vec<_>>(), [1, 2]);
        assert_eq!(config.timing, Timing { tick_ms: 100, ..Timing::default() });
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (from, to, word) in [
            ("id = 2", "id = 3", "peers"),
            ("1 = ", "0 = ", "peers.0"),
            ("1 = ", "one = ", "peers.one"),
            ("\"/d\"", "\"d\"", "data_dir"),
            ("/16", "/8", "cluster_cidr"),
            ("tick_ms = 100", "tick_ms = 0", "timing.tick_ms"),
            ("tick_ms = 100", "loss_ms = 10000", "timing.loss_ms"),
            ("tick_ms = 100", "ticks = 1", "ticks"),
            ("id = 2", "", "id"),
        ] {
            let error = check(&GOOD.replace(from, to)).unwrap_err();
            assert!(error.contains(word), "{to}: {error}");
        }
    }
}
