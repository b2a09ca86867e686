//! Sessions with agents.

use crate::agent::{FakeAgent, hello};
use crate::lab::{Lab, until, workload};
use dray_proto::status::{details, leader_hint};
use dray_proto::v1 as wire;
use std::time::Duration;
use tonic::{Code, Status};
use wire::agent_message::Message;
use wire::cluster_client::ClusterClient;
use wire::nodes_client::NodesClient;
use wire::tasks_client::TasksClient;
use wire::workloads_client::WorkloadsClient;

async fn task(lab: &Lab, id: &str) -> wire::Task {
    let leader = lab.leader().await;
    TasksClient::new(lab.admin(leader)).get(wire::GetRequest { name: id.into() }).await.unwrap().into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_placed_and_reported_as_running() {
    let lab = Lab::start();
    let mut agent = FakeAgent::attach(&lab, "node-1").await;
    assert_eq!(agent.welcome.cluster_cidr, "10.88.0.0/16");
    assert_eq!(agent.welcome.lease_ms, 1_000);
    let follower = lab.follower().await;
    WorkloadsClient::new(lab.admin(follower)).apply(workload("redis", 2)).await.unwrap();
    agent.until(|assignment| assignment.tasks.len() == 2).await;
    agent.beat(1).await.unwrap();
    agent.report_running().await;
    until("running tasks", || async {
        let task = task(&lab, "redis-1").await;
        (task.phase() == wire::TaskPhase::Running && task.node == "node-1").then_some(())
    })
    .await;
    let node = NodesClient::new(lab.admin(follower)).get(wire::GetRequest { name: "node-1".into() }).await;
    assert_eq!(node.unwrap().into_inner().tasks, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_node_is_lost_and_its_tasks_start_elsewhere() {
    let lab = Lab::start();
    let mut agents = [FakeAgent::attach(&lab, "node-1").await, FakeAgent::attach(&lab, "node-2").await];
    let leader = lab.leader().await;
    WorkloadsClient::new(lab.admin(leader)).apply(workload("redis", 1)).await.unwrap();
    let first =
        until("a place", || async { Some(task(&lab, "redis-0").await.node).filter(|n| !n.is_empty()) });
    let first = first.await;
    // The leader has to be in touch with half of the nodes that the silent one
    // knew, so the other was there before.
    let [one, two] = &mut agents;
    let (silent, other) = if first == "node-1" { (one, two) } else { (two, one) };
    silent.beat(1).await.unwrap();
    silent.until(|assignment| assignment.tasks.len() == 1).await;
    silent.report_running().await;
    for sequence in 1.. {
        other.beat(sequence).await.unwrap();
        if !other.assignment.tasks.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let moved = task(&lab, "redis-0").await;
    assert!(moved.node != first && moved.epoch == 2, "{moved:?}");
    assert!(silent.beat(2).await.is_err(), "a lost session never counts again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_session_of_a_node_ends_the_first() {
    let lab = Lab::start();
    let mut first = FakeAgent::attach(&lab, "node-1").await;
    let mut second = FakeAgent::attach(&lab, "node-1").await;
    second.beat(1).await.unwrap();
    assert_eq!(first.beat(1).await.unwrap_err().code(), Code::Aborted);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_leader_serves_agents_and_only_as_themselves() {
    let lab = Lab::start();
    let (leader, follower) = (lab.leader().await, lab.follower().await);
    let attach = async |scheduler, holder, says| -> Status {
        FakeAgent::attach_as(&lab, scheduler, holder, hello(says)).await.err().expect("it is refused")
    };
    let refused = attach(follower, "dray://node/node-1", "node-1").await;
    assert_eq!(details(&refused).reason, "NotLeader");
    assert_eq!(leader_hint(&refused), Some(lab.addresses[&leader].to_string().as_str()));
    for holder in ["dray://node/node-2", "dray://user/admin", "dray://scheduler/1"] {
        assert_eq!(attach(leader, holder, "node-1").await.code(), Code::PermissionDenied, "{holder}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_goes_on_with_the_next_leader() {
    let mut lab = Lab::start();
    let mut agent = FakeAgent::attach(&lab, "node-1").await;
    let leader = lab.leader().await;
    WorkloadsClient::new(lab.admin(leader)).apply(workload("redis", 1)).await.unwrap();
    agent.until(|assignment| assignment.tasks.len() == 1).await;
    agent.report_running().await;
    lab.kill(leader);
    assert!(agent.beat(9).await.is_err());
    let mut agent = FakeAgent::attach(&lab, "node-1").await;
    agent.beat(1).await.unwrap();
    assert_eq!(agent.assignment.tasks.len(), 1);
    assert_eq!(task(&lab, "redis-0").await.epoch, 1, "it was not touched");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_was_asleep_extends_no_lease() {
    let lab = Lab::start();
    let mut agent = FakeAgent::attach(&lab, "node-1").await;
    agent.beat(1).await.unwrap();
    let sleeper = lab.leader().await;
    lab.signal(sleeper, "STOP");
    let mut others = lab.ids();
    others.retain(|id| *id != sleeper);
    until("another leader", || async {
        let status = ClusterClient::new(lab.admin(others[0])).status(wire::StatusRequest {}).await.ok()?;
        status.into_inner().schedulers.iter().any(|s| s.leader && s.id != sleeper).then_some(())
    })
    .await;
    // It finds this heartbeat when it wakes up, and still believes that it leads.
    agent.say(Message::Heartbeat(wire::Heartbeat { sequence: 2 })).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    lab.signal(sleeper, "CONT");
    let refused = agent.beat(2).await.unwrap_err();
    assert_eq!(details(&refused).reason, "NotLeader", "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_without_a_majority_acknowledges_nothing() {
    let lab = Lab::start();
    let mut agent = FakeAgent::attach(&lab, "node-1").await;
    let leader = lab.leader().await;
    let followers: Vec<u64> = lab.ids().into_iter().filter(|id| *id != leader).collect();
    followers.iter().for_each(|id| lab.signal(*id, "STOP"));
    let refused = agent.beat(1).await.unwrap_err();
    assert_eq!(details(&refused).reason, "NotLeader", "it steps down: {refused:?}");
    let mut client = WorkloadsClient::new(lab.admin(leader));
    let refused = client.apply(workload("redis", 0)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    followers.iter().for_each(|id| lab.signal(*id, "CONT"));
    until("a majority", || async { client.clone().apply(workload("redis", 0)).await.ok() }).await;
}
