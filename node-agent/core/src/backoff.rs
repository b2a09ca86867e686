//! How long to wait before a container is started again.

use dray_model::spec::{RestartMode, RestartPolicy};
use dray_model::task::Exit;
use std::time::Duration;

/// The wait after the given number of ends in a row: doubles from
/// `policy.backoff` up to `policy.backoff_max`.
pub fn delay(policy: &RestartPolicy, ends_in_a_row: u32) -> Duration {
    let doublings = ends_in_a_row.saturating_sub(1).min(31);
    policy.backoff.saturating_mul(1 << doublings).min(policy.backoff_max)
}

/// Whether a container that ended so is started again.
pub fn is_restarted(policy: &RestartPolicy, exit: &Exit) -> bool {
    match policy.mode {
        RestartMode::Always => true,
        RestartMode::OnFailure => !exit.success(),
        RestartMode::Never => false,
    }
}

/// Whether a run was long enough to begin counting anew.
pub fn is_stable(policy: &RestartPolicy, ran: Duration) -> bool {
    ran >= policy.backoff_max
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_longest() {
        let policy = RestartPolicy::default();
        let seconds: Vec<u64> = (1..=8).map(|n| delay(&policy, n).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(delay(&policy, u32::MAX), policy.backoff_max);
    }

    #[test]
    fn modes() {
        let exit = |code| Exit { code, signal: 0, oom_killed: false, at_ms: 0 };
        let policy = |mode| RestartPolicy { mode, ..RestartPolicy::default() };
        let table = [
            (RestartMode::Always, true, true),
            (RestartMode::OnFailure, false, true),
            (RestartMode::Never, false, false),
        ];
        for (mode, after_success, after_failure) in table {
            assert_eq!(is_restarted(&policy(mode), &exit(0)), after_success, "{mode:?}");
            assert_eq!(is_restarted(&policy(mode), &exit(1)), after_failure, "{mode:?}");
        }
    }
}
