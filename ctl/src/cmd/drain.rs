//! `drain`: empty a node. Says first what will move and what can't, and why.

use super::cordon::node_request;
use super::within;
use crate::client::Client;
use crate::output::progress::{Waiting, figures};
use crate::output::{Out, table};
use crate::resource::{Kind, Object};
use crate::watch::{Change, Watch};
use dray_proto::v1::nodes_client::NodesClient;
use dray_proto::v1::{DrainResponse, Migration, MigrationPhase};
use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  clusterctl drain node-1 --dry-run      what would move, what can't and why
  clusterctl drain node-1 --wait
  clusterctl uncordon node-1             let tasks onto it again

With --wait the exit code is 1 if tasks remain on the node.";

/// Which node.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The node
    #[arg(value_name = "NODE")]
    node: String,
    /// Wait until everything that can move has moved
    #[arg(short, long)]
    wait: bool,
    /// Say what would move, and change nothing
    #[arg(long)]
    dry_run: bool,
}

/// Drains.
pub(crate) async fn run(args: &Args, client: &Client, out: &mut Out) -> anyhow::Result<ExitCode> {
    let request = node_request(&args.node, args.dry_run)?;
    let drain = async |channel| NodesClient::new(channel).drain(request.clone()).await;
    let plan = client.call(drain).await?;
    show(out, &request.name, &plan, args.dry_run)?;
    if !args.wait || args.dry_run {
        return Ok(ExitCode::SUCCESS);
    }
    let blocked: BTreeSet<String> = plan.blocked.iter().map(|blocked| blocked.task.clone()).collect();
    let drained = within(client.wait_limit(), "draining", until_empty(client, &request.name, &blocked, out));
    let remaining = drained.await?;
    if remaining.is_empty() {
        out.line(format_args!("node/{} drained", request.name))?;
        return Ok(ExitCode::SUCCESS);
    }
    out.warning(format_args!("still on {}: {}", request.name, Vec::from_iter(remaining).join(", ")));
    Ok(ExitCode::FAILURE)
}

fn show(out: &mut Out, node: &str, plan: &DrainResponse, dry_run: bool) -> anyhow::Result<()> {
    let dry = if dry_run { " (dry run)" } else { "" };
    out.line(format_args!("node/{node} draining{dry}"))?;
    let moving = plan.moving.iter().map(|task| vec![task.clone(), "moves".into(), String::new()]);
    let blocked = plan.blocked.iter().map(|b| vec![b.task.clone(), "can't move".into(), b.reason.clone()]);
    let rows: Vec<_> = moving.chain(blocked).collect();
    if rows.is_empty() {
        out.line("no tasks are on it")?;
    } else {
        out.bytes(table::plain(&["TASK", "PLAN", "WHY"], rows).as_bytes())?;
    }
    Ok(())
}

/// Waits until only blocked tasks are left; returns those.
async fn until_empty(
    client: &Client,
    node: &str,
    blocked: &BTreeSet<String>,
    out: &mut Out,
) -> anyhow::Result<BTreeSet<String>> {
    let mut tasks = Watch::open(client, Kind::Task, "").await?;
    let mut migrations = Watch::open(client, Kind::Migration, "").await?;
    let mut drain = Drain { node, there: BTreeSet::new(), synced: false, phases: BTreeMap::new() };
    let mut waiting = Waiting::new(out);
    loop {
        // Dropping either `next` loses nothing: it holds no change across an await.
        tokio::select! {
            change = tasks.next() => drain.task(change?),
            change = migrations.next() => {
                if let Some(text) = drain.migration(change?) {
                    waiting.keep(out, &text);
                }
            }
        }
        let moving = drain.there.difference(blocked).count();
        if !drain.synced {
            continue;
        }
        match drain.going() {
            None if moving == 0 => return Ok(drain.there),
            None => waiting.say(out, format!("{moving} to move from {node}")),
            Some(m) => {
                waiting.say(out, format!("{moving} to move from {node}; {} goes to {}", m.task, m.target))
            }
        }
    }
}

/// What is known of a drain while it goes on.
struct Drain<'a> {
    node: &'a str,
    /// Tasks on the node.
    there: BTreeSet<String>,
    synced: bool,
    /// Migrations from the node that were seen, by name.
    phases: BTreeMap<String, Migration>,
}

impl Drain<'_> {
    fn task(&mut self, change: Change) {
        match change {
            Change::Now(Object::Task(task)) if task.node == self.node => drop(self.there.insert(task.id)),
            Change::Now(object) | Change::Removed(object) => drop(self.there.remove(&object.name())),
            Change::Synced => self.synced = true,
            Change::Restarted => (self.there, self.synced) = (BTreeSet::new(), false),
        }
    }

    /// Remembers a migration; says so when one ends that was seen going on.
    fn migration(&mut self, change: Change) -> Option<String> {
        let Change::Now(Object::Migration(migration)) = change else { return None };
        if migration.source != self.node {
            return None;
        }
        let over = is_over(&migration);
        let known = self.phases.insert(migration.name.clone(), migration.clone());
        let was_going = known.is_some_and(|before| !is_over(&before));
        if !(over && was_going) {
            return None;
        }
        let Migration { name, task, target, failure, .. } = &migration;
        Some(if migration.phase() == MigrationPhase::Aborted {
            format!("{task} stayed ({name} aborted: {failure})")
        } else {
            format!("{task} moved to {target} ({name}: {})", figures(&migration))
        })
    }

    /// A migration that goes on.
    fn going(&self) -> Option<&Migration> {
        self.phases.values().find(|migration| !is_over(migration))
    }
}

fn is_over(migration: &Migration) -> bool {
    matches!(migration.phase(), MigrationPhase::Resumed | MigrationPhase::Cleaned | MigrationPhase::Aborted)
}
