//! Figures, next to what the disk itself can do at the same time. Run with
//! `cargo test --release -p dray-scheduler --test cluster speed -- --ignored --nocapture`.

use crate::lab::{Lab, workload};
use dray_proto::v1 as wire;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};
use tonic::transport::Channel;
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
    let lab = Lab::start();
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
