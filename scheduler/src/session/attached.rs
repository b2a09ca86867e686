//! One attached agent, until either side goes.

use super::reports::Waiting;
use crate::api::error::of_refusal;
use crate::cluster::{Cluster, ProposeError};
use crate::contacts::Contacts;
use crate::raft::host::{Applied, NotServed};
use dray_model::NodeName;
use dray_model::assignment::Assignment;
use dray_proto::convert::Invalid;
use dray_proto::status::not_leader;
use dray_proto::v1 as wire;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use scheduler_core::liveness::Beat;
use scheduler_core::{Command, assignment};
use tokio::sync::mpsc::error::SendError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tonic::{Status, Streaming};
use wire::agent_message::Message::{Heartbeat, Hello, Report};
use wire::scheduler_message::Message;

type Answer = Result<wire::SchedulerMessage, Status>;
type Queue = mpsc::Sender<Answer>;
type Permit<'a> = mpsc::Permit<'a, Answer>;

/// Making an assignment looks at all tasks. In a large cluster, where that
/// takes long, it is done less often: this many times as long is rested.
const REST: u32 = 4;

/// One attached agent.
pub(super) struct Attached {
    name: NodeName,
    session: u64,
    cluster: Cluster,
    contacts: Contacts,
    queue: Queue,
    /// What the agent has; `None` until the full set was sent.
    sent: Option<Assignment>,
    waiting: Waiting,
    /// Reports on their way into the log.
    proposals: FuturesUnordered<BoxFuture<'static, Result<Applied, ProposeError>>>,
    /// The heartbeat whose confirmation is under way.
    confirming: FuturesUnordered<BoxFuture<'static, Result<u64, NotServed>>>,
    /// A later one.
    unconfirmed: Option<u64>,
}

/// Why a session ended, if there is something to be said about it.
type Ended = Option<Status>;

impl Attached {
    pub(super) fn new(
        (name, session): (NodeName, u64),
        cluster: Cluster,
        contacts: Contacts,
        queue: Queue,
    ) -> Attached {
        Attached {
            name,
            session,
            cluster,
            contacts,
            queue,
            sent: None,
            waiting: Waiting::default(),
            proposals: FuturesUnordered::new(),
            confirming: FuturesUnordered::new(),
            unconfirmed: None,
        }
    }

    pub(super) async fn run(
        mut self,
        messages: Streaming<wire::AgentMessage>,
        replaced: oneshot::Receiver<()>,
    ) {
        let ended = self.serve(messages, replaced).await;
        tracing::info!(node = %self.name, reason = ended.as_ref().map(Status::message), "agent detached");
        if let Some(status) = ended {
            // An agent that is gone needn't hear of it.
            let _ = self.queue.send(Err(status)).await;
        }
    }

    async fn serve(
        &mut self,
        mut messages: Streaming<wire::AgentMessage>,
        mut replaced: oneshot::Receiver<()>,
    ) -> Ended {
        let mut applied = self.cluster.handle().subscribe_applied();
        applied.mark_changed();
        let (mut changed, mut rest_until) = (false, Instant::now());
        loop {
            let queue = self.queue.clone();
            // Only the first arm could lose something, and tonic keeps a
            // message that is half read.
            tokio::select! {
                message = messages.message() => match message {
                    Ok(Some(message)) => if let Err(status) = self.take(message) { return Some(status) },
                    Ok(None) | Err(_) => return None,
                },
                Some(result) = self.proposals.next() => {
                    if let Err(status) = landed(result) { return Some(status) }
                }
                Some(confirmed) = self.confirming.next() => self.acknowledge(confirmed),
                news = applied.changed(), if !changed => match news {
                    Ok(()) => changed = true,
                    Err(_) => return None,
                },
                permit = room(&queue, rest_until), if changed => {
                    let Ok(permit) = permit else { return None };
                    changed = false;
                    let began = Instant::now();
                    if let Some(message) = self.next_assignment() { permit.send(Ok(message)) }
                    rest_until = Instant::now() + REST * began.elapsed();
                }
                _ = &mut replaced => return Some(self.superseded()),
                () = queue.closed() => return None,
            }
            self.propose_reports();
            self.confirm();
        }
    }

    fn take(&mut self, message: wire::AgentMessage) -> Result<(), Status> {
        match message.message {
            Some(Report(report)) => Ok(self.waiting.add(report)?),
            Some(Heartbeat(heartbeat)) => match self.contacts.heartbeat(&self.name, self.session) {
                Beat::Acknowledge => {
                    self.unconfirmed = Some(heartbeat.sequence);
                    Ok(())
                }
                Beat::Close => Err(self.superseded()),
            },
            Some(Hello(_)) => Err(Invalid::field("hello", "must come only once").into()),
            None => Err(Invalid::field("message", "is missing").into()),
        }
    }

    /// Another scheduler leads, the node was declared lost, or its agent has
    /// attached again: it has to begin anew.
    fn superseded(&self) -> Status {
        if self.cluster.handle().standing().leads {
            Status::aborted("this session is over; attach again")
        } else {
            not_leader(self.cluster.leader_address().as_deref())
        }
    }

    fn propose_reports(&mut self) {
        if let Some(op) = self.waiting.take(&self.name, self.session, !self.proposals.is_empty()) {
            let cluster = self.cluster.clone();
            self.proposals.push(Box::pin(async move { cluster.propose_here(Command::new(0, op)).await }));
        }
    }

    /// Asks for a confirmation that is later than the heartbeat's arrival, one
    /// at a time: the next is for the latest heartbeat by then.
    fn confirm(&mut self) {
        if !self.confirming.is_empty() {
            return;
        }
        if let Some(sequence) = self.unconfirmed.take() {
            let handle = self.cluster.handle().clone();
            self.confirming.push(Box::pin(async move { handle.read_index().await.map(|_| sequence) }));
        }
    }

    /// A heartbeat that nobody confirmed, or for which there is no room, stays
    /// without an acknowledgement: that is always safe.
    fn acknowledge(&self, confirmed: Result<u64, NotServed>) {
        if let Ok(sequence) = confirmed {
            let message = Message::HeartbeatAck(wire::HeartbeatAck { sequence });
            let _ = self.queue.try_send(Ok(wire::SchedulerMessage { message: Some(message) }));
        }
    }

    /// What the agent has to be told about its assignment.
    fn next_assignment(&mut self) -> Option<wire::SchedulerMessage> {
        let next = self.cluster.handle().view(|state| assignment(state, &self.name));
        let message = match &self.sent {
            None => Message::Full(next.clone().into()),
            Some(sent) => {
                let diff = sent.diff(&next);
                if diff.is_empty() {
                    return None;
                }
                Message::Diff(diff.into())
            }
        };
        self.sent = Some(next);
        Some(wire::SchedulerMessage { message: Some(message) })
    }
}

/// Room for a message, once it is time to look at the state again.
async fn room(queue: &Queue, rest_until: Instant) -> Result<Permit<'_>, SendError<()>> {
    tokio::time::sleep_until(rest_until).await;
    queue.reserve().await
}

/// What became of a report. One that may be lost ends the session: the agent
/// reports everything when it attaches again.
fn landed(result: Result<Applied, ProposeError>) -> Result<(), Status> {
    result?.result.map(|_| ()).map_err(of_refusal)
}
