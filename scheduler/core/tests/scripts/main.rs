//! Golden scripts: what is asked, and what the scheduler decides.
//!
//! A line that begins with `> ` is a command, see [`bench::Bench::run`]; the
//! lines below it, up to an empty one, are what it must print.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod bench;
mod show;

use bench::Bench;

/// Runs a script and compares all of what it prints.
fn check(script: &str) {
    let mut bench = Bench::new();
    let mut actual = String::new();
    for line in script.lines() {
        match line.strip_prefix("> ") {
            Some(command) => {
                actual += &format!("{line}\n");
                for printed in bench.run(command) {
                    actual += &format!("{printed}\n");
                }
            }
            None if line.is_empty() || line.starts_with('#') => actual += &format!("{line}\n"),
            // Expected output: the comparison below is about it.
            None => {}
        }
    }
    assert!(actual == script, "the script is now:\n{actual}");
}

macro_rules! scripts {
    ($($name:ident),* $(,)?) => {
        $(
            #[test]
            fn $name() {
                check(include_str!(concat!(stringify!($name), ".txt")));
            }
        )*
    };
}

scripts!(placing, refusals, rollout, scaling, migrating, aborting, draining, node_loss, images, requests);
