//! Log lines on standard error: `RUST_LOG` chooses which. By default our own
//! from `info` on, and Raft's, which come as `slog`, from `warn` on.

use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// Installs the process' subscriber; call once, first thing.
pub fn install() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,slog=warn"));
    let ansi = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(ansi).init();
}
