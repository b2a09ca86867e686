//! What CRIU logged last. It goes into every error, because CRIU's own answer names only the first thing it disliked.

use std::fmt;
use std::fs;
use std::path::Path;

/// How many lines an error carries.
const LINES: usize = 12;

/// Lines that are there even when all is well: the limit can't be raised without `CAP_SYS_RESOURCE`, and the clone
/// flags have worked on every kernel since 3.8.
const ALWAYS: [&str; 2] = ["Can't setup RLIMIT_NOFILE for self", "Set CLONE_PARENT | CLONE_NEWPID"];

/// The end of one log file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogTail {
    lines: Vec<String>,
}

impl LogTail {
    /// Reads the end of `path`. A log that can't be read says so in its place: an error is being built, not met.
    #[must_use]
    pub fn read(path: &Path) -> Self {
        match fs::read(path) {
            Ok(bytes) => Self::of(&String::from_utf8_lossy(&bytes)),
            Err(cause) => Self { lines: vec![format!("(no log at {}: {cause})", path.display())] },
        }
    }

    fn of(text: &str) -> Self {
        let telling =
            |line: &&str| !line.trim().is_empty() && !ALWAYS.iter().any(|known| line.contains(known));
        let lines: Vec<String> =
            text.lines().filter(telling).map(|line| line.trim_end().to_owned()).collect();
        let start = lines.len().saturating_sub(LINES);
        Self { lines: lines[start..].to_vec() }
    }
}

impl fmt::Display for LogTail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.lines.is_empty() {
            return f.write_str("CRIU's log is empty");
        }
        f.write_str("CRIU's log ends:")?;
        self.lines.iter().try_for_each(|line| write!(f, "\n  {line}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_last_telling_lines() {
        let noise = "Error (criu/util.c:1534): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted\n\n";
        let many: String = (0..20).map(|n| format!("Error (criu/x.c:{n}): no {n}\n")).collect();
        let tail = LogTail::of(&format!("{noise}{many}")).to_string();
        assert!(tail.contains("no 19") && tail.contains("no 8"), "{tail}");
        assert!(!tail.contains("no 7\n") && !tail.contains("RLIMIT"), "{tail}");
    }

    #[test]
    fn a_missing_log_is_named() {
        let tail = LogTail::read(Path::new("/nonexistent/dump.log")).to_string();
        assert!(tail.contains("/nonexistent/dump.log"), "{tail}");
    }
}
