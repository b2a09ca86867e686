//! Where the schedulers are, and with which certificate: decided from flags,
//! environment and what a local cluster left on the disk.

use clap::Args;
use dray_proto::tls;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where a local cluster lives unless `DRAY_LOCAL_DIR` says otherwise.
const LOCAL_DIR: &str = "/var/lib/dray/local";
/// The socket of a scheduler that runs as a system service.
const SYSTEM_SOCKET: &str = "/run/dray/scheduler.sock";

/// Flags that every command has.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct Connection {
    /// A scheduler's address; may be given several times [env: DRAY_SERVER, joined by commas]
    #[arg(long, global = true, value_name = "HOST:PORT", value_delimiter = ',')]
    pub(crate) server: Vec<String>,
    /// A scheduler's Unix socket on this machine [env: DRAY_SOCKET]
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// A directory with ca.pem, cert.pem and key.pem [env: DRAY_CONTEXT]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) context: Option<PathBuf>,
    /// The cluster CA's certificate, instead of the context's
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// Your certificate, instead of the context's
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) cert: Option<PathBuf>,
    /// Your certificate's key, instead of the context's
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// How long to try, for instance 10s or 2m; a request 30s, a wait without end if not given
    #[arg(long, global = true, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub(crate) timeout: Option<Duration>,
}

/// What to connect to, in the order to try it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Endpoints {
    /// Sockets of schedulers on this machine.
    Sockets(Vec<PathBuf>),
    /// Addresses, and the files to show and trust.
    Servers {
        /// `HOST:PORT` of each.
        servers: Vec<String>,
        /// Certificate files.
        files: tls::Files,
    },
}

/// Why it can't be said where to connect to.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EndpointsError {
    /// A server without certificates.
    #[error(
        "--server needs certificates: give --context DIR with ca.pem, cert.pem and key.pem in it, or --ca, --cert and --key"
    )]
    NoCertificates,
    /// Nothing to connect to.
    #[error(
        "no cluster found: neither a local one in {local} nor a scheduler at {SYSTEM_SOCKET}\n\
         start one with `clusterctl local up`, or say where it is with --server HOST:PORT or --socket PATH"
    )]
    NoCluster {
        /// Where a local cluster was looked for.
        local: String,
    },
}

/// What the decision depends on beyond the flags.
pub(crate) struct Surroundings<'a> {
    /// Reads an environment variable.
    pub(crate) variable: &'a dyn Fn(&str) -> Option<String>,
    /// Sockets of a local cluster in a directory, in order.
    pub(crate) sockets: &'a dyn Fn(&Path) -> Vec<PathBuf>,
    /// Whether a file exists.
    pub(crate) exists: &'a dyn Fn(&Path) -> bool,
}

impl Connection {
    /// Decides from flags first, then the environment, then what there is.
    pub(crate) fn endpoints(&self) -> Result<Endpoints, EndpointsError> {
        self.endpoints_in(&Surroundings {
            variable: &|name| std::env::var(name).ok().filter(|value| !value.is_empty()),
            sockets: &local_sockets,
            exists: &|path| path.exists(),
        })
    }

    fn endpoints_in(&self, around: &Surroundings<'_>) -> Result<Endpoints, EndpointsError> {
        let local = PathBuf::from((around.variable)("DRAY_LOCAL_DIR").unwrap_or_else(|| LOCAL_DIR.into()));
        if let Some(socket) = &self.socket {
            return Ok(Endpoints::Sockets(vec![socket.clone()]));
        }
        if !self.server.is_empty() {
            return self.with_certificates(self.server.clone(), &local, around);
        }
        if let Some(socket) = (around.variable)("DRAY_SOCKET") {
            return Ok(Endpoints::Sockets(vec![socket.into()]));
        }
        if let Some(servers) = (around.variable)("DRAY_SERVER") {
            let servers = servers.split(',').map(|server| server.trim().to_owned()).collect();
            return self.with_certificates(servers, &local, around);
        }
        let mut sockets = (around.sockets)(&local);
        sockets.extend(Some(PathBuf::from(SYSTEM_SOCKET)).filter(|path| (around.exists)(path)));
        if sockets.is_empty() {
            return Err(EndpointsError::NoCluster { local: local.display().to_string() });
        }
        Ok(Endpoints::Sockets(sockets))
    }

