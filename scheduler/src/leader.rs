//! What a scheduler does while it leads: it declares silent nodes lost, plans,
//! and proposes the plan's steps. One task runs this, so there is never more
//! than one loop.
//!
//! ```text
//! waiting --elected, confirmed by a majority--> leading --deposed--> waiting
//! ```

use crate::api::now_ms;
use crate::cluster::{Cluster, ProposeError};
use crate::contacts::Contacts;
use crate::raft::host::Standing;
use futures::future::join_all;
use scheduler_core::plan::{Config, Step};
use scheduler_core::{Command, State, plan};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// Deadlines are looked at this often when nothing changes.
const LOOK: Duration = Duration::from_millis(200);

/// Steps of one plan: few enough to be applied within a heartbeat, many enough
/// to be worth the look at all tasks that a plan is.
const STEPS_MAX: usize = 2_000;

/// Leads whenever this scheduler is the leader; ends with the replica.
pub async fn run(cluster: Cluster, contacts: Contacts) {
    let mut standing = cluster.handle().subscribe_standing();
    loop {
        let Ok(term) = standing.wait_for(|standing| standing.leads).await.map(|standing| standing.term)
        else {
            return;
        };
        if cluster.handle().read_index().await.is_err() {
            sleep(Duration::from_millis(10)).await;
            continue;
        }
        tracing::info!(term, "this scheduler leads");
        contacts.begin_term();
        Leader { cluster: &cluster, contacts: &contacts, term }.lead(&mut standing).await;
        contacts.end_term();
        tracing::info!(term, "this scheduler no longer leads");
    }
}

struct Leader<'a> {
    cluster: &'a Cluster,
    contacts: &'a Contacts,
    term: u64,
}

impl Leader<'_> {
    async fn lead(&self, standing: &mut watch::Receiver<Standing>) {
        let mut applied = self.cluster.handle().subscribe_applied();
        while self.leads(&standing.borrow_and_update()) {
            applied.borrow_and_update();
            let began = Instant::now();
            let steps = self.cluster.handle().view(|state| self.next_steps(state));
            let took = began.elapsed();
            if self.propose(steps).await {
                // The state was locked for `took`; leave it alone for as long.
                sleep(took).await;
                continue;
            }
            // Nothing is lost by cancelling either: both only tell of a change.
            tokio::select! {
                _ = timeout(LOOK, applied.changed()) => sleep(took).await,
                _ = standing.changed() => {}
            }
        }
    }

    fn leads(&self, standing: &Standing) -> bool {
        standing.leads && standing.term == self.term
    }

    fn next_steps(&self, state: &State) -> Vec<Step> {
        let reason = || format!("silent for {} ms", self.contacts.timing().loss_ms);
        let lost = self.contacts.verdicts(state).into_iter().map(|op| Step { op, reason: reason() });
        let config = Config { steps_max: STEPS_MAX, ..Config::default() };
        lost.chain(plan(state, now_ms(), &config).steps).collect()
    }

    /// Proposes all steps in their order and waits for them. Says whether any
    /// did something: if all were refused, the same plan would be refused again.
    async fn propose(&self, steps: Vec<Step>) -> bool {
        let proposals = steps.into_iter().map(|step| async move {
            tracing::debug!(op = ?step.op, reason = step.reason, "plan");
            let applied = self.cluster.propose_here(Command::new(0, step.op)).await;
            match applied.map(|applied| applied.result) {
                Ok(Ok(_)) => true,
                Ok(Err(refusal)) => {
                    tracing::debug!(%refusal, reason = step.reason, "a step was overtaken");
                    false
                }
                Err(error @ ProposeError::Malformed(_)) => {
                    tracing::error!(%error, reason = step.reason, "a step can't be proposed");
                    false
                }
                Err(error) => {
                    tracing::debug!(%error, reason = step.reason, "a step was not proposed");
                    false
                }
            }
        });
        join_all(proposals).await.into_iter().any(|did_something| did_something)
    }
}
