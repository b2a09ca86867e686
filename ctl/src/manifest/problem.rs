//! What is wrong with a manifest, and where, as text for people.

use super::source::Source;
use std::fmt;

/// A place in a file, counted from one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// Line.
    pub(crate) line: usize,
    /// Column, in characters.
    pub(crate) column: usize,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// `file`, or `file:line:column`.
    at: String,
    /// The field's path, or nothing.
    field: String,
    problem: String,
    snippet: Option<String>,
}

impl Problem {
    /// With a file as a whole.
    pub(super) fn of(name: &str, problem: &str) -> Problem {
        Problem { at: name.into(), field: String::new(), problem: problem.into(), snippet: None }
    }

    /// At a place in a file.
    pub(super) fn at(source: &Source, place: Place, field: &str, problem: &str) -> Problem {
        Problem {
            at: format!("{}:{}:{}", source.name, place.line, place.column),
            field: field.into(),
            problem: problem.into(),
            snippet: source.line(place.line).map(|line| snippet(line, place)),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.at)?;
        if !self.field.is_empty() {
            write!(f, "{}: ", printable(&self.field))?;
        }
        write!(f, "{}", printable(&self.problem))?;
        self.snippet.as_ref().map_or(Ok(()), |snippet| write!(f, "\n{snippet}"))
    }
}

/// Everything that is wrong; nothing was applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problems(pub(crate) Vec<Problem>);

impl std::error::Error for Problems {}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// More than this helps nobody.
        const SHOWN: usize = 20;
        for (i, problem) in self.0.iter().take(SHOWN).enumerate() {
            write!(f, "{}{problem}", if i > 0 { "\n" } else { "" })?;
        }
        match self.0.len() {
            0..=1 => Ok(()),
            count @ 2..=SHOWN => write!(f, "\n{count} problems; nothing was changed"),
            count => write!(f, "\n{count} problems, the first {SHOWN} shown; nothing was changed"),
        }
    }
}

/// The line with a mark under the place. A long line is cropped around it.
fn snippet(line: &str, place: Place) -> String {
    const WIDTH: usize = 100;
    let first = place.column.saturating_sub(WIDTH / 2).max(1);
    let shown: String = line.chars().skip(first - 1).take(WIDTH).collect();
    let shown = printable(&shown.replace('\t', " "));
    let number = place.line.to_string();
    let mark = " ".repeat(place.column - first);
    let length = word_length(line, place.column);
    format!("  {number} | {shown}\n  {} | {mark}{}", " ".repeat(number.len()), "^".repeat(length))
}

/// How many characters the word at a column has; at least one to mark.
fn word_length(line: &str, column: usize) -> usize {
    let word = line.chars().skip(column - 1).take(40);
    word.take_while(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '/')).count().max(1)
}

/// Without what would act on a terminal, and not without end.
fn printable(text: &str) -> String {
    const LENGTH: usize = 400;
    let shown = |c: char| if c.is_control() && c != '\n' { '\u{fffd}' } else { c };
    let mut short: String = text.chars().take(LENGTH).map(shown).collect();
    if text.chars().nth(LENGTH).is_some() {
        short.push('…');
    }
    short
}
