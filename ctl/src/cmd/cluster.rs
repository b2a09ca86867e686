//! `cluster status`: schedulers, nodes and tasks at a glance.

use super::style;
use crate::client::Client;
use crate::output::{Format, Out, status};
use crate::resource::{self, Kind};
use clap::Subcommand;
use dray_proto::v1::StatusRequest;
use dray_proto::v1::cluster_client::ClusterClient;
use std::process::ExitCode;

/// What to do.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  clusterctl cluster status
  clusterctl cluster status -o json";

#[derive(Debug, Subcommand)]
enum Command {
    /// Schedulers, nodes and tasks at a glance
    #[command(after_help = EXAMPLES)]
    Status {
        /// Output format
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
}

/// Shows it.
pub(crate) async fn run(args: &Args, client: &Client, out: &mut Out) -> anyhow::Result<ExitCode> {
    let Command::Status { output } = &args.command;
    let ask = async |channel| ClusterClient::new(channel).status(StatusRequest {}).await;
    let cluster = client.call(ask).await?;
    let nodes = resource::list(client, Kind::Node, "").await?;
    let tasks = resource::list(client, Kind::Task, "").await?;
    status::print(out, &cluster, &nodes, &tasks, style(*output))?;
    Ok(ExitCode::SUCCESS)
}
