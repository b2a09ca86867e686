//! The cluster at a glance.

use super::table::plain;
use super::{Format, Out, Style};
use crate::resource::Object;
use dray_proto::v1::{Liveness, SchedulerStatus, StatusResponse, TaskPhase};
use serde::Serialize;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StatusView<'a> {
    kind: &'static str,
    version: &'a str,
    cluster_cidr: &'a str,
    index: u64,
    schedulers: Vec<SchedulerView<'a>>,
    nodes: Counts,
    tasks: Counts,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SchedulerView<'a> {
    id: u64,
    address: &'a str,
    leader: bool,
    reachable: bool,
    term: u64,
    applied: u64,
}

/// How many there are, and how many of them are well.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Counts {
    all: usize,
    ready: usize,
}

impl Counts {
    fn of(objects: &[Object], is_ready: impl Fn(&Object) -> bool) -> Counts {
        Counts { all: objects.len(), ready: objects.iter().filter(|object| is_ready(object)).count() }
    }
}

/// Prints it.
pub(crate) fn print(
    out: &mut Out,
    status: &StatusResponse,
    nodes: &[Object],
    tasks: &[Object],
    style: Style,
) -> anyhow::Result<()> {
    let view = StatusView {
        kind: "ClusterStatus",
        version: &status.version,
        cluster_cidr: &status.cluster_cidr,
        index: status.index,
        schedulers: status.schedulers.iter().map(scheduler).collect(),
        nodes: Counts::of(nodes, |n| matches!(n, Object::Node(n) if n.liveness() == Liveness::Ready)),
        tasks: Counts::of(tasks, |t| matches!(t, Object::Task(t) if t.phase() == TaskPhase::Running)),
    };
    match style.format {
        Format::Json => out.json(&view),
        Format::Yaml => out.yaml(&view),
        Format::Table | Format::Wide | Format::Name => Ok(out.bytes(text(&view).as_bytes())?),
    }
}

fn scheduler(scheduler: &SchedulerStatus) -> SchedulerView<'_> {
    SchedulerView {
        id: scheduler.id,
        address: &scheduler.address,
        leader: scheduler.leader,
        reachable: scheduler.reachable,
        term: scheduler.term,
        applied: scheduler.applied,
    }
}

fn text(view: &StatusView<'_>) -> String {
    let rows = view.schedulers.iter().map(|scheduler| {
        let role = match (scheduler.reachable, scheduler.leader) {
            (false, _) => "unreachable",
            (true, true) => "leader",
            (true, false) => "follower",
        };
        vec![
            scheduler.id.to_string(),
            scheduler.address.to_owned(),
            role.to_owned(),
            scheduler.term.to_string(),
            scheduler.applied.to_string(),
        ]
    });
    let mut text = plain(&["SCHEDULER", "ADDRESS", "ROLE", "TERM", "APPLIED"], rows.collect());
    text.push_str(&format!(
        "\nnodes {} of {} ready, tasks {} of {} running\nversion {}, addresses {}, index {}\n",
        view.nodes.ready,
        view.nodes.all,
        view.tasks.ready,
        view.tasks.all,
        view.version,
        view.cluster_cidr,
        view.index
    ));
    text
}
