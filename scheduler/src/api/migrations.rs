//! The service `Migrations`.

use super::error::{of_refusal, parsed};
use super::select::Selector;
use super::stream::{Boxed, Watched};
use super::{Api, WriteOptions, gone, render};
use dray_model::ids::{MigrationId, NodeName, TaskId};
use dray_proto::v1 as wire;
use scheduler_core::{Op, Refusal, Reply, State};
use tonic::{Request, Response, Status};
use wire::migrations_server::Migrations;

#[tonic::async_trait]
impl Migrations for Api {
    type WatchStream = Boxed<wire::WatchResponse>;

    async fn create(
        &self,
        request: Request<wire::CreateMigrationRequest>,
    ) -> Result<Response<wire::Migration>, Status> {
        let request = request.into_inner();
        let task: TaskId = parsed(&request.task, "task")?;
        let target = Some(request.target.as_str()).filter(|target| !target.is_empty());
        let target: Option<NodeName> = target.map(|target| parsed(target, "target")).transpose()?;
        let op = Op::CreateMigration { task, target, reason: "user".into() };
        let options = WriteOptions { request_id: request.request_id, validate_only: request.validate_only };
        let created = self.write(op, options, created).await?;
        Ok(Response::new(created.ok_or_else(|| gone("the migration"))?))
    }

    async fn get(&self, request: Request<wire::GetRequest>) -> Result<Response<wire::Migration>, Status> {
        let id = parsed(&request.into_inner().name, "name")?;
        let found = self.read(|state| state.migration(id).map(render::migration)).await?;
        Ok(Response::new(found.ok_or_else(|| of_refusal(Refusal::UnknownMigration { id }))?))
    }

    async fn list(
        &self,
        request: Request<wire::ListRequest>,
    ) -> Result<Response<wire::ListMigrationsResponse>, Status> {
        let selector = Selector::parse(&request.into_inner().label_selector)?;
        let list = self.read(|state| {
            let labels = |m: &dray_model::Migration| render::labels_of(state, &m.task.workload);
            let selected = state.migrations().values().filter(|m| selector.selects(&labels(m)));
            let migrations = selected.map(render::migration).collect();
            wire::ListMigrationsResponse { migrations, index: state.applied() }
        });
        Ok(Response::new(list.await?))
    }

    async fn watch(
        &self,
        request: Request<wire::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        self.watch_objects(Watched::Migrations, request.into_inner()).await
    }

    async fn cancel(
        &self,
        request: Request<wire::CancelMigrationRequest>,
    ) -> Result<Response<wire::Migration>, Status> {
        let request = request.into_inner();
        let id: MigrationId = parsed(&request.name, "name")?;
        let op = Op::AbortMigration { id, failure: "cancelled by the user".into() };
        let options = WriteOptions { request_id: request.request_id, validate_only: false };
        let aborted = self.write(op, options, |state, _| state.migration(id).map(render::migration));
        Ok(Response::new(aborted.await?.ok_or_else(|| gone("the migration"))?))
    }
}

fn created(state: &State, reply: Reply) -> Option<wire::Migration> {
    match reply {
        Reply::Migration { id } => state.migration(id).map(render::migration),
        Reply::Done | Reply::Workload { .. } | Reply::Drain { .. } | Reply::Session { .. } => None,
    }
}
