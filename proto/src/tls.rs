//! Mutual TLS: which certificate a process shows, and whom it is talking to.
//!
//! Every TCP connection of a cluster is mutual TLS from the cluster's CA. A
//! certificate's URI name says who its holder is:
//! `dray://scheduler/<id>`, `dray://node/<name>` or `dray://user/<name>`.

use dray_model::NodeName;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity, ServerTlsConfig};
use x509_parser::extensions::{GeneralName, ParsedExtension};

/// The name that every server certificate carries, so that a client needn't
/// know a server's host name: the URI name decides who it is.
pub const SERVER_NAME: &str = "dray";

/// Who holds a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// A scheduler, by its Raft id.
    Scheduler(u64),
    /// A node's agent.
    Node(NodeName),
    /// A person or automation.
    User(String),
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Scheduler(id) => write!(f, "dray://scheduler/{id}"),
            Peer::Node(name) => write!(f, "dray://node/{name}"),
            Peer::User(name) => write!(f, "dray://user/{name}"),
        }
    }
}

impl std::str::FromStr for Peer {
    type Err = PeerError;
    fn from_str(uri: &str) -> Result<Self, PeerError> {
        let unknown = || PeerError::Unknown(uri.into());
        let (kind, name) =
            uri.strip_prefix("dray://").and_then(|rest| rest.split_once('/')).ok_or_else(unknown)?;
        match kind {
            "scheduler" => name.parse().map(Peer::Scheduler).map_err(|_| unknown()),
            "node" => name.parse().map(Peer::Node).map_err(|_| unknown()),
            "user" if !name.is_empty() => Ok(Peer::User(name.into())),
            _ => Err(unknown()),
        }
    }
}

/// Why a certificate doesn't say who its holder is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// It isn't X.509.
    #[error("the peer's certificate can't be parsed")]
    Malformed,
    /// It has no name of ours.
    #[error("the peer's certificate has no dray:// name")]
    Nameless,
    /// The name isn't one of ours.
    #[error("{0:?} names nobody in a Dray cluster")]
    Unknown(String),
}

impl Peer {
    /// Who holds a certificate in DER form.
    ///
    /// # Errors
    /// The certificate doesn't say.
    pub fn of_certificate(der: &[u8]) -> Result<Peer, PeerError> {
        let (_, certificate) = x509_parser::parse_x509_certificate(der).map_err(|_| PeerError::Malformed)?;
        let names = certificate.extensions().iter().find_map(|e| match e.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
            _ => None,
        });
        let uri = names.into_iter().flatten().find_map(|name| match name {
            GeneralName::URI(uri) if uri.starts_with("dray://") => Some(*uri),
            _ => None,
        });
        uri.ok_or(PeerError::Nameless)?.parse()
    }

    /// Who sent a request: the certificate's holder, or the machine's root
    /// where there is none because it came through the Unix socket.
    ///
    /// # Errors
    /// The certificate doesn't say.
    pub fn of_request<T>(request: &tonic::Request<T>) -> Result<Peer, tonic::Status> {
        match request.peer_certs().as_deref().map(Vec::as_slice) {
            Some([leaf, ..]) => {
                Peer::of_certificate(leaf).map_err(|e| tonic::Status::unauthenticated(e.to_string()))
            }
            Some([]) => Err(tonic::Status::unauthenticated(PeerError::Nameless.to_string())),
            None => Ok(Peer::User("root".into())),
        }
    }
}

/// Where a process' certificate files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The cluster CA's certificate, PEM.
    pub ca: PathBuf,
    /// The process' certificate, PEM.
    pub cert: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
}

/// A certificate file that can't be read.
#[derive(Debug, thiserror::Error)]
#[error("read {path}")]
pub struct FileError {
    path: PathBuf,
    #[source]
    cause: std::io::Error,
}

/// What a process shows and whom it trusts.
#[derive(Clone)]
pub struct Credentials {
    pub(crate) ca: Vec<u8>,
    pub(crate) cert: Vec<u8>,
    pub(crate) key: Vec<u8>,
}

impl fmt::Debug for Credentials {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

impl Credentials {
    /// Reads the three files.
    ///
    /// # Errors
    /// Names the file that can't be read.
    pub fn load(files: &Files) -> Result<Credentials, FileError> {
        let read = |path: &Path| std::fs::read(path).map_err(|cause| FileError { path: path.into(), cause });
        Ok(Credentials { ca: read(&files.ca)?, cert: read(&files.cert)?, key: read(&files.key)? })
    }

    /// For a server that lets in holders of the CA's certificates only.
    pub fn server(&self) -> ServerTlsConfig {
        ServerTlsConfig::new().identity(self.identity()).client_ca_root(Certificate::from_pem(&self.ca))
    }

    fn identity(&self) -> Identity {
        Identity::from_pem(&self.cert, &self.key)
    }

    fn client(&self) -> ClientTlsConfig {
        ClientTlsConfig::new()
            .identity(self.identity())
            .ca_certificate(Certificate::from_pem(&self.ca))
            .domain_name(SERVER_NAME)
    }

    /// A channel to `host:port`, whoever of the cluster serves there, that
    /// connects when first used and again when it broke. Who is to be somebody
    /// in particular is reached with [`Credentials::channel_to`].
    ///
    /// # Errors
    /// The address or the certificates are malformed.
    pub fn channel(&self, address: &str) -> Result<Channel, tonic::transport::Error> {
        Ok(endpoint(format!("https://{address}"))?.tls_config(self.client())?.connect_lazy())
    }
}

/// Keep-alive finds a dead peer within about ten seconds.
pub(crate) fn endpoint(uri: String) -> Result<Endpoint, tonic::transport::Error> {
    Ok(Endpoint::from_shared(uri)?
        .tcp_nodelay(true)
        .connect_timeout(Duration::from_secs(2))
        .http2_keep_alive_interval(Duration::from_secs(3))
        .keep_alive_timeout(Duration::from_secs(5))
        .keep_alive_while_idle(true)
        .initial_stream_window_size(8 << 20)
        .initial_connection_window_size(16 << 20))
}

/// Installs the process' cryptography; call once, first thing.
pub fn install_crypto() {
    // A second call finds one in place, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_who_it_is() {
        for text in ["dray://scheduler/2", "dray://node/node-1", "dray://user/admin"] {
            assert_eq!(text.parse::<Peer>().unwrap().to_string(), text);
        }
        for text in
            ["", "dray://node/", "dray://node/A", "dray://pod/x", "https://node/x", "dray://scheduler/x"]
        {
            assert!(text.parse::<Peer>().is_err(), "{text}");
        }
    }
}
