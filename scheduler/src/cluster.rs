//! Reading and writing the replicated state from any scheduler: what only the
//! leader can do is forwarded to it, and repeated where that is safe.
//!
//! A write that was refused by a scheduler that isn't the leader was never
//! proposed and is repeated freely. One whose fate is unknown is repeated only
//! under its request id, which makes the second do nothing if the first did.

use crate::raft::host::{Applied, Handle, NotServed};
use dray_proto::status::{details, leader_hint};
use dray_proto::v1::raft_client::RaftClient;
use dray_proto::v1::{ProposeRequest, ReadIndexRequest, SchedulerStatus};
use scheduler_core::codec::{DecodeError, EncodeError, decode_result, encode_command};
use scheduler_core::{Command, Op, Refusal, Reply, State};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::{Instant, timeout};
use tonic::Status;
use tonic::transport::Channel;

/// How long a request may look for a leader that serves it.
const PATIENCE: Duration = Duration::from_secs(8);
/// How long the leader may take for one request.
const ATTEMPT: Duration = Duration::from_secs(4);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(20);

/// Another scheduler, or this one.
#[derive(Debug, Clone)]
pub struct Voter {
    /// Where it serves.
    pub address: SocketAddr,
    /// How to reach it; `None`: it is this one.
    pub channel: Option<Channel>,
}

/// The replicated state, as one scheduler sees and changes it.
#[derive(Debug, Clone)]
pub struct Cluster {
    handle: Handle,
    voters: Arc<BTreeMap<u64, Voter>>,
    id: u64,
    /// Makes request ids; unique with the id and the time of the start.
    serial: Arc<AtomicU64>,
}

/// A write that was applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// The state machine's answer.
    pub reply: Reply,
    /// Where in the log it is; this scheduler has applied it.
    pub index: u64,
}

/// Why a write wasn't applied, as far as we know.
#[derive(Debug, thiserror::Error)]
pub enum ProposeError {
    /// The state machine says no.
    #[error(transparent)]
    Refused(Box<Refusal>),
    /// Only the leader may do this, and this isn't it.
    #[error("this scheduler is not the leader")]
    NotLeader(Option<String>),
    /// There is no leader, or it can't be reached.
    #[error(
        "no scheduler leads at the moment, so nothing was changed; repeat this when a majority of the \
         schedulers is up"
    )]
    NoLeader,
    /// It may or may not be applied.
    #[error(
        "the leader was lost before it answered: the change may or may not have been made; repeat it with \
         the same request_id, which does it at most once"
    )]
    Unknown,
    /// Too much is waiting.
    #[error("the leader has too much to do; repeat this later")]
    Overloaded,
    /// A defect, or schedulers of different versions.
    #[error("schedulers don't understand each other: {0}")]
    Malformed(String),
}

/// Why the state can't be read as of now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Only the leader may do this, and this isn't it.
    #[error("this scheduler is not the leader")]
    NotLeader(Option<String>),
    /// Nobody can say what is true now.
    #[error("no scheduler leads at the moment; repeat this when a majority of the schedulers is up")]
    NoLeader,
}

/// What one attempt came to when it came to nothing.
enum Setback {
    /// Never proposed.
    NotServed,
    /// May have been proposed.
    Unknown,
    /// Trying again is no use.
    Final(ProposeError),
}

impl From<EncodeError> for ProposeError {
    fn from(error: EncodeError) -> Self {
        ProposeError::Malformed(error.to_string())
    }
}

impl From<DecodeError> for Setback {
    fn from(error: DecodeError) -> Self {
        Setback::Final(ProposeError::Malformed(error.to_string()))
    }
}

impl From<NotServed> for Setback {
    fn from(error: NotServed) -> Self {
        match error {
            NotServed::NotLeader => Setback::NotServed,
            NotServed::Unknown => Setback::Unknown,
            NotServed::Overloaded => Setback::Final(ProposeError::Overloaded),
            NotServed::Malformed(what) => Setback::Final(ProposeError::Malformed(what)),
        }
    }
}

impl Cluster {
    /// The state as scheduler `id` of `voters` sees it.
    pub fn new(id: u64, handle: Handle, voters: BTreeMap<u64, Voter>) -> Cluster {
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let serial = u64::try_from(started.as_micros()).unwrap_or_default();
        Cluster { handle, voters: Arc::new(voters), id, serial: Arc::new(AtomicU64::new(serial)) }
    }

    /// This scheduler's replica.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// This scheduler's id.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// All schedulers.
    pub fn voters(&self) -> &BTreeMap<u64, Voter> {
        &self.voters
    }

    /// Where the leader serves, as far as this scheduler knows.
    pub fn leader_address(&self) -> Option<String> {
        let leader = self.handle.standing().leader?;
        self.voters.get(&leader).map(|voter| voter.address.to_string())
    }

    /// Where this scheduler stands.
    pub fn status_here(&self) -> SchedulerStatus {
        let standing = self.handle.standing();
        let address = self.voters.get(&self.id).map(|voter| voter.address.to_string());
        SchedulerStatus {
            id: self.id,
            address: address.unwrap_or_default(),
            leader: standing.leader == Some(self.id),
            reachable: true,
            term: standing.term,
            applied: self.handle.view(State::applied),
        }
    }

