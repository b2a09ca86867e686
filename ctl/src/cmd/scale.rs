//! `scale`: another number of replicas.

use super::running::{Wanted, until_running};
use super::{request_id, within};
use crate::client::Client;
use crate::error::Usage;
use crate::output::Out;
use crate::resource::{Kind, Target};
use dray_proto::v1::ScaleWorkloadRequest;
use dray_proto::v1::workloads_client::WorkloadsClient;
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  clusterctl scale workload redis --replicas 3
  clusterctl scale workload/redis --replicas 0 --wait";

/// What to scale.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// `workload NAME`
    #[arg(required = true, value_name = "workload NAME")]
    target: Vec<String>,
    /// How many tasks there shall be
    #[arg(long, value_name = "N")]
    replicas: u32,
    /// Wait until that many run
    #[arg(long)]
    wait: bool,
    /// Check everything, change nothing
    #[arg(long)]
    dry_run: bool,
}

/// Scales.
pub(crate) async fn run(args: &Args, client: &Client, out: &mut Out) -> anyhow::Result<ExitCode> {
    let target = Target::parse_named(&args.target)?;
    if target.kind != Kind::Workload {
        return Err(Usage(format!("a {} can't be scaled; only workloads can", target.kind.word())).into());
    }
    let mut wanted = Vec::new();
    for name in &target.names {
        let request = ScaleWorkloadRequest {
            name: name.clone(),
            replicas: args.replicas,
            etag: String::new(),
            request_id: request_id(),
            validate_only: args.dry_run,
        };
        let scale = async |channel| WorkloadsClient::new(channel).scale(request.clone()).await;
        wanted.push(Wanted::of(&client.call(scale).await?));
        let dry = if args.dry_run { " (dry run)" } else { "" };
        out.line(format_args!("workload/{name} scaled to {}{dry}", args.replicas))?;
    }
    if args.wait && !args.dry_run {
        within(client.wait_limit(), "waiting for the tasks", until_running(client, wanted, out)).await?;
    }
    Ok(ExitCode::SUCCESS)
}
