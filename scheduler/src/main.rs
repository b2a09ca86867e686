//! `dray-scheduler --config FILE`: see `config` for what the file may say.

use clap::Parser;
use dray_scheduler::config::Config;
use dray_scheduler::{app, telemetry};
use std::path::PathBuf;

/// The replicated scheduler of a Dray cluster.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// The configuration file, TOML.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    telemetry::install();
    dray_proto::tls::install_crypto();
    app::run(Config::load(&args.config)?).await
}
