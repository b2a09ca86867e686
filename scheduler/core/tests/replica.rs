//! Three voters in one thread, with a network that can be cut.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use dray_model::ids::NodeName;
use scheduler_core::replica::{Config, Effects, Fatal, NotTaken, Recovered, Ticket, Unanswered};
use scheduler_core::{Command, Op, Replica, Reply, codec};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What a host has on its disk.
#[derive(Default, Clone)]
struct Disk {
    snapshot: Option<Vec<u8>>,
    entries: BTreeMap<u64, Vec<u8>>,
    hard_state: Option<Vec<u8>>,
}

impl Disk {
    fn persist(&mut self, effects: &Effects) {
        let persist = &effects.persist;
        self.snapshot = persist.snapshot.clone().or(self.snapshot.take());
        if persist.clear_entries {
            self.entries.clear();
        }
        if let Some(first) = persist.first_kept {
            self.entries = self.entries.split_off(&first);
        }
        if let Some(first) = persist.entries.first() {
            self.entries.split_off(&first.index);
        }
        self.entries.extend(persist.entries.iter().map(|entry| (entry.index, entry.bytes.clone())));
        self.hard_state = persist.hard_state.clone().or(self.hard_state.take());
    }

    fn recovered(&self) -> Recovered {
        Recovered {
            snapshot: self.snapshot.clone(),
            entries: self.entries.values().cloned().collect(),
            hard_state: self.hard_state.clone(),
        }
    }
}

struct Trio {
    replicas: BTreeMap<u64, Replica>,
    disks: BTreeMap<u64, Disk>,
    cut: BTreeSet<u64>,
    answers: BTreeMap<(u64, Ticket), Result<Reply, Unanswered>>,
    reads: BTreeMap<(u64, Ticket), Result<u64, Unanswered>>,
    restored: u32,
}

fn config(id: u64) -> Config {
    Config {
        id,
        voters: vec![1, 2, 3],
        cidr: "10.88.0.0/16".parse().unwrap(),
        election_ticks: 10,
        heartbeat_ticks: 2,
        snapshot_every: 20,
        entries_kept: 5,
        seed: id * 77,
    }
}

fn start(id: u64, stored: Recovered) -> Replica {
    Replica::new(config(id), stored, &slog::Logger::root(slog::Discard, slog::o!())).unwrap()
}

fn cordon(node: &str) -> Command {
    Command::new(1, Op::Cordon { node: node.parse().unwrap() })
}

fn register(number: u8) -> Command {
    let about = serde_json::json!({
        "boot_id": "b", "labels": {}, "capacity": {"cpu_millis": 1, "memory_bytes": 1, "pids": 1},
        "peer_address": "10.77.0.1:7002", "underlay_ip": "10.77.0.1",
        "capabilities": {"kernel": "", "criu": "4", "cgroup": "v2", "agent_version": "1", "cpus": 1},
    });
    let name = format!("node-{number}").parse().unwrap();
    Command::new(1, Op::RegisterNode { name, about: Box::new(serde_json::from_value(about).unwrap()) })
}

impl Trio {
    fn new() -> Trio {
        Trio {
            replicas: (1..=3).map(|id| (id, start(id, Recovered::default()))).collect(),
            disks: (1..=3).map(|id| (id, Disk::default())).collect(),
            cut: BTreeSet::new(),
            answers: BTreeMap::new(),
            reads: BTreeMap::new(),
            restored: 0,
        }
    }

    fn at(&mut self, id: u64) -> &mut Replica {
        self.replicas.get_mut(&id).unwrap()
    }

    /// Performs all effects and delivers all messages until nothing is left.
    fn settle(&mut self) -> Result<(), Fatal> {
        let mut wire = VecDeque::new();
        loop {
            let mut idle = true;
            for (id, replica) in &mut self.replicas {
                while let Some(effects) = replica.ready()? {
                    idle = false;
                    wire.extend(effects.early.iter().map(|message| (*id, message.clone())));
                    self.disks.get_mut(id).unwrap().persist(&effects);
                    self.restored += u32::from(effects.restored);
                    wire.extend(effects.messages.into_iter().map(|message| (*id, message)));
                    for answer in effects.answers {
                        let result = answer.result.map(|done| done.result.unwrap());
                        self.answers.insert((*id, answer.ticket), result);
                    }
                    self.reads.extend(effects.reads.iter().map(|read| ((*id, read.ticket), read.index)));
                }
            }
            while let Some((from, message)) = wire.pop_front() {
                idle = false;
                let lost = self.cut.contains(&from) || self.cut.contains(&message.to);
                if !lost {
                    let _ = self.at(message.to).step(&message.bytes);
                }
                if message.snapshot {
                    self.at(from).snapshot_sent(message.to, !lost);
                }
            }
            if idle {
                return Ok(());
            }
        }
    }

    fn tick(&mut self, times: usize) {
        for _ in 0..times {
            self.replicas.values_mut().for_each(Replica::tick);
            self.settle().unwrap();
        }
    }

