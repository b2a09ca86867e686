//! `cordon` and `uncordon`: whether a node takes new tasks.

use super::request_id;
use crate::client::Client;
use crate::error::Usage;
use crate::output::Out;
use crate::resource::{Kind, bare};
use dray_proto::v1::NodeRequest;
use dray_proto::v1::nodes_client::NodesClient;
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  clusterctl cordon node-1
  clusterctl cordon node-1 node-2";

/// Which nodes.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Nodes
    #[arg(required = true, value_name = "NODE")]
    nodes: Vec<String>,
    /// Check everything, change nothing
    #[arg(long)]
    dry_run: bool,
}

const UNCORDON_EXAMPLES: &str = "\
Examples:
  clusterctl uncordon node-1";

/// Which nodes.
#[derive(Debug, clap::Args)]
#[command(after_help = UNCORDON_EXAMPLES)]
pub(crate) struct UncordonArgs {
    /// Nodes
    #[arg(required = true, value_name = "NODE")]
    nodes: Vec<String>,
    /// Check everything, change nothing
    #[arg(long)]
    dry_run: bool,
}

/// The request about one node.
pub(super) fn node_request(node: &str, validate_only: bool) -> Result<NodeRequest, Usage> {
    Ok(NodeRequest { name: bare(Kind::Node, node)?, request_id: request_id(), validate_only })
}

/// Keeps new tasks away.
pub(crate) async fn cordon(args: &Args, client: &Client, out: &mut Out) -> anyhow::Result<ExitCode> {
    for node in &args.nodes {
        let request = node_request(node, args.dry_run)?;
        client.call(async |channel| NodesClient::new(channel).cordon(request.clone()).await).await?;
        done(out, &request, "cordoned")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Lets new tasks on again.
pub(crate) async fn uncordon(
    args: &UncordonArgs,
    client: &Client,
    out: &mut Out,
) -> anyhow::Result<ExitCode> {
    for node in &args.nodes {
        let request = node_request(node, args.dry_run)?;
        client.call(async |channel| NodesClient::new(channel).uncordon(request.clone()).await).await?;
        done(out, &request, "uncordoned")?;
    }
    Ok(ExitCode::SUCCESS)
}

fn done(out: &mut Out, request: &NodeRequest, what: &str) -> std::io::Result<()> {
    let dry = if request.validate_only { " (dry run)" } else { "" };
    out.line(format_args!("node/{} {what}{dry}", request.name))
}
