//! The service `Images`. An archive goes through to one node; the cluster
//! learns of the image from the proposal that follows.

use super::error::{missing, relayed};
use super::{Api, WriteOptions, stream};
use dray_model::Liveness;
use dray_model::ids::NodeName;
use dray_proto::status::with_reason;
use dray_proto::v1 as wire;
use scheduler_core::{Op, State};
use std::cmp::Reverse;
use std::net::SocketAddr;
use tonic::{Code, Request, Response, Status, Streaming};
use wire::images_server::Images;
use wire::import_image_request::Message::Start;

#[tonic::async_trait]
impl Images for Api {
    async fn import(
        &self,
        request: Request<Streaming<wire::ImportImageRequest>>,
    ) -> Result<Response<wire::Image>, Status> {
        let mut archive = request.into_inner();
        let first = archive.message().await?.ok_or_else(|| missing("start"))?;
        if !matches!(first.message, Some(Start(_))) {
            return Err(missing("start"));
        }
        let receiver = self.read(receiver).await?;
        let (node, address) = receiver.ok_or_else(|| {
            with_reason(Code::Unavailable, "NoNode", "no node is ready to take the image; start an agent")
        })?;
        let (messages, broken) = stream::until_broken(first, archive);
        let answer = self.agents.of(&node, address)?.import_image(messages).await;
        if let Some(status) = broken.take() {
            return Err(status);
        }
        let image = answer.map_err(|status| relayed(&status, node.as_str()))?.into_inner();
        self.announce(node, image).await.map(Response::new)
    }

    async fn list(
        &self,
        _: Request<wire::ListRequest>,
    ) -> Result<Response<wire::ListImagesResponse>, Status> {
        let list = self.read(|state| {
            let images = state.images().values().map(|image| image.clone().into()).collect();
            wire::ListImagesResponse { images, index: state.applied() }
        });
        Ok(Response::new(list.await?))
    }
}

impl Api {
    /// Tells the cluster that a node has the image that a user imported.
    async fn announce(&self, node: NodeName, image: wire::Image) -> Result<wire::Image, Status> {
        let op = Op::ImportImage {
            node,
            reference: image.reference.clone(),
            digest: image.digest.clone(),
            size_bytes: image.size_bytes,
        };
        let options = WriteOptions { request_id: String::new(), validate_only: false };
        let known = self.write(op, options, |state, _| state.images().get(&image.reference).cloned());
        Ok(known.await?.map_or(image, Into::into))
    }
}

/// The ready node with the most free memory; of equals, the first.
fn receiver(state: &State) -> Option<(NodeName, SocketAddr)> {
    let ready = state.nodes().values().filter(|node| node.liveness == Liveness::Ready);
    let roomiest = ready.min_by_key(|node| (Reverse(state.free(node).memory_bytes), &node.name));
    roomiest.map(|node| (node.name.clone(), node.about.peer_address))
}
