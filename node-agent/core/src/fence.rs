//! How long containers may run without news from a leader.
//!
//! A task that restarts elsewhere when its node is lost runs here under a
//! lease. The leader declares a node lost only after a time that is longer
//! than the lease, counted from the last heartbeat that it acknowledged; the
//! lease is counted from when that heartbeat was *sent*. So the lease has
//! always ended, and the shim has frozen the container, before another node
//! may start it.
//!
//! When all schedulers are gone, nothing can be started anywhere, and
//! containers must not notice. An agent that hears from no leader therefore
//! asks the other agents before its lease runs out. If more than half of all
//! nodes, itself included, answer and none of them has heard from a leader for
//! three quarters of a lease, there is no leader, and the lease is renewed.
//! This is safe because a leader declares nodes lost only after it has heard
//! from at least half of them for longer than a lease, with no gap of half a
//! lease: one of those is among any more than half, and says so. A lease that
//! has run out is renewed by a leader only: the task may run elsewhere.

use std::time::Duration;

/// What is left of a lease, or zero.
///
/// `sent_ms` is when the last acknowledged heartbeat was sent.
pub fn remaining(lease: Duration, sent_ms: u64, now_ms: u64) -> Duration {
    lease.saturating_sub(Duration::from_millis(now_ms.saturating_sub(sent_ms)))
}

/// Whether it is time to ask the other nodes.
pub fn is_doubtful(lease: Duration, remaining: Duration) -> bool {
    !remaining.is_zero() && remaining <= lease / 4
}

/// Whether there is no leader, as far as the other nodes know.
///
/// `answers` holds one entry per *other* node: none if it didn't answer, else
/// how long ago it last heard from a leader, if it ever did.
pub fn is_outage(lease: Duration, answers: &[Option<Option<Duration>>]) -> bool {
    let all = answers.len() + 1;
    let reached = answers.iter().flatten().count() + 1;
    let silent = |age: &Option<Duration>| age.is_none_or(|age| age >= lease / 4 * 3);
    2 * reached > all && answers.iter().flatten().all(silent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_takes_more_than_half_of_the_nodes_and_no_dissent() {
        let lease = Duration::from_secs(10);
        let (old, new) = (Some(Some(Duration::from_millis(7_500))), Some(Some(Duration::from_secs(7))));
        let table: [(&[Option<Option<Duration>>], bool); 7] = [
            (&[], true),
            (&[None], false),
            (&[Some(None)], true),
            (&[old, None], true),
            (&[old, new], false),
            (&[old, None, None], false),
            (&[old, old, None, None], true),
        ];
        for (answers, outage) in table {
            assert_eq!(is_outage(lease, answers), outage, "{answers:?}");
        }
    }

    #[test]
    fn a_lease_that_has_run_out_is_not_in_doubt() {
        let lease = Duration::from_secs(8);
        let doubtful = |seconds| is_doubtful(lease, Duration::from_secs(seconds));
        assert_eq!([0, 1, 2, 3, 8].map(doubtful), [false, true, true, false, false]);
    }

    #[test]
    fn a_lease_counts_from_when_the_heartbeat_was_sent() {
        let lease = Duration::from_secs(10);
        assert_eq!(remaining(lease, 1_000, 3_000), Duration::from_secs(8));
        assert_eq!(remaining(lease, 1_000, 11_000), Duration::ZERO);
        assert_eq!(remaining(lease, 1_000, 99_000), Duration::ZERO);
    }
}
