//! What an image says about how to run it, as a plain value.

use std::collections::BTreeMap;

use oci_spec::image::{Config, ConfigBuilder, ImageConfiguration};

/// The execution defaults of an image. Empty means: the image says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageConfig {
    /// The program and its fixed arguments.
    pub entrypoint: Vec<String>,
    /// Arguments after the entrypoint, or the whole command where there is no entrypoint.
    pub command: Vec<String>,
    /// Environment variables, in the image's order.
    pub env: Vec<(String, String)>,
    /// `user`, `uid`, `user:group` or `uid:gid`; names are those of the image's `/etc/passwd` and `/etc/group`.
    pub user: String,
    /// Absolute path inside of the container.
    pub working_dir: String,
    /// `SIGTERM`, `SIGRTMIN+3` or a number.
    pub stop_signal: Option<String>,
    /// Ports the image's program listens on.
    pub exposed_ports: Vec<ExposedPort>,
    /// Free-form labels.
    pub labels: BTreeMap<String, String>,
}

/// A port an image exposes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ExposedPort {
    /// The port's number.
    pub port: u16,
    /// Its transport.
    pub protocol: PortProtocol,
}

/// A transport an image can name for a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PortProtocol {
    /// TCP, also where the image names none.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// A value in an image's configuration that makes no sense.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// An entry of `Env` without a name.
    #[error("environment entry `{entry}` has no name")]
    Env {
        /// The entry.
        entry: String,
    },
    /// An entry of `ExposedPorts` that is no port.
    #[error("exposed port `{entry}` is not a port number with tcp, udp or sctp")]
    Port {
        /// The entry.
        entry: String,
    },
    /// A working directory that is not absolute.
    #[error("working directory `{path}` is not absolute")]
    WorkingDir {
        /// The path.
        path: String,
    },
}

impl ImageConfig {
    pub(crate) fn from_oci(configuration: &ImageConfiguration) -> Result<Self, ConfigError> {
        let Some(config) = configuration.config() else { return Ok(Self::default()) };
        let mut exposed_ports =
            list(config.exposed_ports()).iter().map(|p| parse_port(p)).collect::<Result<Vec<_>, _>>()?;
        exposed_ports.sort_unstable();
        Ok(Self {
            entrypoint: list(config.entrypoint()),
            command: list(config.cmd()),
            env: list(config.env()).iter().map(|entry| parse_env(entry)).collect::<Result<_, _>>()?,
            user: config.user().clone().unwrap_or_default(),
            working_dir: parse_working_dir(config)?,
            stop_signal: config.stop_signal().clone().filter(|signal| !signal.is_empty()),
            exposed_ports,
            labels: config.labels().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect(),
        })
    }

    /// The same as the specification writes it.
    pub(crate) fn to_oci(&self) -> Config {
        let ports = self
            .exposed_ports
            .iter()
            .map(|p| format!("{}/{}", p.port, p.protocol.name()))
            .collect::<Vec<_>>();
        let env = self.env.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>();
        let mut config = ConfigBuilder::default()
            .entrypoint(self.entrypoint.clone())
            .cmd(self.command.clone())
            .env(env)
            .user(self.user.clone())
            .working_dir(self.working_dir.clone())
            .exposed_ports(ports)
            .build()
            .unwrap_or_default();
        config.set_stop_signal(self.stop_signal.clone());
        if !self.labels.is_empty() {
            config.set_labels(Some(self.labels.clone().into_iter().collect()));
        }
        config
    }
}

impl PortProtocol {
    /// The name the specification uses.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

fn list(values: &Option<Vec<String>>) -> Vec<String> {
    values.clone().unwrap_or_default()
}

/// A name without `=` is a variable with an empty value.
fn parse_env(entry: &str) -> Result<(String, String), ConfigError> {
    let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
    if name.is_empty() {
        return Err(ConfigError::Env { entry: entry.to_owned() });
    }
    Ok((name.to_owned(), value.to_owned()))
}

fn parse_port(entry: &str) -> Result<ExposedPort, ConfigError> {
    let bad = || ConfigError::Port { entry: entry.to_owned() };
    let (port, protocol) = entry.split_once('/').unwrap_or((entry, "tcp"));
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "tcp" => PortProtocol::Tcp,
        "udp" => PortProtocol::Udp,
        "sctp" => PortProtocol::Sctp,
        _ => return Err(bad()),
    };
    let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(bad)?;
    Ok(ExposedPort { port, protocol })
}

fn parse_working_dir(config: &Config) -> Result<String, ConfigError> {
    let path = config.working_dir().clone().unwrap_or_default();
    if path.is_empty() || path.starts_with('/') { Ok(path) } else { Err(ConfigError::WorkingDir { path }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(config: &str) -> Result<ImageConfig, ConfigError> {
        let text = format!(
            r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":[]}},"config":{config}}}"#
        );
        ImageConfig::from_oci(&serde_json::from_str(&text).expect("document"))
    }

    #[test]
    fn every_field_is_read() {
        let config = parse(
            r#"{"Entrypoint":["/e"],"Cmd":["a"],"Env":["A=b=c","EMPTY="],"User":"999:999","WorkingDir":"/data",
                "StopSignal":"SIGINT","ExposedPorts":{"80":{},"53/udp":{}},"Labels":{"k":"v"}}"#,
        );
        let expected = ImageConfig {
            entrypoint: vec!["/e".into()],
            command: vec!["a".into()],
            env: vec![("A".into(), "b=c".into()), ("EMPTY".into(), String::new())],
            user: "999:999".into(),
            working_dir: "/data".into(),
            stop_signal: Some("SIGINT".into()),
            exposed_ports: vec![
                ExposedPort { port: 53, protocol: PortProtocol::Udp },
                ExposedPort { port: 80, protocol: PortProtocol::Tcp },
            ],
            labels: BTreeMap::from([("k".into(), "v".into())]),
        };
        assert_eq!(config, Ok(expected));
    }

    #[test]
    fn null_and_missing_mean_nothing() {
        let nulls = parse(r#"{"Entrypoint":null,"Cmd":null,"Env":null,"ExposedPorts":null,"Labels":null}"#);
        assert_eq!(nulls, Ok(ImageConfig::default()));
        assert_eq!(parse("null"), Ok(ImageConfig::default()));
    }

    #[test]
    fn nonsense_is_refused() {
        for config in [
            r#"{"Env":["=x"]}"#,
            r#"{"ExposedPorts":{"0/tcp":{}}}"#,
            r#"{"ExposedPorts":{"70000":{}}}"#,
            r#"{"ExposedPorts":{"80/icmp":{}}}"#,
            r#"{"WorkingDir":"relative"}"#,
        ] {
            assert!(parse(config).is_err(), "{config}");
        }
    }
}
