//! Scripts: an assignment, what is there, and what must be done.

use super::*;
use crate::observed::Event;
use crate::report::Reports;
use dray_model::Epoch;
use dray_model::migration::Milestone;
use dray_model::spec::{NodeLossPolicy, Template};
use dray_model::task::Exit;

fn template() -> Template {
    serde_json::from_value(serde_json::json!({"containers": [{"name": "main", "image": "redis:7"}]})).unwrap()
}

fn task(epoch: u64, desired: Desired) -> TaskAssignment {
    TaskAssignment {
        task: "redis-0".parse().unwrap(),
        epoch: Epoch(epoch),
        revision: 1,
        template: template(),
        ip: [10, 88, 0, 9].into(),
        desired,
        image: None,
        on_node_loss: NodeLossPolicy::Restart,
        restarts: 0,
    }
}

fn migration(side: Side, phase: MigrationPhase) -> MigrationAssignment {
    MigrationAssignment {
        migration: MigrationId(1),
        side,
        phase,
        task: task(2, Desired::Run),
        peer: "node-2".parse().unwrap(),
        peer_address: ([10, 77, 0, 12], 7100).into(),
    }
}

fn assignment(tasks: &[TaskAssignment], migrations: &[MigrationAssignment]) -> Assignment {
    Assignment {
        tasks: tasks.iter().map(|t| (t.task.clone(), t.clone())).collect(),
        migrations: migrations.iter().map(|m| (m.migration, m.clone())).collect(),
        ..Assignment::default()
    }
}

/// A node that runs what it is told to, with every worker answering as said.
#[derive(Default)]
struct Bench {
    observed: Observed,
    now_ms: u64,
}

impl Bench {
    fn todo(&mut self, assignment: &Assignment) -> Vec<Action> {
        let todo = reconcile(assignment, &self.observed, self.now_ms);
        for (id, action) in &todo.actions {
            begin(&mut self.observed, id, action, self.now_ms);
        }
        todo.actions.into_iter().map(|(_, action)| action).collect()
    }

    fn happens(&mut self, instance: &str, event: Event) {
        self.observed.observe(&instance.parse().unwrap(), event, self.now_ms);
    }

    fn milestone(&self, assignment: &Assignment) -> Option<Milestone> {
        Reports::of(assignment, &self.observed).migrations.into_values().next().map(|report| report.milestone)
    }
}

fn exit(code: i32) -> Event {
    Event::Exited { exit: Exit { code, signal: 0, oom_killed: false, at_ms: 0 }, stable: false }
}

#[test]
fn a_task_starts_restarts_with_back_off_and_ends() {
    let mut node = Bench::default();
    let run = assignment(&[task(1, Desired::Run)], &[]);
    assert_eq!(node.todo(&run), [Action::Start(task(1, Desired::Run))]);
    assert_eq!(node.todo(&run), [], "one worker at a time");
    node.happens("redis-0@1", Event::Started);
    node.happens("redis-0@1", exit(1));
    assert_eq!(reconcile(&run, &node.observed, 999).wake_at_ms, Some(1_000));
    node.now_ms = 1_000;
    assert_eq!(node.todo(&run), [Action::Start(task(1, Desired::Run))]);
    node.happens("redis-0@1", Event::Started);
    let stop = assignment(&[task(1, Desired::Stop)], &[]);
    assert!(matches!(node.todo(&stop)[..], [Action::Stop { .. }]));
    node.happens("redis-0@1", exit(0));
    assert_eq!(node.todo(&stop), [Action::Remove]);
    node.happens("redis-0@1", Event::Removed);
    assert_eq!(node.todo(&stop), []);
}

#[test]
fn a_source_sends_once_and_thaws_only_when_the_log_has_decided() {
    let mut node = Bench::default();
    let alone = assignment(&[task(1, Desired::Run)], &[]);
    node.todo(&alone);
    node.happens("redis-0@1", Event::Started);
    let reserved = assignment(&[task(1, Desired::Run)], &[migration(Side::Source, MigrationPhase::Reserved)]);
    assert_eq!(node.todo(&reserved), []);
    let prepared = assignment(&[task(1, Desired::Run)], &[migration(Side::Source, MigrationPhase::Prepared)]);
    assert!(matches!(node.todo(&prepared)[..], [Action::Send(_)]));
    node.happens("redis-0@1", Event::SendFailed { message: "no route".into(), frozen: true });
    assert_eq!(node.todo(&prepared), [], "frozen until the log says so");
    assert_eq!(node.milestone(&prepared), Some(Milestone::Failed { failure: "no route".into() }));
    assert_eq!(node.todo(&alone), [Action::Thaw]);
    node.happens("redis-0@1", Event::Thawed);
    assert_eq!(node.todo(&alone), []);
}

#[test]
fn a_committed_source_is_removed_and_says_so() {
    let mut node = Bench::default();
    node.todo(&assignment(&[task(1, Desired::Run)], &[]));
    node.happens("redis-0@1", Event::Started);
    let prepared = assignment(&[task(1, Desired::Run)], &[migration(Side::Source, MigrationPhase::Prepared)]);
    node.todo(&prepared);
    node.happens("redis-0@1", Event::Sent { figures: Figures::default() });
    assert_eq!(node.milestone(&prepared), Some(Milestone::Frozen));
    let committed = assignment(&[], &[migration(Side::Source, MigrationPhase::Committed)]);
    assert_eq!(node.milestone(&committed), None);
    assert_eq!(node.todo(&committed), [Action::Remove]);
    node.happens("redis-0@1", Event::Removed);
    assert_eq!(node.milestone(&committed), Some(Milestone::Cleaned));
}

