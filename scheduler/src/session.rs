//! Sessions with the nodes' agents, served by the leader.
//!
//! An agent says hello, is registered in the log, and gets a welcome and its
//! full assignment; then a diff whenever that changes. Its heartbeats are
//! acknowledged only after a majority confirmed, later than the heartbeat's
//! arrival, that this scheduler leads: see [`scheduler_core::liveness`] for
//! why that makes leases safe. Its reports become commands.

mod attached;
mod reports;

use crate::api::error::of_refusal;
use crate::auth;
use crate::cluster::Cluster;
use crate::contacts::Contacts;
use attached::Attached;
use dray_model::NodeName;
use dray_model::node::About;
use dray_proto::convert::Invalid;
use dray_proto::status::not_leader;
use dray_proto::v1 as wire;
use scheduler_core::{Command, Op, Reply, State};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use wire::agent_message::Message::Hello;
use wire::agent_session_server::{AgentSession, AgentSessionServer};
use wire::scheduler_message::Message;

/// How long an agent may take to say hello.
const HELLO: Duration = Duration::from_secs(5);
/// Messages that may wait for a slow agent.
const QUEUE: usize = 64;
/// Largest message to or from an agent.
const MESSAGE_MAX: usize = 64 << 20;

/// Serves the nodes' agents.
#[derive(Debug, Clone)]
pub struct Sessions {
    cluster: Cluster,
    contacts: Contacts,
}

impl Sessions {
    /// The gRPC service.
    pub fn server(cluster: Cluster, contacts: Contacts) -> AgentSessionServer<Sessions> {
        AgentSessionServer::new(Sessions { cluster, contacts }).max_decoding_message_size(MESSAGE_MAX)
    }

    fn check_leads(&self) -> Result<(), Status> {
        if self.cluster.handle().standing().leads {
            Ok(())
        } else {
            Err(not_leader(self.cluster.leader_address().as_deref()))
        }
    }

    /// Registers a node, in the log and among those that are heard from.
    async fn register(&self, name: &NodeName, about: About) -> Result<Attachment, Status> {
        let op = Op::RegisterNode { name: name.clone(), about: Box::new(about) };
        let applied = self.cluster.propose_here(Command::new(0, op)).await?;
        let session = match applied.result.map_err(of_refusal)? {
            Reply::Session { session } => session,
            Reply::Done | Reply::Workload { .. } | Reply::Migration { .. } | Reply::Drain { .. } => {
                return Err(Status::internal("a registration began no session"));
            }
        };
        self.cluster.handle().wait_applied(applied.index).await;
        let leader = || not_leader(self.cluster.leader_address().as_deref());
        let replaced = self.contacts.registered(name, session).ok_or_else(leader)?;
        let welcome = self.cluster.handle().view(|state| self.welcome(state, name));
        Ok(Attachment { session, welcome, replaced })
    }

    fn welcome(&self, state: &State, name: &NodeName) -> wire::Welcome {
        let timing = self.contacts.timing();
        wire::Welcome {
            cluster_cidr: state.cidr().to_string(),
            overlay_ip: state.node(name).map(|node| node.overlay_ip.to_string()).unwrap_or_default(),
            heartbeat_ms: timing.heartbeat_ms,
            lease_ms: timing.lease_ms,
        }
    }
}

/// What a registration gives.
struct Attachment {
    session: u64,
    welcome: wire::Welcome,
    replaced: oneshot::Receiver<()>,
}

#[tonic::async_trait]
impl AgentSession for Sessions {
    type AttachStream = ReceiverStream<Result<wire::SchedulerMessage, Status>>;

    async fn attach(
        &self,
        request: Request<Streaming<wire::AgentMessage>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let holder = auth::node(&request)?;
        self.check_leads()?;
        let mut messages = request.into_inner();
        let (name, about) = hello(&mut messages).await?;
        if name != holder {
            return Err(auth::denied(format!("{holder}'s certificate can't speak for {name}")));
        }
        let Attachment { session, welcome, replaced } = self.register(&name, about).await?;
        tracing::info!(node = %name, "agent attached");
        let (queue, answers) = mpsc::channel(QUEUE);
        let welcome = wire::SchedulerMessage { message: Some(Message::Welcome(welcome)) };
        // The queue is empty, and its other end is right here.
        let _ = queue.try_send(Ok(welcome));
        let attached = Attached::new((name, session), self.cluster.clone(), self.contacts.clone(), queue);
        tokio::spawn(attached.run(messages, replaced));
        Ok(Response::new(ReceiverStream::new(answers)))
    }
}

async fn hello(messages: &mut Streaming<wire::AgentMessage>) -> Result<(NodeName, About), Status> {
    let first = timeout(HELLO, messages.message()).await;
    let first = first.map_err(|_| Status::deadline_exceeded("the agent said nothing"))??;
    match first.and_then(|first| first.message) {
        Some(Hello(hello)) => Ok(hello.try_into()?),
        Some(_) | None => Err(Invalid::field("hello", "must come first").into()),
    }
}
