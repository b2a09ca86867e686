//! Small clusters for tests.

use crate::apply::apply;
use crate::command::{Command, Op};
use crate::outcome::Reply;
use crate::refusal::Refusal;
use crate::state::State;
use dray_model::ids::NodeName;
use dray_model::node::{About, Capabilities};
use dray_model::resources::Amounts;
use dray_model::spec::Labels;
use std::net::{Ipv4Addr, SocketAddr};

/// What the agent of `node-<n>` says.
pub(crate) fn about(number: u8, memory_mib: u64) -> About {
    About {
        boot_id: "boot-1".into(),
        labels: Labels::new(),
        capacity: Amounts { cpu_millis: 4000, memory_bytes: memory_mib << 20, pids: 10_000 },
        peer_address: SocketAddr::from(([10, 77, 0, number], 7002)),
        underlay_ip: Ipv4Addr::new(10, 77, 0, number),
        capabilities: Capabilities { criu: "4.2.1".into(), cpus: 4, ..Capabilities::default() },
    }
}

/// Applies the next entry.
pub(crate) fn run(state: &mut State, op: Op) -> Result<Reply, Refusal> {
    let (index, now_ms) = (state.applied() + 1, state.clock_ms() + 1);
    apply(state, index, &Command::new(now_ms, op)).result
}

/// A cluster of registered nodes `node-1` to `node-<n>` with 1 GiB each.
pub(crate) fn cluster(nodes: u8) -> State {
    let mut state = State::new("10.88.0.0/16".parse().unwrap());
    for number in 1..=nodes {
        let name: NodeName = format!("node-{number}").parse().unwrap();
        run(&mut state, Op::RegisterNode { name, about: Box::new(about(number, 1024)) }).unwrap();
    }
    state
}
