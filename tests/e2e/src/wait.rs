//! Waiting for a condition.

use anyhow::{Result, bail};
use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_millis(25);

/// Polls until `probe` gives a value; an error of the probe means "not yet".
///
/// # Errors
/// After `limit`, naming `what` and what the last probe said.
pub fn until<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        let why_not = match probe() {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => String::from("not yet"),
            Err(error) => format!("{error:#}"),
        };
        if Instant::now() >= deadline {
            bail!("waited {} s for {what}: {why_not}", limit.as_secs_f32());
        }
        std::thread::sleep(PAUSE);
    }
}

/// Polls until `check` has no complaint.
///
/// # Errors
/// The last complaint, after `limit`.
pub fn settled(what: &str, limit: Duration, mut check: impl FnMut() -> Result<()>) -> Result<()> {
    until(what, limit, || check().map(Some))
}
