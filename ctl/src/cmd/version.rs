//! `version`: of this program, and of the cluster if one answers.

use crate::client::Client;
use crate::connection::Connection;
use crate::output::{Format, Out};
use dray_proto::v1::StatusRequest;
use dray_proto::v1::cluster_client::ClusterClient;
use serde::Serialize;
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  clusterctl version
  clusterctl version -o json";

/// In which format.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct VersionView {
    client: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<String>,
}

/// Prints both.
pub(crate) async fn run(args: &Args, connection: &Connection, out: &mut Out) -> anyhow::Result<ExitCode> {
    let versions =
        VersionView { client: env!("CARGO_PKG_VERSION").into(), server: server(connection).await.ok() };
    match args.output {
        Format::Json => out.json(&versions)?,
        Format::Yaml => out.yaml(&versions)?,
        Format::Table | Format::Wide | Format::Name => {
            out.line(format_args!("client {}", versions.client))?;
            let server = versions.server.as_deref().unwrap_or("not reachable");
            out.line(format_args!("server {server}"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// No cluster is no error here.
async fn server(connection: &Connection) -> anyhow::Result<String> {
    let client = Client::new(connection)?;
    let ask = async |channel| ClusterClient::new(channel).status(StatusRequest {}).await;
    Ok(client.call(ask).await?.version)
}
