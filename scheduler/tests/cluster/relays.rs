//! What goes through a scheduler to a node's agent and back.

use crate::agent::{FakeAgent, hello};
use crate::lab::{Lab, until, workload};
use dray_proto::status::details;
use dray_proto::tls::Credentials;
use dray_proto::v1 as wire;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_stream::{Stream, StreamExt};
use tonic::transport::Server;
use tonic::{Code, Request, Response, Status, Streaming};
use wire::exec_request::Message as Input;
use wire::exec_response::Message as Output;
use wire::images_client::ImagesClient;
use wire::import_image_request::Message as Part;
use wire::peer_server::{Peer, PeerServer};
use wire::tasks_client::TasksClient;
use wire::workloads_client::WorkloadsClient;

type Boxed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// An agent's side of the relays. Counts the streams that are open.
#[derive(Clone, Default)]
struct FakePeer {
    open: Arc<AtomicUsize>,
}

/// Counts as an open stream until it is dropped.
struct Open(Arc<AtomicUsize>);

impl FakePeer {
    fn opened(&self) -> Open {
        self.open.fetch_add(1, Ordering::SeqCst);
        Open(self.open.clone())
    }

    fn count(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    /// Serves as node `name`; what it says in its hello.
    async fn serve(&self, lab: &Lab, name: &str) -> wire::Hello {
        let credentials = Credentials::load(&lab.certificate(&format!("dray://node/{name}"))).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer_address = listener.local_addr().unwrap().to_string();
        let mut server = Server::builder().tls_config(credentials.server()).unwrap();
        let served = server.add_service(PeerServer::new(self.clone()));
        tokio::spawn(served.serve_with_incoming(TcpListenerStream::new(listener)));
        wire::Hello { peer_address, ..hello(name) }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn not_here<T>() -> Result<T, Status> {
    Err(Status::unimplemented("not in this test"))
}

#[tonic::async_trait]
impl Peer for FakePeer {
    type MigrateStream = Boxed<wire::MigrateResponse>;
    type FetchImageStream = Boxed<wire::ImageChunk>;
    type LogsStream = Boxed<wire::LogsResponse>;
    type ExecStream = Boxed<wire::ExecResponse>;

    async fn migrate(
        &self,
        _: Request<Streaming<wire::MigrateRequest>>,
    ) -> Result<Response<Self::MigrateStream>, Status> {
        not_here()
    }

    async fn fetch_image(
        &self,
        _: Request<wire::FetchImageRequest>,
    ) -> Result<Response<Self::FetchImageStream>, Status> {
        not_here()
    }

    async fn contact(
        &self,
        _: Request<wire::ContactRequest>,
    ) -> Result<Response<wire::ContactResponse>, Status> {
        not_here()
    }

    /// The reference is `size-<bytes received>`.
    async fn import_image(
        &self,
        request: Request<Streaming<wire::ImportImageRequest>>,
    ) -> Result<Response<wire::Image>, Status> {
        let mut parts = request.into_inner();
        let mut size = 0;
        while let Some(part) = parts.message().await? {
            if let Some(Part::Chunk(chunk)) = part.message {
                size += chunk.len();
            }
        }
        let digest = format!("sha256:{}", "1".repeat(64));
        let image =
            wire::Image { reference: format!("size:{size}"), digest, size_bytes: 7, ..Default::default() };
        Ok(Response::new(image))
    }

    /// One line, and then nothing until the reader goes.
    async fn logs(&self, _: Request<wire::LogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
        let open = self.opened();
        let line = wire::LogLine { text: b"hello".to_vec().into(), ..Default::default() };
        let first = tokio_stream::once(Ok(wire::LogsResponse { lines: vec![line] }));
        let stream = first.chain(tokio_stream::pending()).map(move |response| {
            let _held = &open;
            response
        });
        Ok(Response::new(Box::pin(stream)))
    }

    /// Gives back what it is given, and the exit code 7 when that ends.
    async fn exec(
        &self,
        request: Request<Streaming<wire::ExecRequest>>,
    ) -> Result<Response<Self::ExecStream>, Status> {
        let open = self.opened();
        let mut input = request.into_inner();
        let (output, answers) = mpsc::channel(4);
        tokio::spawn(async move {
            let _held = open;
            while let Ok(Some(message)) = input.message().await {
                if let Some(Input::Stdin(bytes)) = message.message {
                    let _ =
                        output.send(Ok(wire::ExecResponse { message: Some(Output::Stdout(bytes)) })).await;
                }
            }
            let _ = output.send(Ok(wire::ExecResponse { message: Some(Output::ExitCode(7)) })).await;
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }
}

/// A cluster with a task on a node whose agent is a [`FakePeer`].
async fn with_task() -> (Lab, FakePeer, FakeAgent) {
    let lab = Lab::start();
    let peer = FakePeer::default();
    let mut agent = FakeAgent::attach_with(&lab, peer.serve(&lab, "node-1").await).await;
    let leader = lab.leader().await;
    WorkloadsClient::new(lab.admin(leader)).apply(workload("redis", 1)).await.unwrap();
    agent.until(|assignment| assignment.tasks.len() == 1).await;
    (lab, peer, agent)
}

fn start(task: &str) -> wire::ExecRequest {
    let start = wire::ExecStart { task: task.into(), command: vec!["cat".into()], ..Default::default() };
    wire::ExecRequest { message: Some(Input::Start(start)) }
}

#[tokio::test(flavor = "multi_thread")]
async fn exec_goes_both_ways_and_ends_with_either_side() {
    let (lab, peer, _agent) = with_task().await;
    let mut client = TasksClient::new(lab.admin(lab.follower().await));
    let (input, messages) = mpsc::channel(4);
    input.send(start("redis-0")).await.unwrap();
    let mut output = client.exec(ReceiverStream::new(messages)).await.unwrap().into_inner();
    input.send(wire::ExecRequest { message: Some(Input::Stdin("ping".into())) }).await.unwrap();
    let echo = output.message().await.unwrap().unwrap();
    assert_eq!(echo.message, Some(Output::Stdout("ping".into())));
    drop(input);
    let exit = output.message().await.unwrap().unwrap();
    assert_eq!(exit.message, Some(Output::ExitCode(7)));
    assert_eq!(output.message().await.unwrap(), None);

    let (input, messages) = mpsc::channel(4);
    input.send(start("redis-0")).await.unwrap();
    let output = client.exec(ReceiverStream::new(messages)).await.unwrap();
    assert_eq!(peer.count(), 1);
    drop((input, output));
    until("the agent's side to end", || async { (peer.count() == 0).then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_end_when_the_reader_goes() {
    let (lab, peer, _agent) = with_task().await;
    let mut client = TasksClient::new(lab.admin(lab.follower().await));
    let request = wire::LogsRequest { task: "redis-0".into(), follow: true, ..Default::default() };
    let mut logs = client.logs(request).await.unwrap().into_inner();
    assert_eq!(logs.message().await.unwrap().unwrap().lines[0].text, "hello");
    assert_eq!(peer.count(), 1);
    drop(logs);
    until("the agent's side to end", || async { (peer.count() == 0).then_some(()) }).await;
    let unknown = wire::LogsRequest { task: "redis-9".into(), ..Default::default() };
    let refused = client.logs(unknown).await.unwrap_err();
    assert_eq!((refused.code(), details(&refused).reason.as_str()), (Code::NotFound, "UnknownTask"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_imported_image_goes_to_a_node_and_is_known_at_once() {
    let (lab, _peer, _agent) = with_task().await;
    let mut client = ImagesClient::new(lab.admin(lab.follower().await));
    let chunk = || wire::ImportImageRequest { message: Some(Part::Chunk(vec![1; 1 << 20].into())) };
    let start = wire::ImportImageRequest { message: Some(Part::Start(wire::ImportStart::default())) };
    let archive = tokio_stream::iter([start, chunk(), chunk(), chunk()]);
    let image = client.import(archive).await.unwrap().into_inner();
    assert_eq!(
        (image.reference.as_str(), image.nodes.as_slice()),
        ("size:3145728", &["node-1".to_owned()][..])
    );
    let list = client.list(wire::ListRequest::default()).await.unwrap().into_inner().images;
    assert!(list.iter().any(|known| known.reference == image.reference));
    let refused = client.import(tokio_stream::iter([chunk()])).await.unwrap_err();
    assert_eq!(details(&refused).violations[0].field, "start");
}
