//! What this agent serves to other agents and to the schedulers.

mod exec;
mod image;
mod logs;
mod migrate;

use crate::context::Context;
use anyhow::{Context as _, Result};
use dray_model::NodeName;
use dray_proto::tls::Peer as Caller;
use dray_proto::v1::peer_server::{Peer, PeerServer};
use dray_proto::v1::{
    ContactRequest, ContactResponse, ExecRequest, ExecResponse, FetchImageRequest, Image, ImageChunk,
    ImportImageRequest, LogsRequest, LogsResponse, MigrateRequest, MigrateResponse,
};
use std::time::Duration;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// No message is larger.
const MESSAGE_BYTES_MAX: usize = 8 << 20;

/// Serves for ever.
pub(crate) async fn serve(context: Context) -> Result<()> {
    let listen = context.config.listen;
    let service = PeerServer::new(Service { context: context.clone() })
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    tonic::transport::Server::builder()
        .tls_config(context.credentials.server())
        .context("use the certificates")?
        .tcp_nodelay(true)
        .http2_keepalive_interval(Some(Duration::from_secs(3)))
        .http2_keepalive_timeout(Some(Duration::from_secs(5)))
        .initial_stream_window_size(8 << 20)
        .initial_connection_window_size(16 << 20)
        .add_service(service)
        .serve(listen)
        .await
        .with_context(|| format!("serve on {listen}"))
}

struct Service {
    context: Context,
}

/// A stream of answers that a task makes.
type Answers<T> = ReceiverStream<Result<T, Status>>;

/// Lets in schedulers only.
fn scheduler<T>(request: &Request<T>) -> Result<(), Status> {
    match Caller::of_request(request)? {
        Caller::Scheduler(_) => Ok(()),
        other @ (Caller::Node(_) | Caller::User(_)) => Err(refuse(&other)),
    }
}

/// Lets in agents only; says which.
fn node<T>(request: &Request<T>) -> Result<NodeName, Status> {
    match Caller::of_request(request)? {
        Caller::Node(name) => Ok(name),
        other @ (Caller::Scheduler(_) | Caller::User(_)) => Err(refuse(&other)),
    }
}

fn refuse(caller: &Caller) -> Status {
    Status::permission_denied(format!("{caller} may not ask this of an agent"))
}

/// An error of ours as a status.
fn failed(error: &anyhow::Error) -> Status {
    Status::internal(format!("{error:#}"))
}

#[tonic::async_trait]
impl Peer for Service {
    type MigrateStream = Answers<MigrateResponse>;
    type FetchImageStream = Answers<ImageChunk>;
    type LogsStream = Answers<LogsResponse>;
    type ExecStream = Answers<ExecResponse>;

    async fn migrate(
        &self,
        request: Request<Streaming<MigrateRequest>>,
    ) -> Result<Response<Self::MigrateStream>, Status> {
        let source = node(&request)?;
        migrate::receive(self.context.clone(), source, request.into_inner()).await.map(Response::new)
    }

    async fn fetch_image(
        &self,
        request: Request<FetchImageRequest>,
    ) -> Result<Response<Self::FetchImageStream>, Status> {
        node(&request)?;
        image::fetch(self.context.clone(), request.into_inner()).map(Response::new)
    }

    async fn import_image(
        &self,
        request: Request<Streaming<ImportImageRequest>>,
    ) -> Result<Response<Image>, Status> {
        scheduler(&request)?;
        image::import(&self.context, request.into_inner()).await.map(Response::new)
    }

    async fn logs(&self, request: Request<LogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
        scheduler(&request)?;
        logs::logs(self.context.clone(), request.into_inner()).await.map(Response::new)
    }

    async fn exec(
        &self,
        request: Request<Streaming<ExecRequest>>,
    ) -> Result<Response<Self::ExecStream>, Status> {
        scheduler(&request)?;
        exec::exec(self.context.clone(), request.into_inner()).await.map(Response::new)
    }

    async fn contact(&self, request: Request<ContactRequest>) -> Result<Response<ContactResponse>, Status> {
        node(&request)?;
        Ok(Response::new(ContactResponse { age_ms: self.context.contact.age_ms() }))
    }
}
