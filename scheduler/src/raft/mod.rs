//! One voter: its durable log, the task that runs it, and its links to the
//! others.

pub mod log;
pub mod snapshot_file;
pub mod wal;
