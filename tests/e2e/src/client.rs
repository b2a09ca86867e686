//! A Redis client that increments one counter over one TCP connection.
//!
//! It never reconnects. Every reply must be exactly one more than the last:
//! a lost, repeated or forgotten increment is an error, and so is a reset. How
//! long each reply took is kept, so that a migration's stall can be told.

use anyhow::{Context, Result, anyhow, ensure};
use nix::sched::{CloneFlags, setns};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Replies that took less are not kept one by one.
const STALL: Duration = Duration::from_millis(5);
/// A reply that takes longer is an error.
const REPLY_LIMIT: Duration = Duration::from_secs(60);
const CONNECT_LIMIT: Duration = Duration::from_secs(20);
/// Between two requests: a busy loop would take the processor from what it measures.
const PAUSE: Duration = Duration::from_millis(1);

/// What to count, and for how long at most.
#[derive(Debug, Clone)]
pub struct Job {
    /// The network namespace to connect from; the caller's if not given.
    pub netns: Option<PathBuf>,
    /// Where Redis listens.
    pub address: SocketAddr,
    /// The counter's key.
    pub key: String,
    /// It stops by itself after this.
    pub limit: Duration,
}

/// What happened so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Replies that were right.
    pub requests: u64,
    /// The counter's last value.
    pub last: u64,
    /// What went wrong; the first error ends the counting.
    pub errors: Vec<String>,
    /// Replies that took 5 ms or longer.
    pub stalls: Vec<Stall>,
}

/// A reply that was slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stall {
    /// When the request was sent, in microseconds since 1970.
    pub at_us: u64,
    /// Until the reply was there.
    pub took_us: u64,
}

impl Tally {
    /// The longest stall that overlaps a span of time (µs since 1970), in microseconds; zero if none was kept.
    #[must_use]
    pub fn longest_stall_us(&self, from_us: u64, until_us: u64) -> u64 {
        let overlapping =
            self.stalls.iter().filter(|s| s.at_us <= until_us && s.at_us + s.took_us >= from_us);
        overlapping.map(|stall| stall.took_us).max().unwrap_or(0)
    }
}

/// A client at work on a thread of its own.
#[derive(Debug)]
pub struct Counting {
    stop: Arc<AtomicBool>,
    tally: Arc<Mutex<Tally>>,
    thread: Option<JoinHandle<()>>,
}

impl Counting {
    /// Connects, and counts until told to stop; returns after the first reply.
    ///
    /// # Errors
    /// When no connection or no first reply could be had within 20 s.
    pub fn start(job: Job) -> Result<Counting> {
        let stop = Arc::new(AtomicBool::new(false));
        let tally = Arc::new(Mutex::new(Tally::default()));
        let thread = {
            let (stop, tally) = (stop.clone(), tally.clone());
            std::thread::Builder::new().name("client".into()).spawn(move || count(&job, &stop, &tally))?
        };
        let counting = Counting { stop, tally, thread: Some(thread) };
        crate::wait::until("the client's first reply", CONNECT_LIMIT + Duration::from_secs(1), || {
            let tally = counting.tally();
            ensure!(tally.errors.is_empty(), "{}", tally.errors.join("; "));
            Ok((tally.requests > 0).then_some(()))
        })?;
        Ok(counting)
    }

    /// How it stands.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for replies that were not there at the time of the call.
    ///
    /// # Errors
    /// When there were none for `limit`, or the client failed.
    pub fn goes_on(&self, limit: Duration) -> Result<()> {
        let before = self.tally().requests;
        crate::wait::until("the client to go on counting", limit, || {
            let tally = self.tally();
            ensure!(tally.errors.is_empty(), "{}", tally.errors.join("; "));
            Ok((tally.requests > before + 1).then_some(()))
        })
    }

    /// Whether the counting has ended, by an error or by its limit.
    #[must_use]
    pub fn ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Stops and gives the result, errors included.
    #[must_use]
    pub fn stop(mut self) -> Tally {
        self.join();
        self.tally()
    }

    fn join(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic there has left its trace already, and no further request.
            let _ = thread.join();
        }
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        self.join();
    }
}

/// The thread.
fn count(job: &Job, stop: &AtomicBool, tally: &Mutex<Tally>) {
    if let Err(error) = connect(job).and_then(|stream| converse(job, stream, stop, tally)) {
        let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
        let last = tally.last;
        tally.errors.push(format!("after {last}: {error:#}"));
    }
}

