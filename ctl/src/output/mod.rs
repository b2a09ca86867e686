//! Everything that is printed goes through here.
//!
//! Results go to standard output, everything said about them to standard
//! error. Colours appear only on a terminal and not with `NO_COLOR`.

pub(crate) mod describe;
pub(crate) mod diff;
pub(crate) mod progress;
pub(crate) mod status;
pub(crate) mod table;
#[cfg(test)]
mod tests;
pub(crate) mod text;
pub(crate) mod view;
pub(crate) mod word;

use crate::error::Usage;
use crate::resource::Object;
use clap::ValueEnum;
use serde::Serialize;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

/// How results are shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Columns for people
    #[default]
    Table,
    /// More columns
    Wide,
    /// JSON
    Json,
    /// YAML
    Yaml,
    /// KIND/NAME, one per line
    Name,
}

/// Standard output and standard error.
pub(crate) struct Out {
    out: Box<dyn Write + Send>,
    err: Box<dyn Write + Send>,
    out_color: bool,
    err_color: bool,
    /// Whether progress may move the cursor.
    live: bool,
}

/// A colour or weight of text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tint {
    Red,
    Green,
    Yellow,
    Cyan,
    Bold,
}

impl Tint {
    /// Wraps text in the terminal's codes.
    pub(crate) fn paint(self, text: &str) -> String {
        let code = match self {
            Tint::Bold => 1,
            Tint::Red => 31,
            Tint::Green => 32,
            Tint::Yellow => 33,
            Tint::Cyan => 36,
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

impl Out {
    /// The process' own.
    pub(crate) fn standard() -> Out {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        let err_terminal = io::stderr().is_terminal();
        Out {
            out: Box::new(io::stdout()),
            err: Box::new(io::stderr()),
            out_color: !plain && io::stdout().is_terminal(),
            err_color: !plain && err_terminal,
            live: err_terminal && std::env::var_os("TERM").is_none_or(|value| value != "dumb"),
        }
    }

    /// Whether progress may be drawn over itself.
    pub(crate) fn is_live(&self) -> bool {
        self.live
    }

    /// One line of the result.
    pub(crate) fn line(&mut self, text: impl Display) -> io::Result<()> {
        writeln!(self.out, "{text}")
    }

    /// A piece of the result as it is.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.out.flush()
    }

    /// A piece of somebody else's standard error.
    pub(crate) fn error_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.err.write_all(bytes)?;
        self.err.flush()
    }

    /// Text for the result, coloured if that is wanted there.
    pub(crate) fn tinted(&self, tint: Tint, text: &str) -> String {
        if self.out_color { tint.paint(text) } else { text.to_owned() }
    }

    /// A tick or a cross for standard error.
    pub(crate) fn mark(&self, went_well: bool) -> String {
        let (tint, mark) = if went_well { (Tint::Green, "✓") } else { (Tint::Red, "✗") };
        if self.err_color { tint.paint(mark) } else { mark.to_owned() }
    }

    /// One line about the result. That it can't be said stops nothing.
    pub(crate) fn note(&mut self, text: impl Display) {
        let _ = writeln!(self.err, "{text}");
    }

    /// A warning.
    pub(crate) fn warning(&mut self, text: impl Display) {
        let label = if self.err_color { Tint::Yellow.paint("warning:") } else { "warning:".into() };
        self.note(format_args!("{label} {text}"));
    }

    /// Things in the format asked for; one object alone if `single`.
    pub(crate) fn objects(&mut self, objects: &[Object], style: Style, single: bool) -> anyhow::Result<()> {
        match (style.format, objects) {
            (Format::Table | Format::Wide, _) => self.bytes(table::render(objects, style).as_bytes())?,
            (Format::Json, [object]) if single => self.json(&view::View::of(object))?,
            (Format::Json, _) => self.json(&view::ListView::of(objects))?,
            (Format::Yaml, [object]) if single => self.yaml(&view::View::of(object))?,
            (Format::Yaml, _) => self.yaml(&view::ListView::of(objects))?,
            (Format::Name, _) => {
                for object in objects {
                    self.line(format_args!("{}/{}", object.kind().word(), object.name()))?;
                }
            }
        }
        Ok(())
    }

    /// A value as JSON.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> anyhow::Result<()> {
        Ok(self.line(serde_json::to_string_pretty(value)?)?)
    }

    /// A value as JSON on one line.
    pub(crate) fn json_line(&mut self, value: &impl Serialize) -> anyhow::Result<()> {
        Ok(self.line(serde_json::to_string(value)?)?)
    }

    /// A value as YAML.
    pub(crate) fn yaml(&mut self, value: &impl Serialize) -> anyhow::Result<()> {
        Ok(self.bytes(yaml(value)?.as_bytes())?)
    }

    /// Says what went wrong and chooses the exit code: 2 for a usage error,
    /// 1 for any other. A reader that has gone away isn't an error.
    pub(crate) fn failure(&mut self, error: &anyhow::Error) -> ExitCode {
        if is_broken_pipe(error) {
            return ExitCode::SUCCESS;
        }
        let label = if self.err_color { Tint::Red.paint("error:") } else { "error:".into() };
        // What others wrote must not act on the terminal.
        let text = chain(error).replace(|c: char| c.is_control() && c != '\n' && c != '\t', "\u{fffd}");
        self.note(format_args!("{label} {text}"));
        ExitCode::from(if error.is::<Usage>() { 2 } else { 1 })
    }
}

/// How to show a list.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Style {
    /// In which format.
    pub(crate) format: Format,
    /// Whether a table has a heading.
    pub(crate) headers: bool,
    /// For ages.
    pub(crate) now_ms: u64,
}

/// A value as YAML, ending in a line break.
pub(crate) fn yaml(value: &impl Serialize) -> anyhow::Result<String> {
    // A long text stays on one line, as its author wrote it.
    let options = serde_saphyr::ser_options! { folded_wrap_chars: usize::MAX };
    let mut text = serde_saphyr::to_string_with_options(value, options)?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let broken = |cause: &io::Error| cause.kind() == io::ErrorKind::BrokenPipe;
    error.downcast_ref::<io::Error>().is_some_and(broken)
}

/// An error and its causes, without repeating what was said.
fn chain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.contains(&cause) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&cause);
    }
    text
}
