//! The main job from start to end: a cluster, Redis in it, a client on one
//! connection, a migration there and back, and a dead leader in between.

use anyhow::{Context, Result, ensure};
use comfy_table::{Table, presets};
use dray_e2e::client::{Tally, now_us};
use dray_e2e::cluster::{Cluster, Size, repository, with};
use dray_e2e::interrupt;
use dray_e2e::view::Migration;
use std::process::ExitCode;
use std::time::{Duration, Instant};

const NAME: &str = "demo";
const SIZE: Size = Size { schedulers: 3, nodes: 3 };
const PATIENT: Duration = Duration::from_secs(30);
/// The client counts so long before, between and after.
const UNDISTURBED: Duration = Duration::from_secs(2);
const PHASES: [&str; 6] = ["reserved", "prepared", "frozen", "committed", "resumed", "cleaned"];

/// One migration, and what the client saw of it.
struct Moved {
    migration: Migration,
    from_us: u64,
    until_us: u64,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nThe demo failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    interrupt::takes_down(NAME)?;
    let began = Instant::now();
    let say = |text: &str| println!("[{:5.1} s] {text}", began.elapsed().as_secs_f32());
    say("clusterctl local up: 3 schedulers, 3 nodes");
    with(NAME, SIZE, |cluster| show(cluster, &say))?;
    say("cleaned up: no process, namespace, mount, cgroup, link or address is left");
    Ok(())
}

/// The whole story.
fn show(cluster: &mut Cluster, say: &dyn Fn(&str)) -> Result<()> {
    let (client, home, away) = start(cluster, say)?;
    let mut moves = Vec::new();
    std::thread::sleep(UNDISTURBED);
    moves.push(migrate(cluster, &away, say)?);
    client.goes_on(PATIENT)?;

    let leader = cluster.leader()?;
    let killed = Instant::now();
    cluster.kill(&leader)?;
    let next = cluster.leader_after(&leader)?;
    let took = killed.elapsed().as_secs_f32();
    say(&format!("kill -9 {leader}, which led; {next} leads after {took:.1} s"));
    client.goes_on(PATIENT)?;

    moves.push(migrate(cluster, &home, say)?);
    client.goes_on(PATIENT)?;
    std::thread::sleep(UNDISTURBED);
    let tally = client.stop();
    cluster.up().context("start the killed scheduler again")?;
    println!("\n{}\n{}\n", table(&moves, &tally), summary(&tally));
    judge(&moves, &tally)
}

/// Redis runs and a client on a third node counts. Gives the client, Redis' node and the one to move it to.
fn start(cluster: &Cluster, say: &dyn Fn(&str)) -> Result<(dray_e2e::client::Counting, String, String)> {
    say("clusterctl image import redis.tar, busybox.tar");
    cluster.import("redis")?;
    cluster.import("busybox")?;
    say("clusterctl apply -f examples/redis.yaml");
    let manifest = repository().join("examples/redis.yaml");
    cluster.ctl(&["apply", "-f", &manifest.to_string_lossy()])?;
    let task = cluster.running("redis-0")?;
    let mut others = cluster.node_names().into_iter().filter(|node| *node != task.node);
    let (away, watcher) = (others.next().context("a second node")?, others.next().context("a third node")?);
    let client = cluster.count("redis-0", &watcher)?;
    say(&format!(
        "redis-0 runs on {} as {}; a client on {watcher} counts over one connection",
        task.node, task.ip
    ));
    Ok((client, task.node, away))
}

fn migrate(cluster: &Cluster, target: &str, say: &dyn Fn(&str)) -> Result<Moved> {
    say(&format!("clusterctl migrate redis-0 --to {target}"));
    let from_us = now_us();
    let migration = cluster.moved("redis-0", target)?;
    Ok(Moved { migration, from_us, until_us: now_us() })
}

/// A column per migration: how long each phase took, and its figures.
fn table(moves: &[Moved], tally: &Tally) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    let row = |name: &str, cell: &dyn Fn(&Moved) -> String| -> Vec<String> {
        std::iter::once(name.to_owned()).chain(moves.iter().map(cell)).collect()
    };
    table.set_header(row("migration", &|m| {
        format!("{} {} → {}", m.migration.name, m.migration.source, m.migration.target)
    }));
    for pair in PHASES.windows(2) {
        let took = |m: &Moved| between(&m.migration, pair[0], pair[1]).unwrap_or_else(|| "-".into());
        table.add_row(row(&format!("{} → {}", pair[0], pair[1]), &took));
    }
    table.add_row(row("freeze", &|m| millis(m.migration.freeze_us)));
    table
        .add_row(row("stall seen by the client", &|m| millis(tally.longest_stall_us(m.from_us, m.until_us))));
    table.add_row(row("memory", &|m| mebibytes(m.migration.memory_bytes)));
    table.add_row(row("bytes moved", &|m| mebibytes(m.migration.bytes)));
    table
}

fn summary(tally: &Tally) -> String {
    format!(
        "requests {} over 1 connection, counter {}, errors {}",
        tally.requests,
        tally.last,
        tally.errors.len()
    )
}

/// Whether everything was as promised.
fn judge(moves: &[Moved], tally: &Tally) -> Result<()> {
    ensure!(tally.errors.is_empty(), "the client saw errors: {}", tally.errors.join("; "));
    ensure!(tally.last == tally.requests, "{} replies, but the counter says {}", tally.requests, tally.last);
    for Moved { migration, .. } in moves {
        ensure!(migration.freeze_us > 0 && migration.bytes > 0, "{} has no figures", migration.name);
    }
    Ok(())
}

/// From the entry into one phase to the entry into another.
fn between(migration: &Migration, from: &str, until: &str) -> Option<String> {
    let at = |phase: &str| {
        let entered = migration.history.iter().find(|time| time.phase == phase)?;
        humantime::parse_rfc3339_weak(&entered.at).ok()
    };
    let took = at(until)?.duration_since(at(from)?).ok()?;
    Some(format!("{} ms", took.as_millis()))
}

fn millis(us: u64) -> String {
    format!("{}.{} ms", us / 1000, us % 1000 / 100)
}

fn mebibytes(bytes: u64) -> String {
    format!("{}.{} MiB", bytes >> 20, ((bytes & ((1 << 20) - 1)) * 10) >> 20)
}
