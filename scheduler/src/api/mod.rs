//! The user's API. Every service here checks what came over the wire, reads
//! or proposes through [`Cluster`], and renders the state; none of them
//! decides anything.

mod agents;
mod cluster;
pub mod error;
mod images;
mod migrations;
mod nodes;
pub mod render;
pub mod select;
mod stream;
mod tasks;
mod watch;
mod workloads;

use crate::auth::users_only;
use crate::cluster::Cluster;
use agents::Agents;
use dray_proto::tls::Credentials;
use dray_proto::v1 as wire;
use scheduler_core::{Command, Op, Reply, State, apply};
use std::time::{SystemTime, UNIX_EPOCH};
use tonic::Status;
use tonic::service::RoutesBuilder;
use tonic::service::interceptor::InterceptedService;
use wire::cluster_server::ClusterServer;
use wire::images_server::ImagesServer;
use wire::migrations_server::MigrationsServer;
use wire::nodes_server::NodesServer;
use wire::tasks_server::TasksServer;
use wire::workloads_server::WorkloadsServer;

/// Most bytes of one request.
const REQUEST_MAX: usize = 4 << 20;

/// What every service of the API works with.
#[derive(Debug, Clone)]
pub struct Api {
    cluster: Cluster,
    agents: Agents,
}

impl Api {
    /// The API over a cluster; `credentials` are for the agents.
    pub fn new(cluster: Cluster, credentials: Credentials) -> Api {
        Api { cluster, agents: Agents::new(credentials) }
    }

    /// Adds all services, for users only.
    pub fn add_to(&self, routes: &mut RoutesBuilder) {
        macro_rules! add {
            ($($server:ident),+) => {$(
                let server = $server::new(self.clone()).max_decoding_message_size(REQUEST_MAX);
                routes.add_service(InterceptedService::new(server, users_only));
            )+};
        }
        add!(WorkloadsServer, TasksServer, NodesServer, MigrationsServer, ImagesServer, ClusterServer);
    }

    /// Reads the state as of now or later.
    async fn read<T>(&self, read: impl FnOnce(&State) -> T) -> Result<T, Status> {
        self.cluster.settle().await?;
        Ok(self.cluster.handle().view(read))
    }

    /// Writes and then reads; with `validate_only`, in a copy of the state
    /// that is thrown away.
    async fn write<T>(
        &self,
        op: Op,
        options: WriteOptions,
        read: impl FnOnce(&State, Reply) -> T,
    ) -> Result<T, Status> {
        if options.validate_only {
            return self.rehearse(op, read).await;
        }
        let request_id = Some(options.request_id).filter(|id| !id.is_empty());
        let request_id = request_id.unwrap_or_else(|| self.cluster.new_request_id());
        let accepted = self.cluster.propose(op, Some(request_id)).await?;
        Ok(self.cluster.handle().view(|state| read(state, accepted.reply)))
    }

    async fn rehearse<T>(&self, op: Op, read: impl FnOnce(&State, Reply) -> T) -> Result<T, Status> {
        let mut state = self.read(State::clone).await?;
        let next = state.applied() + 1;
        let outcome = apply(&mut state, next, &Command::new(now_ms(), op));
        let reply = outcome.result.map_err(error::of_refusal)?;
        Ok(read(&state, reply))
    }
}

/// What every mutation takes.
struct WriteOptions {
    request_id: String,
    validate_only: bool,
}

/// Unix milliseconds.
pub(crate) fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// An object that was written a moment ago and is gone already.
fn gone(what: &str) -> Status {
    Status::aborted(format!("{what} was removed meanwhile"))
}
