//! The node task: the only owner of what is assigned and what is observed.
//!
//! ```text
//! message -> take in -> (ledger) -> reconcile -> spawn workers -> reports
//! ```

use crate::adopt;
use crate::context::Context;
use crate::lease::unix_ms;
use crate::ledger::{Page, Place};
use crate::worker;
use agent_core::reconcile::begin;
use agent_core::{Action, Event, Observed, Reports, reconcile};
use anyhow::Result;
use dray_model::assignment::{Assignment, MigrationAssignment};
use dray_model::ids::{InstanceId, MigrationId};
use dray_model::spec::NodeLossPolicy;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

/// What the node task is told.
#[derive(Debug)]
pub(crate) enum Message {
    /// A session began.
    Joined {
        /// Where in the cluster this node is.
        place: Place,
        /// How long leases are.
        lease_ms: u64,
    },
    /// The leader says what to run.
    Assigned(Box<Assignment>),
    /// A leader is there: what is left of the lease was renewed.
    Renewed,
    /// A worker, a shim or a peer says what happened.
    Happened(InstanceId, Event),
    /// A source wants to send.
    Receive(MigrationId, oneshot::Sender<Option<Incoming>>),
}

/// Leave to receive an instance.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) id: InstanceId,
    pub(crate) migration: MigrationAssignment,
    pub(crate) cancel: CancellationToken,
}

#[derive(Debug)]
pub(crate) struct Node {
    context: Context,
    page: Page,
    observed: Observed,
    /// Tells the worker of an instance to give up.
    cancels: BTreeMap<InstanceId, CancellationToken>,
    /// Whether a leader has said what to run since this process began.
    is_current: bool,
    reports: watch::Sender<Arc<Reports>>,
}

impl Node {
    /// Finds again what an earlier agent left.
    pub(crate) async fn restore(context: Context) -> Result<Node> {
        let page = context.blocking(|context| context.ledger.read()).await?;
        if let Some(place) = page.place {
            context.join(place).await?;
        }
        context.contact.remember(Duration::from_millis(page.lease_ms));
        let observed = adopt::adopt(&context, &page.assignment).await?;
        context.assignment.send_replace(Arc::new(page.assignment.clone()));
        let reports = watch::Sender::default();
        Ok(Node { context, page, observed, cancels: BTreeMap::new(), is_current: false, reports })
    }

    /// Where sessions find what to tell the scheduler.
    pub(crate) fn outbox(&self) -> watch::Receiver<Arc<Reports>> {
        self.reports.subscribe()
    }

    /// Takes in messages for ever.
    pub(crate) async fn run(mut self, mut inbox: mpsc::Receiver<Message>) -> Result<()> {
        loop {
            let wake = self.act();
            let message = tokio::select! {
                // Both can be waited for anew: a message stays in the queue,
                // and the time to wake is computed again.
                message = inbox.recv() => message,
                () = sleep_until(wake) => continue,
            };
            let Some(message) = message else { return Ok(()) };
            self.take_in(message).await?;
        }
    }

    async fn take_in(&mut self, message: Message) -> Result<()> {
        match message {
            Message::Joined { place, lease_ms } => {
                self.context.join(place).await?;
                self.page.place = Some(place);
                self.page.lease_ms = lease_ms;
            }
            Message::Assigned(assignment) => self.accept(*assignment).await?,
            Message::Renewed => self.renew_leases(),
            Message::Happened(id, event) => {
                tracing::debug!(instance = %id, ?event, "happened");
                self.observed.observe(&id, event, unix_ms());
            }
            Message::Receive(migration, reply) => {
                // A peer that no longer waits has given up.
                let _ = reply.send(self.receive(migration));
            }
        }
        Ok(())
    }

    /// Writes the ledger, then acts.
    async fn accept(&mut self, assignment: Assignment) -> Result<()> {
        self.page.assignment = assignment;
        let page = self.page.clone();
        self.context.blocking(move |context| context.ledger.write(&page)).await?;
        self.context.assignment.send_replace(Arc::new(self.page.assignment.clone()));
        self.is_current = true;
        worker::forward(&self.context, &self.page.assignment).await;
        Ok(())
    }

    /// Begins what is to be done; says when to look again.
    fn act(&mut self) -> Option<u64> {
        let mut wake = None;
        if self.is_current {
            let now_ms = unix_ms();
            let todo = reconcile(&self.page.assignment, &self.observed, now_ms);
            for (id, action) in todo.actions {
                begin(&mut self.observed, &id, &action, now_ms);
                self.spawn(id, action);
            }
            wake = todo.wake_at_ms;
        }
        let reports = Arc::new(Reports::of(&self.page.assignment, &self.observed));
        self.reports.send_if_modified(|last| {
            let changed = *last != reports;
            *last = reports;
            changed
        });
        wake
    }

    fn spawn(&mut self, id: InstanceId, action: Action) {
        if action == Action::Cancel {
            if let Some(cancel) = self.cancels.get(&id) {
                cancel.cancel();
            }
            return;
        }
        tracing::info!(instance = %id, action = worker::name(&action), "begin");
        let cancel = CancellationToken::new();
        self.cancels.insert(id.clone(), cancel.clone());
        tokio::spawn(worker::perform(self.context.clone(), id, action, cancel));
    }

    /// Lets a source send only what is prepared for it.
    fn receive(&mut self, migration: MigrationId) -> Option<Incoming> {
        let assigned = self.page.assignment.migrations.get(&migration)?;
        let id = InstanceId { task: assigned.task.task.clone(), epoch: assigned.task.epoch };
        let have = self.observed.instances.get(&id)?;
        let ours = have.part.as_ref().is_some_and(|part| part.migration == migration);
        if have.stage != agent_core::Stage::Waiting || !ours {
            return None;
        }
        self.observed.observe(&id, Event::Receiving, unix_ms());
        let cancel = CancellationToken::new();
        self.cancels.insert(id.clone(), cancel.clone());
        Some(Incoming { id, migration: assigned.clone(), cancel })
    }

    /// Passes the lease on to the shims of tasks that have one.
    fn renew_leases(&self) {
        for task in self.page.assignment.tasks.values() {
            let id = InstanceId { task: task.task.clone(), epoch: task.epoch };
            let runs = self.observed.instances.contains_key(&id);
            if runs && task.on_node_loss == NodeLossPolicy::Restart {
                tokio::spawn(worker::renew(self.context.clone(), id));
            }
        }
    }
}

async fn sleep_until(at_ms: Option<u64>) {
    match at_ms {
        Some(at_ms) => {
            tokio::time::sleep(Duration::from_millis(at_ms.saturating_sub(unix_ms()).max(1))).await
        }
        None => std::future::pending().await,
    }
}
