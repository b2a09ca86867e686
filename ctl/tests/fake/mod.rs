//! A scheduler that answers as a test wants it to, on a Unix socket.

#![expect(clippy::unwrap_used, reason = "a test that can't be set up must fail")]

use dray_proto::v1 as wire;
use dray_proto::v1::cluster_server::{Cluster, ClusterServer};
use dray_proto::v1::migrations_server::{Migrations, MigrationsServer};
use dray_proto::v1::tasks_server::{Tasks, TasksServer};
use dray_proto::v1::workloads_server::{Workloads, WorkloadsServer};
use futures::stream::{self, BoxStream, StreamExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

/// Answers of one kind.
type Answer<Q, A> = Box<dyn Fn(Q) -> Result<A, Status> + Send + Sync>;
/// A stream of answers; it breaks off with the error, if one is last.
type Answers<Q, A> = Box<dyn Fn(Q) -> Vec<Result<A, Status>> + Send + Sync>;

/// What a scheduler answers. What a test doesn't set is unimplemented.
pub(crate) struct Script {
    pub(crate) apply: Answer<wire::ApplyWorkloadRequest, wire::ApplyWorkloadResponse>,
    pub(crate) create_migration: Answer<wire::CreateMigrationRequest, wire::Migration>,
    pub(crate) watch: Answers<wire::WatchRequest, wire::WatchResponse>,
    pub(crate) events: Answer<wire::ListRequest, wire::ListEventsResponse>,
    pub(crate) logs: Answers<wire::LogsRequest, wire::LogsResponse>,
    pub(crate) task: Answer<wire::GetRequest, wire::Task>,
}

impl Default for Script {
    fn default() -> Script {
        Script {
            apply: Box::new(|_| unimplemented()),
            create_migration: Box::new(|_| unimplemented()),
            watch: Box::new(|_| vec![unimplemented()]),
            events: Box::new(|_| unimplemented()),
            logs: Box::new(|_| vec![unimplemented()]),
            task: Box::new(|_| unimplemented()),
        }
    }
}

fn unimplemented<T>() -> Result<T, Status> {
    Err(Status::unimplemented("not in this test"))
}

/// A directory of schedulers, as `clusterctl local` leaves one.
pub(crate) struct Schedulers {
    runtime: tokio::runtime::Runtime,
    dir: tempfile::TempDir,
    count: usize,
}

impl Schedulers {
    /// None yet.
    pub(crate) fn new() -> Schedulers {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        Schedulers { runtime, dir: tempfile::tempdir().unwrap(), count: 0 }
    }

    /// Starts one.
    pub(crate) fn with(mut self, script: Script) -> Schedulers {
        let listener = std::os::unix::net::UnixListener::bind(self.next_socket()).unwrap();
        listener.set_nonblocking(true).unwrap();
        let fake = Fake(Arc::new(script));
        self.runtime.spawn(async move {
            let incoming = UnixListenerStream::new(UnixListener::from_std(listener).unwrap());
            let server = Server::builder()
                .add_service(WorkloadsServer::new(fake.clone()))
                .add_service(TasksServer::new(fake.clone()))
                .add_service(MigrationsServer::new(fake.clone()))
                .add_service(ClusterServer::new(fake));
            server.serve_with_incoming(incoming).await
        });
        self
    }

    /// Leaves a socket that nobody serves.
    pub(crate) fn with_dead_one(mut self) -> Schedulers {
        drop(std::os::unix::net::UnixListener::bind(self.next_socket()).unwrap());
        self
    }

    fn next_socket(&mut self) -> PathBuf {
        self.count += 1;
        let dir = self.dir.path().join(format!("scheduler-{}", self.count));
        std::fs::create_dir(&dir).unwrap();
        dir.join("api.sock")
    }

    /// Where the schedulers are.
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// `clusterctl`, to use these schedulers.
    pub(crate) fn clusterctl(&self, line: &str) -> std::process::Command {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_clusterctl"));
        command.args(line.split_whitespace()).env_clear().env("DRAY_LOCAL_DIR", self.path());
        command.stdin(std::process::Stdio::null());
        command
    }

    /// Runs `clusterctl`; returns its exit code, output and errors.
    pub(crate) fn run(&self, line: &str) -> (i32, String, String) {
        let output = self.clusterctl(line).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }
}

/// A list that a script writes and a test reads.
#[derive(Clone, Default)]
pub(crate) struct Seen<T>(Arc<Mutex<Vec<T>>>);

impl<T: Clone> Seen<T> {
    pub(crate) fn add(&self, value: T) {
        self.0.lock().unwrap().push(value);
    }

    pub(crate) fn all(&self) -> Vec<T> {
        self.0.lock().unwrap().clone()
    }
}

#[derive(Clone)]
struct Fake(Arc<Script>);

type Stream<T> = BoxStream<'static, Result<T, Status>>;

/// Items one by one; without an error at the end the stream stays open, as a
/// watch does.
fn streamed<T: Send + 'static>(items: Vec<Result<T, Status>>) -> Result<Response<Stream<T>>, Status> {
    let breaks = items.last().is_some_and(Result::is_err);
    let items = stream::iter(items);
    Ok(Response::new(if breaks { items.boxed() } else { items.chain(stream::pending()).boxed() }))
}

