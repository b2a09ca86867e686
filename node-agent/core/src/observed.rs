//! What this node has of each instance, and how events change it.
//!
//! ```text
//! owner:   Starting -> Running <-> Stopping -> Exited -> Removing -> (gone)
//!             |-> Failed              Exited | Failed -> Starting (again)
//! source:  Running -> Freezing -> Frozen -> Thawing -> Running
//!                                       '-> Removing -> (gone)
//! target:  Preparing -> Waiting -> Restoring -> Held -> Releasing -> Running
//!              '-----------'----------'-> Broken   '-> Removing -> (gone)
//! ```
//!
//! A stage whose name ends in `-ing` (but `Running` and `Waiting`) has a
//! worker, and only its event ends it.

use dray_model::ids::{InstanceId, MigrationId};
use dray_model::migration::{Figures, Step};
use dray_model::task::Exit;
use std::collections::BTreeMap;

/// All instances of the node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// By id.
    pub instances: BTreeMap<InstanceId, Instance>,
}

/// One container, or what there is of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Where it stands.
    pub stage: Stage,
    /// When it entered the stage, in Unix milliseconds.
    pub since_ms: u64,
    /// How often its container was started again here.
    pub restarts: u32,
    /// How many of its ends came one after the other without a stable run.
    pub ends_in_a_row: u32,
    /// How its container last ended.
    pub last_exit: Option<Exit>,
    /// Why it isn't running, for a person.
    pub message: String,
    /// The migration it takes part in.
    pub part: Option<Part>,
    /// Whether its worker was told to give up.
    pub cancelled: bool,
    /// Whether its container has ended since it last ran.
    pub ended: bool,
}

/// An instance's part in a migration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The migration.
    pub migration: MigrationId,
    /// Why this side can't go on.
    pub failure: Option<String>,
    /// What was measured so far.
    pub figures: Figures,
}

/// Where an instance stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Image, root file system, network and process are being made.
    Starting,
    /// Its container runs.
    Running,
    /// It was asked to end and will be killed after its grace.
    Stopping,
    /// Its container ended; directories are left.
    Exited,
    /// It couldn't be started; the message says why.
    Failed,
    /// Source: it is being frozen, dumped and sent.
    Freezing,
    /// Source: it is frozen until the log has decided.
    Frozen,
    /// Source: it is being set running again.
    Thawing,
    /// Target: everything but the process is being made.
    Preparing,
    /// Target: it waits for the source's stream.
    Waiting,
    /// Target: the stream arrives and CRIU restores.
    Restoring,
    /// Target: restored, and held until the log has decided.
    Held,
    /// Target: it is being set running.
    Releasing,
    /// Target: it can't take part; the part's failure says why.
    Broken,
    /// Everything of it is being removed.
    Removing,
}

impl Stage {
    /// Whether a worker is at it.
    pub fn is_busy(self) -> bool {
        match self {
            Stage::Starting
            | Stage::Stopping
            | Stage::Freezing
            | Stage::Thawing
            | Stage::Preparing
            | Stage::Restoring
            | Stage::Releasing
            | Stage::Removing => true,
            Stage::Running
            | Stage::Exited
            | Stage::Failed
            | Stage::Frozen
            | Stage::Waiting
            | Stage::Held
            | Stage::Broken => false,
        }
    }
}

/// What a worker, a shim or the peer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Its container runs.
    Started,
    /// It couldn't be started.
    StartFailed {
        /// Why, for a person.
        message: String,
    },
    /// Its container ended.
    Exited {
        /// How.
        exit: Exit,
        /// Whether its run was long enough to count ends anew.
        stable: bool,
    },
    /// Target: everything but the process is there.
    Prepared,
    /// Target: the source's stream began.
    Receiving,
    /// Target: restored and held.
    Restored {
        /// What was done.
        steps: Vec<Step>,
    },
    /// Target: preparing, receiving or restoring failed.
    Broken {
        /// Why, for a person.
        message: String,
    },
    /// Target: it runs.
    Released {
        /// What was done.
        steps: Vec<Step>,
        /// From the freeze on the source to the resume here, in µs.
        freeze_us: u64,
    },
    /// Source: it is frozen, and the dump goes on.
    Froze,
    /// Source: everything was sent; it is frozen.
    Sent {
        /// What was measured.
        figures: Figures,
    },
    /// Source: it could not be dumped or sent.
    SendFailed {
        /// Why, for a person.
        message: String,
        /// Whether it is left frozen.
        frozen: bool,
    },
    /// Source: it runs again.
    Thawed,
    /// Nothing is left of it.
    Removed,
    /// Something is left of it; removing is tried again.
    RemoveFailed {
        /// What, for a person.
        message: String,
    },
}

