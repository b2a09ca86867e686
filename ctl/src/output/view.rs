//! The documented shape of `-o json` and `-o yaml`.
//!
//! camelCase, close to the manifest. Enumerations are words, times RFC 3339 in
//! UTC, durations and sizes numbers whose unit ends the field's name. A field
//! that doesn't apply is left out. Fields may be added; none is renamed.

use super::text::{rfc3339, rfc3339_micros};
use super::word;
use crate::resource::Object;
use dray_model::spec::{API_VERSION, Labels, WorkloadSpec};
use dray_proto::v1 as wire;
use serde::Serialize;

/// One thing.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct View<'a> {
    api_version: &'static str,
    #[serde(flatten)]
    body: Body<'a>,
}

#[derive(Serialize)]
#[serde(tag = "kind")]
enum Body<'a> {
    Workload(WorkloadView<'a>),
    Task(TaskView<'a>),
    Node(NodeView<'a>),
    Migration(MigrationView<'a>),
    Image(ImageView<'a>),
    Event(EventView<'a>),
}

/// Several things.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ListView<'a> {
    api_version: &'static str,
    kind: &'static str,
    items: Vec<View<'a>>,
}

impl<'a> ListView<'a> {
    /// Shows objects in their order.
    pub(crate) fn of(objects: &'a [Object]) -> ListView<'a> {
        ListView { api_version: API_VERSION, kind: "List", items: objects.iter().map(View::of).collect() }
    }
}

impl<'a> View<'a> {
    /// Shows an object.
    pub(crate) fn of(object: &'a Object) -> View<'a> {
        let body = match object {
            Object::Workload(workload) => Body::Workload(workload.into()),
            Object::Task(task) => Body::Task(task.into()),
            Object::Node(node) => Body::Node(node.into()),
            Object::Migration(migration) => Body::Migration(migration.into()),
            Object::Image(image) => Body::Image(image.into()),
            Object::Event(event) => Body::Event(event.into()),
        };
        View { api_version: API_VERSION, body }
    }
}

/// One change of a watch.
#[derive(Serialize)]
pub(crate) struct ChangeView<'a> {
    #[serde(flatten)]
    object: View<'a>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    removed: bool,
}

impl<'a> ChangeView<'a> {
    /// Shows a thing that changed or was removed.
    pub(crate) fn of(object: &'a Object, removed: bool) -> ChangeView<'a> {
        ChangeView { object: View::of(object), removed }
    }
}

/// A workload: its manifest, and how it is. Can be edited and applied again.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WorkloadView<'a> {
    metadata: MetadataView<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    spec: Option<WorkloadSpec>,
    status: WorkloadStatusView<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MetadataView<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Labels::is_empty")]
    labels: &'a Labels,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WorkloadStatusView<'a> {
    running: u32,
    updated: u32,
    revision: u64,
    etag: &'a str,
    deleting: bool,
    created_at: String,
}

impl<'a> From<&'a wire::Workload> for WorkloadView<'a> {
    fn from(workload: &'a wire::Workload) -> Self {
        WorkloadView {
            metadata: MetadataView { name: &workload.name, labels: &workload.labels },
            // A spec that this build doesn't understand comes from a newer scheduler.
            spec: workload.spec.clone().and_then(|spec| spec.try_into().ok()),
            status: WorkloadStatusView {
                running: workload.running,
                updated: workload.updated,
                revision: workload.revision,
                etag: &workload.etag,
                deleting: workload.deleting,
                created_at: rfc3339(workload.created_ms),
            },
        }
    }
}

/// A task.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TaskView<'a> {
    name: &'a str,
    workload: &'a str,
    slot: u32,
    #[serde(skip_serializing_if = "Labels::is_empty")]
    labels: &'a Labels,
    image: &'a str,
    revision: u64,
    epoch: u64,
    ip: &'a str,
    mac: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    node: &'a str,
    desired: &'static str,
    phase: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    message: &'a str,
    restarts: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_exit: Option<ExitView>,
    #[serde(skip_serializing_if = "str::is_empty")]
    migration: &'a str,
    created_at: String,
    since: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ExitView {
    code: i32,
    #[serde(skip_serializing_if = "is_zero")]
    signal: i32,
    oom_killed: bool,
    at: String,
}

fn is_zero(number: &i32) -> bool {
    *number == 0
}

impl<'a> From<&'a wire::Task> for TaskView<'a> {
    fn from(task: &'a wire::Task) -> Self {
        TaskView {
            name: &task.id,
            workload: &task.workload,
            slot: task.slot,
            labels: &task.labels,
            image: &task.image,
            revision: task.revision,
            epoch: task.epoch,
            ip: &task.ip,
            mac: &task.mac,
            node: &task.node,
            desired: word::desired(task.desired()),
            phase: word::task_phase(task.phase()),
            message: &task.message,
            restarts: task.restarts,
            last_exit: task.last_exit.map(|exit| ExitView {
                code: exit.code,
                signal: exit.signal,
                oom_killed: exit.oom_killed,
                at: rfc3339(exit.at_ms),
            }),
            migration: &task.migration,
            created_at: rfc3339(task.created_ms),
            since: rfc3339(task.since_ms),
        }
    }
}

/// A node.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NodeView<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Labels::is_empty")]
    labels: &'a Labels,
    liveness: &'static str,
    cordoned: bool,
    draining: bool,
    capacity: AmountsView,
    used: AmountsView,
    tasks: u32,
    peer_address: &'a str,
    underlay_ip: &'a str,
    overlay_ip: &'a str,
    capabilities: CapabilitiesView<'a>,
    registered_at: String,
    since: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AmountsView {
    cpu_millis: u64,
    memory_bytes: u64,
    pids: u64,
}

#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct CapabilitiesView<'a> {
    kernel: &'a str,
    criu: &'a str,
    cgroup: &'a str,
    agent_version: &'a str,
    cpus: u32,
}

impl From<Option<&wire::Quantities>> for AmountsView {
    fn from(amounts: Option<&wire::Quantities>) -> Self {
        let amounts = amounts.copied().unwrap_or_default();
        AmountsView {
            cpu_millis: amounts.cpu_millis(),
            memory_bytes: amounts.memory_bytes(),
            pids: amounts.pids(),
        }
    }
}

impl<'a> From<&'a wire::Node> for NodeView<'a> {
    fn from(node: &'a wire::Node) -> Self {
        let capabilities = node.capabilities.as_ref().map(|c| CapabilitiesView {
            kernel: &c.kernel,
            criu: &c.criu,
            cgroup: &c.cgroup,
            agent_version: &c.agent_version,
            cpus: c.cpus,
        });
        NodeView {
            name: &node.name,
            labels: &node.labels,
            liveness: word::liveness(node.liveness()),
            cordoned: node.cordoned,
            draining: node.draining,
            capacity: node.capacity.as_ref().into(),
            used: node.used.as_ref().into(),
            tasks: node.tasks,
            peer_address: &node.peer_address,
            underlay_ip: &node.underlay_ip,
            overlay_ip: &node.overlay_ip,
            capabilities: capabilities.unwrap_or_default(),
            registered_at: rfc3339(node.registered_ms),
            since: rfc3339(node.since_ms),
        }
    }
}

/// A migration.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MigrationView<'a> {
    name: &'a str,
    task: &'a str,
    source: &'a str,
    target: &'a str,
    epoch: u64,
    phase: &'static str,
    reason: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    failure: &'a str,
    history: Vec<PhaseTimeView>,
    steps: Vec<StepView<'a>>,
    bytes: u64,
    memory_bytes: u64,
    freeze_us: u64,
    deadline: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PhaseTimeView {
    phase: &'static str,
    at: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StepView<'a> {
    side: &'static str,
    name: &'a str,
    began_at: String,
    took_us: u64,
}

impl<'a> From<&'a wire::Migration> for MigrationView<'a> {
    fn from(migration: &'a wire::Migration) -> Self {
        let history = migration.history.iter();
        let history =
            history.map(|t| PhaseTimeView { phase: word::migration_phase(t.phase()), at: rfc3339(t.at_ms) });
        let steps = migration.steps.iter().map(|step| StepView {
            side: word::side(step.side()),
            name: &step.name,
            began_at: rfc3339_micros(step.began_us),
            took_us: step.took_us,
        });
        MigrationView {
            name: &migration.name,
            task: &migration.task,
            source: &migration.source,
            target: &migration.target,
            epoch: migration.epoch,
            phase: word::migration_phase(migration.phase()),
            reason: &migration.reason,
            failure: &migration.failure,
            history: history.collect(),
            steps: steps.collect(),
            bytes: migration.bytes,
            memory_bytes: migration.memory_bytes,
            freeze_us: migration.freeze_us,
            deadline: rfc3339(migration.deadline_ms),
        }
    }
}

/// An image.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ImageView<'a> {
    reference: &'a str,
    digest: &'a str,
    size_bytes: u64,
    nodes: &'a [String],
    imported_at: String,
}

impl<'a> From<&'a wire::Image> for ImageView<'a> {
    fn from(image: &'a wire::Image) -> Self {
        ImageView {
            reference: &image.reference,
            digest: &image.digest,
            size_bytes: image.size_bytes,
            nodes: &image.nodes,
            imported_at: rfc3339(image.imported_ms),
        }
    }
}

/// An event.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EventView<'a> {
    index: u64,
    at: String,
    level: &'static str,
    object: &'a str,
    reason: &'a str,
    message: &'a str,
}

impl<'a> From<&'a wire::Event> for EventView<'a> {
    fn from(event: &'a wire::Event) -> Self {
        EventView {
            index: event.index,
            at: rfc3339(event.at_ms),
            level: word::level(event.level()),
            object: &event.object,
            reason: &event.reason,
            message: &event.message,
        }
    }
}
