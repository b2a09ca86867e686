//! Real scheduler processes, real TLS, real disks.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod access;
mod agent;
mod lab;
mod recovery;
mod relays;
mod sessions;
mod speed;

use dray_proto::status::details;
use dray_proto::v1 as wire;
use lab::{Lab, names, workload};
use tonic::Code;
use wire::nodes_client::NodesClient;
use wire::workloads_client::WorkloadsClient;

#[tokio::test(flavor = "multi_thread")]
async fn a_write_through_a_follower_survives_the_leader() {
    let mut lab = Lab::start();
    let follower = lab.follower().await;
    let mut client = WorkloadsClient::new(lab.admin(follower));
    let applied = client.apply(workload("redis", 2)).await.unwrap().into_inner();
    assert_eq!(applied.change(), wire::Change::Created);
    let again = client.apply(workload("redis", 2)).await.unwrap().into_inner();
    assert_eq!(again.change(), wire::Change::Unchanged);

    let leader = lab.leader().await;
    lab.kill(leader);
    let began = std::time::Instant::now();
    client.apply(workload("nginx", 1)).await.unwrap();
    println!("leader killed, written again after {:?}", began.elapsed());
    assert_eq!(names(lab.admin(follower)).await, ["nginx", "redis"]);
    lab.run(leader);
    lab::until("the old leader", || async {
        let mut client = NodesClient::new(lab.admin(leader));
        client.list(wire::ListRequest::default()).await.ok()
    })
    .await;
    assert_eq!(names(lab.admin(leader)).await, ["nginx", "redis"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_the_death_of_all() {
    let mut lab = Lab::start();
    let leader = lab.leader().await;
    let mut client = WorkloadsClient::new(lab.admin(leader));
    let mut expected = Vec::new();
    for n in 0..20 {
        client.apply(workload(&format!("w{n:02}"), 1)).await.unwrap();
        expected.push(format!("w{n:02}"));
    }
    for id in lab.ids() {
        lab.kill(id);
    }
    for id in lab.ids() {
        lab.run(id);
    }
    let leader = lab.leader().await;
    assert_eq!(names(lab.admin(leader)).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_refused_by_name_and_changes_nothing() {
    let lab = Lab::start();
    let leader = lab.leader().await;
    let mut client = WorkloadsClient::new(lab.admin(leader));
    let mut bad = workload("redis", 1);
    bad.spec.as_mut().unwrap().replicas = 1_000_000;
    let refused = client.apply(bad).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(details(&refused).violations[0].field, "spec.replicas");
    let rehearsed = wire::ApplyWorkloadRequest { validate_only: true, ..workload("redis", 1) };
    let rehearsed = client.apply(rehearsed).await.unwrap().into_inner();
    assert_eq!(rehearsed.change(), wire::Change::Created);
    let unknown = client.get(wire::GetRequest { name: "redis".into() }).await.unwrap_err();
    assert_eq!((unknown.code(), details(&unknown).reason.as_str()), (Code::NotFound, "UnknownWorkload"));
}
