//! A node's kernel: containers that count while they run, and shims that
//! freeze them when a lease ends.

use dray_model::ids::InstanceId;
use std::collections::BTreeMap;

/// All containers of one machine.
#[derive(Debug, Default)]
pub struct Kernel {
    /// By instance.
    pub containers: BTreeMap<InstanceId, Container>,
}

/// One container and its shim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Names one run from its first instruction on, wherever it goes.
    pub life: u64,
    /// For how many milliseconds that run has run.
    pub counter: u64,
    /// What its processes do.
    pub state: State,
    /// When its shim freezes it, on the node's own clock; `None`: never.
    pub lease_ms: Option<u64>,
}

/// What a container's processes do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// There are none yet; a shim waits to restore them.
    Waiting,
    /// Run, unless the lease has ended.
    Running,
    /// Frozen for a migration, at the source.
    Frozen,
    /// Restored and held, at the target.
    Held,
    /// They ended.
    Exited,
}

impl Container {
    /// A container whose processes begin.
    pub fn begun(life: u64, lease_ms: Option<u64>) -> Container {
        Container { life, counter: 0, state: State::Running, lease_ms }
    }

    /// Whether its processes run now.
    pub fn runs(&self, local_ms: u64) -> bool {
        self.state == State::Running && self.lease_ms.is_none_or(|end| local_ms < end)
    }

    /// Lets time pass; says from what count it ran on, if it ran.
    pub fn pass(&mut self, from_ms: u64, to_ms: u64) -> Option<u64> {
        let end = self.lease_ms.map_or(to_ms, |end| end.min(to_ms));
        let ran = end.saturating_sub(from_ms);
        let before = self.counter;
        if self.state != State::Running || ran == 0 {
            return None;
        }
        self.counter += ran;
        Some(before)
    }
}
