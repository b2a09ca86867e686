//! Seeds: 200 by default, `DRAY_SEEDS=10000` for more; and all that ever failed.

use dray_sim::run;

/// How many tests share the seeds, so that they run side by side.
const PARTS: u64 = 8;
const DEFAULT_SEEDS: u64 = 200;

/// Seeds that failed once, each with what was wrong. One per line.
const REGRESSIONS: &str = include_str!("../regressions");

fn check(seed: u64) {
    if let Err(failure) = run(seed, false) {
        panic!("{failure}");
    }
}

/// Every seed whose remainder is `part`.
fn check_part(part: u64) {
    let seeds = std::env::var("DRAY_SEEDS").ok().and_then(|text| text.parse().ok());
    (1..=seeds.unwrap_or(DEFAULT_SEEDS)).filter(|seed| seed % PARTS == part).for_each(check);
}

macro_rules! parts {
    ($($name:ident = $part:literal),*) => {
        $(
            #[test]
            fn $name() {
                check_part($part);
            }
        )*
    };
}

parts!(
    seeds_0 = 0,
    seeds_1 = 1,
    seeds_2 = 2,
    seeds_3 = 3,
    seeds_4 = 4,
    seeds_5 = 5,
    seeds_6 = 6,
    seeds_7 = 7
);

#[test]
fn seeds_that_failed_once() {
    let lines = REGRESSIONS.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let seeds = lines.filter_map(|line| line.split_whitespace().next()?.parse().ok());
    seeds.for_each(check);
}

/// The same seed is the same run, to the last event.
#[test]
fn a_run_follows_from_its_seed() {
    let figures = || run(7, false).map(|figures| (figures.events, figures.ms, figures.writes));
    assert_eq!(figures().ok(), figures().ok());
}

/// A storm in which nothing moves would prove nothing.
#[test]
fn runs_are_eventful() {
    let runs = (1..=20).filter_map(|seed| run(seed, false).ok());
    let total = runs.fold(dray_sim::Figures::default(), |sum, figures| sum.plus(figures));
    assert!(total.committed > 40 && total.aborted > 15 && total.writes > 400, "{total:?}");
}
