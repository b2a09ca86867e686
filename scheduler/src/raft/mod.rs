//! One voter: its durable log, the thread that runs it, and its links to the
//! others.

pub mod host;
pub mod log;
pub mod ring;
pub mod service;
pub mod snapshot_file;
pub mod transport;
pub mod wal;
