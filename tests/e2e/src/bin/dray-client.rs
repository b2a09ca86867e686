//! Counts on a Redis server over one connection, and says what it saw as JSON.

use anyhow::{Result, ensure};
use clap::Parser;
use dray_e2e::client::{Counting, Job};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Increments a counter over one TCP connection, checks each reply, and prints what it saw
#[derive(Debug, Parser)]
struct Arguments {
    /// Where Redis listens
    address: SocketAddr,
    /// How long
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// The counter's key
    #[arg(long, default_value = "counter")]
    key: String,
    /// Connect from this network namespace (a file such as /run/netns/NAME)
    #[arg(long, value_name = "FILE")]
    netns: Option<PathBuf>,
}

fn main() -> Result<()> {
    let Arguments { address, seconds, key, netns } = Arguments::parse();
    let limit = Duration::from_secs(seconds);
    let counting = Counting::start(Job { netns, address, key, limit })?;
    while !counting.ended() {
        std::thread::sleep(Duration::from_millis(50));
    }
    let tally = counting.stop();
    println!("{}", serde_json::to_string_pretty(&tally)?);
    ensure!(tally.errors.is_empty(), "{}", tally.errors.join("; "));
    Ok(())
}
