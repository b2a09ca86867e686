//! Whether a local cluster works: what its processes do and what its schedulers say about it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use dray_proto::v1::cluster_client::ClusterClient;
use dray_proto::v1::nodes_client::NodesClient;
use dray_proto::v1::{ListRequest, Liveness, StatusRequest, StatusResponse};
use tonic::transport::{Channel, Endpoint};

use super::layout::{Layout, Member, Role};
use super::process::Process;
use super::up::process_record;

/// How long one scheduler may take to answer.
const ANSWER: Duration = Duration::from_secs(2);

/// Between two looks.
const POLL: Duration = Duration::from_millis(50);

/// Lines of a dead daemon's log that are worth showing.
const LAST_LINES: usize = 15;

/// How a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Health {
    /// A scheduler that leads.
    Leader,
    /// A scheduler that follows.
    Follower,
    /// A node that the schedulers hear.
    Ready,
    /// It runs, but does not do its work yet, or not any more.
    NotReady,
    /// Its process does not run.
    Dead,
    /// It has no process.
    None,
}

impl Health {
    /// Whether nothing is missing.
    pub(crate) fn is_good(self) -> bool {
        match self {
            Self::Leader | Self::Follower | Self::Ready | Self::None => true,
            Self::NotReady | Self::Dead => false,
        }
    }

    /// For people and programs.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Leader => "leader",
            Self::Follower => "follower",
            Self::Ready => "ready",
            Self::NotReady => "not ready",
            Self::Dead => "dead",
            Self::None => "-",
        }
    }
}

/// What the schedulers say.
#[derive(Debug, Default)]
struct Said {
    /// Each scheduler's own answer, by number.
    status: BTreeMap<u8, StatusResponse>,
    /// Names of the nodes that the leader hears.
    nodes: Vec<String>,
}

/// Looks at every member once.
pub(crate) async fn look(layout: &Layout) -> BTreeMap<Member, Health> {
    let said = ask_all(layout).await;
    layout.members().into_iter().map(|member| (member, health(layout, member, &said))).collect()
}

/// Waits until every member is well; fails if one dies meanwhile or the time is up. Tells `say` who is
/// missing.
pub(crate) async fn wait(layout: &Layout, patience: Duration, say: &mut dyn FnMut(String)) -> Result<()> {
    let deadline = Instant::now() + patience;
    loop {
        let health = look(layout).await;
        if let Some((dead, _)) = health.iter().find(|(_, health)| **health == Health::Dead) {
            bail!(
                "{dead} has ended; the end of {}:\n{}",
                layout.log(*dead).display(),
                last_lines(&layout.log(*dead))
            );
        }
        let missing: Vec<String> = health
            .iter()
            .filter(|(_, health)| !health.is_good())
            .map(|(member, _)| member.to_string())
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("not ready in time: {}; see {}", missing.join(", "), layout.dir.join("logs").display());
        }
        say(format!("waiting for {}", missing.join(", ")));
        tokio::time::sleep(POLL).await;
    }
}

fn health(layout: &Layout, member: Member, said: &Said) -> Health {
    if !member.has_process() {
        return Health::None;
    }
    if !Process::load(&process_record(layout, member)).is_some_and(Process::is_alive) {
        return Health::Dead;
    }
    match member.role {
        Role::Scheduler => scheduler_health(member.number, said),
        Role::Node | Role::Client if said.nodes.contains(&member.to_string()) => Health::Ready,
        Role::Node | Role::Client => Health::NotReady,
    }
}

/// A scheduler is well if it answers and knows a leader.
fn scheduler_health(number: u8, said: &Said) -> Health {
    let Some(status) = said.status.get(&number) else { return Health::NotReady };
    match status.schedulers.iter().find(|scheduler| scheduler.leader) {
        Some(leader) if leader.id == u64::from(number) => Health::Leader,
        Some(_) => Health::Follower,
        None => Health::NotReady,
    }
}

async fn ask_all(layout: &Layout) -> Said {
    let mut said = Said::default();
    for number in 1..=layout.schedulers {
        let Ok(Ok((status, nodes))) =
            tokio::time::timeout(ANSWER, ask(&layout.socket(Member::scheduler(number)))).await
        else {
            continue;
        };
        said.status.insert(number, status);
        said.nodes = nodes;
    }
    said
}

/// A scheduler's view of its cluster, and the names of the nodes it hears.
async fn ask(socket: &Path) -> Result<(StatusResponse, Vec<String>)> {
    let channel: Channel = Endpoint::from_shared(format!("unix://{}", socket.display()))?.connect().await?;
    let status = ClusterClient::new(channel.clone()).status(StatusRequest {}).await?.into_inner();
    let nodes = NodesClient::new(channel).list(ListRequest::default()).await?.into_inner().nodes;
    let heard = nodes.into_iter().filter(|node| node.liveness() == Liveness::Ready);
    Ok((status, heard.map(|node| node.name).collect()))
}

/// The end of a log, for an error message.
fn last_lines(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use dray_proto::v1::SchedulerStatus;

    fn answer(leader: Option<u64>) -> StatusResponse {
        let scheduler = |id| SchedulerStatus { id, leader: Some(id) == leader, ..SchedulerStatus::default() };
        StatusResponse { schedulers: (1..=3).map(scheduler).collect(), ..StatusResponse::default() }
    }

    #[test]
    fn a_scheduler_is_what_it_says_itself() {
        let check = |number: u8, status: Option<StatusResponse>, want: Health| {
            let status = status.map(|status| (number, status)).into_iter().collect();
            assert_eq!(scheduler_health(number, &Said { status, nodes: Vec::new() }), want);
        };
        check(1, None, Health::NotReady);
        check(1, Some(answer(None)), Health::NotReady);
        check(1, Some(answer(Some(1))), Health::Leader);
        check(1, Some(answer(Some(2))), Health::Follower);
    }

    #[tokio::test]
    async fn a_cluster_that_was_never_started_is_dead() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout { dir: dir.path().to_owned(), schedulers: 1, nodes: 1 };
        let health: Vec<Health> = look(&layout).await.into_values().collect();
        assert_eq!(health, [Health::Dead, Health::Dead, Health::None]);
        let error = wait(&layout, Duration::from_secs(5), &mut |_| ()).await.unwrap_err();
        assert!(error.to_string().starts_with("scheduler-1 has ended"), "{error}");
    }

    #[test]
    fn the_end_of_a_log_is_its_last_lines() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        fs::write(&log, (0..100).map(|n| format!("{n}\n")).collect::<String>()).unwrap();
        assert!(last_lines(&log).starts_with("85\n") && last_lines(&log).ends_with("99"));
    }
}
