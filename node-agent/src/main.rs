//! Dray's node agent.

use clap::Parser;
use dray_node_agent::{Options, run, telemetry};
use std::process::ExitCode;

fn main() -> ExitCode {
    // Shims, container inits and execs are re-execs of this program; they
    // must stay single-threaded, so this comes first.
    if let Some(code) = container_runtime::dispatch(std::env::args_os()) {
        return code;
    }
    telemetry::start();
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
