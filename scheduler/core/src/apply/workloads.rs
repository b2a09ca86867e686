//! What users ask for.

use crate::outcome::{Reply, WorkloadChange};
use crate::place::{Needs, Ranking, Room, check_room};
use crate::refusal::Refusal;
use crate::state::{State, needs};
use dray_model::Workload;
use dray_model::event::Level;
use dray_model::ids::WorkloadName;
use dray_model::spec::{Labels, Template, WorkloadSpec};
use dray_model::validate::{Violation, violations};

pub(super) fn apply(
    state: &mut State,
    name: &WorkloadName,
    labels: &Labels,
    spec: &WorkloadSpec,
    etag: Option<&str>,
) -> Result<Reply, Refusal> {
    check_fields(name, labels, spec)?;
    let old = state.workload(name).cloned();
    check_etag(name, old.as_ref(), etag)?;
    let Some(old) = old else { return create(state, name, labels, spec) };
    check_not_deleting(&old)?;
    if old.labels == *labels && old.spec == *spec {
        return Ok(unchanged());
    }
    update(state, old, labels.clone(), spec.clone())
}

pub(super) fn scale(
    state: &mut State,
    name: &WorkloadName,
    replicas: u32,
    etag: Option<&str>,
) -> Result<Reply, Refusal> {
    let old = existing(state, name)?;
    check_etag(name, Some(&old), etag)?;
    check_not_deleting(&old)?;
    if old.spec.replicas == replicas {
        return Ok(unchanged());
    }
    let spec = WorkloadSpec { replicas, ..old.spec.clone() };
    check_fields(name, &old.labels, &spec)?;
    let labels = old.labels.clone();
    update(state, old, labels, spec)
}

pub(super) fn delete(state: &mut State, name: &WorkloadName, etag: Option<&str>) -> Result<Reply, Refusal> {
    let old = existing(state, name)?;
    check_etag(name, Some(&old), etag)?;
    if old.deleting {
        return Ok(unchanged());
    }
    let etag = state.applied().to_string();
    state.put_workload(Workload { deleting: true, etag, ..old.clone() });
    note(state, name, "Deleting", "its tasks are being stopped".into());
    Ok(updated(old.spec, Vec::new()))
}

/// The planner's last step after a deletion.
pub(super) fn remove(state: &mut State, name: &WorkloadName) -> Result<Reply, Refusal> {
    let old = existing(state, name)?;
    if !old.deleting || state.tasks_of(name).next().is_some() {
        return Err(Refusal::Overtaken { what: format!("workload {name} is deleted and has no tasks") });
    }
    state.remove_workload(name);
    note(state, name, "Deleted", "nothing is left of it".into());
    Ok(Reply::Done)
}

fn create(
    state: &mut State,
    name: &WorkloadName,
    labels: &Labels,
    spec: &WorkloadSpec,
) -> Result<Reply, Refusal> {
    check_possible(state, &spec.template)?;
    let warnings = warnings(state, name, None, spec);
    state.put_workload(Workload {
        name: name.clone(),
        labels: labels.clone(),
        spec: spec.clone(),
        revision: 1,
        etag: state.applied().to_string(),
        created_ms: state.clock_ms(),
        deleting: false,
    });
    note(state, name, "Created", format!("replicas: {}", spec.replicas));
    Ok(Reply::Workload { change: WorkloadChange::Created, previous: None, warnings })
}

fn update(state: &mut State, old: Workload, labels: Labels, spec: WorkloadSpec) -> Result<Reply, Refusal> {
    let retemplated = old.spec.template != spec.template;
    if retemplated {
        check_possible(state, &spec.template)?;
    }
    let warnings = warnings(state, &old.name, Some(&old.spec), &spec);
    let revision = if retemplated { old.revision + 1 } else { old.revision };
    let message = match retemplated {
        true => format!("revision: {revision}, replicas: {}", spec.replicas),
        false => format!("replicas: {}", spec.replicas),
    };
    let etag = state.applied().to_string();
    state.put_workload(Workload { labels, spec, revision, etag, ..old.clone() });
    note(state, &old.name, "Updated", message);
    Ok(updated(old.spec, warnings))
}

