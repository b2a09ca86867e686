//! The agent's workers: each action takes a while, may fail, may be told to
//! give up, and changes the kernel at one moment.

use super::{Node, Peer, Timer, exited, number_of};
use crate::fabric::{Fabric, Start};
use crate::kernel::{Container, State};
use agent_core::{Action, Event, Stage};
use dray_model::assignment::{MigrationAssignment, TaskAssignment};
use dray_model::ids::{InstanceId, MigrationId};
use dray_model::migration::Figures;
use dray_model::spec::NodeLossPolicy;

/// How long the source waits for the target to take a checkpoint.
const PATIENCE_MS: u64 = 5_000;
/// How soon a committed task asks again for its lease.
const LEASE_RETRY_MS: u64 = 200;

/// What a worker is at.
#[derive(Debug, Clone)]
pub(super) struct Job {
    number: u64,
    task: Task,
}

#[derive(Debug, Clone)]
enum Task {
    Start(TaskAssignment),
    Stop,
    Remove,
    Prepare,
    Send(MigrationAssignment),
    Receive { life: u64, counter: u64 },
    Release,
    Thaw,
}

/// How far a worker has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// At the moment that matters.
    Do,
    /// Source: the dump is made.
    Dumped,
    /// Source: the target should have answered by now.
    Late,
    /// It was told to give up.
    Cancelled,
}

/// An action's name, for people.
pub(super) fn name(action: &Action) -> &'static str {
    match action {
        Action::Start(_) => "to start",
        Action::Stop { .. } => "to stop",
        Action::Remove => "to remove",
        Action::Prepare(_) => "to prepare",
        Action::Send(_) => "to send",
        Action::Release => "to release",
        Action::Thaw => "to thaw",
        Action::Cancel => "to give up",
    }
}

impl Node {
    pub(super) fn begin(&mut self, id: &InstanceId, action: Action, fabric: &mut Fabric) {
        let task = match action {
            Action::Start(task) => Task::Start(task),
            Action::Stop { .. } => Task::Stop,
            Action::Remove => Task::Remove,
            Action::Prepare(_) => Task::Prepare,
            Action::Send(migration) => Task::Send(migration),
            Action::Release => Task::Release,
            Action::Thaw => Task::Thaw,
            Action::Cancel => {
                let job = self.agent.jobs.get(id).map_or(0, |job| job.number);
                self.after(1, Timer::Work(id.clone(), job, Step::Cancelled), fabric);
                return;
            }
        };
        self.employ(id, task, fabric);
    }

    fn employ(&mut self, id: &InstanceId, task: Task, fabric: &mut Fabric) {
        self.agent.job += 1;
        let number = self.agent.job;
        self.agent.jobs.insert(id.clone(), Job { number, task });
        let takes_ms = fabric.dice.delay(5..150, 1_000..15_000);
        self.after(takes_ms, Timer::Work(id.clone(), number, Step::Do), fabric);
    }

    /// A worker has come so far; one that was replaced is no more.
    pub(super) fn work(&mut self, id: &InstanceId, number: u64, step: Step, fabric: &mut Fabric) {
        let Some(job) = self.agent.jobs.get(id).filter(|job| job.number == number).cloned() else { return };
        let event = match step {
            Step::Do => self.perform(id, job, fabric),
            Step::Dumped => self.dumped(id, job, fabric),
            Step::Late => self.failed_to_send(id, "the target didn't answer"),
            Step::Cancelled => self.give_up(id, &job.task),
        };
        if let Some(event) = event {
            if event != Event::Froze {
                self.agent.jobs.remove(id);
            }
            self.happened(id, event, fabric);
            self.repeat_end(id, fabric);
        }
    }

    /// An end that came while a worker was busy is told again after it.
    fn repeat_end(&mut self, id: &InstanceId, fabric: &mut Fabric) {
        let running = self.agent.observed.instances.get(id).is_some_and(|have| have.stage == Stage::Running);
        if running && self.state(id) == Some(State::Exited) {
            self.happened(id, exited(fabric.now_ms), fabric);
        }
    }

