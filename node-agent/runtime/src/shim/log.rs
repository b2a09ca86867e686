//! A container's log: JSON lines in a file that is rotated by size.
//!
//! `container.log` is the newest; `container.log.1`, `.2`, ... are older. A line: `{"t":"2026-01-31T12:00:00.000000Z",
//! "s":"stdout","m":"text"}`, with `"p":true` if the text goes on in the next line of the same stream.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::bundle::LogLimits;

/// The newest log file's name, in the directory `logs` of an instance.
pub const LOG_FILE: &str = "container.log";

/// One line of the log.
#[derive(Debug, Serialize)]
struct Record<'a> {
    t: &'a str,
    s: &'static str,
    m: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    p: bool,
}

/// The open log.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    limits: LogLimits,
    file: File,
    written: u64,
    pending: Vec<u8>,
}

impl Log {
    /// Opens the log in `dir`, going on where an earlier shim stopped.
    pub(super) fn open(dir: &Path, limits: LogLimits) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let path = dir.join(LOG_FILE);
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        let written = file.metadata()?.len();
        Ok(Self { path, limits, file, written, pending: Vec::new() })
    }

    /// Adds one line; [`Log::flush`] writes it.
    pub(super) fn push(&mut self, stream: &'static str, text: &[u8], goes_on: bool) -> io::Result<()> {
        let text = String::from_utf8_lossy(text);
        let before = self.pending.len();
        let time = timestamp(SystemTime::now());
        serde_json::to_writer(&mut self.pending, &Record { t: &time, s: stream, m: &text, p: goes_on })?;
        self.pending.push(b'\n');
        if self.written + self.pending.len() as u64 > self.limits.file_bytes
            && self.written + before as u64 > 0
        {
            let line = self.pending.split_off(before);
            self.flush()?;
            self.rotate()?;
            self.pending = line;
        }
        Ok(())
    }

    /// Writes what was added.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        let pending = std::mem::take(&mut self.pending);
        self.file.write_all(&pending)?;
        self.written += pending.len() as u64;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        for older in (1..self.limits.files).rev() {
            let newer = if older == 1 { self.path.clone() } else { self.rotated(older - 1) };
            match fs::rename(newer, self.rotated(older)) {
                Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(cause),
                _renamed_or_none => {}
            }
        }
        self.file = OpenOptions::new().create(true).write(true).truncate(true).open(&self.path)?;
        self.written = 0;
        Ok(())
    }

    fn rotated(&self, age: u32) -> PathBuf {
        self.path.with_file_name(format!("{LOG_FILE}.{age}"))
    }
}

/// RFC 3339 in UTC with microseconds.
fn timestamp(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil_date(days);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:06}Z", since.subsec_micros())
}

/// Year, month and day of a number of days since 1970, by years that begin in March, so that the leap day is the last.
fn civil_date(days: u64) -> (u64, u64, u64) {
    const ERA_DAYS: u64 = 146_097;
    let days = days + 719_468;
    let (era, day_of_era) = (days / ERA_DAYS, days % ERA_DAYS);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_rfc_3339() {
        let check = |seconds, expected: &str| {
            assert_eq!(timestamp(UNIX_EPOCH + Duration::from_secs(seconds)), expected);
        };
        check(0, "1970-01-01T00:00:00.000000Z");
        check(951_782_399, "2000-02-28T23:59:59.000000Z");
        check(951_782_400, "2000-02-29T00:00:00.000000Z");
        check(1_709_251_199, "2024-02-29T23:59:59.000000Z");
        check(1_767_225_600, "2026-01-01T00:00:00.000000Z");
        check(4_107_542_399, "2100-02-28T23:59:59.000000Z");
        check(4_107_542_400, "2100-03-01T00:00:00.000000Z");
    }

    #[test]
    fn files_are_rotated_before_they_grow_too_large_and_the_oldest_goes() {
        let dir = tempfile::tempdir().expect("a directory");
        let limits = LogLimits { file_bytes: 200, files: 3 };
        let mut log = Log::open(dir.path(), limits).expect("open");
        for number in 0..20 {
            log.push("stdout", format!("line {number}").as_bytes(), false).expect("push");
        }
        log.flush().expect("flush");
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).expect("a log file");
        let newest = read("container.log");
        assert!(newest.ends_with("\"s\":\"stdout\",\"m\":\"line 19\"}\n"), "{newest}");
        for name in ["container.log", "container.log.1", "container.log.2"] {
            assert!(read(name).len() <= 200, "{name} is too large");
            assert!(read(name).lines().all(|line| line.ends_with('}')), "{name} has a torn line");
        }
        assert!(!dir.path().join("container.log.3").exists());
    }

    #[test]
    fn one_file_is_enough() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut log = Log::open(dir.path(), LogLimits { file_bytes: 100, files: 1 }).expect("open");
        for _ in 0..10 {
            log.push("stderr", b"0123456789", false).expect("push");
        }
        log.flush().expect("flush");
        assert_eq!(fs::read_dir(dir.path()).expect("list").count(), 1);
        assert!(fs::metadata(dir.path().join(LOG_FILE)).expect("log").len() <= 100);
    }
}
