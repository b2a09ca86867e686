//! `migrate` and `cancel`: move a running task, and think better of it.

use super::{request_id, style, within};
use crate::client::Client;
use crate::error::{CallError, Refusal};
use crate::output::progress::{Phases, figures};
use crate::output::{Format, Out, table};
use crate::resource::{Kind, Object, bare};
use crate::watch::{Change, Watch};
use anyhow::Context;
use dray_proto::v1::migrations_client::MigrationsClient;
use dray_proto::v1::{CancelMigrationRequest, CreateMigrationRequest, Migration, MigrationPhase};
use std::process::ExitCode;
use std::time::Duration;
use tonic::Status;

/// How long the source may take to clean up before we stop looking.
const CLEANING: Duration = Duration::from_secs(10);

const EXAMPLES: &str = "\
Examples:
  clusterctl migrate redis-0 --to node-2 --wait
  clusterctl migrate redis-0                     the scheduler chooses the node
  clusterctl migrate redis-0 --to node-2 --dry-run
  clusterctl migrate redis-0 --to node-2 --wait -o json

With --wait the exit code is 1 if the migration was aborted; the task then
runs where it was.";

/// What to move.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The task
    #[arg(value_name = "TASK")]
    task: String,
    /// The node to move to; the scheduler chooses if not given
    #[arg(long, value_name = "NODE", default_value = "", hide_default_value = true)]
    to: String,
    /// Follow the migration to its end
    #[arg(short, long)]
    wait: bool,
    /// Say whether it could be moved, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

const CANCEL_EXAMPLES: &str = "\
Examples:
  clusterctl cancel m-3

A migration can be cancelled until it is committed; the task then runs on
where it was.";

/// Which to cancel.
#[derive(Debug, clap::Args)]
#[command(after_help = CANCEL_EXAMPLES)]
pub(crate) struct CancelArgs {
    /// The migration
    #[arg(value_name = "MIGRATION")]
    migration: String,
}

/// Begins a migration, and follows it if asked to.
pub(crate) async fn run(args: &Args, client: &Client, out: &mut Out) -> anyhow::Result<ExitCode> {
    let request = CreateMigrationRequest {
        task: bare(Kind::Task, &args.task)?,
        target: bare(Kind::Node, &args.to)?,
        request_id: request_id(),
        validate_only: args.dry_run,
    };
    let create = async |channel| MigrationsClient::new(channel).create(request.clone()).await;
    let migration = client.call(create).await?;
    let (quiet, path) = (!matches!(args.output, Format::Table | Format::Wide), path(&migration));
    if args.dry_run {
        return shown(out, args, migration, &format!("{path} could begin (dry run)"));
    }
    if !args.wait {
        let text = format!("migration/{} begun: {path}", migration.name);
        return shown(out, args, migration, &text);
    }
    if !quiet {
        out.line(format_args!("migration/{}: {path}", migration.name))?;
    }
    let waiting = format!("migration/{} goes on; waiting for it", migration.name);
    let ended = within(client.wait_limit(), &waiting, follow(client, &migration.name, out)).await?;
    let aborted = ended.phase() == MigrationPhase::Aborted;
    if quiet {
        out.objects(&[Object::Migration(ended)], style(args.output), true)?;
    } else {
        summary(out, &ended)?;
    }
    Ok(if aborted { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// `redis-0 from node-1 to node-2`.
fn path(migration: &Migration) -> String {
    format!("{} from {} to {}", migration.task, migration.source, migration.target)
}

fn shown(out: &mut Out, args: &Args, migration: Migration, text: &str) -> anyhow::Result<ExitCode> {
    match args.output {
        Format::Table | Format::Wide => out.line(text)?,
        Format::Json | Format::Yaml | Format::Name => {
            out.objects(&[Object::Migration(migration)], style(args.output), true)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Shows a migration's progress until nothing more will happen.
async fn follow(client: &Client, name: &str, out: &mut Out) -> anyhow::Result<Migration> {
    let mut watch = Watch::open(client, Kind::Migration, "").await?;
    let mut phases = Phases::new(out);
    let mut last: Option<Migration> = None;
    loop {
        let resumed = last.as_ref().is_some_and(|m| m.phase() == MigrationPhase::Resumed);
        // Dropping `next` loses nothing: it holds no change across an await.
        let change = match tokio::time::timeout(CLEANING, watch.next()).await {
            Ok(change) => change.context("following the migration")?,
            Err(_) if resumed => break,
            Err(_) => continue,
        };
        match change {
            Change::Now(Object::Migration(migration)) if migration.name == name => {
                phases.update(out, &migration);
                let over = matches!(migration.phase(), MigrationPhase::Cleaned | MigrationPhase::Aborted);
                last = Some(migration);
                if over {
                    break;
                }
            }
            Change::Removed(object) if object.name() == name => break,
            Change::Synced if last.is_none() => break,
            Change::Now(_) | Change::Removed(_) | Change::Synced | Change::Restarted => {}
        }
    }
    let missing =
        || CallError::Refused(Refusal::from(Status::not_found(format!("there is no migration {name}"))));
    Ok(last.ok_or_else(missing)?)
}

/// Phases, steps and figures, and how it ended.
fn summary(out: &mut Out, migration: &Migration) -> anyhow::Result<()> {
    out.line("")?;
    out.bytes(table::phases(migration).as_bytes())?;
    if !migration.steps.is_empty() {
        out.line("")?;
        out.bytes(table::steps(migration).as_bytes())?;
    }
    out.line("")?;
    let Migration { name, task, source, target, failure, .. } = migration;
    match migration.phase() {
        MigrationPhase::Aborted => {
            out.warning(format_args!("migration/{name} was aborted: {failure}"));
            out.line(format_args!("{task} runs on {source} as before"))?;
        }
        MigrationPhase::Resumed => {
            out.warning(format_args!("{source} hasn't cleaned up yet; it will when it can"));
            out.line(format_args!("{task} runs on {target}: {}", figures(migration)))?;
        }
        MigrationPhase::Unspecified
        | MigrationPhase::Reserved
        | MigrationPhase::Prepared
        | MigrationPhase::Frozen
        | MigrationPhase::Committed
        | MigrationPhase::Cleaned => {
            out.line(format_args!("{task} runs on {target}: {}", figures(migration)))?
        }
    }
    Ok(())
}

/// Cancels a migration.
pub(crate) async fn cancel(args: &CancelArgs, client: &Client, out: &mut Out) -> anyhow::Result<ExitCode> {
    let request =
        CancelMigrationRequest { name: bare(Kind::Migration, &args.migration)?, request_id: request_id() };
    let cancel = async |channel| MigrationsClient::new(channel).cancel(request.clone()).await;
    let migration = client.call(cancel).await?;
    out.line(format_args!(
        "migration/{} cancelled; {} stays on {}",
        migration.name, migration.task, migration.source
    ))?;
    Ok(ExitCode::SUCCESS)
}
