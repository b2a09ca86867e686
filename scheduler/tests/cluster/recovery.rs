//! Falling behind, compaction, and what a watch is told of it.

use crate::lab::{Lab, until, workload};
use dray_proto::status::details;
use dray_proto::v1 as wire;
use tokio_stream::StreamExt;
use tonic::Code;
use tonic::transport::Channel;
use wire::cluster_client::ClusterClient;
use wire::workloads_client::WorkloadsClient;

/// More entries than are kept behind a snapshot.
async fn write_much(channel: Channel) {
    let writers = (0..32).map(|writer| {
        let mut client = WorkloadsClient::new(channel.clone());
        tokio::spawn(async move {
            for n in 0..100 {
                let name = format!("w{writer}");
                let mut request = workload(&name, 0);
                request.labels.insert("n".into(), n.to_string());
                client.apply(request).await.unwrap();
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
}

async fn applied(lab: &Lab, at: u64, id: u64) -> u64 {
    let status = ClusterClient::new(lab.admin(at)).status(wire::StatusRequest {}).await.unwrap();
    status.into_inner().schedulers.iter().find(|scheduler| scheduler.id == id).unwrap().applied
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduler_that_is_far_behind_gets_a_snapshot() {
    let mut lab = Lab::start();
    let leader = lab.leader().await;
    let late = lab.follower().await;
    lab.kill(late);
    write_much(lab.admin(leader)).await;
    assert!(
        lab.data_dir(leader)
            .read_dir()
            .unwrap()
            .any(|file| { file.unwrap().file_name().to_string_lossy().starts_with("snapshot-") })
    );
    lab.run(late);
    until("the late one to have caught up", || async {
        let (ahead, behind) = (applied(&lab, leader, leader).await, applied(&lab, leader, late).await);
        (behind >= ahead).then_some(())
    })
    .await;
    let mut client = WorkloadsClient::new(lab.admin(late));
    let last = client.get(wire::GetRequest { name: "w31".into() }).await.unwrap().into_inner();
    assert_eq!(last.labels["n"], "99");
    // It has the state, but not the changes that led there.
    let request = wire::WatchRequest { after_index: 2, ..Default::default() };
    let mut watch = client.watch(request).await.unwrap().into_inner();
    let compacted = watch.next().await.unwrap().unwrap_err();
    assert_eq!((compacted.code(), details(&compacted).reason.as_str()), (Code::OutOfRange, "Compacted"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_log_is_refused_with_a_reason() {
    let mut lab = Lab::start();
    let leader = lab.leader().await;
    let mut client = WorkloadsClient::new(lab.admin(leader));
    for n in 0..5 {
        client.apply(workload(&format!("w{n}"), 0)).await.unwrap();
    }
    lab.kill(leader);
    let path = lab.data_dir(leader).join("raft.log");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[40] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    lab.run(leader);
    until("the damage to be told", || async { lab.log(leader).contains("is damaged at byte").then_some(()) })
        .await;
    let other = lab.leader().await;
    assert_eq!(crate::lab::names(lab.admin(other)).await.len(), 5, "the others go on");
}
