//! Tasks, nodes, migrations, images and events, as users see them.

use super::{Invalid, known, parsed};
use crate::v1 as wire;
use dray_model::ids::NodeName;
use dray_model::migration::{Migration, MigrationPhase, PhaseTime, Side, Step};
use dray_model::node::{About, Capabilities, Liveness, Node};
use dray_model::resources::Amounts;
use dray_model::task::{Desired, Exit, Task, TaskPhase};
use dray_model::{event, image};

/// Wire enumerations that must be set.
macro_rules! enumeration {
    ($model:ty, $wire:ident, $field:literal, { $($variant:ident = $on_wire:ident),+ }) => {
        impl From<$model> for wire::$wire {
            fn from(value: $model) -> Self {
                match value { $(<$model>::$variant => wire::$wire::$on_wire),+ }
            }
        }

        impl TryFrom<wire::$wire> for $model {
            type Error = Invalid;
            fn try_from(value: wire::$wire) -> Result<Self, Invalid> {
                match value {
                    wire::$wire::Unspecified => Err(Invalid::field($field, "is missing")),
                    $(wire::$wire::$on_wire => Ok(<$model>::$variant)),+
                }
            }
        }
    };
}

enumeration!(Desired, Desired, "desired", { Run = Run, Stop = Stop });
enumeration!(Liveness, Liveness, "liveness", { Ready = Ready, Lost = Lost });
enumeration!(Side, Side, "side", { Source = Source, Target = Target });
enumeration!(event::Level, EventLevel, "level", { Info = Info, Warning = Warning });
enumeration!(TaskPhase, TaskPhase, "phase", {
    Pending = Pending, Preparing = Preparing, Running = Running, BackOff = Backoff, Stopping = Stopping,
    Exited = Exited, Failed = Failed, Stopped = Stopped, Unknown = Unknown
});
enumeration!(MigrationPhase, MigrationPhase, "phase", {
    Reserved = Reserved, Prepared = Prepared, Frozen = Frozen, Committed = Committed, Resumed = Resumed,
    Cleaned = Cleaned, Aborted = Aborted
});

/// A number from the wire as the model's enumeration.
pub(super) fn enumerated<W, M>(number: i32, field: &str) -> Result<M, Invalid>
where
    W: TryFrom<i32>,
    M: TryFrom<W, Error = Invalid>,
{
    M::try_from(known::<W>(number, field)?)
}

impl From<Amounts> for wire::Quantities {
    fn from(a: Amounts) -> Self {
        wire::Quantities {
            cpu_millis: Some(a.cpu_millis),
            memory_bytes: Some(a.memory_bytes),
            pids: Some(a.pids),
        }
    }
}

impl From<wire::Quantities> for Amounts {
    fn from(q: wire::Quantities) -> Self {
        dray_model::Quantities::from(q).into()
    }
}

impl From<Exit> for wire::Exit {
    fn from(e: Exit) -> Self {
        wire::Exit { code: e.code, signal: e.signal, oom_killed: e.oom_killed, at_ms: e.at_ms }
    }
}

impl From<wire::Exit> for Exit {
    fn from(e: wire::Exit) -> Self {
        Exit { code: e.code, signal: e.signal, oom_killed: e.oom_killed, at_ms: e.at_ms }
    }
}

/// Labels and image belong to the workload; the caller adds them.
impl From<Task> for wire::Task {
    fn from(task: Task) -> Self {
        wire::Task {
            mac: task.mac().to_string(),
            workload: task.id.workload.to_string(),
            slot: task.id.slot,
            id: task.id.to_string(),
            revision: task.revision,
            epoch: task.epoch.0,
            ip: task.ip.to_string(),
            node: task.node.map(String::from).unwrap_or_default(),
            desired: wire::Desired::from(task.desired).into(),
            phase: wire::TaskPhase::from(task.observed.phase).into(),
            message: task.observed.message,
            restarts: task.observed.restarts,
            last_exit: task.observed.last_exit.map(Into::into),
            created_ms: task.created_ms,
            since_ms: task.observed.since_ms,
            migration: task.migration.map(String::from).unwrap_or_default(),
            labels: Default::default(),
            image: String::new(),
        }
    }
}

