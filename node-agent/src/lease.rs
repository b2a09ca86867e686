//! For how long containers may run without a leader.
//!
//! Counted from when the last acknowledged heartbeat was *sent* (see
//! [`agent_core::fence`]), on the monotonic clock, which runs on while the
//! machine is suspended.

use crate::context::Context;
use crate::node::Message;
use agent_core::fence;
use dray_proto::connect::Whom;
use dray_proto::tls::Peer;
use dray_proto::v1::ContactRequest;
use dray_proto::v1::peer_client::PeerClient;
use futures::future::join_all;
use nix::time::{ClockId, clock_gettime};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::timeout;

/// How long to wait for a leader before something is started.
const PATIENCE: Duration = Duration::from_secs(3);

/// Milliseconds of a clock that never jumps and counts suspended time.
pub(crate) fn boot_ms() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from);
    u64::try_from(now.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

/// Unix milliseconds.
pub(crate) fn unix_ms() -> u64 {
    u64::try_from(unix().as_millis()).unwrap_or(u64::MAX)
}

/// Unix microseconds.
pub(crate) fn unix_us() -> u64 {
    u64::try_from(unix().as_micros()).unwrap_or(u64::MAX)
}

fn unix() -> Duration {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
}

/// When the agent was last known to be in touch with a leader.
#[derive(Debug, Default)]
pub(crate) struct Contact {
    /// Boot milliseconds at which the acknowledged heartbeat was sent; zero: never.
    sent_ms: AtomicU64,
    /// Boot milliseconds at which there was no leader anywhere; zero: never.
    outage_ms: AtomicU64,
    lease_ms: AtomicU64,
    renewed: Notify,
}

impl Contact {
    /// A heartbeat that was sent then has been acknowledged.
    pub(crate) fn acknowledge(&self, sent_ms: u64, lease: Duration) {
        self.remember(lease);
        self.sent_ms.fetch_max(sent_ms, Ordering::Relaxed);
        self.renewed.notify_waiters();
    }

    /// What is left of the lease; waits a while for one.
    pub(crate) async fn lease(&self) -> Option<Duration> {
        let renewed = self.renewed.notified();
        if self.remaining().is_zero() {
            let _ = timeout(PATIENCE, renewed).await;
        }
        Some(self.remaining()).filter(|remaining| !remaining.is_zero())
    }

    /// How long ago that was.
    pub(crate) fn age_ms(&self) -> Option<u64> {
        let sent_ms = self.sent_ms.load(Ordering::Relaxed);
        (sent_ms > 0).then(|| boot_ms().saturating_sub(sent_ms))
    }

    /// What is left of the lease.
    pub(crate) fn remaining(&self) -> Duration {
        let sent_ms = self.sent_ms.load(Ordering::Relaxed).max(self.outage_ms.load(Ordering::Relaxed));
        match sent_ms {
            0 => Duration::ZERO,
            sent_ms => fence::remaining(self.full(), sent_ms, boot_ms()),
        }
    }

    /// The whole lease.
    fn full(&self) -> Duration {
        Duration::from_millis(self.lease_ms.load(Ordering::Relaxed))
    }

    /// What an earlier agent knew of it.
    pub(crate) fn remember(&self, lease: Duration) {
        self.lease_ms.store(u64::try_from(lease.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// How often it is looked whether there is a leader.
const PAUSE: Duration = Duration::from_millis(200);
/// How long another agent may take to answer.
const ANSWER: Duration = Duration::from_millis(500);

/// Renews leases while there is no leader anywhere; for ever.
pub(crate) async fn keep(context: Context) {
    loop {
        tokio::time::sleep(PAUSE).await;
        let full = context.contact.full();
        if !fence::is_doubtful(full, context.contact.remaining()) {
            continue;
        }
        // Counted from before the others are asked.
        let now_ms = boot_ms();
        if fence::is_outage(full, &ask(&context).await) {
            tracing::debug!("no leader anywhere; containers go on");
            context.contact.outage_ms.store(now_ms, Ordering::Relaxed);
            context.tell(Message::Renewed).await;
        }
    }
}

/// How long ago each other node heard from a leader.
async fn ask(context: &Context) -> Vec<Option<Option<Duration>>> {
    let assignment = context.assignment.borrow().clone();
    let asked = assignment.peers.iter().map(|(name, peer)| async move {
        let whom = Whom::Exactly(Peer::Node(name.clone()));
        let channel = context.credentials.channel_to(&peer.peer_address.to_string(), whom).ok()?;
        let mut peer = PeerClient::new(channel);
        let answer = timeout(ANSWER, peer.contact(ContactRequest {})).await.ok()?.ok()?;
        Some(answer.into_inner().age_ms.map(Duration::from_millis))
    });
    join_all(asked).await
}
