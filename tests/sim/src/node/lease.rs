//! For how long a node may run its tasks.

use super::{Node, Peer, Timer, number_of};
use crate::fabric::Fabric;
use agent_core::fence;
use dray_model::ids::InstanceId;
use dray_model::spec::NodeLossPolicy;
use std::collections::BTreeMap;
use std::time::Duration;

/// Asking the others.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) number: u64,
    asked_ms: u64,
    pub(super) answers: BTreeMap<u64, Option<Duration>>,
}

impl Node {
    /// What is left of the lease.
    pub(super) fn remaining_ms(&self, now_ms: u64) -> u64 {
        let Some(sent_ms) = self.agent.sent_ms.max(self.agent.outage_ms) else { return 0 };
        let left = fence::remaining(Duration::from_millis(self.lease_ms), sent_ms, self.clock.local(now_ms));
        u64::try_from(left.as_millis()).unwrap_or(0)
    }

    /// Passes what is left of the lease on to the shims of tasks that have one.
    pub(super) fn renew_leases(&mut self, now_ms: u64) {
        let end_ms = self.clock.local(now_ms) + self.remaining_ms(now_ms);
        for task in self.page.tasks.values().filter(|task| task.on_node_loss == NodeLossPolicy::Restart) {
            let id = InstanceId { task: task.task.clone(), epoch: task.epoch };
            if let Some(container) = self.kernel.containers.get_mut(&id) {
                container.lease_ms = Some(end_ms);
            }
        }
    }

    /// When a lease is half gone, asks the others whether there is a leader.
    pub(super) fn look_after_lease(&mut self, fabric: &mut Fabric) {
        self.after((self.lease_ms / 4).max(500), Timer::Lease, fabric);
        let remaining_ms = self.remaining_ms(fabric.now_ms);
        if remaining_ms == 0 || remaining_ms > self.lease_ms / 2 {
            return;
        }
        self.agent.questions += 1;
        let number = self.agent.questions;
        let asked_ms = self.clock.local(fabric.now_ms);
        self.agent.question = Some(Question { number, asked_ms, answers: BTreeMap::new() });
        for peer in self.page.peers.keys().filter_map(number_of) {
            self.tell(peer, Peer::Ask { question: number }, fabric);
        }
        self.after(500, Timer::Judge(number), fabric);
    }

    /// Extends the lease if there is no leader. One that has ended stays so:
    /// the task may have been given to another node since.
    pub(super) fn judge(&mut self, number: u64, fabric: &mut Fabric) {
        let Some(question) = self.agent.question.take_if(|question| question.number == number) else {
            return;
        };
        let peers = self.page.peers.keys().filter_map(number_of);
        let answers: Vec<Option<Option<Duration>>> =
            peers.map(|peer| question.answers.get(&peer).copied()).collect();
        let outage = fence::is_outage(Duration::from_millis(self.lease_ms), &answers);
        if outage && self.remaining_ms(fabric.now_ms) > 0 {
            fabric.note(|| format!("node-{} goes on without a leader", self.id));
            self.agent.outage_ms = Some(question.asked_ms);
            self.renew_leases(fabric.now_ms);
        }
    }
}
