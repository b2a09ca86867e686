//! Whole clusters of the real binaries on this machine, for tests, the demo
//! and the figures.
//!
//! [`cluster`] starts and stops one through `clusterctl local`; [`client`] is
//! the Redis client that must not notice anything; [`faults`] breaks things at
//! a known point; [`audit`] looks at what really runs, past everything the
//! cluster says of itself; [`leaks`] compares the machine before and after.
//!
//! Nothing here sleeps for a result: [`wait`] polls for a condition until a
//! deadline.

pub mod audit;
pub mod client;
pub mod cluster;
pub mod faults;
pub mod interrupt;
pub mod leaks;
pub mod manifest;
pub mod process;
pub mod view;
pub mod wait;
