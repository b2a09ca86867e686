//! Who may do what, and over which way.

use crate::lab::{Lab, names, workload};
use dray_proto::connect::Whom;
use dray_proto::tls::{Credentials, Peer};
use dray_proto::v1 as wire;
use std::os::unix::fs::PermissionsExt;
use tokio_stream::StreamExt;
use tonic::Code;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use wire::raft_client::RaftClient;
use wire::workloads_client::WorkloadsClient;

#[tokio::test(flavor = "multi_thread")]
async fn nodes_and_strangers_have_no_api() {
    let lab = Lab::start();
    let leader = lab.leader().await;
    for holder in ["dray://node/node-1", "dray://scheduler/2"] {
        let mut client = WorkloadsClient::new(lab.channel_as(holder, leader));
        let refused = client.apply(workload("redis", 1)).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{holder}");
    }
    let mut nameless = WorkloadsClient::new(lab.channel_as("https://example.org", leader));
    let refused = nameless.list(wire::ListRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    let stranger = Lab::prepare(1, 500);
    let files = stranger.certificate("dray://user/admin");
    let credentials = Credentials::load(&files).unwrap();
    let channel = credentials.channel(&lab.addresses[&leader].to_string()).unwrap();
    let refused = WorkloadsClient::new(channel).list(wire::ListRequest::default()).await.unwrap_err();
    assert!(matches!(refused.code(), Code::Unavailable | Code::Unknown), "{refused}");
    assert!(names(lab.admin(leader)).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn only_voters_speak_raft() {
    let lab = Lab::start();
    let leader = lab.leader().await;
    for holder in ["dray://node/node-1", "dray://user/admin", "dray://scheduler/9"] {
        let mut client = RaftClient::new(lab.channel_as(holder, leader));
        let refused = client.read_index(wire::ReadIndexRequest {}).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{holder}");
        let frame = tokio_stream::iter([wire::RaftFrame { message: vec![1].into() }]);
        assert_eq!(client.send(frame).await.unwrap_err().code(), Code::PermissionDenied, "{holder}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn root_needs_no_certificate_on_the_unix_socket() {
    let lab = Lab::start();
    let leader = lab.leader().await;
    let path = lab.unix_socket(leader);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let channel = Endpoint::from_shared(format!("unix:{}", path.display())).unwrap().connect().await.unwrap();
    WorkloadsClient::new(channel.clone()).apply(workload("redis", 1)).await.unwrap();
    let health = HealthClient::new(channel.clone()).check(HealthCheckRequest::default()).await.unwrap();
    assert_eq!(health.into_inner().status, 1);
    let mut raft = RaftClient::new(channel);
    assert_eq!(raft.read_index(wire::ReadIndexRequest {}).await.unwrap_err().code(), Code::Unimplemented);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_goes_on_across_a_failover() {
    let mut lab = Lab::start();
    let leader = lab.leader().await;
    let mut client = WorkloadsClient::new(lab.admin(leader));
    client.apply(workload("a", 1)).await.unwrap();
    let mut watch = client.watch(wire::WatchRequest::default()).await.unwrap().into_inner();
    let mut index = 0;
    while index == 0 {
        let response = watch.next().await.unwrap().unwrap();
        if matches!(response.object, Some(wire::watch_response::Object::Synced(true))) {
            index = response.index;
        }
    }
    client.apply(workload("b", 1)).await.unwrap();
    lab.kill(leader);
    let follower = lab.leader().await;
    let mut client = WorkloadsClient::new(lab.admin(follower));
    client.apply(workload("c", 1)).await.unwrap();
    let request = wire::WatchRequest { after_index: index, ..Default::default() };
    let mut watch = client.watch(request).await.unwrap().into_inner();
    let mut seen = Vec::new();
    while !seen.contains(&"c".to_owned()) {
        let response = watch.next().await.unwrap().unwrap();
        assert!(response.index >= index, "never back");
        index = response.index;
        if let Some(wire::watch_response::Object::Workload(workload)) = response.object {
            seen.push(workload.name);
        }
    }
    assert!(seen.contains(&"b".to_owned()), "never skips: {seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orderly_stop_hands_over_and_exits_well() {
    let mut lab = Lab::start();
    let leader = lab.leader().await;
    let follower = lab.follower().await;
    assert_eq!(lab.terminate(leader), Some(0));
    let began = std::time::Instant::now();
    WorkloadsClient::new(lab.admin(follower)).apply(workload("redis", 1)).await.unwrap();
    println!("written {:?} after an orderly stop", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_leads_to_nobody_else() {
    let lab = Lab::start();
    let leader = lab.leader().await;
    let credentials = Credentials::load(&lab.certificate("dray://user/admin")).unwrap();
    let address = lab.addresses[&leader].to_string();
    let list = async |whom| {
        let channel = credentials.channel_to(&address, whom).unwrap();
        WorkloadsClient::new(channel).list(wire::ListRequest::default()).await
    };
    list(Whom::Exactly(Peer::Scheduler(leader))).await.unwrap();
    list(Whom::AnyScheduler).await.unwrap();
    for other in [Peer::Scheduler(leader + 1), Peer::Node("node-1".parse().unwrap())] {
        let refused = list(Whom::Exactly(other)).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    }
}
