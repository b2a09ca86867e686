//! Figures beside a peer's, measured in the same run on the same machine.
//!
//! Prints a table and writes `target/bench/report.json`. A figure without a
//! peer has no baseline.

mod by_hand;
mod containers;
mod image;
mod migrations;
mod replicas;
mod report;

use anyhow::Result;
use clap::Parser;
use dray_e2e::interrupt;
use report::Report;
use std::process::ExitCode;

/// Measures Dray beside plain CRIU and runc
#[derive(Debug, Parser)]
struct Arguments {
    /// How many migrations
    #[arg(long, default_value_t = 30)]
    migrations: u32,
    /// How many containers, one after the other
    #[arg(long, default_value_t = 50)]
    containers: u32,
    /// How many replicas at once
    #[arg(long, default_value_t = 50)]
    replicas: u32,
}

fn main() -> ExitCode {
    // Shims are re-execs of this program, and must stay single-threaded.
    if let Some(code) = container_runtime::dispatch(std::env::args_os()) {
        return code;
    }
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("The bench failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    interrupt::takes_down("bench")?;
    let mut report = Report::default();
    migrations::measure(arguments.migrations, &mut report)?;
    replicas::measure(arguments.replicas, &mut report)?;
    containers::measure(arguments.containers, &mut report)?;
    report.write()
}