    /// Ticks until a voter that isn't cut off leads.
    fn leader(&mut self) -> u64 {
        for _ in 0..200 {
            self.tick(1);
            let leads =
                |(id, replica): (&u64, &Replica)| (replica.leads() && !self.cut.contains(id)).then_some(*id);
            if let Some(id) = self.replicas.iter().find_map(leads) {
                return id;
            }
        }
        panic!("nobody was elected");
    }

    fn restart(&mut self, id: u64) {
        let stored = self.disks[&id].recovered();
        self.replicas.insert(id, start(id, stored));
    }

    fn states(&self) -> BTreeSet<Vec<u8>> {
        self.replicas.values().map(|replica| codec::encode_state(replica.state()).unwrap()).collect()
    }
}

#[test]
fn a_command_is_answered_once_it_is_applied_and_all_states_agree() {
    let mut trio = Trio::new();
    let leader = trio.leader();
    let ticket = trio.at(leader).propose(&register(1)).unwrap();
    trio.settle().unwrap();
    assert!(matches!(trio.answers[&(leader, ticket)], Ok(Reply::Session { .. })));
    let follower = leader % 3 + 1;
    let refused = trio.at(follower).propose(&register(2));
    assert!(matches!(refused, Err(NotTaken::NotLeader { leader: Some(id) }) if id == leader));
    trio.tick(3);
    assert_eq!(trio.states().len(), 1);
}

#[test]
fn a_read_waits_for_a_quorum() {
    let mut trio = Trio::new();
    let leader = trio.leader();
    let ticket = trio.at(leader).read_index().unwrap();
    trio.settle().unwrap();
    assert_eq!(trio.reads[&(leader, ticket)], Ok(trio.replicas[&leader].state().applied()));
    trio.cut.insert(leader);
    let stale = trio.at(leader).read_index().unwrap();
    trio.settle().unwrap();
    assert!(!trio.reads.contains_key(&(leader, stale)));
    let next = trio.leader();
    trio.tick(30);
    assert_ne!(next, leader);
    assert_eq!(trio.reads[&(leader, stale)], Err(Unanswered::Unknown));
}

#[test]
fn a_deposed_leader_says_that_it_does_not_know() {
    let mut trio = Trio::new();
    let old = trio.leader();
    trio.cut.insert(old);
    let ticket = trio.at(old).propose(&register(1)).unwrap();
    trio.settle().unwrap();
    let new = trio.leader();
    let other = trio.at(new).propose(&register(2)).unwrap();
    trio.settle().unwrap();
    trio.cut.clear();
    trio.tick(30);
    assert_eq!(trio.answers[&(old, ticket)], Err(Unanswered::Unknown));
    assert!(trio.answers[&(new, other)].is_ok());
    let nodes: Vec<&NodeName> = trio.replicas[&old].state().nodes().keys().collect();
    assert_eq!(nodes, [&"node-2".parse::<NodeName>().unwrap()], "the entry was overwritten");
    assert_eq!(trio.states().len(), 1);
}

#[test]
fn a_follower_that_is_far_behind_gets_a_snapshot() {
    let mut trio = Trio::new();
    let leader = trio.leader();
    let behind = leader % 3 + 1;
    trio.cut.insert(behind);
    for number in 0..60 {
        trio.at(leader).propose(&register(number)).unwrap();
        trio.settle().unwrap();
    }
    assert!(trio.disks[&leader].entries.len() < 40, "the log is kept short");
    trio.cut.clear();
    trio.tick(30);
    assert_eq!(trio.restored, 1);
    assert_eq!(trio.states().len(), 1);
    assert_eq!(trio.replicas[&behind].state().nodes().len(), 60);
}

#[test]
fn what_was_persisted_survives_a_restart_of_all() {
    let mut trio = Trio::new();
    let leader = trio.leader();
    for number in 0..33 {
        trio.at(leader).propose(&register(number)).unwrap();
        trio.settle().unwrap();
    }
    (1..=3).for_each(|id| trio.restart(id));
    let leader = trio.leader();
    assert_eq!(trio.replicas[&leader].state().nodes().len(), 33);
    let ticket = trio.at(leader).propose(&cordon("node-7")).unwrap();
    trio.tick(5);
    assert_eq!(trio.answers[&(leader, ticket)], Ok(Reply::Done));
    assert_eq!(trio.states().len(), 1);
}

#[test]
fn a_replica_whose_state_differs_stops() {
    let mut trio = Trio::new();
    let leader = trio.leader();
    for number in 0..30 {
        trio.at(leader).propose(&register(number)).unwrap();
        trio.settle().unwrap();
    }
    let index = 20;
    let op = Op::Compare { encoding: codec::VERSION, index, digest: 7 };
    trio.at(leader).propose(&Command::new(1, op)).unwrap();
    assert!(matches!(trio.settle(), Err(Fatal::Diverged { index: 20 })));
}

#[test]
fn the_same_seeds_make_the_same_elections() {
    let run = || {
        let mut trio = Trio::new();
        let mut leaders = Vec::new();
        for _ in 0..4 {
            let leader = trio.leader();
            leaders.push((leader, trio.replicas[&leader].term()));
            trio.cut = BTreeSet::from([leader]);
        }
        leaders
    };
    assert_eq!(run(), run());
}
