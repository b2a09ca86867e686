//! How long each step of a migration's network part takes. The freeze waits for most of them.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use crate::lab::{Lab, underlay};

const TASK: Ipv4Addr = Ipv4Addr::new(10, 88, 1, 1);
const ROUNDS: usize = 21;

/// Far above what is measured (under a millisecond each), far below what a client would notice.
const LIMIT: Duration = Duration::from_millis(10);

#[derive(Default)]
struct Figures(BTreeMap<&'static str, Vec<Duration>>);

impl Figures {
    async fn time<T>(&mut self, step: &'static str, work: impl Future<Output = T>) -> T {
        let start = Instant::now();
        let done = work.await;
        self.0.entry(step).or_default().push(start.elapsed());
        done
    }

    fn medians(self) -> impl Iterator<Item = (&'static str, Duration)> {
        self.0.into_iter().map(|(step, mut times)| {
            times.sort();
            (step, times[times.len() / 2])
        })
    }
}

#[tokio::test]
async fn every_step_of_the_freeze_is_short() {
    let lab = Lab::new(3).await;
    let (node, third) = (&lab.nodes[0], &lab.nodes[2]);
    let container = lab.shielded(0, "s-0@1", TASK).await;
    let mut figures = Figures::default();
    for _ in 0..ROUNDS {
        figures.time("lower shield", node.lower_shield("s-0@1", TASK)).await.unwrap();
        let hold = figures.time("prepare hold", async { node.prepare_incoming(TASK) }).await.unwrap();
        figures.time("begin hold", node.begin_incoming(&hold)).await.unwrap();
        figures.time("raise shield", node.raise_shield("s-0@1")).await.unwrap();
        figures.time("release hold", node.release_to_node(hold, underlay(1))).await.unwrap();
        figures.time("announce", async { node.announce(TASK) }).await.unwrap();
        for target in [0, 1] {
            figures.time("flip", third.flip(TASK, underlay(target))).await.unwrap();
        }
    }
    for (step, median) in figures.medians() {
        eprintln!("{step}: {median:?}");
        assert!(median < LIMIT, "{step} took {median:?}");
    }
    drop(container);
}
