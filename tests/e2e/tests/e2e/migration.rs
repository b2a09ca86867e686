//! A container moves while a client talks to it, and whatever fails on the
//! way: the client sees a pause, never an error, and the counter never goes
//! back.

use crate::THREE;
use anyhow::{Context, Result, bail, ensure};
use dray_e2e::client::Counting;
use dray_e2e::cluster::{Cluster, with};
use dray_e2e::faults::{Action, Point};
use dray_e2e::manifest::{redis, redis_example, shell};
use dray_e2e::view::{Migration, Task};
use std::process::Command;
use std::time::Duration;

const PATIENT: Duration = Duration::from_secs(30);

/// Redis on one node, a second node to move it to, and a client on the third.
struct Scene {
    source: String,
    target: String,
    watcher: String,
    before: Task,
    client: Counting,
}

impl Scene {
    /// Starts Redis and a client.
    fn set(cluster: &Cluster, manifest: &str) -> Result<Scene> {
        cluster.import("redis")?;
        cluster.apply(manifest)?;
        let before = cluster.running("redis-0")?;
        let source = before.node.clone();
        let others: Vec<String> = cluster.node_names().into_iter().filter(|node| *node != source).collect();
        let [target, watcher] = others.try_into().map_err(|others| anyhow::anyhow!("nodes: {others:?}"))?;
        let client = cluster.count("redis-0", &watcher)?;
        Ok(Scene { source, target, watcher, before, client })
    }

    /// The task runs, as the same processes, on the node where the migration's end says; the client goes on.
    fn outcome(&self, cluster: &Cluster, migration: &Migration) -> Result<()> {
        self.client.goes_on(PATIENT)?;
        let task = cluster.running("redis-0")?;
        let (node, epoch) = match migration.phase.as_str() {
            "cleaned" => (&self.target, self.before.epoch + 1),
            "aborted" => (&self.source, self.before.epoch),
            other => bail!("{} ended as {other}", migration.name),
        };
        ensure!(
            task.node == *node,
            "{} {}, but the task is on {}",
            migration.name,
            migration.phase,
            task.node
        );
        ensure!(task.epoch == epoch, "epoch {} instead of {epoch}", task.epoch);
        ensure!(task.restarts == 0, "{} restarts", task.restarts);
        ensure!(task.ip == self.before.ip, "its address went from {} to {}", self.before.ip, task.ip);
        cluster.audit()?;
        self.client.goes_on(PATIENT)
    }

    /// The client saw no error.
    fn end(self) -> Result<()> {
        let tally = self.client.stop();
        ensure!(tally.errors.is_empty(), "the client: {:?}", tally.errors);
        ensure!(
            tally.last == tally.requests,
            "{} replies, but the counter says {}",
            tally.requests,
            tally.last
        );
        Ok(())
    }
}

fn expect(migration: &Migration, phase: &str) -> Result<()> {
    ensure!(migration.phase == phase, "{} {}: {}", migration.name, migration.phase, migration.failure);
    Ok(())
}

#[test]
fn redis_moves_there_and_back_under_a_client() -> Result<()> {
    with("there-and-back", THREE, |cluster| {
        let scene = Scene::set(cluster, &redis_example()?)?;
        for (target, epoch) in
            [(&scene.target, 1), (&scene.source, 2), (&scene.watcher, 3), (&scene.source, 4)]
        {
            let migration = cluster.moved("redis-0", target)?;
            ensure!(migration.freeze_us > 0 && migration.bytes > 0, "no figures: {migration:?}");
            scene.client.goes_on(PATIENT)?;
            let task = cluster.task("redis-0")?;
            ensure!(task.epoch == scene.before.epoch + epoch, "epoch {} at {target}", task.epoch);
            ensure!(task.ip == scene.before.ip && task.restarts == 0, "{task:?}");
            cluster.audit()?;
        }
        scene.end()
    })
}

