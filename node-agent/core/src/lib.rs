//! One node's decisions: what to do next for every container, given what the
//! scheduler assigned and what is there.
//!
//! ```text
//! Assignment + Observed --reconcile--> Actions --worker--> Events --observe--> Observed
//!                       --report-----> what the scheduler is told
//! ```
//!
//! The rule that everything serves: **an instance may run only while the
//! assignment lists its task at its epoch, wanted to run.** A frozen source
//! thaws and a held target is released by that rule alone, whatever else was
//! heard or missed.
//!
//! No I/O, no clock, no randomness.

#![forbid(unsafe_code)]
#![deny(clippy::wildcard_enum_match_arm)]

pub mod backoff;
pub mod fence;
pub mod observed;
pub mod reconcile;
pub mod report;

pub use observed::{Event, Instance, Observed, Stage};
pub use reconcile::{Action, reconcile};
pub use report::Reports;
