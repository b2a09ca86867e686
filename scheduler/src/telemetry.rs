//! Log lines on standard error: `RUST_LOG` chooses which, `info` by default.

use tracing_subscriber::EnvFilter;

/// Installs the process' subscriber; call once, first thing.
pub fn install() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}
