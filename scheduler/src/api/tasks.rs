//! The service `Tasks`. Logs and Exec are relayed to the agent of the task's
//! node; when either side goes, the other's stream is dropped, which ends it.

use super::agents::owner;
use super::error::{missing, of_refusal, parsed, relayed};
use super::select::Selector;
use super::stream::{Boxed, Watched};
use super::{Api, render};
use dray_model::ids::TaskId;
use dray_proto::v1 as wire;
use futures::{Stream, StreamExt, stream};
use scheduler_core::Refusal;
use tonic::{Request, Response, Status, Streaming};
use wire::exec_request::Message::Start;
use wire::tasks_server::Tasks;

#[tonic::async_trait]
impl Tasks for Api {
    type WatchStream = Boxed<wire::WatchResponse>;
    type LogsStream = Boxed<wire::LogsResponse>;
    type ExecStream = Boxed<wire::ExecResponse>;

    async fn get(&self, request: Request<wire::GetRequest>) -> Result<Response<wire::Task>, Status> {
        let task: TaskId = parsed(&request.into_inner().name, "name")?;
        let found = self.read(|state| state.task(&task).map(|found| render::task(state, found))).await?;
        Ok(Response::new(found.ok_or_else(|| of_refusal(Refusal::UnknownTask { task }))?))
    }

    async fn list(
        &self,
        request: Request<wire::ListRequest>,
    ) -> Result<Response<wire::ListTasksResponse>, Status> {
        let selector = Selector::parse(&request.into_inner().label_selector)?;
        let list = self.read(|state| {
            let labels = |task: &dray_model::Task| render::labels_of(state, &task.id.workload);
            let selected = state.tasks().values().filter(|task| selector.selects(&labels(task)));
            let tasks = selected.map(|task| render::task(state, task)).collect();
            wire::ListTasksResponse { tasks, index: state.applied() }
        });
        Ok(Response::new(list.await?))
    }

    async fn watch(
        &self,
        request: Request<wire::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        self.watch_objects(Watched::Tasks, request.into_inner()).await
    }

    async fn logs(&self, request: Request<wire::LogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
        let request = request.into_inner();
        let (node, address) = self.read(|state| owner(state, &request.task)).await??;
        let answer = self.agents.of(&node, address)?.logs(request).await;
        let lines = answer.map_err(|status| relayed(&status, node.as_str()))?.into_inner();
        Ok(Response::new(relay(lines, node.to_string())))
    }

    async fn exec(
        &self,
        request: Request<Streaming<wire::ExecRequest>>,
    ) -> Result<Response<Self::ExecStream>, Status> {
        let mut input = request.into_inner();
        let first = input.message().await?.ok_or_else(|| missing("start"))?;
        let Some(Start(start)) = &first.message else { return Err(missing("start")) };
        let (node, address) = self.read(|state| owner(state, &start.task)).await??;
        // A broken input ends the agent's stream as if the user had closed it.
        let rest = input.take_while(|message| std::future::ready(message.is_ok()));
        let messages = stream::iter([Ok(first)]).chain(rest).filter_map(|m| std::future::ready(m.ok()));
        let answer = self.agents.of(&node, address)?.exec(messages).await;
        let output = answer.map_err(|status| relayed(&status, node.as_str()))?.into_inner();
        Ok(Response::new(relay(output, node.to_string())))
    }
}

/// An agent's answers as our own, with its name at every error.
fn relay<T: Send + 'static>(
    answers: impl Stream<Item = Result<T, Status>> + Send + 'static,
    from: String,
) -> Boxed<T> {
    Box::pin(answers.map(move |answer| answer.map_err(|status| relayed(&status, &from))))
}