    /// Certificates: each flag, else the context's, else a local cluster's.
    fn with_certificates(
        &self,
        servers: Vec<String>,
        local: &Path,
        around: &Surroundings<'_>,
    ) -> Result<Endpoints, EndpointsError> {
        let admin = Some(local.join("admin")).filter(|dir| (around.exists)(dir));
        let named = self.context.clone().or_else(|| (around.variable)("DRAY_CONTEXT").map(PathBuf::from));
        let context = named.or(admin);
        let file = |flag: &Option<PathBuf>, name: &str| {
            let inside = || context.as_ref().map(|dir| dir.join(name));
            flag.clone().or_else(inside).ok_or(EndpointsError::NoCertificates)
        };
        let files = tls::Files {
            ca: file(&self.ca, "ca.pem")?,
            cert: file(&self.cert, "cert.pem")?,
            key: file(&self.key, "key.pem")?,
        };
        Ok(Endpoints::Servers { servers, files })
    }
}

/// The API sockets of a local cluster's schedulers, by number.
fn local_sockets(dir: &Path) -> Vec<PathBuf> {
    let number =
        |path: &Path| -> Option<u64> { path.file_name()?.to_str()?.strip_prefix("scheduler-")?.parse().ok() };
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut found: Vec<(u64, PathBuf)> =
        entries.filter_map(|path| Some((number(&path)?, path.join("api.sock")))).collect();
    found.retain(|(_, socket)| socket.exists());
    found.sort();
    found.into_iter().map(|(_, socket)| socket).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(flags: &Connection, variables: &[(&str, &str)], there: &[&str]) -> String {
        let around = Surroundings {
            variable: &|name| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned()),
            sockets: &|dir| {
                let sockets = (1..=2).map(|n| dir.join(format!("scheduler-{n}/api.sock")));
                sockets.filter(|path| there.contains(&path.to_str().unwrap())).collect()
            },
            exists: &|path| there.contains(&path.to_str().unwrap()),
        };
        match flags.endpoints_in(&around) {
            Ok(Endpoints::Sockets(paths)) => format!("{paths:?}"),
            Ok(Endpoints::Servers { servers, files }) => format!("{servers:?} {}", files.key.display()),
            Err(error) => error.to_string().lines().next().unwrap().into(),
        }
    }

    #[test]
    fn flags_win_over_environment_over_what_there_is() {
        let none = Connection::default();
        let socket = Connection { socket: Some("/s".into()), ..Default::default() };
        let server = Connection { server: vec!["a:1".into()], ..Default::default() };
        let context = Connection { context: Some("/c".into()), ..server.clone() };
        let key = Connection { key: Some("/k".into()), ..context.clone() };
        let local = ["/l/scheduler-2/api.sock", "/l/admin", SYSTEM_SOCKET];
        let at = ("DRAY_LOCAL_DIR", "/l");
        let table = [
            (
                &none,
                vec![],
                vec![],
                "no cluster found: neither a local one in /var/lib/dray/local nor a scheduler at /run/dray/scheduler.sock",
            ),
            (&none, vec![at], local.to_vec(), r#"["/l/scheduler-2/api.sock", "/run/dray/scheduler.sock"]"#),
            (&none, vec![("DRAY_SOCKET", "/e")], local.to_vec(), r#"["/e"]"#),
            (
                &none,
                vec![("DRAY_SERVER", "a:1, b:2"), ("DRAY_CONTEXT", "/c")],
                vec![],
                r#"["a:1", "b:2"] /c/key.pem"#,
            ),
            (&socket, vec![("DRAY_SOCKET", "/e")], vec![], r#"["/s"]"#),
            (&server, vec![at], local.to_vec(), r#"["a:1"] /l/admin/key.pem"#),
            (
                &server,
                vec![("DRAY_SOCKET", "/e")],
                vec![],
                "--server needs certificates: give --context DIR with ca.pem, cert.pem and key.pem in it, or --ca, --cert and --key",
            ),
            (&context, vec![("DRAY_CONTEXT", "/x")], vec![], r#"["a:1"] /c/key.pem"#),
            (&key, vec![], vec![], r#"["a:1"] /k"#),
        ];
        for (flags, variables, there, expected) in table {
            assert_eq!(decide(flags, &variables, &there), expected);
        }
    }
}