    fn perform(&mut self, id: &InstanceId, job: Job, fabric: &mut Fabric) -> Option<Event> {
        let fails = fabric.dice.chance(40);
        match job.task {
            Task::Start(_) if fails => Some(Event::StartFailed { message: "no luck".into() }),
            Task::Start(task) => Some(self.start_container(id, &task, fabric)),
            Task::Stop => {
                self.set_state(id, State::Exited);
                Some(exited(fabric.now_ms))
            }
            Task::Remove if fails => Some(Event::RemoveFailed { message: "no luck".into() }),
            Task::Remove => {
                self.kernel.containers.remove(id);
                Some(Event::Removed)
            }
            Task::Prepare if fails => Some(Event::Broken { message: "no luck".into() }),
            Task::Prepare => {
                let waiting = Container { state: State::Waiting, ..Container::begun(0, None) };
                self.kernel.containers.insert(id.clone(), waiting);
                Some(Event::Prepared)
            }
            Task::Send(_) if fails => self.failed_to_send(id, "no luck"),
            Task::Send(_) => self.freeze(id, job.number, fabric),
            Task::Receive { .. } if fails => Some(Event::Broken { message: "no luck".into() }),
            Task::Receive { life, counter } => {
                let held = Container { counter, state: State::Held, ..Container::begun(life, None) };
                self.kernel.containers.insert(id.clone(), held);
                Some(Event::Restored { steps: Vec::new() })
            }
            Task::Release => self.release(id, job.number, fabric),
            Task::Thaw => Some(self.thaw(id, fabric.now_ms)),
        }
    }

    /// Until when a task may run: for ever without a lease; `None`: not at all.
    fn lease_end(&self, task: &TaskAssignment, now_ms: u64) -> Option<Option<u64>> {
        match (task.on_node_loss, self.remaining_ms(now_ms)) {
            (NodeLossPolicy::Wait, _) => Some(None),
            (NodeLossPolicy::Restart, 0) => None,
            (NodeLossPolicy::Restart, left_ms) => Some(Some(self.clock.local(now_ms) + left_ms)),
        }
    }

    fn start_container(&mut self, id: &InstanceId, task: &TaskAssignment, fabric: &mut Fabric) -> Event {
        let Some(lease_ms) = self.lease_end(task, fabric.now_ms) else {
            return Event::StartFailed { message: "no lease".into() };
        };
        fabric.started(Start { instance: id.clone(), fell: self.fell.contains(id) });
        self.lives += 1;
        let life = self.id * 1_000_000 + self.lives;
        self.kernel.containers.insert(id.clone(), Container::begun(life, lease_ms));
        Event::Started
    }

    fn set_state(&mut self, id: &InstanceId, state: State) {
        if let Some(container) = self.kernel.containers.get_mut(id) {
            container.state = state;
        }
    }

    fn freeze(&mut self, id: &InstanceId, number: u64, fabric: &mut Fabric) -> Option<Event> {
        if self.state(id) != Some(State::Running) {
            return self.failed_to_send(id, "it isn't running");
        }
        self.set_state(id, State::Frozen);
        let takes_ms = fabric.dice.delay(5..100, 500..4_000);
        self.after(takes_ms, Timer::Work(id.clone(), number, Step::Dumped), fabric);
        Some(Event::Froze)
    }

    /// Sends the checkpoint; the answer ends the work, or the wait for it.
    fn dumped(&mut self, id: &InstanceId, job: Job, fabric: &mut Fabric) -> Option<Event> {
        let Task::Send(migration) = job.task else { return None };
        let container = self.kernel.containers.get(id)?;
        let (life, counter) = (container.life, container.counter);
        let checkpoint = Peer::Checkpoint { migration: migration.migration, life, counter };
        if let Some(target) = number_of(&migration.peer) {
            self.tell(target, checkpoint, fabric);
        }
        self.after(PATIENCE_MS, Timer::Work(id.clone(), job.number, Step::Late), fabric);
        None
    }

