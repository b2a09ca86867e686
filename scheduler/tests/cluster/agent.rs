//! An agent that only talks.

use crate::lab::{Lab, PATIENCE, until};
use dray_model::assignment::{Assignment, AssignmentDiff};
use dray_proto::v1 as wire;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use wire::agent_message::Message as Said;
use wire::agent_session_client::AgentSessionClient;
use wire::images_client::ImagesClient;
use wire::scheduler_message::Message as Heard;

/// An attached agent that only talks.
pub(crate) struct FakeAgent {
    say: mpsc::Sender<wire::AgentMessage>,
    hear: Streaming<wire::SchedulerMessage>,
    pub(crate) welcome: wire::Welcome,
    pub(crate) assignment: Assignment,
}

/// What node `name` says first.
pub(crate) fn hello(name: &str) -> wire::Hello {
    wire::Hello {
        name: name.into(),
        boot_id: "boot".into(),
        capacity: Some(wire::Quantities {
            cpu_millis: Some(4_000),
            memory_bytes: Some(4 << 30),
            pids: Some(10_000),
        }),
        peer_address: "127.0.0.1:7100".into(),
        underlay_ip: "127.0.0.1".into(),
        capabilities: Some(wire::Capabilities { criu: "4.2.1".into(), ..Default::default() }),
        ..Default::default()
    }
}

impl FakeAgent {
    /// Attaches as `holder`, saying `hello`.
    pub(crate) async fn attach_as(
        lab: &Lab,
        scheduler: u64,
        holder: &str,
        hello: wire::Hello,
    ) -> Result<FakeAgent, Status> {
        let (say, said) = mpsc::channel(16);
        say.send(wire::AgentMessage { message: Some(Said::Hello(hello)) }).await.unwrap();
        let mut client = AgentSessionClient::new(lab.channel_as(holder, scheduler));
        let hear = client.attach(ReceiverStream::new(said)).await?.into_inner();
        let mut agent = FakeAgent { say, hear, welcome: Default::default(), assignment: Default::default() };
        match agent.next().await? {
            Heard::Welcome(welcome) => agent.welcome = welcome,
            other => panic!("{other:?} came before the welcome"),
        }
        match agent.next().await? {
            Heard::Full(full) => agent.assignment = full.try_into().unwrap(),
            other => panic!("{other:?} came before the full assignment"),
        }
        Ok(agent)
    }

    /// Attaches a node to the leader.
    pub(crate) async fn attach(lab: &Lab, name: &str) -> FakeAgent {
        FakeAgent::attach_with(lab, hello(name)).await
    }

    /// Attaches a node to the leader, saying `hello`.
    pub(crate) async fn attach_with(lab: &Lab, hello: wire::Hello) -> FakeAgent {
        let (leader, name) = (lab.leader().await, hello.name.clone());
        let holder = format!("dray://node/{name}");
        let agent = FakeAgent::attach_as(lab, leader, &holder, hello).await.unwrap();
        agent.report_image().await;
        until("the image to be known", || async {
            let list = ImagesClient::new(lab.admin(leader)).list(wire::ListRequest::default()).await.ok()?;
            list.into_inner().images.iter().any(|i| i.nodes.contains(&name)).then_some(())
        })
        .await;
        agent
    }

    /// Says that the node has the image that [`crate::lab::workload`] needs.
    async fn report_image(&self) {
        let digest = format!("sha256:{}", "0".repeat(64));
        let image = wire::ImageReport { reference: "redis:7".into(), digest, size_bytes: 1, removed: false };
        self.say(Said::Report(wire::Report { images: vec![image], ..Default::default() })).await;
    }

    pub(crate) async fn say(&self, message: Said) {
        // A session that is over says so when it is listened to.
        let _ = self.say.send(wire::AgentMessage { message: Some(message) }).await;
    }

    /// What the scheduler says next.
    pub(crate) async fn next(&mut self) -> Result<Heard, Status> {
        let next = timeout(PATIENCE, self.hear.message()).await.expect("the scheduler says something")?;
        Ok(next.ok_or_else(|| Status::unknown("the session ended"))?.message.unwrap())
    }

    /// Takes diffs until the assignment is as wished.
    pub(crate) async fn until(&mut self, wish: impl Fn(&Assignment) -> bool) {
        while !wish(&self.assignment) {
            if let Heard::Diff(diff) = self.next().await.unwrap() {
                self.assignment.apply(AssignmentDiff::try_from(diff).unwrap()).unwrap();
            }
        }
    }

    /// Sends a heartbeat and waits for its acknowledgement.
    pub(crate) async fn beat(&mut self, sequence: u64) -> Result<(), Status> {
        self.say(Said::Heartbeat(wire::Heartbeat { sequence })).await;
        loop {
            match self.next().await? {
                Heard::HeartbeatAck(ack) if ack.sequence >= sequence => return Ok(()),
                Heard::Diff(diff) => self.assignment.apply(AssignmentDiff::try_from(diff).unwrap()).unwrap(),
                Heard::HeartbeatAck(_) | Heard::Welcome(_) | Heard::Full(_) => {}
            }
        }
    }

    /// Says that every task it was assigned runs.
    pub(crate) async fn report_running(&self) {
        let tasks = self.assignment.tasks.values().map(|task| wire::TaskReport {
            task: task.task.to_string(),
            epoch: task.epoch.0,
            phase: wire::TaskPhase::Running.into(),
            since_ms: 1,
            ..Default::default()
        });
        let report = wire::Report { tasks: tasks.collect(), ..Default::default() };
        self.say(Said::Report(report)).await;
    }
}
