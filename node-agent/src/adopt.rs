//! Finds again what an earlier agent left running.
//!
//! Containers aren't touched: this only looks. What was half-made is marked
//! as failed, and reconcile removes or repeats it once a leader has said what
//! this node may run.

use crate::context::{Context, runtime_id};
use crate::lease::unix_ms;
use crate::watch::{model_exit, watch};
use agent_core::observed::Part;
use agent_core::{Instance, Observed, Stage};
use anyhow::{Context as _, Result};
use container_runtime::{Adopted, Container, Hook, Phase, State};
use dray_model::assignment::Assignment;
use dray_model::ids::InstanceId;
use dray_model::migration::{Figures, Side};
use dray_model::task::Exit;
use std::collections::BTreeSet;

const RESTARTED: &str = "the node's agent was restarted meanwhile";

/// Looks at every instance on the node.
pub(crate) async fn adopt(context: &Context, assignment: &Assignment) -> Result<Observed> {
    let mut observed = Observed::default();
    for name in context.runtime.list().context("list the containers")? {
        let Ok(id) = name.as_str().parse::<InstanceId>() else {
            tracing::warn!("{name} is no instance of ours; left alone");
            continue;
        };
        let adopted = context.blocking(move |context| Ok(context.runtime.adopt(&name)?)).await;
        let instance = match adopted {
            Ok(Adopted::Live(container, state)) => live(context, &id, &container, &state, assignment),
            Ok(Adopted::Dead(state)) => dead(state.as_deref()),
            Err(error) => failed(format!("{error:#}")),
        };
        tracing::info!(instance = %id, stage = ?instance.stage, "adopted");
        observed.instances.insert(id, instance);
    }
    sweep_links(context, &observed).await;
    Ok(observed)
}

fn live(
    context: &Context,
    id: &InstanceId,
    container: &Container,
    state: &State,
    assignment: &Assignment,
) -> Instance {
    let mut instance = match state.phase {
        Phase::Running if state.paused => {
            with_part(Stage::Frozen, id, Side::Source, assignment, Some(RESTARTED))
        }
        Phase::Running => Instance::new(Stage::Running, state.started_at_ms.unwrap_or_else(unix_ms)),
        Phase::Restoring if state.held == Some(Hook::PostRestore) => {
            with_part(Stage::Held, id, Side::Target, assignment, None)
        }
        Phase::Restoring | Phase::Prepared | Phase::Empty => {
            with_part(Stage::Broken, id, Side::Target, assignment, Some(RESTARTED))
        }
        Phase::Created => failed(RESTARTED.into()),
        Phase::Exited => dead(Some(state)),
    };
    if state.phase != Phase::Exited
        && let Err(error) = watch(context.clone(), id.clone(), container)
    {
        instance = failed(format!("{error:#}"));
    }
    instance
}

fn with_part(
    stage: Stage,
    id: &InstanceId,
    side: Side,
    assignment: &Assignment,
    failure: Option<&str>,
) -> Instance {
    let mut instance = Instance::new(stage, unix_ms());
    let migration = assignment.migrations.values().find(|m| m.side == side && m.task.task == id.task);
    instance.part = migration.map(|m| Part {
        migration: m.migration,
        failure: failure.map(Into::into),
        figures: Figures::default(),
    });
    instance
}

/// Its shim is gone, or its container is.
fn dead(state: Option<&State>) -> Instance {
    let Some(state) = state else { return failed(RESTARTED.into()) };
    let lost = Exit { code: 137, signal: 9, oom_killed: false, at_ms: unix_ms() };
    let exit = state.exit.as_ref().map_or(lost, model_exit);
    let mut instance = Instance::new(Stage::Exited, exit.at_ms);
    instance.last_exit = Some(exit);
    instance.ends_in_a_row = 1;
    instance
}

fn failed(message: String) -> Instance {
    let mut instance = Instance::new(Stage::Failed, unix_ms());
    instance.message = message;
    instance
}

/// Deletes links whose instance is gone.
async fn sweep_links(context: &Context, observed: &Observed) {
    let Ok(network) = context.network() else { return };
    let known: BTreeSet<String> = observed.instances.keys().map(|id| runtime_id(id).to_string()).collect();
    let ends = network.host_ends().await.unwrap_or_default();
    for end in ends.iter().filter(|end| end.instance.as_ref().is_none_or(|name| !known.contains(name))) {
        if let Err(error) = network.delete_host_end(end).await {
            tracing::warn!(link = end.link, "delete it: {:#}", anyhow::Error::from(error));
        }
    }
}
