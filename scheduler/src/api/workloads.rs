//! The service `Workloads`.

use super::error::parsed;
use super::select::Selector;
use super::stream::{Boxed, Watched};
use super::{Api, WriteOptions, gone, render};
use dray_model::ids::WorkloadName;
use dray_proto::convert::checked_workload;
use dray_proto::v1 as wire;
use scheduler_core::{Op, Refusal, Reply, State, WorkloadChange};
use tonic::{Request, Response, Status};
use wire::workloads_server::Workloads;

#[tonic::async_trait]
impl Workloads for Api {
    type WatchStream = Boxed<wire::WatchResponse>;

    async fn apply(
        &self,
        request: Request<wire::ApplyWorkloadRequest>,
    ) -> Result<Response<wire::ApplyWorkloadResponse>, Status> {
        let request = request.into_inner();
        let spec = checked_workload(&request.name, &request.labels, request.spec)?;
        let name: WorkloadName = parsed(&request.name, "metadata.name")?;
        let op = Op::ApplyWorkload {
            name: name.clone(),
            labels: request.labels,
            spec: Box::new(spec),
            etag: given(request.etag),
        };
        let options = WriteOptions { request_id: request.request_id, validate_only: request.validate_only };
        let response = self.write(op, options, |state, reply| applied(state, &name, reply)).await?;
        Ok(Response::new(response))
    }

    async fn get(&self, request: Request<wire::GetRequest>) -> Result<Response<wire::Workload>, Status> {
        let name = parsed(&request.into_inner().name, "name")?;
        let found = self.read(|state| render::workload_named(state, &name)).await?;
        Ok(Response::new(found.ok_or_else(|| super::error::of_refusal(Refusal::UnknownWorkload { name }))?))
    }

    async fn list(
        &self,
        request: Request<wire::ListRequest>,
    ) -> Result<Response<wire::ListWorkloadsResponse>, Status> {
        let selector = Selector::parse(&request.into_inner().label_selector)?;
        let list = self.read(|state| {
            let selected = state.workloads().values().filter(|w| selector.selects(&w.labels));
            let workloads = selected.map(|workload| render::workload(state, workload)).collect();
            wire::ListWorkloadsResponse { workloads, index: state.applied() }
        });
        Ok(Response::new(list.await?))
    }

    async fn delete(
        &self,
        request: Request<wire::DeleteWorkloadRequest>,
    ) -> Result<Response<wire::Workload>, Status> {
        let request = request.into_inner();
        let name: WorkloadName = parsed(&request.name, "name")?;
        let op = Op::DeleteWorkload { name: name.clone(), etag: given(request.etag) };
        let options = WriteOptions { request_id: request.request_id, validate_only: request.validate_only };
        // A workload without tasks may be gone by the time it is read again.
        let before = self.read(|state| render::workload_named(state, &name)).await?;
        let after = self.write(op, options, |state, _| render::workload_named(state, &name)).await?;
        let deleted = after.or_else(|| before.map(|w| wire::Workload { deleting: true, ..w }));
        Ok(Response::new(deleted.ok_or_else(|| gone(name.as_str()))?))
    }

    async fn scale(
        &self,
        request: Request<wire::ScaleWorkloadRequest>,
    ) -> Result<Response<wire::Workload>, Status> {
        let request = request.into_inner();
        let name: WorkloadName = parsed(&request.name, "name")?;
        let op =
            Op::ScaleWorkload { name: name.clone(), replicas: request.replicas, etag: given(request.etag) };
        let options = WriteOptions { request_id: request.request_id, validate_only: request.validate_only };
        let scaled = self.write(op, options, |state, _| render::workload_named(state, &name)).await?;
        Ok(Response::new(scaled.ok_or_else(|| gone(name.as_str()))?))
    }

    async fn watch(
        &self,
        request: Request<wire::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        self.watch_objects(Watched::Workloads, request.into_inner()).await
    }
}

fn given(etag: String) -> Option<String> {
    Some(etag).filter(|etag| !etag.is_empty())
}

fn applied(state: &State, name: &WorkloadName, reply: Reply) -> wire::ApplyWorkloadResponse {
    let workload = render::workload_named(state, name);
    let (change, previous, warnings) = match reply {
        Reply::Workload { change, previous, warnings } => (change, previous, warnings),
        Reply::Done | Reply::Migration { .. } | Reply::Drain { .. } | Reply::Session { .. } => {
            (WorkloadChange::Unchanged, None, Vec::new())
        }
    };
    let change = match change {
        WorkloadChange::Created => wire::Change::Created,
        WorkloadChange::Updated => wire::Change::Updated,
        WorkloadChange::Unchanged => wire::Change::Unchanged,
    };
    let previous = previous.map(|spec| (*spec).into());
    wire::ApplyWorkloadResponse { workload, change: change.into(), previous, warnings }
}