    fn failed_to_send(&self, id: &InstanceId, message: &str) -> Option<Event> {
        let frozen = self.state(id) == Some(State::Frozen);
        Some(Event::SendFailed { message: message.into(), frozen })
    }

    fn state(&self, id: &InstanceId) -> Option<State> {
        self.kernel.containers.get(id).map(|container| container.state)
    }

    /// The target has answered.
    pub(super) fn was_sent(&mut self, migration: MigrationId, taken: bool, fabric: &mut Fabric) {
        let sends = |task: &Task| matches!(task, Task::Send(m) if m.migration == migration);
        let Some(id) = self.agent.jobs.iter().find(|(_, job)| sends(&job.task)).map(|(id, _)| id.clone())
        else {
            return;
        };
        let event = match taken {
            true => Some(Event::Sent { figures: Figures::default() }),
            false => self.failed_to_send(&id, "the target refused it"),
        };
        if let Some(event) = event {
            self.agent.jobs.remove(&id);
            self.happened(&id, event, fabric);
        }
    }

    /// Lets a source send only what is prepared for it.
    pub(super) fn take_checkpoint(
        &mut self,
        migration: MigrationId,
        life: u64,
        counter: u64,
        fabric: &mut Fabric,
    ) -> bool {
        let Some(assigned) = self.page.migrations.get(&migration).filter(|_| self.up) else { return false };
        let id = InstanceId { task: assigned.task.task.clone(), epoch: assigned.task.epoch };
        let have = self.agent.observed.instances.get(&id);
        let waits = have.is_some_and(|have| {
            let ours = have.part.as_ref().is_some_and(|part| part.migration == migration);
            have.stage == Stage::Waiting && ours
        });
        if waits {
            self.happened(&id, Event::Receiving, fabric);
            self.employ(&id, Task::Receive { life, counter }, fabric);
        }
        waits
    }

    /// A task that was committed to this node waits for its lease: it is all
    /// there is of it.
    fn release(&mut self, id: &InstanceId, number: u64, fabric: &mut Fabric) -> Option<Event> {
        let Some(task) = self.assigned(id).filter(|_| self.state(id) == Some(State::Held)) else {
            return Some(self.lose(id, fabric.now_ms));
        };
        let Some(lease_ms) = self.lease_end(task, fabric.now_ms) else {
            self.after(LEASE_RETRY_MS, Timer::Work(id.clone(), number, Step::Do), fabric);
            return None;
        };
        if let Some(container) = self.kernel.containers.get_mut(id) {
            container.state = State::Running;
            container.lease_ms = lease_ms;
        }
        Some(Event::Released { steps: Vec::new(), freeze_us: 1 })
    }

    fn thaw(&mut self, id: &InstanceId, now_ms: u64) -> Event {
        if self.assigned(id).is_some() && self.state(id) == Some(State::Frozen) {
            self.set_state(id, State::Running);
            return Event::Thawed;
        }
        self.lose(id, now_ms)
    }

    fn assigned(&self, id: &InstanceId) -> Option<&TaskAssignment> {
        self.page.tasks.get(&id.task).filter(|task| task.epoch == id.epoch)
    }

    /// It can't be set running: what is left is ended.
    fn lose(&mut self, id: &InstanceId, now_ms: u64) -> Event {
        self.set_state(id, State::Exited);
        exited(now_ms)
    }

    fn give_up(&mut self, id: &InstanceId, task: &Task) -> Option<Event> {
        let message = || "no longer wanted".to_owned();
        match task {
            Task::Start(_) => Some(Event::StartFailed { message: message() }),
            Task::Prepare | Task::Receive { .. } => Some(Event::Broken { message: message() }),
            Task::Send(_) => self.failed_to_send(id, "no longer wanted"),
            Task::Stop | Task::Remove | Task::Release | Task::Thaw => None,
        }
    }
}
