//! Log lines on standard error: `RUST_LOG` chooses which. By default our own
//! from `info` on, and Raft's, whose target is `raft`, from `warn` on.

use slog::{Drain, Filter, Logger, Record};
use std::io::IsTerminal;
use tracing_slog::TracingSlogDrain;
use tracing_subscriber::EnvFilter;

/// Installs the process' subscriber; call once, first thing.
pub fn install() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,raft=warn"));
    let ansi = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(ansi).init();
}

/// The logger for Raft's library. Its bridge to `tracing` doesn't ask whether
/// a line is wanted, so that is asked here.
pub fn raft_logger() -> Logger {
    Logger::root(Filter::new(TracingSlogDrain, is_wanted).fuse(), slog::o!())
}

fn is_wanted(record: &Record<'_>) -> bool {
    match record.level() {
        slog::Level::Critical | slog::Level::Error => true,
        slog::Level::Warning => tracing::enabled!(target: "raft", tracing::Level::WARN),
        slog::Level::Info => tracing::enabled!(target: "raft", tracing::Level::INFO),
        slog::Level::Debug => tracing::enabled!(target: "raft", tracing::Level::DEBUG),
        slog::Level::Trace => tracing::enabled!(target: "raft", tracing::Level::TRACE),
    }
}
