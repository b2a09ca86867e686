//! Real binaries, real kernel, real CRIU, real Redis. Every test has a cluster
//! of its own, one at a time; each ends with an audit (every task runs exactly
//! once, nothing else runs) and a look for anything left on the machine.

mod inputs;
mod lifecycle;
mod migration;
mod recovery;

use dray_e2e::cluster::Size;

/// What most tests need.
const THREE: Size = Size { schedulers: 3, nodes: 3 };
