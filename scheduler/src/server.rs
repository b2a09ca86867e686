//! The listeners: TCP with mutual TLS for everybody, a Unix socket for the
//! machine's root.

use crate::api::Api;
use crate::cluster::Cluster;
use crate::contacts::Contacts;
use crate::raft::service::RaftService;
use crate::session::Sessions;
use anyhow::{Context, Result, bail};
use dray_proto::tls::Credentials;
use dray_proto::v1::DESCRIPTORS;
use std::fs::Permissions;
use std::future::Future;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::service::{Routes, RoutesBuilder};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

/// Calls under way on one connection, streams included.
const STREAMS_MAX: u32 = 1024;
/// A peer that says nothing for this long, twice, is gone.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// What is served, and with what.
pub struct Services {
    /// The replicated state.
    pub cluster: Cluster,
    /// The agents.
    pub contacts: Contacts,
    /// For the server, and for calls to agents.
    pub credentials: Credentials,
}

impl Services {
    /// Serves on TCP until `stop`.
    ///
    /// # Errors
    /// The address can't be bound.
    pub fn on_tcp(
        &self,
        listen: SocketAddr,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> Result<impl Future<Output = Result<()>> + Send + 'static> {
        let incoming = TcpIncoming::bind(listen).with_context(|| format!("listen on {listen}"))?;
        let incoming = incoming.with_nodelay(Some(true));
        let mut builder = self.user_routes()?;
        builder.add_service(Sessions::server(self.cluster.clone(), self.contacts.clone()));
        builder.add_service(RaftService::server(self.cluster.clone()));
        let mut server = server().tls_config(self.credentials.server()).context("set up TLS")?;
        let routes = builder.routes();
        Ok(async move {
            let served = server.add_routes(routes).serve_with_incoming_shutdown(incoming, stop).await;
            served.context("serve TCP")
        })
    }

    /// Serves users on a Unix socket until `stop`.
    ///
    /// # Errors
    /// The socket can't be made, or another process serves on it.
    pub fn on_unix(
        &self,
        path: &Path,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> Result<impl Future<Output = Result<()>> + Send + 'static> {
        let incoming = UnixListenerStream::new(bind(path)?);
        let routes = self.user_routes()?.routes();
        Ok(async move {
            let served = server().add_routes(routes).serve_with_incoming_shutdown(incoming, stop).await;
            served.context("serve the Unix socket")
        })
    }

    /// The user's API, health and reflection.
    fn user_routes(&self) -> Result<RoutesBuilder> {
        let mut builder = Routes::builder();
        // The reporter is only for changing what is reported, and that never changes.
        let (_, health) = tonic_health::server::health_reporter();
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .build_v1()
            .context("set up reflection")?;
        builder.add_service(health).add_service(reflection);
        Api::new(self.cluster.clone(), self.credentials.clone()).add_to(&mut builder);
        Ok(builder)
    }
}

fn server() -> Server {
    Server::builder()
        .max_concurrent_streams(STREAMS_MAX)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .initial_stream_window_size(8 << 20)
        .initial_connection_window_size(16 << 20)
}

/// Makes the socket, in place of one that nobody serves on. It appears with
/// its permissions: made under another name first.
fn bind(path: &Path) -> Result<UnixListener> {
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        bail!("{} is served by another process", path.display());
    }
    let new = PathBuf::from(format!("{}.new", path.display()));
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("remove {}", new.display()));
        }
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(&new).with_context(|| format!("listen on {}", new.display()))?;
    std::fs::set_permissions(&new, Permissions::from_mode(0o600))
        .and_then(|()| std::fs::rename(&new, path))
        .with_context(|| format!("make {}", path.display()))?;
    Ok(listener)
}
