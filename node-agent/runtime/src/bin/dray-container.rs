//! Runs containers by hand, without an agent; the tests re-exec it as their shim.

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(code) = container_runtime::dispatch(std::env::args_os()) {
        return code;
    }
    println!("usage: dray-container shim|container-exec (started by the runtime)");
    ExitCode::FAILURE
}