#[test]
fn a_target_holds_until_it_owns_the_task() {
    let mut node = Bench::default();
    let reserved = assignment(&[], &[migration(Side::Target, MigrationPhase::Reserved)]);
    assert!(matches!(node.todo(&reserved)[..], [Action::Prepare(_)]));
    node.happens("redis-0@2", Event::Prepared);
    assert_eq!(node.milestone(&reserved), Some(Milestone::Prepared));
    let frozen = assignment(&[], &[migration(Side::Target, MigrationPhase::Frozen)]);
    node.happens("redis-0@2", Event::Receiving);
    node.happens("redis-0@2", Event::Restored { steps: vec![] });
    assert_eq!(node.todo(&frozen), []);
    assert_eq!(node.milestone(&frozen), Some(Milestone::Restored));
    let committed =
        assignment(&[task(2, Desired::Run)], &[migration(Side::Target, MigrationPhase::Committed)]);
    assert_eq!(node.todo(&committed), [Action::Release]);
    node.happens("redis-0@2", Event::Released { steps: vec![], freeze_us: 7 });
    assert_eq!(node.milestone(&committed), Some(Milestone::Resumed));
    assert_eq!(node.todo(&committed), []);
}

#[test]
fn an_aborted_target_discards_whatever_it_has() {
    for (event, action) in [
        (Event::Prepared, Action::Remove),
        (Event::Receiving, Action::Cancel),
        (Event::Restored { steps: vec![] }, Action::Remove),
        (Event::Broken { message: "criu".into() }, Action::Remove),
    ] {
        let mut node = Bench::default();
        node.todo(&assignment(&[], &[migration(Side::Target, MigrationPhase::Reserved)]));
        node.happens("redis-0@2", event);
        assert_eq!(node.todo(&assignment(&[], &[])), [action]);
    }
}

#[test]
fn what_a_target_lost_is_not_prepared_again() {
    let mut node = Bench::default();
    let frozen = assignment(&[], &[migration(Side::Target, MigrationPhase::Frozen)]);
    assert_eq!(node.todo(&frozen), []);
    assert!(matches!(node.milestone(&frozen), Some(Milestone::Failed { .. })));
}

#[test]
fn a_second_migration_to_the_same_node_waits_for_the_first_to_be_gone() {
    let mut node = Bench::default();
    node.todo(&assignment(&[], &[migration(Side::Target, MigrationPhase::Reserved)]));
    node.happens("redis-0@2", Event::Prepared);
    let mut second = migration(Side::Target, MigrationPhase::Reserved);
    second.migration = MigrationId(2);
    let next = assignment(&[], &[second]);
    assert_eq!(node.todo(&next), [Action::Remove]);
    node.happens("redis-0@2", Event::Removed);
    assert!(matches!(node.todo(&next)[..], [Action::Prepare(_)]));
}

#[test]
fn what_an_aborted_migration_froze_thaws_before_the_next_begins() {
    let mut node = Bench::default();
    node.todo(&assignment(&[task(1, Desired::Run)], &[]));
    node.happens("redis-0@1", Event::Started);
    let first = migration(Side::Source, MigrationPhase::Prepared);
    node.todo(&assignment(&[task(1, Desired::Run)], std::slice::from_ref(&first)));
    node.happens("redis-0@1", Event::SendFailed { message: "cut".into(), frozen: true });
    let second = MigrationAssignment { migration: MigrationId(2), ..first };
    let next = assignment(&[task(1, Desired::Run)], &[second]);
    assert_eq!(node.todo(&next), [Action::Thaw]);
    node.happens("redis-0@1", Event::Thawed);
    assert!(matches!(node.todo(&next)[..], [Action::Send(_)]));
}

#[test]
fn what_ended_while_it_was_being_sent_is_started_again() {
    let mut node = Bench::default();
    let run = assignment(&[task(1, Desired::Run)], &[]);
    node.todo(&run);
    node.happens("redis-0@1", Event::Started);
    node.todo(&assignment(&[task(1, Desired::Run)], &[migration(Side::Source, MigrationPhase::Prepared)]));
    node.happens("redis-0@1", exit(1));
    node.happens("redis-0@1", Event::SendFailed { message: "gone".into(), frozen: false });
    node.now_ms = 60_000;
    assert!(matches!(node.todo(&run)[..], [Action::Start(_)]));
}

#[test]
fn a_restarted_target_says_that_it_resumed() {
    let mut node = Bench::default();
    let committed =
        assignment(&[task(2, Desired::Run)], &[migration(Side::Target, MigrationPhase::Committed)]);
    let adopted = Instance::new(Stage::Running, 0);
    node.observed.instances.insert("redis-0@2".parse().unwrap(), adopted);
    assert_eq!(node.milestone(&committed), Some(Milestone::Resumed));
}

#[test]
fn an_older_instance_is_removed_before_a_newer_is_made() {
    let mut node = Bench::default();
    node.todo(&assignment(&[task(1, Desired::Run)], &[]));
    node.happens("redis-0@1", Event::Started);
    let elsewhere = assignment(&[task(3, Desired::Run)], &[]);
    assert_eq!(node.todo(&elsewhere), [Action::Remove]);
    node.happens("redis-0@1", Event::Removed);
    assert_eq!(node.todo(&elsewhere), [Action::Start(task(3, Desired::Run))]);
}
