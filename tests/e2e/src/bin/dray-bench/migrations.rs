//! How long a migration of the Redis example stops it.

use crate::by_hand;
use crate::report::{Report, millis};
use anyhow::{Context, Result, ensure};
use dray_e2e::client::now_us;
use dray_e2e::cluster::{Cluster, Size, with};
use dray_e2e::manifest::redis_example;
use std::time::Duration;

const SIZE: Size = Size { schedulers: 3, nodes: 3 };
const PATIENT: Duration = Duration::from_secs(30);
/// The baseline needs no more.
const BY_HAND: u32 = 10;

/// What each migration cost, in milliseconds.
#[derive(Debug, Default)]
struct Moves {
    stalls: Vec<f64>,
    freezes: Vec<f64>,
    totals: Vec<f64>,
}

/// Moves it `count` times in a cluster, and by hand.
pub(crate) fn measure(count: u32, report: &mut Report) -> Result<()> {
    let by_hand = by_hand::measure(count.min(BY_HAND)).context("plain CRIU by hand")?;
    let mut moves = Moves::default();
    with("bench", SIZE, |cluster| {
        moves = in_a_cluster(cluster, count)?;
        Ok(())
    })?;
    report.add_spread("migrate.stall", &moves.stalls, &by_hand.stalls);
    report.add_spread("migrate.freeze", &moves.freezes, &by_hand.work);
    report.add_spread("migrate.total", &moves.totals, &[]);
    Ok(())
}

fn in_a_cluster(cluster: &Cluster, count: u32) -> Result<Moves> {
    cluster.import("redis")?;
    cluster.apply(&redis_example()?)?;
    let home = cluster.running("redis-0")?.node;
    let mut others = cluster.node_names().into_iter().filter(|node| *node != home);
    let (away, watcher) = (others.next().context("a second node")?, others.next().context("a third node")?);
    let client = cluster.count("redis-0", &watcher)?;
    let mut moves = Moves::default();
    for number in 0..count {
        let target = if number % 2 == 0 { &away } else { &home };
        let from_us = now_us();
        let migration = cluster.moved("redis-0", target)?;
        let until_us = now_us();
        client.goes_on(PATIENT)?;
        moves.stalls.push(millis(client.tally().longest_stall_us(from_us, until_us)));
        moves.freezes.push(millis(migration.freeze_us));
        moves.totals.push(millis(until_us - from_us));
    }
    let tally = client.stop();
    ensure!(tally.errors.is_empty(), "the client saw errors: {:?}", tally.errors);
    Ok(moves)
}
