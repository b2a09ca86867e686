//! The wire's enumerations as words: camelCase as in the manifest, and with a
//! capital where people read them in tables.

use dray_proto::v1 as wire;

/// A wire value that a newer scheduler may know and we don't.
const UNKNOWN: &str = "unknown";

/// What a task shall do.
pub(crate) fn desired(desired: wire::Desired) -> &'static str {
    match desired {
        wire::Desired::Unspecified => UNKNOWN,
        wire::Desired::Run => "run",
        wire::Desired::Stop => "stop",
    }
}

/// Where a task stands.
pub(crate) fn task_phase(phase: wire::TaskPhase) -> &'static str {
    match phase {
        wire::TaskPhase::Unspecified | wire::TaskPhase::Unknown => UNKNOWN,
        wire::TaskPhase::Pending => "pending",
        wire::TaskPhase::Preparing => "preparing",
        wire::TaskPhase::Running => "running",
        wire::TaskPhase::Backoff => "backOff",
        wire::TaskPhase::Stopping => "stopping",
        wire::TaskPhase::Exited => "exited",
        wire::TaskPhase::Failed => "failed",
        wire::TaskPhase::Stopped => "stopped",
    }
}

/// Whether a node is there.
pub(crate) fn liveness(liveness: wire::Liveness) -> &'static str {
    match liveness {
        wire::Liveness::Unspecified => UNKNOWN,
        wire::Liveness::Ready => "ready",
        wire::Liveness::Lost => "lost",
    }
}

/// Where a migration stands.
pub(crate) fn migration_phase(phase: wire::MigrationPhase) -> &'static str {
    match phase {
        wire::MigrationPhase::Unspecified => UNKNOWN,
        wire::MigrationPhase::Reserved => "reserved",
        wire::MigrationPhase::Prepared => "prepared",
        wire::MigrationPhase::Frozen => "frozen",
        wire::MigrationPhase::Committed => "committed",
        wire::MigrationPhase::Resumed => "resumed",
        wire::MigrationPhase::Cleaned => "cleaned",
        wire::MigrationPhase::Aborted => "aborted",
    }
}

/// One of the two nodes of a migration.
pub(crate) fn side(side: wire::Side) -> &'static str {
    match side {
        wire::Side::Unspecified => UNKNOWN,
        wire::Side::Source => "source",
        wire::Side::Target => "target",
    }
}

/// How much an event matters.
pub(crate) fn level(level: wire::EventLevel) -> &'static str {
    match level {
        wire::EventLevel::Unspecified => UNKNOWN,
        wire::EventLevel::Info => "info",
        wire::EventLevel::Warning => "warning",
    }
}

/// How a workload's life goes.
pub(crate) fn workload_kind(kind: wire::WorkloadKind) -> &'static str {
    match kind {
        wire::WorkloadKind::Unspecified => UNKNOWN,
        wire::WorkloadKind::Service => "service",
    }
}

/// What an apply did, as kubectl says it.
pub(crate) fn change(change: wire::Change) -> &'static str {
    match change {
        wire::Change::Unspecified => UNKNOWN,
        wire::Change::Created => "created",
        wire::Change::Updated => "configured",
        wire::Change::Unchanged => "unchanged",
    }
}

/// A word with a capital: `backOff` becomes `BackOff`.
pub(crate) fn title(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect()
}
