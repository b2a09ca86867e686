//! Tables as kubectl prints them: no borders, three spaces between columns.

use super::text::{age, bytes, micros, millis};
use super::word::{self, title};
use super::{Format, Style};
use crate::resource::{Kind, Object};
use comfy_table::{ContentArrangement, Table, presets};
use dray_proto::v1 as wire;

/// Rows of text under a heading; an empty heading prints none.
pub(crate) fn plain(heading: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    if !heading.is_empty() {
        table.set_header(heading.to_vec());
    }
    // A line break inside a cell would tear the row apart, and other control
    // characters would act on the terminal.
    let flat = |cell: &String| cell.replace(char::is_control, " ");
    table.add_rows(rows.iter().map(|row| row.iter().map(flat).collect::<Vec<_>>()));
    table.discover_columns();
    for column in table.column_iter_mut() {
        column.set_padding((0, 3));
    }
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// How wide each column has to be, at least as wide as before.
pub(crate) fn widths<'c>(before: &[usize], rows: impl Iterator<Item = &'c Vec<String>>) -> Vec<usize> {
    let mut widths = before.to_vec();
    for row in rows {
        widths.resize(widths.len().max(row.len()), 0);
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    widths
}

/// One more row under a table of these widths.
pub(crate) fn padded(cells: &[String], widths: &[usize]) -> String {
    let width = |i| widths.get(i).copied().unwrap_or_default();
    let cells = cells.iter().enumerate().map(|(i, cell)| format!("{cell:<width$}   ", width = width(i)));
    cells.collect::<String>().trim_end().to_owned()
}

/// A table of things, all of one kind. Nothing at all if there are none.
pub(crate) fn render(objects: &[Object], style: Style) -> String {
    let Some(first) = objects.first() else { return String::new() };
    let wide = style.format == Format::Wide;
    let heading = heading(first.kind(), wide);
    let rows = objects.iter().map(|object| row(object, wide, style.now_ms)).collect();
    plain(if style.headers { &heading } else { &[] }, rows)
}

/// The columns of a kind.
pub(crate) fn heading(kind: Kind, wide: bool) -> Vec<&'static str> {
    let (mut narrow, more): (Vec<&str>, Vec<&str>) = match kind {
        Kind::Workload => (
            vec!["NAME", "KIND", "RUNNING", "UPDATED", "REVISION", "AGE"],
            vec!["IMAGE", "CPU", "MEMORY", "LABELS"],
        ),
        Kind::Task => (
            vec!["NAME", "STATUS", "RESTARTS", "NODE", "IP", "AGE"],
            vec!["REVISION", "EPOCH", "IMAGE", "MESSAGE"],
        ),
        Kind::Node => (
            vec!["NAME", "STATUS", "TASKS", "CPU", "MEMORY", "AGE"],
            vec!["ADDRESS", "KERNEL", "CRIU", "CGROUP", "AGENT", "LABELS"],
        ),
        Kind::Migration => (
            vec!["NAME", "TASK", "SOURCE", "TARGET", "PHASE", "FREEZE", "SENT", "AGE"],
            vec!["MEMORY", "EPOCH", "REASON", "FAILURE"],
        ),
        Kind::Image => (vec!["REFERENCE", "DIGEST", "SIZE", "NODES", "AGE"], vec!["ON"]),
        Kind::Event => (vec!["AGE", "LEVEL", "REASON", "OBJECT", "MESSAGE"], vec!["INDEX"]),
    };
    if wide {
        narrow.extend(more);
    }
    narrow
}

/// The cells of one thing.
pub(crate) fn row(object: &Object, wide: bool, now_ms: u64) -> Vec<String> {
    let (mut narrow, more) = match object {
        Object::Workload(workload) => workload_row(workload, now_ms),
        Object::Task(task) => task_row(task, now_ms),
        Object::Node(node) => node_row(node, now_ms),
        Object::Migration(migration) => migration_row(migration, now_ms),
        Object::Image(image) => image_row(image, now_ms),
        Object::Event(event) => event_row(event, now_ms),
    };
    if wide {
        narrow.extend(more);
    }
    narrow.iter_mut().filter(|cell| cell.is_empty()).for_each(|cell| cell.push('-'));
    narrow
}

/// The usual cells, and those of a wide table.
type Cells = (Vec<String>, Vec<String>);

fn workload_row(workload: &wire::Workload, now_ms: u64) -> Cells {
    let spec = workload.spec.clone().unwrap_or_default();
    let container = spec.template.as_ref().and_then(|t| t.containers.first().cloned()).unwrap_or_default();
    let requests = requested(&container);
    let kind = word::workload_kind(spec.kind());
    let narrow = vec![
        workload.name.clone(),
        if workload.deleting { format!("{kind},deleting") } else { kind.into() },
        format!("{}/{}", workload.running, spec.replicas),
        workload.updated.to_string(),
        workload.revision.to_string(),
        age(workload.created_ms, now_ms),
    ];
    let cpu = requests.cpu_millis.map(cpu).unwrap_or_default();
    let memory = requests.memory_bytes.map(bytes).unwrap_or_default();
    (narrow, vec![container.image, cpu, memory, pairs(&workload.labels)])
}

/// What a container counts for when it is placed: its requests, else limits.
fn requested(container: &wire::Container) -> wire::Quantities {
    let resources = container.resources.unwrap_or_default();
    let (requests, limits) = (resources.requests.unwrap_or_default(), resources.limits.unwrap_or_default());
    wire::Quantities {
        cpu_millis: requests.cpu_millis.or(limits.cpu_millis),
        memory_bytes: requests.memory_bytes.or(limits.memory_bytes),
        pids: requests.pids.or(limits.pids),
    }
}

