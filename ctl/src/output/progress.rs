//! What is going on while a command waits: drawn over itself on a terminal,
//! plain lines elsewhere. Always on standard error.

use super::Out;
use super::text::{bytes, micros, millis};
use super::word;
use dray_proto::v1::{Migration, MigrationPhase};
use indicatif::{ProgressBar, ProgressStyle};
use std::time::Duration;

/// How often a spinner turns.
const TICK: Duration = Duration::from_millis(80);

fn style(template: &str) -> ProgressStyle {
    // A malformed template would be our mistake; the default still works.
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .tick_strings(&["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏", "✓"])
}

/// One line that says what is being waited for.
pub(crate) struct Waiting {
    bar: Option<ProgressBar>,
    said: String,
}

impl Waiting {
    /// Begins to wait.
    pub(crate) fn new(out: &Out) -> Waiting {
        let bar = out.is_live().then(|| {
            let bar = ProgressBar::new_spinner().with_style(style("{spinner} {wide_msg}"));
            bar.enable_steady_tick(TICK);
            bar
        });
        Waiting { bar, said: String::new() }
    }

    /// Says how it stands, if that is new.
    pub(crate) fn say(&mut self, out: &mut Out, text: String) {
        if text == self.said {
            return;
        }
        match &self.bar {
            Some(bar) => bar.set_message(text.clone()),
            None => out.note(&text),
        }
        self.said = text;
    }

    /// Says something that stays.
    pub(crate) fn keep(&mut self, out: &mut Out, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| out.note(text)),
            None => out.note(text),
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// How much of a file was sent.
pub(crate) struct Sending {
    bar: Option<ProgressBar>,
}

impl Sending {
    /// Begins to send `total` bytes.
    pub(crate) fn new(out: &Out, total: u64) -> Sending {
        let template = "{spinner} {bar:30} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {msg}";
        let bar = out.is_live().then(|| {
            let bar = ProgressBar::new(total).with_style(style(template));
            bar.enable_steady_tick(TICK);
            bar
        });
        Sending { bar }
    }

    /// A counter that may be moved to the sender.
    pub(crate) fn counter(&self) -> impl Fn(u64) + Send + Sync + 'static {
        let bar = self.bar.clone();
        move |sent| {
            if let Some(bar) = &bar {
                bar.set_position(sent);
                if Some(sent) == bar.length() {
                    bar.set_message("unpacking");
                }
            }
        }
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// A migration, phase by phase.
pub(crate) struct Phases {
    /// What goes on now; only where it can be drawn over.
    doing: Option<Waiting>,
    /// Phases already said.
    said: usize,
}

impl Phases {
    /// Begins to follow.
    pub(crate) fn new(out: &Out) -> Phases {
        Phases { doing: out.is_live().then(|| Waiting::new(out)), said: 0 }
    }

    /// Says which phases were entered since.
    pub(crate) fn update(&mut self, out: &mut Out, migration: &Migration) {
        for i in self.said..migration.history.len() {
            let line = entered(migration, i);
            match &mut self.doing {
                None => out.note(format_args!("{}: {line}", migration.name)),
                Some(doing) => {
                    let went_well = migration.history[i].phase() != MigrationPhase::Aborted;
                    let mark = out.mark(went_well);
                    doing.keep(out, &format!("{mark} {line}"));
                }
            }
        }
        self.said = self.said.max(migration.history.len());
        if let (Some(waiting), Some(text)) = (&mut self.doing, doing(migration)) {
            waiting.say(out, text);
        }
    }
}

/// A phase that was entered, and how long that took.
fn entered(migration: &Migration, i: usize) -> String {
    let time = &migration.history[i];
    let phase = word::migration_phase(time.phase());
    match i.checked_sub(1).and_then(|i| migration.history.get(i)) {
        Some(before) => format!("{phase:<10} {:>9}", millis(time.at_ms.saturating_sub(before.at_ms))),
        None => phase.to_owned(),
    }
}

/// What goes on after the phase that a migration is in.
fn doing(migration: &Migration) -> Option<String> {
    let Migration { source, target, .. } = migration;
    Some(match migration.phase() {
        MigrationPhase::Unspecified => return None,
        MigrationPhase::Reserved => format!("{target} prepares"),
        MigrationPhase::Prepared => format!("{source} freezes the task"),
        MigrationPhase::Frozen => format!("the task is frozen and goes from {source} to {target}"),
        MigrationPhase::Committed => format!("{target} owns the task and resumes it"),
        MigrationPhase::Resumed => format!("the task runs on {target}; {source} cleans up"),
        MigrationPhase::Cleaned | MigrationPhase::Aborted => return None,
    })
}

/// A migration's figures on one line.
pub(crate) fn figures(migration: &Migration) -> String {
    let mut parts = Vec::new();
    if migration.freeze_us > 0 {
        parts.push(format!("freeze {}", micros(migration.freeze_us)));
    }
    if migration.bytes > 0 {
        parts.push(format!("sent {}", bytes(migration.bytes)));
    }
    if migration.memory_bytes > 0 {
        parts.push(format!("memory {}", bytes(migration.memory_bytes)));
    }
    parts.join(", ")
}
