//! The service `Cluster`.

use super::Api;
use super::stream::{Boxed, Watched};
use crate::cluster::Voter;
use dray_proto::v1 as wire;
use futures::future::join_all;
use std::time::Duration;
use tokio::time::timeout;
use tonic::{Request, Response, Status};
use wire::cluster_server::Cluster;
use wire::raft_client::RaftClient;

/// How long another scheduler may take to say that it is there.
const PROBE: Duration = Duration::from_millis(1_500);

#[tonic::async_trait]
impl Cluster for Api {
    type WatchEventsStream = Boxed<wire::WatchResponse>;

    /// Answers without a leader, too: that is when people ask.
    async fn status(
        &self,
        _: Request<wire::StatusRequest>,
    ) -> Result<Response<wire::StatusResponse>, Status> {
        let voters = self.cluster.voters().iter().map(|(id, voter)| self.status_of(*id, voter));
        let schedulers = join_all(voters).await;
        let (cluster_cidr, index) =
            self.cluster.handle().view(|state| (state.cidr().to_string(), state.applied()));
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Ok(Response::new(wire::StatusResponse { cluster_cidr, index, schedulers, version }))
    }

    async fn list_events(
        &self,
        _: Request<wire::ListRequest>,
    ) -> Result<Response<wire::ListEventsResponse>, Status> {
        let list = self.read(|state| wire::ListEventsResponse {
            events: state.events().iter().cloned().map(Into::into).collect(),
            index: state.applied(),
        });
        Ok(Response::new(list.await?))
    }

    async fn watch_events(
        &self,
        request: Request<wire::WatchRequest>,
    ) -> Result<Response<Self::WatchEventsStream>, Status> {
        self.watch_objects(Watched::Events, request.into_inner()).await
    }
}

impl Api {
    async fn status_of(&self, id: u64, voter: &Voter) -> wire::SchedulerStatus {
        let Some(channel) = voter.channel.clone() else { return self.cluster.status_here() };
        let mut client = RaftClient::new(channel);
        let probe = timeout(PROBE, client.standing(wire::StandingRequest {})).await;
        let unreachable = || wire::SchedulerStatus {
            id,
            address: voter.address.to_string(),
            ..wire::SchedulerStatus::default()
        };
        probe.ok().and_then(Result::ok).map_or_else(unreachable, Response::into_inner)
    }
}