    /// A request id that nobody else makes.
    pub fn new_request_id(&self) -> String {
        format!("scheduler-{}-{:x}", self.id, self.serial.fetch_add(1, Ordering::Relaxed))
    }

    /// Writes, wherever the leader is. When this returns well, this scheduler
    /// has applied it, too.
    ///
    /// # Errors
    /// Says whether it was certainly not applied.
    pub async fn propose(&self, op: Op, request_id: Option<String>) -> Result<Accepted, ProposeError> {
        let command = Command { now_ms: 0, request_id, op };
        let deadline = Instant::now() + PATIENCE;
        let mut unknown = false;
        loop {
            match self.attempt(&command).await {
                Ok(accepted) => return Ok(accepted),
                Err(Setback::Final(error)) => return Err(error),
                Err(Setback::Unknown) if command.request_id.is_none() => return Err(ProposeError::Unknown),
                Err(Setback::Unknown) => unknown = true,
                Err(Setback::NotServed) => {}
            }
            if Instant::now() > deadline {
                return Err(if unknown { ProposeError::Unknown } else { ProposeError::NoLeader });
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Writes, if this scheduler is the leader.
    ///
    /// # Errors
    /// It isn't, or as for [`Cluster::propose`].
    pub async fn propose_here(&self, command: Command) -> Result<Applied, ProposeError> {
        match self.handle.propose(command).await {
            Ok(applied) => Ok(applied),
            Err(NotServed::NotLeader) => Err(ProposeError::NotLeader(self.leader_address())),
            Err(NotServed::Unknown) => Err(ProposeError::Unknown),
            Err(NotServed::Overloaded) => Err(ProposeError::Overloaded),
            Err(NotServed::Malformed(what)) => Err(ProposeError::Malformed(what)),
        }
    }

    /// The index up to which a reader must have applied to see everything that
    /// was acknowledged before, if this scheduler is the leader.
    ///
    /// # Errors
    /// It isn't.
    pub async fn read_index_here(&self) -> Result<u64, ReadError> {
        let index = timeout(ATTEMPT, self.handle.read_index()).await;
        index.ok().and_then(Result::ok).ok_or_else(|| ReadError::NotLeader(self.leader_address()))
    }

    async fn attempt(&self, command: &Command) -> Result<Accepted, Setback> {
        let Applied { result, index } = match self.leader_channel() {
            None => self.handle.propose(command.clone()).await?,
            Some(leader) => self.forward(leader, command).await?,
        };
        let applied = timeout(ATTEMPT, self.handle.wait_applied(index)).await;
        let reply = result.map_err(|refusal| Setback::Final(ProposeError::Refused(Box::new(refusal))))?;
        applied.map_err(|_| Setback::Unknown)?;
        Ok(Accepted { reply, index })
    }

    async fn forward(&self, leader: Channel, command: &Command) -> Result<Applied, Setback> {
        let command = encode_command(command).map_err(|e| Setback::Final(e.into()))?.into();
        let mut client = RaftClient::new(leader);
        let answer = timeout(ATTEMPT, client.propose(ProposeRequest { command })).await;
        let answer = answer.map_err(|_| Setback::Unknown)?.map_err(|status| setback_of(&status))?;
        let answer = answer.into_inner();
        Ok(Applied { result: decode_result(&answer.outcome)?, index: answer.index })
    }

    /// The channel to the leader; `None` while that is this scheduler, or
    /// unknown: then this one's replica says that it doesn't lead.
    fn leader_channel(&self) -> Option<Channel> {
        let leader = self.handle.standing().leader?;
        self.voters.get(&leader)?.channel.clone()
    }

    /// Returns once this scheduler's state holds everything that was
    /// acknowledged before the call.
    ///
    /// # Errors
    /// No leader could confirm it in time.
    pub async fn settle(&self) -> Result<u64, ReadError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Ok(index) = self.try_settle().await {
                return Ok(index);
            }
            if Instant::now() > deadline {
                return Err(ReadError::NoLeader);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn try_settle(&self) -> Result<u64, ReadError> {
        let index = match self.leader_channel() {
            None => self.read_index_here().await.ok(),
            Some(leader) => {
                let mut client = RaftClient::new(leader);
                let answer = timeout(ATTEMPT, client.read_index(ReadIndexRequest {})).await;
                answer.ok().and_then(Result::ok).map(|answer| answer.into_inner().index)
            }
        };
        let index = index.ok_or(ReadError::NoLeader)?;
        timeout(ATTEMPT, self.handle.wait_applied(index)).await.map_err(|_| ReadError::NoLeader)?;
        Ok(index)
    }
}

/// What a leader's refusal to serve means for the one who asked.
fn setback_of(status: &Status) -> Setback {
    let reason = details(status).reason;
    match reason.as_str() {
        "NotLeader" => Setback::NotServed,
        "Overloaded" => Setback::Final(ProposeError::Overloaded),
        "Malformed" => Setback::Final(ProposeError::Malformed(status.message().into())),
        _ if leader_hint(status).is_some() => Setback::NotServed,
        // The transport's own errors don't say whether anything was sent.
        _ => Setback::Unknown,
    }
}
