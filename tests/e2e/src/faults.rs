//! The agents' failpoints: a migration held or broken at a known step.
//!
//! An agent that was started with `DRAY_FAILPOINTS=DIR` looks for the file
//! `DIR/<node>.<point>` when it comes to a point. Its content says what shall
//! happen; `<file>.reached` says that it did.

use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where in a migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// Source: dumped, CRIU held; nothing sent.
    SourceFrozen,
    /// Source: some of it sent.
    SourceSending,
    /// Source: the target has everything.
    SourceSent,
    /// Source: the log says Committed; nothing killed.
    SourceCommitted,
    /// Target: before it reports Prepared.
    TargetPrepared,
    /// Target: has everything; before it restores.
    TargetReceived,
    /// Target: restored and held; before it reports that.
    TargetRestored,
    /// Target: the log says Committed; not resumed.
    TargetCommitted,
}

impl Point {
    fn name(self) -> &'static str {
        match self {
            Point::SourceFrozen => "source-frozen",
            Point::SourceSending => "source-sending",
            Point::SourceSent => "source-sent",
            Point::SourceCommitted => "source-committed",
            Point::TargetPrepared => "target-prepared",
            Point::TargetReceived => "target-received",
            Point::TargetRestored => "target-restored",
            Point::TargetCommitted => "target-committed",
        }
    }
}

/// What shall happen there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Wait until the failpoint is removed.
    Pause,
    /// The step fails.
    Fail,
    /// The agent ends at once, as by SIGKILL.
    Exit,
}

/// A failpoint that is set; removed when dropped, which ends a pause.
#[derive(Debug)]
pub struct Failpoint {
    file: PathBuf,
}

impl Failpoint {
    /// Sets a failpoint on a node.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn set(dir: &Path, node: &str, point: Point, action: Action) -> Result<Failpoint> {
        let file = dir.join(format!("{node}.{}", point.name()));
        let word = match action {
            Action::Pause => "pause",
            Action::Fail => "fail",
            Action::Exit => "exit",
        };
        // Renamed into place: the agent must not read a file without its content.
        let draft = file.with_extension("draft");
        std::fs::write(&draft, word).with_context(|| format!("write {}", draft.display()))?;
        std::fs::rename(&draft, &file).with_context(|| format!("write {}", file.display()))?;
        Ok(Failpoint { file })
    }

    /// Waits until the agent has come there.
    ///
    /// # Errors
    /// When it doesn't within 20 s.
    pub fn reached(&self) -> Result<()> {
        let mark = self.mark();
        crate::wait::until(&mark.display().to_string(), Duration::from_secs(20), || {
            Ok(mark.exists().then_some(()))
        })
    }

    fn mark(&self) -> PathBuf {
        let mut name = self.file.clone().into_os_string();
        name.push(".reached");
        name.into()
    }
}

impl Drop for Failpoint {
    fn drop(&mut self) {
        // Gone already where the agent took it, or where the cluster's directory went first.
        let _ = std::fs::remove_file(&self.file);
        let _ = std::fs::remove_file(self.mark());
    }
}
