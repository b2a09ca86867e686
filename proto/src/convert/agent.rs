//! What schedulers and agents tell each other.

use super::resources::enumerated;
use super::{Invalid, each, parsed, required, template_from_wire};
use crate::v1 as wire;
use dray_model::assignment::{
    Assignment, AssignmentDiff, ImageAssignment, ImageReport, MigrationAssignment, MigrationReport, PeerNode,
    TaskAssignment, TaskReport,
};
use dray_model::ids::{Epoch, NodeName};
use dray_model::migration::Milestone;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

impl From<TaskAssignment> for wire::TaskAssignment {
    fn from(t: TaskAssignment) -> Self {
        wire::TaskAssignment {
            task: t.task.into(),
            epoch: t.epoch.0,
            revision: t.revision,
            template: Some(t.template.into()),
            ip: t.ip.to_string(),
            desired: wire::Desired::from(t.desired).into(),
            image: t.image.map(Into::into),
            on_node_loss: wire::NodeLossPolicy::from(t.on_node_loss).into(),
            restarts: t.restarts,
        }
    }
}

impl TryFrom<wire::TaskAssignment> for TaskAssignment {
    type Error = Invalid;
    fn try_from(t: wire::TaskAssignment) -> Result<Self, Invalid> {
        let template = template_from_wire(required(t.template, "template")?)?;
        if template.containers.len() != 1 {
            return Err(Invalid::field("template.containers", "must be exactly one"));
        }
        Ok(TaskAssignment {
            task: parsed(&t.task, "task")?,
            epoch: Epoch(t.epoch),
            revision: t.revision,
            template,
            ip: parsed(&t.ip, "ip")?,
            desired: enumerated::<wire::Desired, _>(t.desired, "desired")?,
            image: t.image.map(TryInto::try_into).transpose()?,
            on_node_loss: enumerated::<wire::NodeLossPolicy, _>(t.on_node_loss, "on_node_loss")?,
            restarts: t.restarts,
        })
    }
}

impl From<MigrationAssignment> for wire::MigrationAssignment {
    fn from(m: MigrationAssignment) -> Self {
        wire::MigrationAssignment {
            migration: m.migration.into(),
            side: wire::Side::from(m.side).into(),
            phase: wire::MigrationPhase::from(m.phase).into(),
            task: Some(m.task.into()),
            peer: m.peer.into(),
            peer_address: m.peer_address.to_string(),
        }
    }
}

impl TryFrom<wire::MigrationAssignment> for MigrationAssignment {
    type Error = Invalid;
    fn try_from(m: wire::MigrationAssignment) -> Result<Self, Invalid> {
        Ok(MigrationAssignment {
            migration: parsed(&m.migration, "migration")?,
            side: enumerated::<wire::Side, _>(m.side, "side")?,
            phase: enumerated::<wire::MigrationPhase, _>(m.phase, "phase")?,
            task: required(m.task, "task")?.try_into()?,
            peer: parsed(&m.peer, "peer")?,
            peer_address: parsed(&m.peer_address, "peer_address")?,
        })
    }
}

impl From<ImageAssignment> for wire::ImageAssignment {
    fn from(i: ImageAssignment) -> Self {
        wire::ImageAssignment {
            reference: i.reference,
            digest: i.digest,
            holders: i.holders.iter().map(ToString::to_string).collect(),
        }
    }
}

impl TryFrom<wire::ImageAssignment> for ImageAssignment {
    type Error = Invalid;
    fn try_from(i: wire::ImageAssignment) -> Result<Self, Invalid> {
        let holders = i.holders.iter().map(|holder| parsed(holder, "holders"));
        Ok(ImageAssignment {
            holders: holders.collect::<Result<_, _>>()?,
            reference: i.reference,
            digest: i.digest,
        })
    }
}

fn peer(name: NodeName, peer: PeerNode) -> wire::PeerNode {
    wire::PeerNode {
        name: name.into(),
        peer_address: peer.peer_address.to_string(),
        underlay_ip: peer.underlay_ip.to_string(),
        overlay_ip: peer.overlay_ip.to_string(),
    }
}

fn peer_from_wire(peer: &wire::PeerNode) -> Result<(NodeName, PeerNode), Invalid> {
    let node = PeerNode {
        peer_address: parsed(&peer.peer_address, "peer_address")?,
        underlay_ip: parsed(&peer.underlay_ip, "underlay_ip")?,
        overlay_ip: parsed(&peer.overlay_ip, "overlay_ip")?,
    };
    Ok((parsed(&peer.name, "name")?, node))
}

