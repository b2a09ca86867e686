//! What one node is told. A pure function of the state; the host compares it
//! with what it sent before and sends the difference.
//!
//! An agent may run or thaw an instance only if `tasks` has it at its epoch
//! with `Run` and no migration in the list that is still undecided fences
//! it. So a commit shows as the task's absence at the source, and an abort as
//! the migration's absence with the task as before.

use crate::codec::digest;
use crate::state::State;
use dray_model::assignment::{Assignment, ImageAssignment, MigrationAssignment, PeerNode, TaskAssignment};
use dray_model::ids::{Epoch, MigrationId, NodeName};
use dray_model::image::Image;
use dray_model::migration::Side;
use dray_model::spec::NodeLossPolicy;
use dray_model::{Desired, Liveness, Migration, MigrationPhase, Node, Task, TaskPhase};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// On how many nodes every image is kept, if there are as many.
pub const IMAGE_COPIES: usize = 3;

/// Everything that a node must run and know. Its generation is the index of
/// the last applied entry; two that differ in nothing else are the same.
pub fn assignment(state: &State, node: &NodeName) -> Assignment {
    Assignment {
        generation: state.applied(),
        tasks: tasks(state, node).map(|task| (task.task.clone(), task)).collect(),
        migrations: migrations(state, node),
        routes: routes(state, node),
        peers: peers(state, node),
        images: images(state, node),
    }
}

/// What the node owns and has not ended.
fn tasks<'a>(state: &'a State, node: &NodeName) -> impl Iterator<Item = TaskAssignment> + use<'a> {
    let live = state.tasks_on(node).filter(|task| task.observed.phase != TaskPhase::Stopped);
    live.filter_map(|task| {
        let on_node_loss = state.grants().on_node_loss(&task.id);
        task_assignment(state, task, task.epoch, on_node_loss)
    })
}

fn task_assignment(
    state: &State,
    task: &Task,
    epoch: Epoch,
    on_node_loss: NodeLossPolicy,
) -> Option<TaskAssignment> {
    let template = state.template(&task.id.workload, task.revision)?;
    let image = state.images().get(&template.container().image);
    Some(TaskAssignment {
        task: task.id.clone(),
        epoch,
        revision: task.revision,
        template: template.clone(),
        ip: task.ip,
        desired: task.desired,
        image: image.map(|image| image_assignment(state, image)),
        on_node_loss,
        restarts: task.observed.restarts,
    })
}

/// Undecided ones concern both sides; later the target works until it has
/// resumed the task, and the source until it has nothing left of it.
fn migrations(state: &State, node: &NodeName) -> BTreeMap<MigrationId, MigrationAssignment> {
    let mine = state.migrations().values().filter_map(|migration| {
        let side = side(migration, node)?;
        Some((migration.id, migration_assignment(state, migration, side)?))
    });
    mine.collect()
}

fn side(migration: &Migration, node: &NodeName) -> Option<Side> {
    let (source, target) = match migration.phase {
        MigrationPhase::Reserved
        | MigrationPhase::Prepared
        | MigrationPhase::Frozen
        | MigrationPhase::Committed => (true, true),
        MigrationPhase::Resumed => (true, false),
        MigrationPhase::Cleaned | MigrationPhase::Aborted => (false, false),
    };
    if source && migration.source == *node {
        Some(Side::Source)
    } else if target && migration.target == *node {
        Some(Side::Target)
    } else {
        None
    }
}

fn migration_assignment(state: &State, migration: &Migration, side: Side) -> Option<MigrationAssignment> {
    let peer = match side {
        Side::Source => &migration.target,
        Side::Target => &migration.source,
    };
    let task = state.task(&migration.task)?;
    let on_node_loss = state.workload(&task.id.workload)?.spec.on_node_loss;
    let incoming = Task { desired: Desired::Run, ..task.clone() };
    Some(MigrationAssignment {
        migration: migration.id,
        side,
        phase: migration.phase,
        task: task_assignment(state, &incoming, migration.epoch.next(), on_node_loss)?,
        peer: peer.clone(),
        peer_address: state.node(peer)?.about.peer_address,
    })
}

/// Where frames for the tasks elsewhere go.
fn routes(state: &State, here: &NodeName) -> BTreeMap<Ipv4Addr, Ipv4Addr> {
    let live = state.tasks().values().filter(|task| task.observed.phase != TaskPhase::Stopped);
    let elsewhere = live.filter_map(|task| {
        let owner = task.node.as_ref().filter(|owner| *owner != here)?;
        Some((task.ip, state.node(owner)?.about.underlay_ip))
    });
    elsewhere.collect()
}

fn peers(state: &State, here: &NodeName) -> BTreeMap<NodeName, PeerNode> {
    let others = state.nodes().values().filter(|node| node.name != *here);
    let peer = |node: &Node| PeerNode {
        peer_address: node.about.peer_address,
        underlay_ip: node.about.underlay_ip,
        overlay_ip: node.overlay_ip,
    };
    others.map(|node| (node.name.clone(), peer(node))).collect()
}

/// Every image the node should hold: those it runs or is about to, and its
/// share of all, so that an image outlives the loss of a node.
fn images(state: &State, node: &NodeName) -> BTreeMap<String, ImageAssignment> {
    let run = state.tasks_on(node).map(|task| (task, task.revision));
    let incoming = state.migrations().values().filter(|m| m.is_undecided() && m.target == *node);
    let incoming = incoming.filter_map(|m| state.task(&m.task)).map(|task| (task, task.revision));
    let templates = run.chain(incoming).filter_map(|(task, r)| state.template(&task.id.workload, r));
    let used = templates.filter_map(|template| state.images().get(&template.container().image));
    let kept = state.images().values().filter(|image| keepers(state, image).contains(&node));
    used.chain(kept).map(|image| (image.reference.clone(), image_assignment(state, image))).collect()
}

/// The nodes that keep an image whether they run it or not, by rendezvous
/// hashing: a node that comes or goes changes little.
fn keepers<'a>(state: &'a State, image: &Image) -> Vec<&'a NodeName> {
    let ready = state.nodes().values().filter(|node| node.liveness == Liveness::Ready);
    let weight = |name: &NodeName| digest(format!("{} {name}", image.digest).as_bytes());
    let mut names: Vec<(u64, &NodeName)> = ready.map(|node| (weight(&node.name), &node.name)).collect();
    names.sort_unstable();
    names.into_iter().take(IMAGE_COPIES).map(|(_, name)| name).collect()
}

fn image_assignment(state: &State, image: &Image) -> ImageAssignment {
    let holders = image.holders.iter().filter_map(|name| state.node(name));
    ImageAssignment {
        reference: image.reference.clone(),
        digest: image.digest.clone(),
        holders: holders.map(|node| node.about.peer_address).collect(),
    }
}
