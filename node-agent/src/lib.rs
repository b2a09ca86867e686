//! Dray's node agent: runs and moves the containers assigned to one machine.
//!
//! ```text
//!  session  --assignment, lease-->  node  --actions-->  worker  -->  runtime, image, network, checkpoint
//!     ^                              | ^                  |
//!     '-----------reports------------' '-----events-------'  <--events-- watch (one per shim)
//!  peer: serves other agents and the schedulers (migrations, images, logs, exec)
//! ```
//!
//! [`node`] is one task that owns what is assigned and what is observed; it
//! decides with `agent-core` and acts through [`worker`]s. Containers outlive
//! this process: [`adopt`] finds them again.

mod about;
mod adopt;
mod config;
mod context;
mod failpoint;
mod images;
mod lease;
mod ledger;
mod node;
mod peer;
mod session;
pub mod telemetry;
mod transfer;
mod watch;
mod worker;

use anyhow::{Context as _, Result};
use std::path::PathBuf;
use tokio::sync::mpsc;

/// The node agent of a Dray cluster.
#[derive(Debug, clap::Parser)]
#[command(
    name = "dray-node-agent",
    version,
    about,
    after_help = "Example:\n  dray-node-agent --config /etc/dray/node-agent.toml"
)]
pub struct Options {
    /// The configuration file (TOML).
    #[arg(long, value_name = "FILE", default_value = "/etc/dray/node-agent.toml")]
    pub config: PathBuf,
}

/// Runs the agent until it is told to end. Containers go on.
///
/// # Errors
/// The configuration is wrong, or the machine lacks something vital.
pub fn run(options: &Options) -> Result<()> {
    let config = config::Config::load(&options.config)?;
    dray_proto::tls::install_crypto();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("start the runtime")?;
    let ended = runtime.block_on(serve(config));
    // Blocking threads wait on containers that go on; don't wait for them.
    runtime.shutdown_background();
    ended
}

async fn serve(config: config::Config) -> Result<()> {
    let (messages, inbox) = mpsc::channel(256);
    let context = context::Context::open(config, messages)?;
    tracing::info!(node = %context.config.name, version = env!("CARGO_PKG_VERSION"), "starting");
    let node = node::Node::restore(context.clone()).await?;
    let outbox = node.outbox();
    let peer = peer::serve(context.clone());
    tokio::select! {
        // Each runs as long as the process; dropping the others is the end.
        ended = node.run(inbox) => ended,
        ended = peer => ended,
        () = session::keep(context.clone(), outbox) => Ok(()),
        () = images::keep(context.clone()) => Ok(()),
        () = lease::keep(context) => Ok(()),
        ended = terminated() => ended,
    }
}

/// Waits for SIGTERM or SIGINT.
async fn terminated() -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("ending; containers go on");
    Ok(())
}