fn route(ip: Ipv4Addr, underlay_ip: Ipv4Addr) -> wire::Route {
    wire::Route { ip: ip.to_string(), underlay_ip: underlay_ip.to_string() }
}

fn route_from_wire(route: &wire::Route) -> Result<(Ipv4Addr, Ipv4Addr), Invalid> {
    Ok((parsed(&route.ip, "ip")?, parsed(&route.underlay_ip, "underlay_ip")?))
}

impl From<Assignment> for wire::Assignment {
    fn from(a: Assignment) -> Self {
        wire::Assignment {
            generation: a.generation,
            tasks: a.tasks.into_values().map(Into::into).collect(),
            migrations: a.migrations.into_values().map(Into::into).collect(),
            routes: a.routes.into_iter().map(|(ip, to)| route(ip, to)).collect(),
            images: a.images.into_values().map(Into::into).collect(),
            peers: a.peers.into_iter().map(|(name, node)| peer(name, node)).collect(),
        }
    }
}

impl TryFrom<wire::Assignment> for Assignment {
    type Error = Invalid;
    fn try_from(a: wire::Assignment) -> Result<Self, Invalid> {
        let tasks: Vec<TaskAssignment> = each(a.tasks)?;
        let migrations: Vec<MigrationAssignment> = each(a.migrations)?;
        let images: Vec<ImageAssignment> = each(a.images)?;
        Ok(Assignment {
            generation: a.generation,
            tasks: tasks.into_iter().map(|t| (t.task.clone(), t)).collect(),
            migrations: migrations.into_iter().map(|m| (m.migration, m)).collect(),
            routes: a.routes.iter().map(route_from_wire).collect::<Result<_, _>>()?,
            peers: a.peers.iter().map(peer_from_wire).collect::<Result<_, _>>()?,
            images: images.into_iter().map(|i| (i.reference.clone(), i)).collect(),
        })
    }
}

/// The changed and the removed entries of one map of a diff.
fn split<K: ToString, V>(changes: BTreeMap<K, Option<V>>) -> (Vec<(K, V)>, Vec<String>) {
    let mut changed = Vec::new();
    let mut removed = Vec::new();
    for (key, change) in changes {
        match change {
            Some(value) => changed.push((key, value)),
            None => removed.push(key.to_string()),
        }
    }
    (changed, removed)
}

/// The reverse of [`split`].
fn join<K, V>(
    changed: Vec<(K, V)>,
    removed: &[String],
    field: &str,
) -> Result<BTreeMap<K, Option<V>>, Invalid>
where
    K: Ord + std::str::FromStr,
    K::Err: std::fmt::Display,
{
    let mut changes: BTreeMap<K, Option<V>> = changed.into_iter().map(|(k, v)| (k, Some(v))).collect();
    for key in removed {
        changes.insert(parsed(key, field)?, None);
    }
    Ok(changes)
}

impl From<AssignmentDiff> for wire::AssignmentDiff {
    fn from(d: AssignmentDiff) -> Self {
        let (tasks, removed_tasks) = split(d.tasks);
        let (migrations, removed_migrations) = split(d.migrations);
        let (routes, removed_routes) = split(d.routes);
        let (peers, removed_peers) = split(d.peers);
        let (images, removed_images) = split(d.images);
        wire::AssignmentDiff {
            base: d.base,
            generation: d.generation,
            tasks: tasks.into_iter().map(|(_, t)| t.into()).collect(),
            removed_tasks,
            migrations: migrations.into_iter().map(|(_, m)| m.into()).collect(),
            removed_migrations,
            routes: routes.into_iter().map(|(ip, to)| route(ip, to)).collect(),
            removed_routes,
            images: images.into_iter().map(|(_, i)| i.into()).collect(),
            removed_images,
            peers: peers.into_iter().map(|(name, node)| peer(name, node)).collect(),
            removed_peers,
        }
    }
}

