//! Logs to stderr, filtered by `RUST_LOG`.

use tracing_subscriber::EnvFilter;

/// Begins logging.
pub fn start() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
}
