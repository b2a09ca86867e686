//! What schedulers ask of each other over the network.

use super::host::{Applied, Handle};
use super::transport::FRAME_MAX;
use crate::auth;
use crate::cluster::{Cluster, ProposeError};
use dray_proto::v1::raft_server::{Raft, RaftServer};
use dray_proto::v1::{
    ProposeRequest, ProposeResponse, RaftFrame, RaftSendResponse, ReadIndexRequest, ReadIndexResponse,
    SchedulerStatus, StandingRequest,
};
use scheduler_core::codec::{decode_command, encode_result};
use tonic::{Request, Response, Status, Streaming};

/// Serves the other schedulers.
#[derive(Debug, Clone)]
pub struct RaftService {
    cluster: Cluster,
}

impl RaftService {
    /// The gRPC service.
    pub fn server(cluster: Cluster) -> RaftServer<RaftService> {
        RaftServer::new(RaftService { cluster }).max_decoding_message_size(FRAME_MAX)
    }

    fn handle(&self) -> &Handle {
        self.cluster.handle()
    }

    fn voter<T>(&self, request: &Request<T>) -> Result<u64, Status> {
        let id = auth::scheduler(request)?;
        if self.cluster.voters().contains_key(&id) {
            Ok(id)
        } else {
            Err(auth::denied(format!("scheduler {id} is not one of this cluster's")))
        }
    }
}

#[tonic::async_trait]
impl Raft for RaftService {
    async fn send(
        &self,
        request: Request<Streaming<RaftFrame>>,
    ) -> Result<Response<RaftSendResponse>, Status> {
        self.voter(&request)?;
        let mut frames = request.into_inner();
        while let Some(frame) = frames.message().await? {
            self.handle().step(frame.message.into()).await;
        }
        Ok(Response::new(RaftSendResponse {}))
    }

    async fn propose(&self, request: Request<ProposeRequest>) -> Result<Response<ProposeResponse>, Status> {
        self.voter(&request)?;
        let command = decode_command(&request.into_inner().command);
        let command = command.map_err(|e| ProposeError::Malformed(e.to_string()))?;
        let Applied { result, index } = self.cluster.propose_here(command).await?;
        let outcome = encode_result(&result).map_err(ProposeError::from)?.into();
        Ok(Response::new(ProposeResponse { outcome, index }))
    }

    async fn read_index(
        &self,
        request: Request<ReadIndexRequest>,
    ) -> Result<Response<ReadIndexResponse>, Status> {
        self.voter(&request)?;
        let index = self.cluster.read_index_here().await?;
        Ok(Response::new(ReadIndexResponse { index }))
    }

    async fn standing(&self, request: Request<StandingRequest>) -> Result<Response<SchedulerStatus>, Status> {
        self.voter(&request)?;
        Ok(Response::new(self.cluster.status_here()))
    }
}
