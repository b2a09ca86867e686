//! Figures, next to what the disk itself can do at the same time. Run with
//! `cargo test --release -p dray-scheduler --test cluster speed -- --ignored --nocapture`.

use crate::agent::{FakeAgent, hello};
use crate::lab::{Lab, until, workload};
use dray_proto::v1 as wire;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};
use tonic::transport::Channel;
use wire::nodes_client::NodesClient;
use wire::workloads_client::WorkloadsClient;

fn scale(name: &str, replicas: u32) -> wire::ScaleWorkloadRequest {
    wire::ScaleWorkloadRequest { name: name.into(), replicas, ..Default::default() }
}

/// The p50, the p99 and the largest of some durations.
fn percentiles(mut took: Vec<Duration>) -> String {
    took.sort();
    let at = |percent: usize| took[(took.len() - 1) * percent / 100];
    format!("p50 {:?}, p99 {:?}, max {:?}", at(50), at(99), at(100))
}

/// What one sync costs: overwriting zeros, and growing a file.
fn raw_syncs(directory: &Path) -> [String; 2] {
    [true, false].map(|filled| {
        let file = File::create(directory.join("raw")).unwrap();
        if filled {
            file.write_all_at(&vec![0; 4 << 20], 0).unwrap();
            file.sync_all().unwrap();
        }
        let one = |n: u64| {
            let began = Instant::now();
            file.write_all_at(&[7; 512], n * 512).unwrap();
            file.sync_data().unwrap();
            began.elapsed()
        };
        percentiles((0..300).map(one).collect())
    })
}

/// Writes one after another; how long each took.
async fn one_at_a_time(channel: Channel, count: u32) -> Vec<Duration> {
    let mut client = WorkloadsClient::new(channel);
    let mut took = Vec::new();
    for n in 0..count {
        let began = Instant::now();
        client.scale(scale("w", n % 2)).await.unwrap();
        took.push(began.elapsed());
    }
    took
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures; needs a quiet machine and a release build"]
async fn speed_of_commits() {
    let lab = Lab::start_for_figures();
    let leader = lab.leader().await;
    let mut client = WorkloadsClient::new(lab.admin(leader));
    client.apply(workload("w", 0)).await.unwrap();
    let [overwriting, growing] = raw_syncs(&lab.data_dir(leader));
    println!("raw 512 byte write + fdatasync, overwriting: {overwriting}");
    println!("raw 512 byte write + fdatasync, growing:     {growing}");
    println!("commit through the leader:   {}", percentiles(one_at_a_time(lab.admin(leader), 300).await));
    let follower = lab.follower().await;
    println!("commit through a follower:   {}", percentiles(one_at_a_time(lab.admin(follower), 300).await));
    for writers in [16, 256] {
        let count = 8_000 / writers;
        let began = Instant::now();
        let channels: Vec<Channel> = (0..4).map(|_| lab.admin(leader)).collect();
        let writers: Vec<_> = (0..writers as usize)
            .map(|n| tokio::spawn(one_at_a_time(channels[n % 4].clone(), count)))
            .collect();
        let number = writers.len();
        let mut took = Vec::new();
        for writer in writers {
            took.extend(writer.await.unwrap());
        }
        let rate = took.len() as f64 / began.elapsed().as_secs_f64();
        println!("{number} writers: {rate:.0} commits per second, {}", percentiles(took));
    }
    let [overwriting, _] = raw_syncs(&lab.data_dir(leader));
    println!("raw fdatasync, overwriting, afterwards: {overwriting}");
}

/// A node with room for everything.
async fn large_node(lab: &Lab, name: &str) -> FakeAgent {
    let capacity =
        wire::Quantities { cpu_millis: Some(1 << 40), memory_bytes: Some(1 << 60), pids: Some(1 << 40) };
    FakeAgent::attach_with(lab, wire::Hello { capacity: Some(capacity), ..hello(name) }).await
}

/// How many tasks have a node.
async fn placed(channel: Channel) -> Option<u32> {
    let list = NodesClient::new(channel).list(wire::ListRequest::default()).await.ok()?;
    Some(list.into_inner().nodes.iter().map(|node| node.tasks).sum())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures; needs a quiet machine and a release build"]
async fn speed_of_placing() {
    let lab = Lab::start_for_figures();
    let mut agents = Vec::new();
    for n in 1..=5 {
        agents.push(large_node(&lab, &format!("node-{n}")).await);
    }
    let leader = lab.leader().await;
    for replicas in [1_000, 10_000] {
        let began = Instant::now();
        let name = format!("w{replicas}");
        let before = placed(lab.admin(leader)).await.unwrap();
        WorkloadsClient::new(lab.admin(leader)).apply(workload(&name, replicas)).await.unwrap();
        let all = || async { (placed(lab.admin(leader)).await? == before + replicas).then_some(()) };
        until("every task to be placed", all).await;
        let took = began.elapsed();
        println!(
            "{replicas} tasks created and placed in {took:?}: {:.0}/s",
            f64::from(replicas) / took.as_secs_f64()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures; needs a quiet machine and a release build"]
async fn speed_of_failover() {
    let mut lab = Lab::start_for_figures();
    let _agent = large_node(&lab, "node-1").await;
    let leader = lab.leader().await;
    WorkloadsClient::new(lab.admin(leader)).apply(workload("w", 1)).await.unwrap();
    let mut took = Vec::new();
    for replicas in 2..22 {
        let leader = lab.leader().await;
        let other = lab.follower().await;
        let (mut client, channel) = (WorkloadsClient::new(lab.admin(other)), lab.admin(other));
        lab.kill(leader);
        let began = Instant::now();
        until("the next leader", || {
            let mut client = client.clone();
            async move { client.scale(scale("w", replicas)).await.ok() }
        })
        .await;
        until("a task to be placed", || async { (placed(channel.clone()).await? == replicas).then_some(()) })
            .await;
        took.push(began.elapsed());
        client.scale(scale("w", replicas)).await.unwrap();
        lab.run(leader);
        until("the old leader to be back", || async { placed(lab.admin(leader)).await }).await;
    }
    println!("leader killed, placing again after: {}", percentiles(took));
}
