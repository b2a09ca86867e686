//! Target: receives a frozen task, restores it, and holds it until the log
//! has decided.
//!
//! ```text
//! Start -> (leave to receive) -> archives -> End -> received -> restore -> held
//! ```
//!
//! Whatever goes wrong here is told to the node task, which asks for the
//! abort; the source learns of it from the log, not from this stream.

use super::Answers;
use crate::context::Context;
use crate::failpoint;
use crate::lease::unix_us;
use crate::node::{Incoming, Message as NodeMessage};
use crate::transfer::{CHUNK_BYTES, Part, Reader};
use crate::worker::{self, Archive, Carried};
use agent_core::Event;
use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use dray_model::NodeName;
use dray_model::ids::MigrationId;
use dray_model::migration::{Side, Step};
use dray_proto::v1::migrate_request::Message;
use dray_proto::v1::{MigrateRequest, MigrateResponse, MigrateStart, migrate_response};
use std::time::Instant;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

type Requests = Streaming<MigrateRequest>;
type Answer = mpsc::Sender<Result<MigrateResponse, Status>>;

/// Lets the source of a migration that is prepared here send.
pub(super) async fn receive(
    context: Context,
    source: NodeName,
    mut requests: Requests,
) -> Result<Answers<MigrateResponse>, Status> {
    let first = requests.message().await?.and_then(|request| request.message);
    let Some(Message::Start(start)) = first else {
        return Err(Status::invalid_argument("the first message must name the migration"));
    };
    let migration: MigrationId =
        start.migration.parse().map_err(|_| Status::invalid_argument("the migration's name is malformed"))?;
    let incoming = leave(&context, migration).await?;
    if incoming.migration.peer != source {
        fail(&context, &incoming, "another node than the source began to send").await;
        return Err(Status::permission_denied(format!("{source} is not the source of {migration}")));
    }
    let (answer, answers) = mpsc::channel(4);
    tokio::spawn(async move {
        let cancel = incoming.cancel.clone();
        let done = tokio::select! {
            done = take_over(&context, &incoming, &start, requests, &answer) => done,
            () = cancel.cancelled() => Err(anyhow::anyhow!("no longer wanted")),
        };
        match done {
            Ok(steps) => context.happened(&incoming.id, Event::Restored { steps }).await,
            Err(error) => {
                tracing::warn!(instance = %incoming.id, "receive: {error:#}");
                fail(&context, &incoming, &format!("{error:#}")).await;
            }
        }
    });
    Ok(ReceiverStream::new(answers))
}

async fn leave(context: &Context, migration: MigrationId) -> Result<Incoming, Status> {
    let (reply, incoming) = oneshot::channel();
    context.tell(NodeMessage::Receive(migration, reply)).await;
    let incoming = incoming.await.ok().flatten();
    incoming.ok_or_else(|| Status::failed_precondition(format!("{migration} is not prepared here")))
}

async fn fail(context: &Context, incoming: &Incoming, message: &str) {
    context.happened(&incoming.id, Event::Broken { message: message.into() }).await;
}

async fn take_over(
    context: &Context,
    incoming: &Incoming,
    start: &MigrateStart,
    requests: Requests,
    answer: &Answer,
) -> Result<Vec<Step>> {
    ensure!(start.task == incoming.id.task.to_string(), "the source sends another task");
    let mut clock = Clock::begin();
    let carried = receive_all(context, incoming, requests).await?;
    clock.lap("receive");
    let received = MigrateResponse { message: Some(migrate_response::Message::Received(true)) };
    // A source that is gone needs no answer: the log decides.
    let _ = answer.send(Ok(received)).await;
    failpoint::reach(&context.config.name, "target-received").await?;
    worker::restore(context, &incoming.id, incoming.migration.task.ip, &carried).await?;
    clock.lap("restore");
    failpoint::reach(&context.config.name, "target-restored").await?;
    Ok(clock.steps)
}

/// Writes what arrives where the restore will look for it.
async fn receive_all(context: &Context, incoming: &Incoming, mut requests: Requests) -> Result<Carried> {
    let mut bytes = 0;
    let mut unpacking: Option<Unpacking> = None;
    let mut carried = None;
    loop {
        match requests
            .message()
            .await
            .context("the source's stream broke")?
            .and_then(|request| request.message)
        {
            Some(Message::Chunk(chunk)) => {
                ensure!(
                    chunk.data.len() <= CHUNK_BYTES,
                    "a chunk of {} bytes is too large",
                    chunk.data.len()
                );
                bytes += chunk.data.len() as u64;
                if unpacking.as_ref().is_none_or(|current| current.name != chunk.archive) {
                    finish(unpacking.take(), &mut carried).await?;
                    unpacking = Some(Unpacking::begin(context, incoming, chunk.archive)?);
                }
                if let Some(current) = &unpacking {
                    current.feed(chunk.data).await?;
                }
            }
            Some(Message::End(end)) => {
                finish(unpacking.take(), &mut carried).await?;
                ensure!(bytes == end.bytes, "{bytes} bytes arrived, but {} were sent", end.bytes);
                return carried.context("the source sent no manifest");
            }
            Some(Message::Failure(failure)) => bail!(failure),
            Some(Message::Start(_)) => bail!("the source began twice"),
            None => bail!("the source's stream ended too early"),
        }
    }
}

async fn finish(unpacking: Option<Unpacking>, carried: &mut Option<Carried>) -> Result<()> {
    if let Some(unpacking) = unpacking
        && let Some(manifest) = unpacking.end().await?
    {
        *carried = Some(manifest);
    }
    Ok(())
}

/// One archive being written while it arrives.
struct Unpacking {
    name: String,
    chunks: mpsc::Sender<Part>,
    work: JoinHandle<Result<Option<Carried>>>,
}

impl Unpacking {
    fn begin(context: &Context, incoming: &Incoming, name: String) -> Result<Unpacking> {
        let archive: Archive = name.parse()?;
        let (chunks, parts) = mpsc::channel(8);
        let (context, id) = (context.clone(), incoming.id.clone());
        let work =
            tokio::task::spawn_blocking(move || worker::unpack(&context, &id, &archive, Reader::new(parts)));
        Ok(Unpacking { name, chunks, work })
    }

    async fn feed(&self, data: Bytes) -> Result<()> {
        // When the work has failed, its end says why.
        let _ = self.chunks.send(Part::Data(data)).await;
        Ok(())
    }

    async fn end(self) -> Result<Option<Carried>> {
        let _ = self.chunks.send(Part::Done).await;
        drop(self.chunks);
        self.work.await.context("a worker panicked")?.with_context(|| format!("write the {}", self.name))
    }
}

/// Measures what is done one after the other.
struct Clock {
    steps: Vec<Step>,
    began_us: u64,
    began: Instant,
}

impl Clock {
    fn begin() -> Clock {
        Clock { steps: Vec::new(), began_us: unix_us(), began: Instant::now() }
    }

    fn lap(&mut self, name: &str) {
        let took_us = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.steps.push(Step { side: Side::Target, name: name.into(), began_us: self.began_us, took_us });
        self.began_us = unix_us();
        self.began = Instant::now();
    }
}
