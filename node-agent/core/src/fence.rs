//! How long containers may run without news from a leader.
//!
//! A task that restarts elsewhere when its node is lost runs here under a
//! lease. The leader declares a node lost only after a time that is longer
//! than the lease, counted from the last heartbeat that it acknowledged; the
//! lease is counted from when that heartbeat was *sent*. So the lease has
//! always ended, and the shim has frozen the container, before another node
//! may start it.

use std::time::Duration;

/// What is left of a lease, or zero.
///
/// `sent_ms` is when the last acknowledged heartbeat was sent.
pub fn remaining(lease: Duration, sent_ms: u64, now_ms: u64) -> Duration {
    lease.saturating_sub(Duration::from_millis(now_ms.saturating_sub(sent_ms)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_counts_from_when_the_heartbeat_was_sent() {
        let lease = Duration::from_secs(10);
        assert_eq!(remaining(lease, 1_000, 3_000), Duration::from_secs(8));
        assert_eq!(remaining(lease, 1_000, 11_000), Duration::ZERO);
        assert_eq!(remaining(lease, 1_000, 99_000), Duration::ZERO);
    }
}