impl Instance {
    /// An instance in a stage, with nothing behind it.
    pub fn new(stage: Stage, since_ms: u64) -> Instance {
        Instance {
            stage,
            since_ms,
            restarts: 0,
            ends_in_a_row: 0,
            last_exit: None,
            message: String::new(),
            part: None,
            cancelled: false,
            ended: false,
        }
    }

    /// Enters a stage.
    pub fn enter(&mut self, stage: Stage, now_ms: u64) {
        self.stage = stage;
        self.since_ms = now_ms;
        self.cancelled = false;
    }

    fn fail_part(&mut self, message: String) {
        if let Some(part) = &mut self.part {
            part.failure = Some(message);
        }
    }

    fn add_figures(&mut self, figures: Figures) {
        if let Some(part) = &mut self.part {
            part.figures.steps.extend(figures.steps);
            part.figures.bytes = part.figures.bytes.max(figures.bytes);
            part.figures.memory_bytes = part.figures.memory_bytes.max(figures.memory_bytes);
            part.figures.freeze_us = part.figures.freeze_us.max(figures.freeze_us);
        }
    }
}

impl Observed {
    /// Takes in what happened to an instance. Events about instances that
    /// are gone are late and change nothing.
    pub fn observe(&mut self, id: &InstanceId, event: Event, now_ms: u64) {
        let Some(instance) = self.instances.get_mut(id) else { return };
        match event {
            Event::Removed => {
                self.instances.remove(id);
            }
            Event::RemoveFailed { message } => {
                instance.message = message;
                instance.enter(Stage::Failed, now_ms);
            }
            Event::Started | Event::Thawed => run(instance, now_ms),
            Event::Released { steps, freeze_us } => {
                instance.add_figures(Figures { steps, freeze_us, ..Figures::default() });
                run(instance, now_ms);
            }
            Event::StartFailed { message } => {
                instance.message = message;
                instance.ends_in_a_row += 1;
                instance.enter(Stage::Failed, now_ms);
            }
            Event::Exited { exit, stable } => exited(instance, exit, stable, now_ms),
            Event::Prepared => instance.enter(Stage::Waiting, now_ms),
            Event::Receiving => instance.enter(Stage::Restoring, now_ms),
            Event::Restored { steps } => {
                instance.add_figures(Figures { steps, ..Figures::default() });
                instance.enter(Stage::Held, now_ms);
            }
            Event::Broken { message } => {
                instance.fail_part(message);
                instance.enter(Stage::Broken, now_ms);
            }
            Event::Froze => instance.enter(Stage::Freezing, now_ms),
            Event::Sent { figures } => {
                instance.add_figures(figures);
                instance.enter(Stage::Frozen, now_ms);
            }
            Event::SendFailed { message, frozen } => {
                instance.fail_part(message);
                let left = if frozen { Stage::Frozen } else { Stage::Running };
                instance.enter(if instance.ended { Stage::Exited } else { left }, now_ms);
            }
        }
    }
}

fn run(instance: &mut Instance, now_ms: u64) {
    instance.message.clear();
    instance.ended = false;
    instance.enter(Stage::Running, now_ms);
}

/// An end may be heard of while a worker is busy with the instance; the
/// worker then fails by itself, and its event is the one that counts.
fn exited(instance: &mut Instance, exit: Exit, stable: bool, now_ms: u64) {
    instance.last_exit = Some(exit);
    instance.ended = true;
    let ends = if stable { 0 } else { instance.ends_in_a_row };
    match instance.stage {
        Stage::Running
        | Stage::Stopping
        | Stage::Frozen
        | Stage::Held
        | Stage::Thawing
        | Stage::Releasing => {
            instance.ends_in_a_row = ends + 1;
            instance.message = describe(&exit);
            instance.fail_part("the container ended".into());
            instance.enter(Stage::Exited, now_ms);
        }
        Stage::Starting
        | Stage::Exited
        | Stage::Failed
        | Stage::Freezing
        | Stage::Preparing
        | Stage::Waiting
        | Stage::Restoring
        | Stage::Broken
        | Stage::Removing => {}
    }
}

fn describe(exit: &Exit) -> String {
    match (exit.oom_killed, exit.signal) {
        (true, _) => "killed by the kernel: it reached its memory limit".into(),
        (false, 0) => format!("exited with code {}", exit.code),
        (false, signal) => format!("ended by signal {signal}"),
    }
}