#[tonic::async_trait]
impl Workloads for Fake {
    type WatchStream = Stream<wire::WatchResponse>;

    async fn apply(
        &self,
        request: Request<wire::ApplyWorkloadRequest>,
    ) -> Result<Response<wire::ApplyWorkloadResponse>, Status> {
        (self.0.apply)(request.into_inner()).map(Response::new)
    }

    async fn get(&self, _: Request<wire::GetRequest>) -> Result<Response<wire::Workload>, Status> {
        unimplemented()
    }

    async fn list(
        &self,
        _: Request<wire::ListRequest>,
    ) -> Result<Response<wire::ListWorkloadsResponse>, Status> {
        unimplemented()
    }

    async fn delete(
        &self,
        _: Request<wire::DeleteWorkloadRequest>,
    ) -> Result<Response<wire::Workload>, Status> {
        unimplemented()
    }

    async fn scale(
        &self,
        _: Request<wire::ScaleWorkloadRequest>,
    ) -> Result<Response<wire::Workload>, Status> {
        unimplemented()
    }

    async fn watch(
        &self,
        request: Request<wire::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        streamed((self.0.watch)(request.into_inner()))
    }
}

#[tonic::async_trait]
impl Tasks for Fake {
    type WatchStream = Stream<wire::WatchResponse>;
    type LogsStream = Stream<wire::LogsResponse>;
    type ExecStream = Stream<wire::ExecResponse>;

    async fn get(&self, request: Request<wire::GetRequest>) -> Result<Response<wire::Task>, Status> {
        (self.0.task)(request.into_inner()).map(Response::new)
    }

    async fn list(&self, _: Request<wire::ListRequest>) -> Result<Response<wire::ListTasksResponse>, Status> {
        unimplemented()
    }

    async fn watch(
        &self,
        request: Request<wire::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        streamed((self.0.watch)(request.into_inner()))
    }

    async fn logs(&self, request: Request<wire::LogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
        let items = (self.0.logs)(request.into_inner());
        Ok(Response::new(stream::iter(items).boxed()))
    }

    /// A shell that knows three words: its terminal, what it reads, and `exit N`.
    async fn exec(
        &self,
        request: Request<Streaming<wire::ExecRequest>>,
    ) -> Result<Response<Self::ExecStream>, Status> {
        use wire::exec_request::Message;
        let input = request
            .into_inner()
            .filter_map(|message| std::future::ready(message.ok().and_then(|request| request.message)));
        let output = input.filter_map(|message| {
            std::future::ready(match message {
                Message::Start(start) => {
                    let size = start.size.map(|size| format!("{}x{}", size.rows, size.columns));
                    Some(stdout(format!("tty {} {}\n", start.tty, size.unwrap_or_default())))
                }
                Message::Stdin(bytes) => {
                    let text = String::from_utf8_lossy(&bytes).into_owned();
                    Some(match text.trim().strip_prefix("exit ") {
                        Some(code) => wire::exec_response::Message::ExitCode(code.parse().unwrap()),
                        None => stdout(format!("read {text:?}\n")),
                    })
                }
                Message::StdinClosed(_) => Some(wire::exec_response::Message::ExitCode(3)),
                Message::Resize(_) => None,
            })
        });
        let response = |message| Ok(wire::ExecResponse { message: Some(message) });
        Ok(Response::new(output.map(response).boxed()))
    }
}

fn stdout(text: String) -> wire::exec_response::Message {
    wire::exec_response::Message::Stdout(text.into_bytes().into())
}

#[tonic::async_trait]
impl Migrations for Fake {
    type WatchStream = Stream<wire::WatchResponse>;

    async fn create(
        &self,
        request: Request<wire::CreateMigrationRequest>,
    ) -> Result<Response<wire::Migration>, Status> {
        (self.0.create_migration)(request.into_inner()).map(Response::new)
    }

    async fn get(&self, _: Request<wire::GetRequest>) -> Result<Response<wire::Migration>, Status> {
        unimplemented()
    }

    async fn list(
        &self,
        _: Request<wire::ListRequest>,
    ) -> Result<Response<wire::ListMigrationsResponse>, Status> {
        unimplemented()
    }

    async fn watch(
        &self,
        request: Request<wire::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        streamed((self.0.watch)(request.into_inner()))
    }

    async fn cancel(
        &self,
        _: Request<wire::CancelMigrationRequest>,
    ) -> Result<Response<wire::Migration>, Status> {
        unimplemented()
    }
}

#[tonic::async_trait]
impl Cluster for Fake {
    type WatchEventsStream = Stream<wire::WatchResponse>;

    async fn status(
        &self,
        _: Request<wire::StatusRequest>,
    ) -> Result<Response<wire::StatusResponse>, Status> {
        unimplemented()
    }

    async fn list_events(
        &self,
        request: Request<wire::ListRequest>,
    ) -> Result<Response<wire::ListEventsResponse>, Status> {
        (self.0.events)(request.into_inner()).map(Response::new)
    }

    async fn watch_events(
        &self,
        request: Request<wire::WatchRequest>,
    ) -> Result<Response<Self::WatchEventsStream>, Status> {
        streamed((self.0.watch)(request.into_inner()))
    }
}
