//! The leader's loop: it declares silent nodes lost, plans, and proposes.

use super::{Proposer, Reader, Scheduler};
use crate::fabric::Fabric;
use scheduler_core::liveness::Tracker;
use scheduler_core::plan::Config;
use scheduler_core::{Command, Op, plan};

/// What a scheduler knows while it leads.
#[derive(Debug)]
pub(super) struct Leading {
    pub(super) term: u64,
    /// `None` until a majority has confirmed the election.
    pub(super) tracker: Option<Tracker>,
    /// How many of the plan's steps wait for their answers.
    under_way: usize,
}

impl Scheduler {
    /// Whether the election was confirmed; only then agents are let in.
    pub(super) fn leads(&self) -> bool {
        let confirmed = self.leading.as_ref().filter(|leading| leading.tracker.is_some());
        let replica = self.replica.as_ref().filter(|replica| replica.leads());
        replica.is_some_and(|replica| confirmed.is_some_and(|leading| leading.term == replica.term()))
    }

    pub(super) fn look(&mut self, fabric: &mut Fabric) {
        let Some(replica) = &mut self.replica else { return };
        let term = replica.term();
        if !replica.leads() {
            if self.leading.take().is_some() {
                self.close_all(fabric);
            }
            return;
        }
        if self.leading.as_ref().is_some_and(|leading| leading.term != term) {
            self.leading = None;
            self.close_all(fabric);
        }
        match &self.leading {
            None => self.confirm(term),
            Some(leading) if leading.tracker.is_some() && leading.under_way == 0 => {
                self.propose_steps(fabric);
            }
            Some(_) => {}
        }
    }

    fn confirm(&mut self, term: u64) {
        if let Some(Ok(ticket)) = self.replica.as_mut().map(|replica| replica.read_index()) {
            self.leading = Some(Leading { term, tracker: None, under_way: 0 });
            self.readers.insert(ticket, Reader::Term(term));
        }
    }

    /// A majority has confirmed the election.
    pub(super) fn lead(&mut self, term: u64, fabric: &mut Fabric) {
        let local_ms = self.clock.local(fabric.now_ms);
        if let Some(leading) = self.leading.as_mut().filter(|leading| leading.term == term) {
            fabric.note(|| format!("scheduler-{} leads in term {term}", self.id));
            leading.tracker = Some(Tracker::new(self.timing, local_ms));
        }
    }

    fn propose_steps(&mut self, fabric: &mut Fabric) {
        let local_ms = self.clock.local(fabric.now_ms);
        let (Some(replica), Some(leading)) = (&mut self.replica, &mut self.leading) else { return };
        let state = replica.state();
        let verdicts = leading.tracker.as_mut().map(|tracker| tracker.verdicts(state, local_ms));
        let steps = plan(state, local_ms, &Config::default()).steps.into_iter().map(|step| step.op);
        let ops: Vec<Op> = verdicts.unwrap_or_default().into_iter().chain(steps).collect();
        for op in ops {
            fabric.note(|| format!("scheduler-{} proposes {op:?}", self.id));
            if let Ok(ticket) = replica.propose(&Command::new(local_ms, op)) {
                leading.under_way += 1;
                self.proposers.insert(ticket, Proposer::Planner);
            }
        }
    }

    pub(super) fn step_answered(&mut self) {
        if let Some(leading) = &mut self.leading {
            leading.under_way = leading.under_way.saturating_sub(1);
        }
    }
}
