//! The agent's stream to the leading scheduler.
//!
//! Dial any scheduler; one that isn't the leader names the leader. Then: say
//! who we are, get the full set and diffs, and send heartbeats and reports
//! until the stream breaks. Every new session tells everything again.

use crate::context::Context;
use crate::lease::boot_ms;
use crate::ledger::Place;
use crate::node::Message;
use agent_core::Reports;
use anyhow::{Context as _, Result, bail};
use dray_model::assignment::{Assignment, AssignmentDiff, ImageReport};
use dray_proto::connect::Whom;
use dray_proto::status::leader_hint;
use dray_proto::v1::agent_message::Message as ToScheduler;
use dray_proto::v1::agent_session_client::AgentSessionClient;
use dray_proto::v1::scheduler_message::Message as FromScheduler;
use dray_proto::v1::{AgentMessage, Heartbeat, Report, SchedulerMessage, Welcome};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{interval, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

/// How long a scheduler may take to let us in.
const PATIENCE: Duration = Duration::from_secs(3);
/// The longest wait between two tries.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Keeps a session for ever.
pub(crate) async fn keep(context: Context, reports: watch::Receiver<Arc<Reports>>) {
    let mut next = 0;
    let mut pause = Duration::from_millis(50);
    let mut hint: Option<String> = None;
    loop {
        let known = &context.config.schedulers;
        let address = hint.take().unwrap_or_else(|| known[next % known.len()].to_string());
        match attach(&context, &address, reports.clone()).await {
            Ok(Ended::Redirected(leader)) => {
                tracing::debug!(%address, %leader, "redirected");
                hint = Some(leader);
                continue;
            }
            Ok(Ended::Attached) => pause = Duration::from_millis(50),
            Err(error) => tracing::debug!(%address, "{error:#}"),
        }
        next += 1;
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// How a session ended without an error of ours.
enum Ended {
    /// Another scheduler leads.
    Redirected(String),
    /// We were attached.
    Attached,
}

async fn attach(context: &Context, address: &str, reports: watch::Receiver<Arc<Reports>>) -> Result<Ended> {
    let channel = context.credentials.channel_to(address, Whom::AnyScheduler)?;
    let mut client = AgentSessionClient::new(channel).max_decoding_message_size(64 << 20);
    let (outgoing, stream) = mpsc::channel(64);
    let hello = (context.config.name.clone(), context.about.clone());
    outgoing.send(message(ToScheduler::Hello(hello.into()))).await?;
    let answer = timeout(PATIENCE, client.attach(ReceiverStream::new(stream))).await;
    let incoming = match answer.context("the scheduler doesn't answer")? {
        Ok(answer) => answer.into_inner(),
        Err(status) => match leader_hint(&status) {
            Some(leader) if leader != address => return Ok(Ended::Redirected(leader.into())),
            _ => bail!("{}: {}", status.code(), status.message()),
        },
    };
    let mut session = Session::begin(context.clone(), outgoing, incoming, reports).await?;
    tracing::info!(scheduler = address, "attached");
    let ended = session.run().await;
    tracing::warn!(
        scheduler = address,
        "detached: {:#}",
        ended.err().unwrap_or_else(|| anyhow::anyhow!("closed"))
    );
    Ok(Ended::Attached)
}

struct Session {
    context: Context,
    outgoing: mpsc::Sender<AgentMessage>,
    incoming: Streaming<SchedulerMessage>,
    reports: watch::Receiver<Arc<Reports>>,
    images: watch::Receiver<BTreeMap<String, ImageReport>>,
    heartbeat: Duration,
    lease: Duration,
    assignment: Assignment,
    sent: Reports,
    sent_images: BTreeMap<String, ImageReport>,
    /// When each heartbeat that isn't acknowledged was sent, by number.
    beats: BTreeMap<u64, u64>,
    sequence: u64,
}

impl Session {
    async fn begin(
        context: Context,
        outgoing: mpsc::Sender<AgentMessage>,
        mut incoming: Streaming<SchedulerMessage>,
        reports: watch::Receiver<Arc<Reports>>,
    ) -> Result<Session> {
        let first = timeout(PATIENCE, incoming.message()).await.context("no welcome")??;
        let Some(FromScheduler::Welcome(welcome)) = first.and_then(|first| first.message) else {
            bail!("the scheduler didn't say welcome");
        };
        let (place, lease_ms) = (place(&welcome)?, welcome.lease_ms);
        context.tell(Message::Joined { place, lease_ms }).await;
        Ok(Session {
            images: context.held.subscribe(),
            heartbeat: Duration::from_millis(welcome.heartbeat_ms.clamp(10, 60_000)),
            lease: Duration::from_millis(welcome.lease_ms),
            context,
            outgoing,
            incoming,
            reports,
            assignment: Assignment::default(),
            sent: Reports::default(),
            sent_images: BTreeMap::new(),
            beats: BTreeMap::new(),
            sequence: 0,
        })
    }

    async fn run(&mut self) -> Result<()> {
        let mut beat = interval(self.heartbeat);
        self.reports.mark_changed();
        self.images.mark_changed();
        loop {
            tokio::select! {
                // A stream's next message and a watch's change are still
                // there when asked again; a missed tick comes at once.
                received = self.incoming.message() => match received? {
                    Some(SchedulerMessage { message: Some(message) }) => self.take_in(message).await?,
                    Some(SchedulerMessage { message: None }) => {}
                    None => return Ok(()),
                },
                _ = beat.tick() => self.beat().await?,
                changed = self.reports.changed() => {
                    changed?;
                    self.report().await?;
                }
                changed = self.images.changed() => {
                    changed?;
                    self.report_images().await?;
                }
            }
        }
    }

    async fn take_in(&mut self, message: FromScheduler) -> Result<()> {
        match message {
            FromScheduler::Welcome(_) => bail!("a second welcome"),
            FromScheduler::Full(full) => {
                self.assignment = full.try_into()?;
                self.assigned().await;
            }
            FromScheduler::Diff(diff) => {
                let diff = AssignmentDiff::try_from(diff)?;
                let meets_peers = !diff.peers.is_empty();
                self.assignment.apply(diff)?;
                self.assigned().await;
                // The leader counts on whom a node knew when last heard.
                if meets_peers {
                    self.beat().await?;
                }
            }
            // What a lease froze may be thawed only after the full set is known.
            FromScheduler::HeartbeatAck(_) if self.assignment.generation == 0 => {}
            FromScheduler::HeartbeatAck(ack) => {
                let later = self.beats.split_off(&(ack.sequence + 1));
                let answered = std::mem::replace(&mut self.beats, later);
                if let Some(sent_ms) = answered.get(&ack.sequence) {
                    self.context.contact.acknowledge(*sent_ms, self.lease);
                    self.context.tell(Message::Renewed).await;
                }
            }
        }
        Ok(())
    }

    async fn assigned(&self) {
        self.context.tell(Message::Assigned(Box::new(self.assignment.clone()))).await;
    }

    async fn beat(&mut self) -> Result<()> {
        self.sequence += 1;
        self.beats.insert(self.sequence, boot_ms());
        self.send(ToScheduler::Heartbeat(Heartbeat { sequence: self.sequence })).await
    }

    async fn report(&mut self) -> Result<()> {
        let now = Reports::clone(&self.reports.borrow_and_update());
        let news = now.since(&self.sent);
        if !news.is_empty() {
            let report = Report {
                tasks: news.tasks.into_values().map(Into::into).collect(),
                migrations: news.migrations.into_values().map(Into::into).collect(),
                images: Vec::new(),
            };
            self.send(ToScheduler::Report(report)).await?;
        }
        self.sent = now;
        Ok(())
    }

    async fn report_images(&mut self) -> Result<()> {
        let now = self.images.borrow_and_update().clone();
        let new = now.iter().filter(|(name, image)| self.sent_images.get(*name) != Some(image));
        let gone = self.sent_images.iter().filter(|(name, _)| !now.contains_key(*name));
        let gone = gone.map(|(_, image)| ImageReport { removed: true, ..image.clone() });
        let images: Vec<_> = new.map(|(_, image)| image.clone()).chain(gone).map(Into::into).collect();
        if !images.is_empty() {
            self.send(ToScheduler::Report(Report { images, ..Report::default() })).await?;
        }
        self.sent_images = now;
        Ok(())
    }

    async fn send(&self, what: ToScheduler) -> Result<()> {
        self.outgoing.send(message(what)).await.context("the stream is closed")
    }
}

fn message(message: ToScheduler) -> AgentMessage {
    AgentMessage { message: Some(message) }
}

fn place(welcome: &Welcome) -> Result<Place> {
    Ok(Place {
        cidr: welcome.cluster_cidr.parse().map_err(|e: String| anyhow::anyhow!(e))?,
        overlay_ip: welcome.overlay_ip.parse().context("overlay_ip")?,
    })
}