/// What a user should know of a spec that is accepted.
fn warnings(
    state: &State,
    name: &WorkloadName,
    old: Option<&WorkloadSpec>,
    new: &WorkloadSpec,
) -> Vec<String> {
    let mut warnings = Vec::new();
    let grows = old.is_none_or(|old| old.template != new.template || old.replicas < new.replicas);
    if grows && new.replicas > 0 {
        let ranking = Ranking::new(&Room::new(state), name, Needs::of_template(&new.template));
        if ranking.best().is_none() {
            warnings.push(format!("no node can take a task of it right now: {}", ranking.tally()));
        }
    }
    if old.is_some_and(|old| old.on_node_loss != new.on_node_loss) {
        warnings.push(
            "onNodeLoss holds for each task from the next time it is placed or moved: \
             its present node was told the old one"
                .into(),
        );
    }
    warnings
}

fn check_fields(name: &WorkloadName, labels: &Labels, spec: &WorkloadSpec) -> Result<(), Refusal> {
    let violations = violations(name.as_str(), labels, spec);
    if violations.is_empty() { Ok(()) } else { Err(Refusal::Invalid { violations }) }
}

fn check_etag(name: &WorkloadName, old: Option<&Workload>, given: Option<&str>) -> Result<(), Refusal> {
    let Some(given) = given else { return Ok(()) };
    let current = old.map(|old| old.etag.as_str()).unwrap_or_default();
    if given == current {
        return Ok(());
    }
    Err(Refusal::EtagMismatch { name: name.clone(), given: given.into(), current: current.into() })
}

fn check_not_deleting(workload: &Workload) -> Result<(), Refusal> {
    if workload.deleting { Err(Refusal::BeingDeleted { name: workload.name.clone() }) } else { Ok(()) }
}

/// Refuses what could run nowhere. Without nodes there is nothing to compare
/// with, and the tasks wait.
fn check_possible(state: &State, template: &Template) -> Result<(), Refusal> {
    if state.nodes().is_empty() {
        return Ok(());
    }
    check_image(state, template)?;
    check_size(state, template)
}

/// Refuses an image that no node has: nothing would bring it there.
fn check_image(state: &State, template: &Template) -> Result<(), Refusal> {
    let image = &template.container().image;
    if state.images().contains_key(image) {
        return Ok(());
    }
    let known: Vec<&str> = state.images().keys().map(String::as_str).take(5).collect();
    let known = if known.is_empty() { "none".into() } else { known.join(", ") };
    let problem = format!("no node has {image:?}; import it first, or use one there is: {known}");
    let field = "spec.template.containers[0].image".into();
    Err(Refusal::Invalid { violations: vec![Violation { field, problem }] })
}

/// Refuses what no node could hold even when empty.
fn check_size(state: &State, template: &Template) -> Result<(), Refusal> {
    let needs = needs(template);
    let mut lacks = Vec::new();
    for node in state.nodes().values() {
        match check_room(needs, node.about.capacity) {
            Ok(()) => return Ok(()),
            Err(lack) => lacks.push((lack, &node.name)),
        }
    }
    // Of equals, the first by name.
    let largest = lacks.into_iter().rev().max_by_key(|(lack, _)| lack.free());
    match largest {
        Some((lack, name)) => Err(Refusal::TooLarge { lack, largest: name.clone() }),
        None => Ok(()),
    }
}

fn existing(state: &State, name: &WorkloadName) -> Result<Workload, Refusal> {
    let workload = state.workload(name).cloned();
    workload.ok_or_else(|| Refusal::UnknownWorkload { name: name.clone() })
}

fn unchanged() -> Reply {
    Reply::Workload { change: WorkloadChange::Unchanged, previous: None, warnings: Vec::new() }
}

fn updated(previous: WorkloadSpec, warnings: Vec<String>) -> Reply {
    Reply::Workload { change: WorkloadChange::Updated, previous: Some(Box::new(previous)), warnings }
}

fn note(state: &mut State, name: &WorkloadName, reason: &str, message: String) {
    state.event(Level::Info, format!("workload/{name}"), reason, message);
}
