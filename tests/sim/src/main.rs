//! Runs any number of seeds: `dray-sim --seeds 10000 --first 1`.

#![forbid(unsafe_code)]

use dray_sim::{Figures, run};
use std::process::ExitCode;

const USAGE: &str = "usage: dray-sim [--seeds N] [--first SEED] [--trace]";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match parse(&arguments) {
        Some((first, seeds, trace)) => run_all(first, seeds, trace),
        None => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn parse(arguments: &[String]) -> Option<(u64, u64, bool)> {
    let (mut first, mut seeds, mut trace) = (1, None, false);
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--seeds" => seeds = Some(words.next()?.parse().ok()?),
            "--first" => first = words.next()?.parse().ok()?,
            "--trace" => trace = true,
            _ => return None,
        }
    }
    Some((first, seeds.unwrap_or(1), trace))
}

fn run_all(first: u64, seeds: u64, trace: bool) -> ExitCode {
    let mut total = Figures::default();
    let mut broken = 0;
    for seed in first..first.saturating_add(seeds) {
        match run(seed, trace) {
            Ok(figures) => total = total.plus(figures),
            Err(failure) => {
                broken += 1;
                println!("{failure}");
            }
        }
    }
    println!("{seeds} seeds, {broken} broken: {total:?}");
    if broken == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