#[test]
fn the_leader_is_killed_during_a_migration() -> Result<()> {
    with("leader-killed", THREE, |cluster| {
        let scene = Scene::set(cluster, &redis(1, "30s"))?;
        let held = cluster.failpoint(&scene.source, Point::SourceFrozen, Action::Pause)?;
        let name = cluster.migrate("redis-0", &scene.target)?;
        held.reached()?;
        let leader = cluster.leader()?;
        cluster.kill(&leader)?;
        drop(held);
        scene.outcome(cluster, &cluster.migration_over(&name)?)?;
        cluster.up()?;
        scene.end()
    })
}

/// Holds a migration at a point, kills that side's agent there, starts it again, and sees what becomes of it.
fn agent_killed_at(cluster: &Cluster, scene: &Scene, side: &str, point: Point) -> Result<Migration> {
    let node = if side == "source" { &scene.source } else { &scene.target };
    let held = cluster.failpoint(node, point, Action::Pause)?;
    let name = cluster.migrate("redis-0", &scene.target)?;
    held.reached().with_context(|| format!("{side} at {point:?}"))?;
    cluster.kill(node)?;
    // The agent's successor is not to be held.
    drop(held);
    cluster.up()?;
    cluster.migration_over(&name)
}

#[test]
fn the_targets_agent_is_killed_before_the_restore() -> Result<()> {
    with("target-killed-early", THREE, |cluster| {
        let scene = Scene::set(cluster, &redis(1, "15s"))?;
        let migration = agent_killed_at(cluster, &scene, "target", Point::TargetReceived)?;
        expect(&migration, "aborted")?;
        scene.outcome(cluster, &migration)?;
        cluster.moved("redis-0", &scene.target).context("a second try")?;
        scene.end()
    })
}

#[test]
fn the_targets_agent_is_killed_after_the_restore() -> Result<()> {
    with("target-killed-late", THREE, |cluster| {
        let scene = Scene::set(cluster, &redis(1, "15s"))?;
        let migration = agent_killed_at(cluster, &scene, "target", Point::TargetRestored)?;
        scene.outcome(cluster, &migration)?;
        scene.end()
    })
}

#[test]
fn the_targets_agent_is_killed_after_the_commit() -> Result<()> {
    with("target-killed-committed", THREE, |cluster| {
        let scene = Scene::set(cluster, &redis(1, "15s"))?;
        let migration = agent_killed_at(cluster, &scene, "target", Point::TargetCommitted)?;
        expect(&migration, "cleaned")?;
        scene.outcome(cluster, &migration)?;
        scene.end()
    })
}

#[test]
fn the_sources_agent_is_killed_while_frozen() -> Result<()> {
    with("source-killed", THREE, |cluster| {
        let scene = Scene::set(cluster, &redis(1, "15s"))?;
        let migration = agent_killed_at(cluster, &scene, "source", Point::SourceFrozen)?;
        expect(&migration, "aborted")?;
        scene.outcome(cluster, &migration)?;
        cluster.moved("redis-0", &scene.target).context("a second try")?;
        scene.end()
    })
}

#[test]
fn the_sources_agent_is_killed_after_the_commit() -> Result<()> {
    with("source-killed-committed", THREE, |cluster| {
        let scene = Scene::set(cluster, &redis(1, "15s"))?;
        let migration = agent_killed_at(cluster, &scene, "source", Point::SourceCommitted)?;
        expect(&migration, "cleaned")?;
        scene.outcome(cluster, &migration)?;
        scene.end()
    })
}

/// Lets no packet of one node's underlay address into another node, while it lives.
struct Cut {
    net: String,
}

impl Cut {
    fn between(cluster: &Cluster, node: &str, other: &str) -> Result<Cut> {
        let number =
            other.strip_prefix("node-").and_then(|n| n.parse::<u8>().ok()).context("a node's number")?;
        let cut = Cut { net: format!("--net={}", cluster.netns(node)?.display()) };
        cut.nft(&format!(
            "table inet cut {{ chain in {{ type filter hook input priority -300; ip saddr 10.77.0.{} drop; }}; }}",
            10 + number
        ))?;
        Ok(cut)
    }

    fn nft(&self, rules: &str) -> Result<()> {
        let output = Command::new("nsenter").args([&self.net, "nft", rules]).output().context("nft")?;
        ensure!(output.status.success(), "nft {rules}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        if let Err(error) = self.nft("delete table inet cut") {
            eprintln!("{error:#}");
        }
    }
}

