//! Connections that lead to somebody in particular.
//!
//! Every certificate of the cluster is good for a server, too, so that a node
//! whose key was stolen could pose as a scheduler to those who only ask for
//! the CA. Here the server's URI name is checked before a byte is sent.

use crate::tls::{Credentials, Peer, SERVER_NAME, endpoint};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::fmt;
use std::io;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::Channel;

/// Whom a connection must lead to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whom {
    /// This one.
    Exactly(Peer),
    /// Any of the schedulers.
    AnyScheduler,
    /// Any node's agent.
    AnyNode,
}

impl fmt::Display for Whom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Whom::Exactly(peer) => peer.fmt(f),
            Whom::AnyScheduler => f.write_str("a scheduler"),
            Whom::AnyNode => f.write_str("a node"),
        }
    }
}

impl Whom {
    /// Whether it is somebody.
    pub fn is(&self, peer: &Peer) -> bool {
        match self {
            Whom::Exactly(expected) => expected == peer,
            Whom::AnyScheduler => matches!(peer, Peer::Scheduler(_)),
            Whom::AnyNode => matches!(peer, Peer::Node(_)),
        }
    }
}

/// Why there is no channel. A peer that can't be reached or is the wrong one
/// shows only when the channel is used.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// Not `host:port`.
    #[error("{address:?} is not an address")]
    Address {
        /// What was given.
        address: String,
        /// Why not.
        #[source]
        cause: tonic::transport::Error,
    },
    /// A PEM file without what it should hold.
    #[error("read the {what} from its PEM file")]
    Pem {
        /// Which.
        what: &'static str,
        /// Why not.
        #[source]
        cause: rustls::pki_types::pem::Error,
    },
    /// Certificates that don't fit.
    #[error("set up TLS")]
    Tls(#[from] rustls::Error),
}

impl Credentials {
    /// A channel to `host:port` that connects when first used and again when
    /// it broke, and never speaks to anybody else.
    ///
    /// # Errors
    /// The address or the certificates are malformed.
    pub fn channel_to(&self, address: &str, whom: Whom) -> Result<Channel, ChannelError> {
        let config = Arc::new(self.rustls_client()?);
        let malformed = |cause| ChannelError::Address { address: address.into(), cause };
        // TLS is the connector's business; to the endpoint this is plain HTTP/2.
        let endpoint = endpoint(format!("http://{address}")).map_err(malformed)?;
        let address: Arc<str> = address.into();
        let connector = tower::service_fn(move |_| connect(config.clone(), address.clone(), whom.clone()));
        Ok(endpoint.connect_with_connector_lazy(connector))
    }

    fn rustls_client(&self) -> Result<ClientConfig, ChannelError> {
        let pem = |what| move |cause| ChannelError::Pem { what, cause };
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&self.ca).map_err(pem("CA's certificate"))?)?;
        let chain = CertificateDer::pem_slice_iter(&self.cert).collect::<Result<_, _>>();
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(pem("key"))?;
        let builder = ClientConfig::builder().with_root_certificates(roots);
        let mut config = builder.with_client_auth_cert(chain.map_err(pem("certificate"))?, key)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }
}

async fn connect(
    config: Arc<ClientConfig>,
    address: Arc<str>,
    whom: Whom,
) -> io::Result<TokioIo<TlsStream<TcpStream>>> {
    let tcp = TcpStream::connect(&*address).await?;
    tcp.set_nodelay(true)?;
    let name = ServerName::try_from(SERVER_NAME).map_err(io::Error::other)?;
    let tls = TlsConnector::from(config).connect(name, tcp).await?;
    let certificates = tls.get_ref().1.peer_certificates().unwrap_or_default();
    let peer = certificates.first().map(|leaf| Peer::of_certificate(leaf));
    match peer {
        Some(Ok(peer)) if whom.is(&peer) => Ok(TokioIo::new(tls)),
        Some(Ok(peer)) => Err(refused(&format!("{address} is {peer}, not {whom}"))),
        Some(Err(error)) => Err(refused(&format!("{address}: {error}"))),
        None => Err(refused(&format!("{address} shows no certificate"))),
    }
}

fn refused(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, why)
}
