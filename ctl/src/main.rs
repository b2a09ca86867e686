//! `clusterctl`: the command line of a Dray cluster.
//!
//! `args` says what may be asked, `cmd` does it, `client` talks to the
//! schedulers, `manifest` reads YAML, and `output` is the only place that
//! prints.

mod args;
mod client;
mod cmd;
mod connection;
mod error;
mod local;
mod manifest;
mod output;
mod resource;
mod terminal;
mod watch;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = args::Cli::parse();
    dray_proto::tls::install_crypto();
    let mut out = output::Out::standard();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(cause) => return out.failure(&anyhow::Error::new(cause).context("start the async runtime")),
    };
    let result = runtime.block_on(cmd::run(cli, &mut out));
    // A read of the terminal can't be cancelled, and must not hold the exit up.
    runtime.shutdown_background();
    result.unwrap_or_else(|error| out.failure(&error))
}
