//! The links to the other schedulers: one stream of frames per peer.
//!
//! ```text
//! waiting --a frame--> connected --broken--> waiting (after a pause, the queue dropped)
//! ```
//!
//! Raft repeats what is lost, so a full queue drops and a broken link forgets;
//! both are reported, so that Raft probes that peer instead of streaming to it.
//! Never waits on behalf of the caller, never looks into a frame.

use dray_proto::v1::RaftFrame;
use dray_proto::v1::raft_client::RaftClient;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

/// Frames that may wait for one peer.
const QUEUE: usize = 1024;
/// Frames that may wait in one stream; few, for what is in there is lost with it.
const IN_FLIGHT: usize = 64;
/// Between two attempts to reach a peer.
const PAUSE: Duration = Duration::from_millis(100);
/// Largest frame; a snapshot is one.
pub const FRAME_MAX: usize = 512 << 20;

/// What became of the link to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkEvent {
    /// Frames to it were lost.
    Unreachable(u64),
    /// A snapshot was handed to the network.
    SnapshotSent(u64),
    /// A snapshot was lost.
    SnapshotLost(u64),
}

/// One message to a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// The peer.
    pub to: u64,
    /// A Raft message.
    pub bytes: Vec<u8>,
    /// Whether the fate of it has to be reported.
    pub is_snapshot: bool,
}

/// The links to all peers. Dropping it ends them.
#[derive(Debug)]
pub struct Transport {
    queues: BTreeMap<u64, mpsc::Sender<Outgoing>>,
}

impl Transport {
    /// Starts one link per channel; each tells `events` what became of it.
    pub fn start(channels: BTreeMap<u64, Channel>, events: mpsc::UnboundedSender<LinkEvent>) -> Transport {
        let link = |(id, channel)| {
            let (queue, frames) = mpsc::channel(QUEUE);
            tokio::spawn(Link { id, channel, frames, events: events.clone() }.run());
            (id, queue)
        };
        Transport { queues: channels.into_iter().map(link).collect() }
    }

    /// Hands a message to its link. Says what is lost at once.
    pub fn send(&self, message: Outgoing) -> Option<LinkEvent> {
        let (to, is_snapshot) = (message.to, message.is_snapshot);
        match self.queues.get(&to)?.try_send(message) {
            Ok(()) => None,
            Err(_) if is_snapshot => Some(LinkEvent::SnapshotLost(to)),
            Err(_) => Some(LinkEvent::Unreachable(to)),
        }
    }
}

struct Link {
    id: u64,
    channel: Channel,
    frames: mpsc::Receiver<Outgoing>,
    events: mpsc::UnboundedSender<LinkEvent>,
}

impl Link {
    async fn run(mut self) {
        while let Some(first) = self.frames.recv().await {
            self.stream(first).await;
            self.report(LinkEvent::Unreachable(self.id));
            tokio::time::sleep(PAUSE).await;
            self.drop_queue();
        }
    }

    /// Sends frames until the stream breaks or this scheduler ends.
    async fn stream(&mut self, first: Outgoing) {
        let (sender, receiver) = mpsc::channel(IN_FLIGHT);
        let mut client = RaftClient::new(self.channel.clone()).max_encoding_message_size(FRAME_MAX);
        let mut call = tokio::spawn(async move { client.send(ReceiverStream::new(receiver)).await });
        let mut next = Some(first);
        while let Some(frame) = next.take() {
            if !self.forward(frame, &sender).await {
                break;
            }
            next = tokio::select! {
                // Cancelling a receive loses nothing.
                frame = self.frames.recv() => frame,
                // The call's end is the end of this loop, however it ended.
                ended = &mut call => {
                    tracing::debug!(peer = self.id, ?ended, "link ended");
                    return;
                }
            };
        }
        call.abort();
    }

    async fn forward(&self, frame: Outgoing, sender: &mpsc::Sender<RaftFrame>) -> bool {
        let sent = sender.send(RaftFrame { message: frame.bytes.into() }).await.is_ok();
        if frame.is_snapshot {
            let event = if sent { LinkEvent::SnapshotSent } else { LinkEvent::SnapshotLost };
            self.report(event(self.id));
        }
        sent
    }

    fn drop_queue(&mut self) {
        while let Ok(frame) = self.frames.try_recv() {
            if frame.is_snapshot {
                self.report(LinkEvent::SnapshotLost(self.id));
            }
        }
    }

    fn report(&self, event: LinkEvent) {
        // Nobody listens once this scheduler ends.
        let _ = self.events.send(event);
    }
}
