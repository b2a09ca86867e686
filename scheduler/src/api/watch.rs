//! Watches: everything first, then changes, each object as it is when it is
//! sent. Works on any scheduler, because every one applies the same log.
//!
//! A response's `index` says up to where everything has been sent, so only
//! the last response of a round carries the new index: a watch that breaks
//! off in the middle of a round repeats it.

use super::select::Selector;
use super::stream::{Boxed, Watched};
use super::{Api, render};
use crate::raft::host::Handle;
use crate::raft::ring::Compacted;
use dray_model::event::Event;
use dray_proto::status::with_reason;
use dray_proto::v1 as wire;
use prost::Message;
use scheduler_core::codec::digest;
use scheduler_core::{Change, State};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Response, Status};
use wire::watch_response::Object;

/// Responses that may wait for a slow watcher; then it gets fewer, later ones.
const QUEUE: usize = 64;

impl From<Compacted> for Status {
    fn from(compacted: Compacted) -> Status {
        with_reason(Code::OutOfRange, "Compacted", compacted.to_string())
    }
}

impl Api {
    /// Begins a watch.
    pub(super) async fn watch_objects(
        &self,
        watched: Watched,
        request: wire::WatchRequest,
    ) -> Result<Response<Boxed<wire::WatchResponse>>, Status> {
        let selector = Selector::parse(&request.label_selector)?;
        self.cluster.settle().await?;
        let (queue, responses) = mpsc::channel(QUEUE);
        let resumed = request.after_index > 0;
        let watch = Watch {
            handle: self.cluster.handle().clone(),
            watched,
            selector,
            index: request.after_index,
            sent: BTreeMap::new(),
            resumed,
            queue,
        };
        tokio::spawn(watch.run());
        Ok(Response::new(Box::pin(ReceiverStream::new(responses))))
    }
}

struct Watch {
    handle: Handle,
    watched: Watched,
    selector: Selector,
    /// Everything up to here has been sent.
    index: u64,
    /// What the watcher has of each object, by its digest.
    sent: BTreeMap<String, u64>,
    /// Whether the watcher may have objects that `sent` doesn't know of.
    resumed: bool,
    queue: mpsc::Sender<Result<wire::WatchResponse, Status>>,
}

/// One object, or its absence.
struct Found {
    name: String,
    object: Object,
    present: bool,
}

impl Watch {
    async fn run(mut self) {
        let mut applied = self.handle.subscribe_applied();
        if self.resumed {
            // This scheduler may be behind the one that the watch was on before.
            self.handle.wait_applied(self.index).await;
        } else if self.send_everything().await.is_err() {
            return;
        }
        loop {
            let began = Instant::now();
            let round = self.collect();
            // The state was locked for so long; leave it alone for as long.
            tokio::time::sleep(began.elapsed()).await;
            let ended = round.is_err();
            if self.send_round(round).await.is_err() || ended {
                return;
            }
            // Changes while sending are seen at once; a watcher that is gone
            // ends this although nothing changes.
            tokio::select! {
                changed = applied.changed() => if changed.is_err() { return },
                () = self.queue.closed() => return,
            }
        }
    }

    async fn send_everything(&mut self) -> Result<(), Gone> {
        let (index, all) = self.handle.view(|state| {
            let found = everything(state, self.watched, &self.selector);
            (state.applied(), found.into_iter().filter(|found| found.present).collect::<Vec<_>>())
        });
        for found in all {
            self.is_news(&found);
            self.send(Ok(response(0, found))).await?;
        }
        self.index = index;
        let synced = wire::WatchResponse { index, removed: false, object: Some(Object::Synced(true)) };
        self.send(Ok(synced)).await
    }

    /// What the watcher has to be told now, and up to where that goes.
    fn collect(&mut self) -> Result<(u64, Vec<Found>), Status> {
        let (watched, selector, index) = (self.watched, &self.selector, self.index);
        let (applied, found) = self.handle.view_with_ring(|state, ring| {
            let changes = ring.after(index)?;
            let touched = touched(state, watched, &changes);
            let found = touched.iter().filter_map(|change| find(state, change, selector));
            Ok::<_, Compacted>((state.applied(), found.collect::<Vec<_>>()))
        })?;
        Ok((applied, found.into_iter().filter(|found| self.is_news(found)).collect()))
    }

    /// Whether the watcher doesn't know it yet.
    fn is_news(&mut self, found: &Found) -> bool {
        if self.watched == Watched::Events {
            // Events never change, so there is nothing to compare.
            return true;
        }
        if !found.present {
            return self.sent.remove(&found.name).is_some() || self.resumed;
        }
        let digest = digest_of(&found.object);
        self.sent.insert(found.name.clone(), digest) != Some(digest)
    }

    async fn send_round(&mut self, round: Result<(u64, Vec<Found>), Status>) -> Result<(), Gone> {
        let (applied, mut found) = match round {
            Ok(round) => round,
            Err(status) => return self.send(Err(status)).await,
        };
        let last = found.pop();
        for found in found {
            let response = response(self.index, found);
            self.send(Ok(response)).await?;
        }
        self.index = applied;
        match last {
            Some(last) => self.send(Ok(response(applied, last))).await,
            None => Ok(()),
        }
    }

