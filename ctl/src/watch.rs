//! Follows changes, across the loss of the scheduler that sends them.
//!
//! A broken stream is opened again, at any scheduler, after the last index
//! that was complete. Where that is no longer possible everything is sent
//! anew, and [`Change::Restarted`] says so first.

use crate::client::{Client, Patience};
use crate::error::{CallError, Usage};
use crate::resource::{Kind, Object};
use dray_proto::v1::cluster_client::ClusterClient;
use dray_proto::v1::migrations_client::MigrationsClient;
use dray_proto::v1::nodes_client::NodesClient;
use dray_proto::v1::tasks_client::TasksClient;
use dray_proto::v1::watch_response::Object as Sent;
use dray_proto::v1::workloads_client::WorkloadsClient;
use dray_proto::v1::{WatchRequest, WatchResponse};
use std::time::Duration;
use tonic::{Code, Status, Streaming};

/// Between the end of a stream and the next.
const PAUSE: Duration = Duration::from_millis(200);

/// What a watch says.
#[derive(Debug, PartialEq)]
pub(crate) enum Change {
    /// A thing as it is now.
    Now(Object),
    /// A thing as it was when it was removed.
    Removed(Object),
    /// All there was at the beginning has been said.
    Synced,
    /// Forget what was said: it comes again from the beginning.
    Restarted,
}

/// A stream of changes of one kind of thing.
pub(crate) struct Watch<'a> {
    client: &'a Client,
    kind: Kind,
    selector: String,
    stream: Option<Streaming<WatchResponse>>,
    /// The last index that was sent in full; zero before the first sync.
    after: u64,
    synced: bool,
}

impl<'a> Watch<'a> {
    /// Opens the stream: everything there is, then changes.
    pub(crate) async fn open(client: &'a Client, kind: Kind, selector: &str) -> anyhow::Result<Watch<'a>> {
        if kind == Kind::Image {
            return Err(Usage("images can't be watched".into()).into());
        }
        let mut watch =
            Watch { client, kind, selector: selector.to_owned(), stream: None, after: 0, synced: false };
        watch.stream = Some(watch.connect(Patience::Short).await?);
        Ok(watch)
    }

    /// Waits for the next change.
    pub(crate) async fn next(&mut self) -> Result<Change, CallError> {
        loop {
            let Some(stream) = &mut self.stream else {
                match self.connect(Patience::Long).await {
                    Ok(stream) => self.stream = Some(stream),
                    Err(CallError::Refused(refusal)) => self.broken(*refusal.0).await?,
                    Err(error) => return Err(error),
                }
                if !self.synced {
                    self.after = 0;
                    return Ok(Change::Restarted);
                }
                continue;
            };
            match stream.message().await {
                Ok(Some(response)) => {
                    if let Some(change) = self.receive(response) {
                        return Ok(change);
                    }
                }
                Ok(None) => self.pause().await,
                Err(status) => self.broken(status).await?,
            }
        }
    }

    fn receive(&mut self, response: WatchResponse) -> Option<Change> {
        if self.synced || matches!(response.object, Some(Sent::Synced(_))) {
            self.after = self.after.max(response.index);
        }
        let object = match response.object? {
            Sent::Workload(workload) => Object::Workload(workload),
            Sent::Task(task) => Object::Task(task),
            Sent::Node(node) => Object::Node(node),
            Sent::Migration(migration) => Object::Migration(migration),
            Sent::Event(event) => Object::Event(event),
            Sent::Synced(_) => {
                self.synced = true;
                return Some(Change::Synced);
            }
        };
        Some(if response.removed { Change::Removed(object) } else { Change::Now(object) })
    }

    async fn pause(&mut self) {
        self.stream = None;
        tokio::time::sleep(PAUSE).await;
    }

    /// Decides whether a broken stream can be opened again.
    async fn broken(&mut self, status: Status) -> Result<(), CallError> {
        if status.code() == Code::OutOfRange {
            self.synced = false;
        } else if !Client::may_try_again(&status) {
            return Err(CallError::Refused(status.into()));
        }
        self.pause().await;
        Ok(())
    }

    async fn connect(&self, patience: Patience) -> Result<Streaming<WatchResponse>, CallError> {
        let after_index = if self.synced { self.after } else { 0 };
        let request = || WatchRequest { label_selector: self.selector.clone(), after_index };
        let open = async |channel| match self.kind {
            Kind::Workload => WorkloadsClient::new(channel).watch(request()).await,
            Kind::Task => TasksClient::new(channel).watch(request()).await,
            Kind::Node => NodesClient::new(channel).watch(request()).await,
            Kind::Migration => MigrationsClient::new(channel).watch(request()).await,
            Kind::Image | Kind::Event => ClusterClient::new(channel).watch_events(request()).await,
        };
        self.client.call_with(patience, Some(crate::client::ATTEMPT), open).await
    }
}
