//! Runs one container without an agent; the tests re-exec it as their shim.

use std::path::PathBuf;
use std::process::ExitCode;

use container_runtime::{Bundle, Event, Runtime};

fn main() -> ExitCode {
    if let Some(code) = container_runtime::dispatch(std::env::args_os()) {
        return code;
    }
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [command, containers, run, bundle] = args.as_slice() else { return usage() };
    if command != "run" {
        return usage();
    }
    match run_to_the_end(containers, run, bundle) {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)),
        Err(error) => {
            eprintln!("dray-container: {error}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    eprintln!("usage: dray-container run CONTAINERS-DIR RUN-DIR BUNDLE.json");
    ExitCode::from(2)
}

/// Runs the bundle's container, and leaves what is left of it to look at.
fn run_to_the_end(containers: &str, run: &str, bundle: &str) -> Result<i32, Box<dyn std::error::Error>> {
    let bundle: Bundle = serde_json::from_slice(&std::fs::read(bundle)?)?;
    let container = Runtime::new(PathBuf::from(containers), PathBuf::from(run))?.create(&bundle)?;
    let mut events = container.events()?;
    container.start()?;
    while let Some(event) = events.next()? {
        if let Event::Exited { exit } = event {
            return Ok(exit.code);
        }
    }
    Err("the shim ended".into())
}