/// Enters the namespace with this thread only, and connects; the service may just be starting.
fn connect(job: &Job) -> Result<TcpStream> {
    if let Some(path) = &job.netns {
        let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
        setns(file, CloneFlags::CLONE_NEWNET).with_context(|| format!("enter {}", path.display()))?;
    }
    let stream = crate::wait::until(&format!("a connection to {}", job.address), CONNECT_LIMIT, || {
        Ok(Some(TcpStream::connect_timeout(&job.address, Duration::from_secs(1))?))
    })?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(REPLY_LIMIT))?;
    stream.set_write_timeout(Some(REPLY_LIMIT))?;
    Ok(stream)
}

/// Request and reply in turns.
fn converse(job: &Job, mut stream: TcpStream, stop: &AtomicBool, tally: &Mutex<Tally>) -> Result<()> {
    let mut replies = BufReader::new(stream.try_clone()?);
    let request = format!("*2\r\n$4\r\nINCR\r\n${}\r\n{}\r\n", job.key.len(), job.key);
    let deadline = Instant::now() + job.limit;
    let mut last = None;
    while !stop.load(Ordering::Relaxed) && Instant::now() < deadline {
        let (at_us, began) = (now_us(), Instant::now());
        stream.write_all(request.as_bytes()).context("send")?;
        let value = read_integer(&mut replies)?;
        let took = began.elapsed();
        ensure!(last.is_none_or(|last| value == last + 1), "the counter went from {last:?} to {value}");
        last = Some(value);
        record(tally, value, at_us, took);
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

fn record(tally: &Mutex<Tally>, value: u64, at_us: u64, took: Duration) {
    let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
    tally.requests += 1;
    tally.last = value;
    if took >= STALL {
        tally.stalls.push(Stall { at_us, took_us: micros(took) });
    }
}

/// Reads `:<number>\r\n`.
fn read_integer(replies: &mut impl BufRead) -> Result<u64> {
    let mut line = String::new();
    let length = replies.read_line(&mut line).context("receive")?;
    ensure!(length > 0, "the connection was closed");
    let number = line.strip_prefix(':').and_then(|rest| rest.trim_end().parse().ok());
    number.ok_or_else(|| anyhow!("not a number: {line:?}"))
}

/// Microseconds since 1970.
#[must_use]
pub fn now_us() -> u64 {
    micros(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// Answers with the given numbers, then closes.
    fn serve(replies: &'static [&'static str]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut requests = BufReader::new(stream.try_clone().unwrap());
            for reply in replies {
                for _line in 0..5 {
                    requests.read_line(&mut String::new()).unwrap();
                }
                stream.write_all(reply.as_bytes()).unwrap();
            }
        });
        address
    }

    fn run(replies: &'static [&'static str]) -> Tally {
        let job =
            Job { netns: None, address: serve(replies), key: "n".into(), limit: Duration::from_secs(5) };
        let tally = Mutex::new(Tally::default());
        count(&job, &AtomicBool::new(false), &tally);
        tally.into_inner().unwrap()
    }

    #[test]
    fn a_counter_that_goes_back_or_jumps_is_an_error() {
        for (replies, requests, error) in [
            (&[":7\r\n", ":8\r\n"][..], 2, "after 8: the connection was closed"),
            (&[":7\r\n", ":7\r\n"], 1, "after 7: the counter went from Some(7) to 7"),
            (&[":7\r\n", ":9\r\n"], 1, "after 7: the counter went from Some(7) to 9"),
            (&["-LOADING\r\n"], 0, "after 0: not a number: \"-LOADING\\r\\n\""),
        ] {
            let tally = run(replies);
            assert_eq!((tally.requests, tally.errors.as_slice()), (requests, &[error.to_owned()][..]));
        }
    }

    #[test]
    fn a_stall_counts_for_the_spans_it_overlaps() {
        let stalls = vec![Stall { at_us: 100, took_us: 50 }, Stall { at_us: 300, took_us: 70 }];
        let tally = Tally { stalls, ..Tally::default() };
        for (from, until, longest) in [(0, 99, 0), (0, 100, 50), (150, 200, 50), (151, 299, 0), (0, 999, 70)]
        {
            assert_eq!(tally.longest_stall_us(from, until), longest, "{from} to {until}");
        }
    }
}