/// What a task is doing, for people: its phase, its move, its end.
pub(crate) fn task_status(task: &wire::Task) -> String {
    let mut status = title(word::task_phase(task.phase()));
    if !task.migration.is_empty() {
        status.push_str(&format!(",moving({})", task.migration));
    }
    let ended = matches!(
        task.phase(),
        wire::TaskPhase::Exited
            | wire::TaskPhase::Backoff
            | wire::TaskPhase::Failed
            | wire::TaskPhase::Stopped
    );
    match &task.last_exit {
        Some(exit) if ended && exit.oom_killed => status.push_str("(out of memory)"),
        Some(exit) if ended => status.push_str(&format!("({})", exit.code)),
        Some(_) | None => {}
    }
    status
}

fn task_row(task: &wire::Task, now_ms: u64) -> Cells {
    let narrow = vec![
        task.id.clone(),
        task_status(task),
        task.restarts.to_string(),
        task.node.clone(),
        task.ip.clone(),
        age(task.created_ms, now_ms),
    ];
    let more =
        vec![task.revision.to_string(), task.epoch.to_string(), task.image.clone(), task.message.clone()];
    (narrow, more)
}

/// A node's state, as kubectl joins it: `Ready,Cordoned`.
pub(crate) fn node_status(node: &wire::Node) -> String {
    let mut status = title(word::liveness(node.liveness()));
    if node.draining {
        status.push_str(",Draining");
    } else if node.cordoned {
        status.push_str(",Cordoned");
    }
    status
}

fn node_row(node: &wire::Node, now_ms: u64) -> Cells {
    let (capacity, used) = (node.capacity.unwrap_or_default(), node.used.unwrap_or_default());
    let about = node.capabilities.clone().unwrap_or_default();
    let narrow = vec![
        node.name.clone(),
        node_status(node),
        node.tasks.to_string(),
        format!("{}/{}", cpu(used.cpu_millis()), cpu(capacity.cpu_millis())),
        format!("{}/{}", bytes(used.memory_bytes()), bytes(capacity.memory_bytes())),
        age(node.registered_ms, now_ms),
    ];
    let more = vec![
        node.underlay_ip.clone(),
        about.kernel,
        about.criu,
        about.cgroup,
        about.agent_version,
        pairs(&node.labels),
    ];
    (narrow, more)
}

fn migration_row(migration: &wire::Migration, now_ms: u64) -> Cells {
    let known = |value: u64, text: fn(u64) -> String| if value == 0 { String::new() } else { text(value) };
    let narrow = vec![
        migration.name.clone(),
        migration.task.clone(),
        migration.source.clone(),
        migration.target.clone(),
        title(word::migration_phase(migration.phase())),
        known(migration.freeze_us, micros),
        known(migration.bytes, bytes),
        age(migration.history.first().map_or(0, |time| time.at_ms), now_ms),
    ];
    let more = vec![
        known(migration.memory_bytes, bytes),
        migration.epoch.to_string(),
        migration.reason.clone(),
        migration.failure.clone(),
    ];
    (narrow, more)
}

fn image_row(image: &wire::Image, now_ms: u64) -> Cells {
    let digest = image.digest.strip_prefix("sha256:").unwrap_or(&image.digest);
    let narrow = vec![
        image.reference.clone(),
        digest.chars().take(12).collect(),
        bytes(image.size_bytes),
        image.nodes.len().to_string(),
        age(image.imported_ms, now_ms),
    ];
    (narrow, vec![image.nodes.join(",")])
}

fn event_row(event: &wire::Event, now_ms: u64) -> Cells {
    let narrow = vec![
        age(event.at_ms, now_ms),
        title(word::level(event.level())),
        event.reason.clone(),
        event.object.clone(),
        event.message.clone(),
    ];
    (narrow, vec![event.index.to_string()])
}

/// Processors as in a manifest: `250m`, `2`.
pub(crate) fn cpu(millis: u64) -> String {
    dray_model::CpuMillis(millis).to_string()
}

/// Labels as `key=value` pairs.
pub(crate) fn pairs(labels: &std::collections::BTreeMap<String, String>) -> String {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

/// When each phase of a migration was entered, and how long after the last.
pub(crate) fn phases(migration: &wire::Migration) -> String {
    let began = migration.history.first().map_or(0, |time| time.at_ms);
    let mut before = began;
    let mut rows = Vec::new();
    for time in &migration.history {
        let took = time.at_ms.saturating_sub(before);
        let at = time.at_ms.saturating_sub(began);
        rows.push(vec![word::migration_phase(time.phase()).to_owned(), millis(at), millis(took)]);
        before = time.at_ms;
    }
    plain(&["PHASE", "AT", "TOOK"], rows)
}

/// What each side of a migration did, and how long it took.
pub(crate) fn steps(migration: &wire::Migration) -> String {
    let row = |step: &wire::Step| {
        let node = match step.side() {
            wire::Side::Source => migration.source.clone(),
            wire::Side::Target => migration.target.clone(),
            wire::Side::Unspecified => String::new(),
        };
        vec![word::side(step.side()).to_owned(), node, step.name.clone(), micros(step.took_us)]
    };
    plain(&["SIDE", "NODE", "STEP", "TOOK"], migration.steps.iter().map(row).collect())
}