    async fn send(&self, message: Result<wire::WatchResponse, Status>) -> Result<(), Gone> {
        self.queue.send(message).await.map_err(|_| Gone)
    }
}

/// Nobody watches any more.
struct Gone;

fn response(index: u64, found: Found) -> wire::WatchResponse {
    wire::WatchResponse { index, removed: !found.present, object: Some(found.object) }
}

fn digest_of(object: &Object) -> u64 {
    let response = wire::WatchResponse { index: 0, removed: false, object: Some(object.clone()) };
    digest(&response.encode_to_vec())
}

/// Everything there is of a kind.
fn everything(state: &State, watched: Watched, selector: &Selector) -> Vec<Found> {
    match watched {
        Watched::Events => state.events().iter().map(found_event).collect(),
        Watched::Workloads | Watched::Tasks | Watched::Nodes | Watched::Migrations => {
            names(state, watched).iter().filter_map(|change| find(state, change, selector)).collect()
        }
    }
}

/// The names of all objects of a kind. Events have none.
fn names(state: &State, watched: Watched) -> Vec<Change> {
    match watched {
        Watched::Workloads => state.workloads().keys().cloned().map(Change::Workload).collect(),
        Watched::Tasks => state.tasks().keys().cloned().map(Change::Task).collect(),
        Watched::Nodes => state.nodes().keys().cloned().map(Change::Node).collect(),
        Watched::Migrations => state.migrations().keys().copied().map(Change::Migration).collect(),
        Watched::Events => Vec::new(),
    }
}

/// The objects of a kind that look different after these changes, or may.
/// A workload shows counts of its tasks, a task shows its workload's labels,
/// and a node shows what is taken of it.
fn touched(state: &State, watched: Watched, changes: &BTreeSet<&Change>) -> BTreeSet<Change> {
    let mut touched = BTreeSet::new();
    for change in changes {
        match (watched, change) {
            (Watched::Workloads, Change::Workload(_))
            | (Watched::Tasks, Change::Task(_))
            | (Watched::Nodes, Change::Node(_))
            | (Watched::Migrations, Change::Migration(_))
            | (Watched::Events, Change::Event(_)) => {
                touched.insert((*change).clone());
            }
            (Watched::Workloads, Change::Task(task)) => {
                touched.insert(Change::Workload(task.workload.clone()));
            }
            (Watched::Tasks, Change::Workload(name)) => {
                touched.extend(state.tasks_of(name).map(|task| Change::Task(task.id.clone())));
            }
            (Watched::Nodes, Change::Task(_) | Change::Migration(_)) => {
                touched.extend(names(state, Watched::Nodes));
            }
            (
                Watched::Workloads,
                Change::Node(_) | Change::Migration(_) | Change::Image(_) | Change::Event(_),
            )
            | (
                Watched::Tasks,
                Change::Node(_) | Change::Migration(_) | Change::Image(_) | Change::Event(_),
            )
            | (Watched::Nodes, Change::Workload(_) | Change::Image(_) | Change::Event(_))
            | (
                Watched::Migrations,
                Change::Workload(_) | Change::Task(_) | Change::Node(_) | Change::Image(_) | Change::Event(_),
            )
            | (
                Watched::Events,
                Change::Workload(_)
                | Change::Task(_)
                | Change::Node(_)
                | Change::Migration(_)
                | Change::Image(_),
            ) => {}
        }
    }
    touched
}

/// An object as the state has it; one that the selector doesn't select is
/// absent for this watcher.
fn find(state: &State, change: &Change, selector: &Selector) -> Option<Found> {
    let (name, labels, object) = match change {
        Change::Workload(name) => {
            let found = state.workload(name);
            let labels = found.map(|workload| workload.labels.clone());
            let object = found.map(|workload| render::workload(state, workload));
            let absent = || wire::Workload { name: name.to_string(), ..Default::default() };
            (name.to_string(), labels, Object::Workload(object.unwrap_or_else(absent)))
        }
        Change::Task(id) => {
            let object = state.task(id).map(|task| render::task(state, task));
            let labels = object.as_ref().map(|task| task.labels.clone());
            let absent = || wire::Task { id: id.to_string(), ..Default::default() };
            (id.to_string(), labels, Object::Task(object.unwrap_or_else(absent)))
        }
        Change::Node(name) => {
            let object = render::node_named(state, name);
            let labels = object.as_ref().map(|node| node.labels.clone());
            let absent = || wire::Node { name: name.to_string(), ..Default::default() };
            (name.to_string(), labels, Object::Node(object.unwrap_or_else(absent)))
        }
        Change::Migration(id) => {
            let found = state.migration(*id);
            let labels = found.map(|migration| render::labels_of(state, &migration.task.workload));
            let absent = || wire::Migration { name: id.to_string(), ..Default::default() };
            (id.to_string(), labels, Object::Migration(found.map_or_else(absent, render::migration)))
        }
        Change::Event(position) => return state.events().get(*position).map(found_event),
        Change::Image(_) => return None,
    };
    let present = labels.is_some_and(|labels| selector.selects(&labels));
    Some(Found { name, object, present })
}

fn found_event(event: &Event) -> Found {
    Found { name: String::new(), object: Object::Event(event.clone().into()), present: true }
}
