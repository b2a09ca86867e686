//! Reads a container's log: rotated files of JSON lines, oldest first.

use super::Answers;
use crate::context::{Context, runtime_id};
use crate::worker::{LOGS_DIR, previous_logs};
use anyhow::{Context as _, Result};
use container_runtime::LOG_FILE;
use dray_model::ids::{InstanceId, TaskId};
use dray_proto::v1::{LogLine, LogsRequest, LogsResponse, Stream};
use serde::Deserialize;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// Lines in one message.
const BATCH_LINES: usize = 256;
/// How often a followed log is looked at.
const PAUSE: Duration = Duration::from_millis(100);
/// The most lines that `tail` keeps.
const TAIL_MAX: u64 = 100_000;

/// One line as the shim writes it.
#[derive(Deserialize)]
struct Record {
    t: String,
    s: String,
    m: String,
    #[serde(default)]
    p: bool,
}

impl From<Record> for LogLine {
    fn from(record: Record) -> LogLine {
        let at = humantime::parse_rfc3339(&record.t).ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let stream = if record.s == "stderr" { Stream::Stderr } else { Stream::Stdout };
        let mut text = record.m.into_bytes();
        if !record.p {
            text.push(b'\n');
        }
        let at_ms = at.map_or(0, |at| u64::try_from(at.as_millis()).unwrap_or(u64::MAX));
        LogLine { at_ms, stream: stream.into(), text: text.into() }
    }
}

/// Streams the log of a task that is on this node.
pub(super) async fn logs(context: Context, request: LogsRequest) -> Result<Answers<LogsResponse>, Status> {
    let task: TaskId = request.task.parse().map_err(|e| Status::invalid_argument(format!("{e}")))?;
    let id = instance(&context, &task)?;
    let dir = match request.previous {
        true => previous_logs(&context, &id),
        false => context.runtime.instance_dir(&runtime_id(&id)).join(LOGS_DIR),
    };
    if request.previous && !dir.is_dir() {
        return Err(Status::not_found(format!("{task} has no earlier run on this node")));
    }
    let (answers, stream) = mpsc::channel(8);
    tokio::task::spawn_blocking(move || {
        let mut out = Out { answers, batch: Vec::new() };
        if let Err(error) = read(&dir, &request, &mut out) {
            // A reader that is gone needs no error.
            let _ = out.answers.blocking_send(Err(super::failed(&error)));
        }
    });
    Ok(ReceiverStream::new(stream))
}

/// The newest instance of a task on this node.
fn instance(context: &Context, task: &TaskId) -> Result<InstanceId, Status> {
    let names =
        context.runtime.list().map_err(|error| Status::internal(format!("list the containers: {error}")))?;
    let ids = names.iter().filter_map(|name| name.as_str().parse::<InstanceId>().ok());
    let newest = ids.filter(|id| id.task == *task).max_by_key(|id| id.epoch);
    newest.ok_or_else(|| Status::not_found(format!("{task} has no container on this node yet")))
}

/// Sends lines in batches.
struct Out {
    answers: mpsc::Sender<Result<LogsResponse, Status>>,
    batch: Vec<LogLine>,
}

impl Out {
    fn push(&mut self, line: LogLine) -> Result<()> {
        self.batch.push(line);
        if self.batch.len() >= BATCH_LINES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let lines = std::mem::take(&mut self.batch);
        self.answers.blocking_send(Ok(LogsResponse { lines })).ok().context("the reader is gone")
    }

    fn is_closed(&self) -> bool {
        self.answers.is_closed()
    }
}

fn read(dir: &Path, request: &LogsRequest, out: &mut Out) -> Result<()> {
    let mut older = rotated(dir);
    let mut last = VecDeque::new();
    let tail = request.tail_lines.map(|lines| usize::try_from(lines.min(TAIL_MAX)).unwrap_or(usize::MAX));
    let mut emit = |line: LogLine, out: &mut Out| match tail {
        None => out.push(line),
        Some(most) => {
            last.push_back(line);
            if last.len() > most {
                last.pop_front();
            }
            Ok(())
        }
    };
    while let Some(path) = older.pop() {
        if let Some(mut file) = Tail::open(&path)? {
            file.each(|line| emit(line, out))?;
        }
    }
    let mut newest = Tail::open(&dir.join(LOG_FILE))?;
    if let Some(newest) = &mut newest {
        newest.each(|line| emit(line, out))?;
    }
    last.into_iter().try_for_each(|line| out.push(line))?;
    out.flush()?;
    if request.follow { follow(dir, newest, out) } else { Ok(()) }
}

/// The older files, newest first.
fn rotated(dir: &Path) -> Vec<PathBuf> {
    let files = (1..).map(|n| dir.join(format!("{LOG_FILE}.{n}")));
    files.take_while(|path| path.exists()).collect()
}

/// Until the reader or the container's directory is gone.
fn follow(dir: &Path, mut current: Option<Tail>, out: &mut Out) -> Result<()> {
    let path = dir.join(LOG_FILE);
    while !out.is_closed() && dir.exists() {
        std::thread::sleep(PAUSE);
        if let Some(file) = &mut current {
            file.each(|line| out.push(line))?;
        }
        let inode = std::fs::metadata(&path).ok().map(|meta| meta.ino());
        if inode.is_some() && current.as_ref().map(|file| file.inode) != inode {
            current = Tail::open(&path)?;
        }
        out.flush()?;
    }
    Ok(())
}

/// A log file read as it grows.
struct Tail {
    reader: BufReader<File>,
    inode: u64,
    /// The beginning of a line whose end isn't written yet.
    partial: Vec<u8>,
}

impl Tail {
    fn open(path: &Path) -> Result<Option<Tail>> {
        match File::open(path) {
            Ok(file) => {
                let inode = file.metadata()?.ino();
                Ok(Some(Tail { reader: BufReader::new(file), inode, partial: Vec::new() }))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
        }
    }

    /// Every whole line that hasn't been read. A damaged one is left out.
    fn each(&mut self, mut emit: impl FnMut(LogLine) -> Result<()>) -> Result<()> {
        loop {
            let read = self.reader.read_until(b'\n', &mut self.partial)?;
            if read == 0 || self.partial.last() != Some(&b'\n') {
                return Ok(());
            }
            if let Ok(record) = serde_json::from_slice::<Record>(&self.partial) {
                emit(record.into())?;
            }
            self.partial.clear();
        }
    }
}
