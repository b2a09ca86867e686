//! For how long containers may run without a leader.
//!
//! Counted from when the last acknowledged heartbeat was *sent* (see
//! [`agent_core::fence`]), on the monotonic clock, which runs on while the
//! machine is suspended.

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
    lease_ms: AtomicU64,
    renewed: Notify,
}

impl Contact {
    /// A heartbeat that was sent then has been acknowledged.
    pub(crate) fn acknowledge(&self, sent_ms: u64, lease: Duration) {
        self.lease_ms.store(u64::try_from(lease.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
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
        let sent_ms = self.sent_ms.load(Ordering::Relaxed);
        if sent_ms == 0 {
            return Duration::ZERO;
        }
        let lease = Duration::from_millis(self.lease_ms.load(Ordering::Relaxed));
        agent_core::fence::remaining(lease, sent_ms, boot_ms())
    }
}
