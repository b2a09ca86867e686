//! Everything about one thing, for people.

use super::table::{cpu, node_status, pairs, phases, plain, render, steps, task_status};
use super::text::{age, bytes, rfc3339};
use super::{Format, Style, progress, word, yaml};
use crate::resource::Object;
use dray_model::WorkloadSpec;
use dray_proto::v1 as wire;

/// What belongs to the thing that is described.
#[derive(Debug, Default)]
pub(crate) struct Around {
    /// A workload's or a node's tasks.
    pub(crate) tasks: Vec<Object>,
    /// A task's migrations.
    pub(crate) migrations: Vec<Object>,
    /// Events about it, oldest first.
    pub(crate) events: Vec<Object>,
}

/// Describes one thing.
pub(crate) fn object(object: &Object, around: &Around, now_ms: u64) -> anyhow::Result<String> {
    let mut text = match object {
        Object::Workload(workload) => of_workload(workload, now_ms)?,
        Object::Task(task) => of_task(task, now_ms),
        Object::Node(node) => of_node(node, now_ms),
        Object::Migration(migration) => of_migration(migration, now_ms),
        Object::Image(image) => of_image(image, now_ms),
        Object::Event(event) => {
            fields(&[("Object", event.object.clone()), ("Message", event.message.clone())])
        }
    };
    for (heading, objects) in
        [("Tasks", &around.tasks), ("Migrations", &around.migrations), ("Events", &around.events)]
    {
        if !objects.is_empty() {
            let style = Style { format: Format::Table, headers: true, now_ms };
            text.push_str(&section(heading, &render(objects, style)));
        }
    }
    Ok(text)
}

/// Aligned `Name:  value` lines; empty values are left out.
fn fields(fields: &[(&str, String)]) -> String {
    let rows = fields.iter().filter(|(_, value)| !value.is_empty());
    plain(&[], rows.map(|(name, value)| vec![format!("{name}:"), value.clone()]).collect())
}

/// A heading with an indented text under it.
fn section(heading: &str, text: &str) -> String {
    let lines: String = text.lines().map(|line| format!("  {line}\n")).collect();
    format!("{heading}:\n{lines}")
}

fn when(ms: u64, now_ms: u64) -> String {
    if ms == 0 { String::new() } else { format!("{} ({} ago)", rfc3339(ms), age(ms, now_ms)) }
}

fn of_workload(workload: &wire::Workload, now_ms: u64) -> anyhow::Result<String> {
    let spec = workload.spec.clone().unwrap_or_default();
    let mut text = fields(&[
        ("Name", workload.name.clone()),
        ("Labels", pairs(&workload.labels)),
        ("Kind", word::workload_kind(spec.kind()).into()),
        ("Revision", workload.revision.to_string()),
        (
            "Tasks",
            format!("{} wanted, {} running, {} updated", spec.replicas, workload.running, workload.updated),
        ),
        ("Deleting", if workload.deleting { "yes".into() } else { String::new() }),
        ("Created", when(workload.created_ms, now_ms)),
    ]);
    if let Some(spec) = workload.spec.clone() {
        text.push_str(&section("Spec", &yaml(&WorkloadSpec::try_from(spec)?)?));
    }
    Ok(text)
}

fn of_task(task: &wire::Task, now_ms: u64) -> String {
    let exit = task.last_exit.as_ref().map(|exit| {
        let cause = match (exit.oom_killed, exit.signal) {
            (true, _) => " (out of memory)".to_owned(),
            (false, 0) => String::new(),
            (false, signal) => format!(" (signal {signal})"),
        };
        format!("code {}{cause}, {}", exit.code, when(exit.at_ms, now_ms))
    });
    fields(&[
        ("Name", task.id.clone()),
        ("Workload", format!("{} (revision {})", task.workload, task.revision)),
        ("Labels", pairs(&task.labels)),
        ("Image", task.image.clone()),
        ("Status", task_status(task)),
        ("Why", task.message.clone()),
        ("Since", when(task.since_ms, now_ms)),
        ("Wanted", word::title(word::desired(task.desired()))),
        ("Node", if task.node.is_empty() { "none yet".into() } else { task.node.clone() }),
        ("IP", task.ip.clone()),
        ("MAC", task.mac.clone()),
        ("Epoch", task.epoch.to_string()),
        ("Restarts", task.restarts.to_string()),
        ("Last exit", exit.unwrap_or_default()),
        ("Created", when(task.created_ms, now_ms)),
    ])
}

fn of_node(node: &wire::Node, now_ms: u64) -> String {
    let about = node.capabilities.clone().unwrap_or_default();
    let (capacity, used) = (node.capacity.unwrap_or_default(), node.used.unwrap_or_default());
    let mut text = fields(&[
        ("Name", node.name.clone()),
        ("Labels", pairs(&node.labels)),
        ("Status", node_status(node)),
        ("Since", when(node.since_ms, now_ms)),
        ("Registered", when(node.registered_ms, now_ms)),
        ("Address", node.peer_address.clone()),
        ("Underlay IP", node.underlay_ip.clone()),
        ("Overlay IP", node.overlay_ip.clone()),
        ("Kernel", about.kernel),
        ("CRIU", about.criu),
        ("Cgroups", about.cgroup),
        ("Agent", about.agent_version),
    ]);
    let row = |name: &str, used: u64, capacity: u64, text: fn(u64) -> String| {
        vec![name.to_owned(), text(used), text(capacity), text(capacity.saturating_sub(used))]
    };
    let rows = vec![
        row("cpu", used.cpu_millis(), capacity.cpu_millis(), cpu),
        row("memory", used.memory_bytes(), capacity.memory_bytes(), bytes),
        row("pids", used.pids(), capacity.pids(), |n| n.to_string()),
    ];
    text.push_str(&section("Resources", &plain(&["", "USED", "CAPACITY", "FREE"], rows)));
    text
}

fn of_migration(migration: &wire::Migration, now_ms: u64) -> String {
    let mut text = fields(&[
        ("Name", migration.name.clone()),
        ("Task", migration.task.clone()),
        ("From", migration.source.clone()),
        ("To", migration.target.clone()),
        ("Epoch", format!("{} to {}", migration.epoch, migration.epoch.saturating_add(1))),
        ("Phase", word::title(word::migration_phase(migration.phase()))),
        ("Reason", migration.reason.clone()),
        ("Failure", migration.failure.clone()),
        ("Began", when(migration.history.first().map_or(0, |time| time.at_ms), now_ms)),
        ("Figures", progress::figures(migration)),
    ]);
    text.push_str(&section("Phases", &phases(migration)));
    if !migration.steps.is_empty() {
        text.push_str(&section("Steps", &steps(migration)));
    }
    text
}

fn of_image(image: &wire::Image, now_ms: u64) -> String {
    fields(&[
        ("Reference", image.reference.clone()),
        ("Digest", image.digest.clone()),
        ("Size", bytes(image.size_bytes)),
        ("Nodes", image.nodes.join(", ")),
        ("Imported", when(image.imported_ms, now_ms)),
    ])
}
