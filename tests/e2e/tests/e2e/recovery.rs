//! Daemons and nodes that die, and nodes that are emptied.

use crate::THREE;
use anyhow::{Context, Result, ensure};
use dray_e2e::cluster::{Cluster, with};
use dray_e2e::manifest::{COUNT, redis, shell};
use dray_e2e::wait;
use std::time::{Duration, Instant};

/// A lost node's tasks run elsewhere after the node's timeout and its lease.
const FAILOVER: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(30);

#[test]
fn an_agent_that_is_killed_adopts_its_containers() -> Result<()> {
    with("agent-killed", THREE, |cluster| {
        cluster.import("redis")?;
        cluster.apply(&redis(3, "20s"))?;
        let task = cluster.running("redis-0")?;
        let watcher = cluster.node_names().into_iter().find(|node| *node != task.node).context("nodes")?;
        let client = cluster.count("redis-0", &watcher)?;
        let before = cluster.processes_of("redis-0")?;
        for _ in 0..3 {
            cluster.kill(&task.node)?;
            client.goes_on(SOON).context("without the agent")?;
            cluster.up()?;
            ensure!(cluster.processes_of("redis-0")? == before, "not the same processes");
        }
        cluster.audit()?;
        ensure!(cluster.task("redis-0")?.restarts == 0, "it was restarted");
        cluster.moved("redis-0", &watcher).context("an adopted container moves")?;
        client.goes_on(SOON)?;
        let tally = client.stop();
        ensure!(tally.errors.is_empty(), "the client: {:?}", tally.errors);
        Ok(())
    })
}

#[test]
fn all_schedulers_are_killed_and_restarted() -> Result<()> {
    with("schedulers-killed", THREE, |cluster| {
        cluster.import("redis")?;
        cluster.apply(&redis(3, "20s"))?;
        for number in 0..3 {
            cluster.running(&format!("redis-{number}"))?;
        }
        let tasks = cluster.tasks()?;
        let task = &tasks[0];
        let client = cluster.count(&task.name, &task.node)?;
        for scheduler in ["scheduler-1", "scheduler-2", "scheduler-3"] {
            cluster.kill(scheduler)?;
        }
        // Longer than any lease: containers must not notice that nobody is there.
        let outage = Instant::now();
        while outage.elapsed() < Duration::from_secs(12) {
            client.goes_on(Duration::from_secs(2)).context("without schedulers")?;
        }
        cluster.up()?;
        let placed = |tasks: &[dray_e2e::view::Task]| -> Vec<_> {
            tasks
                .iter()
                .map(|task| (task.name.clone(), task.node.clone(), task.epoch, task.restarts))
                .collect()
        };
        ensure!(placed(&cluster.tasks()?) == placed(&tasks), "an acknowledged state was lost");
        cluster.ctl(&["scale", "workload", "redis", "--replicas", "4", "--wait", "--timeout", "30s"])?;
        client.goes_on(SOON)?;
        let tally = client.stop();
        ensure!(tally.errors.is_empty(), "the client: {:?}", tally.errors);
        Ok(())
    })
}

#[test]
fn the_tasks_of_a_dead_node_run_elsewhere() -> Result<()> {
    with("node-dead", THREE, |cluster| {
        cluster.import("busybox")?;
        cluster.apply(&shell("counter", 3, COUNT))?;
        let before: Vec<_> =
            (0..3).map(|slot| cluster.running(&format!("counter-{slot}"))).collect::<Result<_>>()?;
        let dead = before[0].node.clone();
        cluster.power_off(&dead)?;
        wait::settled("everything to run on the other nodes", FAILOVER, || {
            for task in cluster.tasks()? {
                ensure!(task.phase == "running" && task.node != dead, "{task:?}");
            }
            Ok(())
        })?;
        for old in &before {
            let new = cluster.task(&old.name)?;
            ensure!(new.ip == old.ip, "{} has another address", old.name);
            ensure!((new.node == old.node) == (new.epoch == old.epoch), "{old:?} became {new:?}");
        }
        // It comes back, with containers on its disk that it may no longer run.
        cluster.up()
    })
}

#[test]
fn a_node_that_is_cut_off_stops_before_others_take_over() -> Result<()> {
    with("node-cut-off", THREE, |cluster| {
        cluster.import("busybox")?;
        cluster.apply(&shell("counter", 1, COUNT))?;
        let home = cluster.running("counter-0")?.node;
        cluster.ctl(&["local", "cut", &home])?;
        wait::settled("the task to run elsewhere", FAILOVER, || {
            let running = cluster.runs_on("counter-0")?;
            assert!(running.len() <= 1, "it runs on {running:?} at once");
            ensure!(running.first().is_some_and(|node| *node != home), "it runs on {running:?}");
            Ok(())
        })?;
        cluster.ctl(&["local", "join", &home])?;
        for _ in 0..40 {
            let running = cluster.runs_on("counter-0")?;
            ensure!(running.len() <= 1, "it runs on {running:?} at once");
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    })
}

#[test]
fn draining_moves_everything_without_a_restart() -> Result<()> {
    with("drain", THREE, |cluster| {
        cluster.import("redis")?;
        cluster.apply(&redis(4, "20s"))?;
        let tasks: Vec<_> =
            (0..4).map(|slot| cluster.running(&format!("redis-{slot}"))).collect::<Result<_>>()?;
        let drained = tasks[0].node.clone();
        let watcher = cluster.node_names().into_iter().find(|node| *node != drained).context("nodes")?;
        let clients: Vec<_> =
            tasks.iter().map(|task| cluster.count(&task.name, &watcher)).collect::<Result<_>>()?;
        cluster.ctl(&["drain", &drained, "--wait", "--timeout", "60s"])?;
        for task in cluster.tasks()? {
            ensure!(task.node != drained && task.restarts == 0, "{task:?}");
        }
        stays_empty(cluster, &drained)?;
        for client in clients {
            client.goes_on(SOON)?;
            let tally = client.stop();
            ensure!(tally.errors.is_empty(), "a client: {:?}", tally.errors);
        }
        cluster.ctl(&["uncordon", &drained]).map(drop)
    })
}

/// A cordoned node takes no new tasks.
fn stays_empty(cluster: &Cluster, node: &str) -> Result<()> {
    cluster.ctl(&["scale", "workload", "redis", "--replicas", "6", "--wait", "--timeout", "30s"])?;
    let nodes = cluster.nodes()?;
    let drained = nodes.iter().find(|n| n.name == node).context("the node is gone")?;
    ensure!(drained.cordoned && drained.tasks == 0, "{drained:?}");
    Ok(())
}
