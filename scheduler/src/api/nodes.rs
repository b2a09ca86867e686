//! The service `Nodes`.

use super::error::{of_refusal, parsed};
use super::select::Selector;
use super::stream::{Boxed, Watched};
use super::{Api, WriteOptions, gone, render};
use dray_model::ids::NodeName;
use dray_proto::v1 as wire;
use scheduler_core::{Op, Refusal, Reply};
use tonic::{Request, Response, Status};
use wire::nodes_server::Nodes;

#[tonic::async_trait]
impl Nodes for Api {
    type WatchStream = Boxed<wire::WatchResponse>;

    async fn get(&self, request: Request<wire::GetRequest>) -> Result<Response<wire::Node>, Status> {
        let node = parsed(&request.into_inner().name, "name")?;
        let found = self.read(|state| render::node_named(state, &node)).await?;
        Ok(Response::new(found.ok_or_else(|| of_refusal(Refusal::UnknownNode { node }))?))
    }

    async fn list(
        &self,
        request: Request<wire::ListRequest>,
    ) -> Result<Response<wire::ListNodesResponse>, Status> {
        let selector = Selector::parse(&request.into_inner().label_selector)?;
        let list = self.read(|state| {
            let selected = state.nodes().values().filter(|node| selector.selects(&node.about.labels));
            let nodes = selected.map(|node| render::node(state, node)).collect();
            wire::ListNodesResponse { nodes, index: state.applied() }
        });
        Ok(Response::new(list.await?))
    }

    async fn watch(
        &self,
        request: Request<wire::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        self.watch_objects(Watched::Nodes, request.into_inner()).await
    }

    async fn cordon(&self, request: Request<wire::NodeRequest>) -> Result<Response<wire::Node>, Status> {
        self.write_node(request.into_inner(), |node| Op::Cordon { node }).await
    }

    async fn uncordon(&self, request: Request<wire::NodeRequest>) -> Result<Response<wire::Node>, Status> {
        self.write_node(request.into_inner(), |node| Op::Uncordon { node }).await
    }

    async fn drain(
        &self,
        request: Request<wire::NodeRequest>,
    ) -> Result<Response<wire::DrainResponse>, Status> {
        let request = request.into_inner();
        let name: NodeName = parsed(&request.name, "name")?;
        let op = Op::Drain { node: name.clone() };
        let options = WriteOptions { request_id: request.request_id, validate_only: request.validate_only };
        let drain = self.write(op, options, |state, reply| drained(render::node_named(state, &name), reply));
        Ok(Response::new(drain.await?))
    }
}

impl Api {
    async fn write_node(
        &self,
        request: wire::NodeRequest,
        op: impl FnOnce(NodeName) -> Op,
    ) -> Result<Response<wire::Node>, Status> {
        let name: NodeName = parsed(&request.name, "name")?;
        let options = WriteOptions { request_id: request.request_id, validate_only: request.validate_only };
        let node = self.write(op(name.clone()), options, |state, _| render::node_named(state, &name)).await?;
        Ok(Response::new(node.ok_or_else(|| gone(name.as_str()))?))
    }
}

fn drained(node: Option<wire::Node>, reply: Reply) -> wire::DrainResponse {
    let (moving, blocked) = match reply {
        Reply::Drain { moving, blocked } => (moving, blocked),
        Reply::Done | Reply::Workload { .. } | Reply::Migration { .. } | Reply::Session { .. } => {
            Default::default()
        }
    };
    let blocked = blocked.into_iter();
    wire::DrainResponse {
        node,
        moving: moving.into_iter().map(String::from).collect(),
        blocked: blocked.map(|b| wire::Blocked { task: b.task.into(), reason: b.reason }).collect(),
    }
}
