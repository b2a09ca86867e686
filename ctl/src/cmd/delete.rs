//! `delete`: end workloads and forget them.

use super::{request_id, within};
use crate::client::Client;
use crate::connection::Connection;
use crate::error::{CallError, Usage};
use crate::manifest;
use crate::output::Out;
use crate::output::progress::Waiting;
use crate::resource::{self, Kind, Target};
use dray_proto::v1::workloads_client::WorkloadsClient;
use dray_proto::v1::{DeleteWorkloadRequest, Workload};
use std::process::ExitCode;
use std::time::Duration;
use tonic::Code;

/// Between two looks at what is left.
const PAUSE: Duration = Duration::from_millis(200);

const EXAMPLES: &str = "\
Examples:
  clusterctl delete workload redis
  clusterctl delete workload/redis workload/web --wait
  clusterctl delete -f redis.yaml --ignore-not-found";

/// What to delete.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// `workload NAME...`
    #[arg(required_unless_present = "files", conflicts_with = "files", value_name = "workload NAME")]
    target: Vec<String>,
    /// Delete what these manifests describe
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    files: Vec<String>,
    /// Wait until all of it is gone
    #[arg(long)]
    wait: bool,
    /// Check everything, change nothing
    #[arg(long)]
    dry_run: bool,
    /// What doesn't exist is fine
    #[arg(long)]
    ignore_not_found: bool,
}

/// Deletes.
pub(crate) async fn run(args: &Args, connection: &Connection, out: &mut Out) -> anyhow::Result<ExitCode> {
    let names = names(args)?;
    let client = Client::new(connection)?;
    let mut deleted = Vec::new();
    for name in names {
        match delete(&client, &name, args.dry_run).await {
            Ok(_) => {
                let dry = if args.dry_run { " (dry run)" } else { "" };
                out.line(format_args!("workload/{name} deleted{dry}"))?;
                deleted.push(name);
            }
            Err(error) if args.ignore_not_found && error.code() == Some(Code::NotFound) => {}
            Err(error) => return Err(error.into()),
        }
    }
    if args.wait && !args.dry_run {
        within(client.wait_limit(), "deleting", until_gone(&client, &deleted, out)).await?;
    }
    Ok(ExitCode::SUCCESS)
}

fn names(args: &Args) -> anyhow::Result<Vec<String>> {
    if !args.files.is_empty() {
        let documents = manifest::load(&args.files)?;
        return Ok(documents.into_iter().map(|document| document.manifest.metadata.name).collect());
    }
    let target = Target::parse_named(&args.target)?;
    if target.kind != Kind::Workload {
        let kind = target.kind.word();
        return Err(Usage(format!("a {kind} can't be deleted; only workloads can")).into());
    }
    Ok(target.names)
}

async fn delete(client: &Client, name: &str, validate_only: bool) -> Result<Workload, CallError> {
    let request = DeleteWorkloadRequest {
        name: name.to_owned(),
        etag: String::new(),
        request_id: request_id(),
        validate_only,
    };
    client.call(async |channel| WorkloadsClient::new(channel).delete(request.clone()).await).await
}

async fn until_gone(client: &Client, names: &[String], out: &mut Out) -> anyhow::Result<()> {
    let mut waiting = Waiting::new(out);
    for name in names {
        loop {
            match resource::get(client, Kind::Workload, name).await {
                Ok(_) => waiting.say(out, format!("workload/{name}: its tasks are stopping")),
                Err(error) if error.code() == Some(Code::NotFound) => break,
                Err(error) => return Err(error.into()),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
    Ok(())
}