impl TryFrom<wire::AssignmentDiff> for AssignmentDiff {
    type Error = Invalid;
    fn try_from(d: wire::AssignmentDiff) -> Result<Self, Invalid> {
        let tasks: Vec<TaskAssignment> = each(d.tasks)?;
        let migrations: Vec<MigrationAssignment> = each(d.migrations)?;
        let images: Vec<ImageAssignment> = each(d.images)?;
        let routes = d.routes.iter().map(route_from_wire).collect::<Result<_, _>>()?;
        let peers = d.peers.iter().map(peer_from_wire).collect::<Result<_, _>>()?;
        let tasks = tasks.into_iter().map(|t| (t.task.clone(), t)).collect();
        let migrations = migrations.into_iter().map(|m| (m.migration, m)).collect();
        let images = images.into_iter().map(|i| (i.reference.clone(), i)).collect();
        Ok(AssignmentDiff {
            base: d.base,
            generation: d.generation,
            tasks: join(tasks, &d.removed_tasks, "removed_tasks")?,
            migrations: join(migrations, &d.removed_migrations, "removed_migrations")?,
            routes: join(routes, &d.removed_routes, "removed_routes")?,
            peers: join(peers, &d.removed_peers, "removed_peers")?,
            images: join(images, &d.removed_images, "removed_images")?,
        })
    }
}

impl From<TaskReport> for wire::TaskReport {
    fn from(r: TaskReport) -> Self {
        wire::TaskReport {
            task: r.task.into(),
            epoch: r.epoch.0,
            phase: wire::TaskPhase::from(r.phase).into(),
            message: r.message,
            restarts: r.restarts,
            last_exit: r.last_exit.map(Into::into),
            since_ms: r.since_ms,
        }
    }
}

impl TryFrom<wire::TaskReport> for TaskReport {
    type Error = Invalid;
    fn try_from(r: wire::TaskReport) -> Result<Self, Invalid> {
        Ok(TaskReport {
            task: parsed(&r.task, "task")?,
            epoch: Epoch(r.epoch),
            phase: enumerated::<wire::TaskPhase, _>(r.phase, "phase")?,
            message: r.message,
            restarts: r.restarts,
            last_exit: r.last_exit.map(Into::into),
            since_ms: r.since_ms,
        })
    }
}

fn milestone_to_wire(milestone: Milestone) -> (wire::Milestone, String) {
    match milestone {
        Milestone::Prepared => (wire::Milestone::Prepared, String::new()),
        Milestone::Frozen => (wire::Milestone::Frozen, String::new()),
        Milestone::Restored => (wire::Milestone::Restored, String::new()),
        Milestone::Resumed => (wire::Milestone::Resumed, String::new()),
        Milestone::Cleaned => (wire::Milestone::Cleaned, String::new()),
        Milestone::Failed { failure } => (wire::Milestone::Failed, failure),
    }
}

fn milestone_from_wire(number: i32, failure: String) -> Result<Milestone, Invalid> {
    match super::known::<wire::Milestone>(number, "milestone")? {
        wire::Milestone::Unspecified => Err(Invalid::field("milestone", "is missing")),
        wire::Milestone::Prepared => Ok(Milestone::Prepared),
        wire::Milestone::Frozen => Ok(Milestone::Frozen),
        wire::Milestone::Restored => Ok(Milestone::Restored),
        wire::Milestone::Resumed => Ok(Milestone::Resumed),
        wire::Milestone::Cleaned => Ok(Milestone::Cleaned),
        wire::Milestone::Failed => Ok(Milestone::Failed { failure }),
    }
}

impl From<MigrationReport> for wire::MigrationReport {
    fn from(r: MigrationReport) -> Self {
        let (milestone, failure) = milestone_to_wire(r.milestone);
        wire::MigrationReport {
            migration: r.migration.into(),
            side: wire::Side::from(r.side).into(),
            milestone: milestone.into(),
            failure,
            steps: r.steps.into_iter().map(Into::into).collect(),
            bytes: r.bytes,
            memory_bytes: r.memory_bytes,
            freeze_us: r.freeze_us,
        }
    }
}

impl TryFrom<wire::MigrationReport> for MigrationReport {
    type Error = Invalid;
    fn try_from(r: wire::MigrationReport) -> Result<Self, Invalid> {
        Ok(MigrationReport {
            migration: parsed(&r.migration, "migration")?,
            side: enumerated::<wire::Side, _>(r.side, "side")?,
            milestone: milestone_from_wire(r.milestone, r.failure)?,
            steps: each(r.steps)?,
            bytes: r.bytes,
            memory_bytes: r.memory_bytes,
            freeze_us: r.freeze_us,
        })
    }
}

impl From<ImageReport> for wire::ImageReport {
    fn from(r: ImageReport) -> Self {
        wire::ImageReport {
            reference: r.reference,
            digest: r.digest,
            size_bytes: r.size_bytes,
            removed: r.removed,
        }
    }
}

impl From<wire::ImageReport> for ImageReport {
    fn from(r: wire::ImageReport) -> Self {
        ImageReport { reference: r.reference, digest: r.digest, size_bytes: r.size_bytes, removed: r.removed }
    }
}