/// What is used of the node is derived from the tasks; the caller adds it.
impl From<Node> for wire::Node {
    fn from(node: Node) -> Self {
        wire::Node {
            name: node.name.into(),
            labels: node.about.labels,
            capacity: Some(node.about.capacity.into()),
            used: None,
            liveness: wire::Liveness::from(node.liveness).into(),
            cordoned: node.cordoned,
            draining: node.draining,
            peer_address: node.about.peer_address.to_string(),
            underlay_ip: node.about.underlay_ip.to_string(),
            overlay_ip: node.overlay_ip.to_string(),
            capabilities: Some(node.about.capabilities.into()),
            registered_ms: node.registered_ms,
            since_ms: node.since_ms,
            tasks: 0,
        }
    }
}

impl From<Capabilities> for wire::Capabilities {
    fn from(c: Capabilities) -> Self {
        wire::Capabilities {
            kernel: c.kernel,
            criu: c.criu,
            cgroup: c.cgroup,
            agent_version: c.agent_version,
            cpus: c.cpus,
        }
    }
}

impl From<wire::Capabilities> for Capabilities {
    fn from(c: wire::Capabilities) -> Self {
        Capabilities {
            kernel: c.kernel,
            criu: c.criu,
            cgroup: c.cgroup,
            agent_version: c.agent_version,
            cpus: c.cpus,
        }
    }
}

/// What an agent says of itself when it connects.
impl From<(NodeName, About)> for wire::Hello {
    fn from((name, about): (NodeName, About)) -> Self {
        wire::Hello {
            name: name.into(),
            boot_id: about.boot_id,
            labels: about.labels,
            capacity: Some(about.capacity.into()),
            peer_address: about.peer_address.to_string(),
            underlay_ip: about.underlay_ip.to_string(),
            capabilities: Some(about.capabilities.into()),
        }
    }
}

impl TryFrom<wire::Hello> for (NodeName, About) {
    type Error = Invalid;
    fn try_from(hello: wire::Hello) -> Result<Self, Invalid> {
        let about = About {
            boot_id: hello.boot_id,
            labels: hello.labels,
            capacity: super::required(hello.capacity, "capacity")?.into(),
            peer_address: parsed(&hello.peer_address, "peer_address")?,
            underlay_ip: parsed(&hello.underlay_ip, "underlay_ip")?,
            capabilities: hello.capabilities.unwrap_or_default().into(),
        };
        Ok((parsed(&hello.name, "name")?, about))
    }
}

impl From<Step> for wire::Step {
    fn from(step: Step) -> Self {
        wire::Step {
            side: wire::Side::from(step.side).into(),
            name: step.name,
            began_us: step.began_us,
            took_us: step.took_us,
        }
    }
}

impl TryFrom<wire::Step> for Step {
    type Error = Invalid;
    fn try_from(step: wire::Step) -> Result<Self, Invalid> {
        Ok(Step {
            side: enumerated::<wire::Side, _>(step.side, "side")?,
            name: step.name,
            began_us: step.began_us,
            took_us: step.took_us,
        })
    }
}

impl From<PhaseTime> for wire::PhaseTime {
    fn from(time: PhaseTime) -> Self {
        wire::PhaseTime { phase: wire::MigrationPhase::from(time.phase).into(), at_ms: time.at_ms }
    }
}

impl From<Migration> for wire::Migration {
    fn from(m: Migration) -> Self {
        wire::Migration {
            name: m.id.into(),
            task: m.task.into(),
            source: m.source.into(),
            target: m.target.into(),
            epoch: m.epoch.0,
            phase: wire::MigrationPhase::from(m.phase).into(),
            reason: m.reason,
            failure: m.failure.unwrap_or_default(),
            history: m.history.into_iter().map(Into::into).collect(),
            steps: m.figures.steps.into_iter().map(Into::into).collect(),
            bytes: m.figures.bytes,
            memory_bytes: m.figures.memory_bytes,
            freeze_us: m.figures.freeze_us,
            deadline_ms: m.deadline_ms,
        }
    }
}

impl From<image::Image> for wire::Image {
    fn from(image: image::Image) -> Self {
        wire::Image {
            reference: image.reference,
            digest: image.digest,
            size_bytes: image.size_bytes,
            nodes: image.holders.into_iter().map(String::from).collect(),
            imported_ms: image.imported_ms,
        }
    }
}

impl From<event::Event> for wire::Event {
    fn from(event: event::Event) -> Self {
        wire::Event {
            index: event.index,
            at_ms: event.at_ms,
            level: wire::EventLevel::from(event.level).into(),
            object: event.object,
            reason: event.reason,
            message: event.message,
        }
    }
}
