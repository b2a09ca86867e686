//! The configuration file. Unknown keys are an error.

use anyhow::{Context, Result, ensure};
use dray_model::spec::Labels;
use dray_model::{CpuMillis, MemoryBytes, NodeName};
use serde::Deserialize;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// What an operator decides about an agent.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// The node's name.
    pub(crate) name: NodeName,
    /// What must outlive a reboot.
    #[serde(default = "default_data_dir")]
    pub(crate) data_dir: PathBuf,
    /// What need not; a tmpfs where possible.
    #[serde(default = "default_run_dir")]
    pub(crate) run_dir: PathBuf,
    /// Where other agents and the schedulers reach this one.
    pub(crate) listen: SocketAddr,
    /// The node's address on the network between the nodes.
    pub(crate) underlay_ip: Ipv4Addr,
    /// Any of the schedulers; more is safer.
    pub(crate) schedulers: Vec<SocketAddr>,
    /// Containers' cgroups are made in this one, relative to the agent's own.
    #[serde(default = "default_cgroup")]
    pub(crate) cgroup: PathBuf,
    /// Certificate files.
    pub(crate) tls: Tls,
    /// For selecting.
    #[serde(default)]
    pub(crate) labels: Labels,
    /// Replaces what the machine says.
    #[serde(default)]
    pub(crate) capacity: Capacity,
    /// VXLAN's network identifier and UDP port.
    #[serde(default)]
    pub(crate) vxlan: Vxlan,
}

/// Certificate files, PEM.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tls {
    pub(crate) ca: PathBuf,
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

/// What tasks may take together.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Capacity {
    pub(crate) cpu: Option<CpuMillis>,
    pub(crate) memory: Option<MemoryBytes>,
    pub(crate) pids: Option<u64>,
}

/// The tunnel between nodes.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Vxlan {
    #[serde(default = "default_vni")]
    pub(crate) vni: u32,
    #[serde(default = "default_port")]
    pub(crate) port: u16,
}

impl Default for Vxlan {
    fn default() -> Self {
        Vxlan { vni: default_vni(), port: default_port() }
    }
}

fn default_data_dir() -> PathBuf {
    "/var/lib/dray".into()
}

fn default_run_dir() -> PathBuf {
    "/run/dray".into()
}

fn default_cgroup() -> PathBuf {
    "dray".into()
}

fn default_vni() -> u32 {
    42
}

fn default_port() -> u16 {
    4789
}

impl Config {
    /// Reads and checks a file.
    pub(crate) fn load(path: &Path) -> Result<Config> {
        let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        let config = Config::parse(&text).with_context(|| path.display().to_string())?;
        Ok(config)
    }

    fn parse(text: &str) -> Result<Config> {
        let config: Config = toml::from_str(text)?;
        ensure!(!config.schedulers.is_empty(), "schedulers: name at least one");
        ensure!(config.listen.port() != 0, "listen: name a port");
        ensure!(!config.listen.ip().is_unspecified(), "listen: name the address that others connect to");
        ensure!((1..1 << 24).contains(&config.vxlan.vni), "vxlan.vni: use 1 to 16777215");
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        name = "node-1"
        listen = "10.77.0.11:7100"
        underlay_ip = "10.77.0.11"
        schedulers = ["10.77.0.1:7000"]
        [tls]
        ca = "/a"
        cert = "/b"
        key = "/c"
        [capacity]
        cpu = "2000m"
        memory = "4Gi"
    "#;

    #[test]
    fn a_small_file_is_enough() {
        let config = Config::parse(GOOD).unwrap();
        assert_eq!(config.capacity.memory, Some(MemoryBytes(4 << 30)));
        assert_eq!(config.run_dir, Path::new("/run/dray"));
    }

    #[test]
    fn mistakes_are_named() {
        for (wrong, named) in [
            (GOOD.replace("schedulers", "scheduler"), "scheduler"),
            (GOOD.replace(r#"["10.77.0.1:7000"]"#, "[]"), "schedulers"),
            (GOOD.replace("node-1", "Node_1"), "Node_1"),
            (GOOD.replace("10.77.0.11:7100", "0.0.0.0:7100"), "listen"),
            (GOOD.replace("4Gi", "4Q"), "4Q"),
        ] {
            let error = format!("{:#}", Config::parse(&wrong).unwrap_err());
            assert!(error.contains(named), "{error}");
        }
    }
}
