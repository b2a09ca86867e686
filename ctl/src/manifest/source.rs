//! The bytes of manifests: which files, in which order, and no more than
//! [`LIMIT`] of each.

use super::problem::{Place, Problem};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The largest manifest. It is read no further than this.
const LIMIT: u64 = 4 << 20;
/// What stands for standard input.
const STDIN: &str = "-";
/// What a manifest's name ends in when a directory is given.
const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];

/// A manifest's text and what to call it.
#[derive(Debug)]
pub(crate) struct Source {
    /// The path as the user gave it, or `stdin`.
    pub(crate) name: String,
    /// Everything in it.
    pub(crate) text: String,
}

impl Source {
    /// Whether nothing but a comment follows a place in its line.
    pub(super) fn ends_at(&self, place: Place) -> bool {
        let rest: String = self.line(place.line).unwrap_or_default().chars().skip(place.column - 1).collect();
        let rest = rest.trim_start_matches([':', ' ']);
        rest.is_empty() || rest.starts_with('#')
    }

    /// A line of it, counted from one.
    pub(super) fn line(&self, number: usize) -> Option<&str> {
        self.text.lines().nth(number.checked_sub(1)?)
    }
}

/// Reads what `-f` names: a file, a directory or `-`.
pub(super) fn read(files: &[String]) -> (Vec<Source>, Vec<Problem>) {
    let (mut sources, mut problems) = (Vec::new(), Vec::new());
    for name in files {
        let paths = match paths(name) {
            Ok(paths) => paths,
            Err(problem) => {
                problems.push(problem);
                continue;
            }
        };
        for path in paths {
            let (shown, text) = if name == STDIN {
                (shown(name).to_owned(), read_all("stdin", io::stdin()))
            } else {
                let shown = path.display().to_string();
                (shown.clone(), read_file(&shown, &path))
            };
            match text {
                Ok(text) => sources.push(Source { name: shown, text }),
                Err(problem) => problems.push(problem),
            }
        }
    }
    (sources, problems)
}

/// What to call an argument of `-f`.
pub(super) fn shown(name: &str) -> &str {
    if name == STDIN { "stdin" } else { name }
}

/// The files that one `-f` means, sorted.
fn paths(name: &str) -> Result<Vec<PathBuf>, Problem> {
    let path = Path::new(name);
    if name == STDIN || !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries =
        std::fs::read_dir(path).map_err(|cause| Problem::of(name, &format!("can't list: {cause}")))?;
    let manifest = |path: &PathBuf| {
        let extension = path.extension().and_then(|extension| extension.to_str());
        path.is_file() && extension.is_some_and(|extension| EXTENSIONS.contains(&extension))
    };
    let mut found: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(manifest).collect();
    found.sort();
    if found.is_empty() {
        return Err(Problem::of(name, "there is no *.yaml, *.yml or *.json in this directory"));
    }
    Ok(found)
}

fn read_file(name: &str, path: &Path) -> Result<String, Problem> {
    let file = File::open(path).map_err(|cause| Problem::of(name, &format!("can't open: {cause}")))?;
    read_all(name, file)
}

fn read_all(name: &str, from: impl Read) -> Result<String, Problem> {
    let mut bytes = Vec::new();
    from.take(LIMIT + 1)
        .read_to_end(&mut bytes)
        .map_err(|cause| Problem::of(name, &format!("can't read: {cause}")))?;
    if bytes.len() as u64 > LIMIT {
        return Err(Problem::of(
            name,
            &format!("is larger than {} MiB, the limit for a manifest", LIMIT >> 20),
        ));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let line =
            error.as_bytes()[..error.utf8_error().valid_up_to()].iter().filter(|b| **b == b'\n').count() + 1;
        Problem::of(&format!("{name}:{line}"), "is not UTF-8 text")
    })?;
    // Some editors begin a file with a byte order mark.
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}