#[test]
fn the_network_is_cut_during_the_transfer() -> Result<()> {
    with("cut", THREE, |cluster| {
        let scene = Scene::set(cluster, &redis(1, "8s"))?;
        let held = cluster.failpoint(&scene.source, Point::SourceSending, Action::Pause)?;
        let name = cluster.migrate("redis-0", &scene.target)?;
        held.reached()?;
        let cut = Cut::between(cluster, &scene.target, &scene.source)?;
        drop(held);
        let migration = cluster.migration_over(&name)?;
        expect(&migration, "aborted")?;
        scene.client.goes_on(PATIENT).context("while the nodes are still cut off from each other")?;
        drop(cut);
        scene.outcome(cluster, &migration)?;
        cluster.moved("redis-0", &scene.target).context("a second try")?;
        scene.end()
    })
}

#[test]
fn a_step_that_fails_on_either_side_leaves_the_task_as_it_was() -> Result<()> {
    with("steps-fail", THREE, |cluster| {
        let scene = Scene::set(cluster, &redis(1, "20s"))?;
        for (node, point) in [
            (&scene.target, Point::TargetPrepared),
            (&scene.source, Point::SourceFrozen),
            (&scene.source, Point::SourceSending),
            (&scene.target, Point::TargetReceived),
            (&scene.target, Point::TargetRestored),
        ] {
            let failing = cluster.failpoint(node, point, Action::Fail)?;
            let name = cluster.migrate("redis-0", &scene.target)?;
            let migration = cluster.migration_over(&name)?;
            failing.reached().with_context(|| format!("{point:?}"))?;
            expect(&migration, "aborted").with_context(|| format!("{point:?}"))?;
            ensure!(migration.failure.contains("failpoint"), "{point:?}: {:?}", migration.failure);
            scene.outcome(cluster, &migration).with_context(|| format!("{point:?}"))?;
        }
        cluster.moved("redis-0", &scene.target).context("after all failures")?;
        scene.end()
    })
}

/// Holds a deleted file that is larger than CRIU carries along.
const UNDUMPABLE: &str = "dd if=/dev/zero of=/tmp/big bs=1M count=300 2>/dev/null; exec 3</tmp/big; rm /tmp/big; \
    trap 'exit 0' TERM; n=0; while true; do n=$((n+1)); echo count $n; sleep 0.1; done";

#[test]
fn a_task_that_cannot_be_dumped_stays_and_says_why() -> Result<()> {
    with("undumpable", THREE, |cluster| {
        cluster.import("busybox")?;
        cluster.apply(&shell("held", 1, UNDUMPABLE))?;
        let before = cluster.running("held-0")?;
        counts_on(cluster, "held-0")?;
        let pids = cluster.processes_of("held-0")?;
        let target = cluster.node_names().into_iter().find(|node| *node != before.node).context("nodes")?;
        let migration = cluster.migration_over(&cluster.migrate("held-0", &target)?)?;
        expect(&migration, "aborted")?;
        ensure!(migration.failure.contains("ghost"), "{:?} doesn't name the file", migration.failure);
        let after = cluster.task("held-0")?;
        ensure!(after.node == before.node && after.epoch == before.epoch && after.restarts == 0, "{after:?}");
        let init = |pids: &std::collections::BTreeMap<_, Vec<i32>>| {
            pids.values().next().and_then(|p| p.iter().min().copied())
        };
        ensure!(init(&pids) == init(&cluster.processes_of("held-0")?), "not the same processes");
        counts_on(cluster, "held-0")
    })
}

/// The task's log goes on growing.
fn counts_on(cluster: &Cluster, task: &str) -> Result<()> {
    let last = || -> Result<u64> {
        let log = cluster.ctl(&["logs", task, "--tail", "1"])?;
        log.trim().rsplit(' ').next().and_then(|n| n.parse().ok()).with_context(|| format!("log: {log:?}"))
    };
    let before = dray_e2e::wait::until("the first line", PATIENT, || last().map(Some))?;
    dray_e2e::wait::settled("the log to grow", PATIENT, || {
        let now = last()?;
        ensure!(now > before, "{now} after {before}");
        Ok(())
    })
}
