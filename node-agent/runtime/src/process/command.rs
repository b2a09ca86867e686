//! Finds the file that a command names, as a shell would: by path, or by `PATH`.

use std::ffi::CString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// What `PATH` is when the environment has none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The command can't be run as it is written.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum CommandError {
    #[error("no command: neither the image nor the workload names one")]
    Empty,
    #[error("command not found in image: {0}")]
    NotFound(String),
    #[error("command is not executable in image: {0}")]
    NotExecutable(String),
    #[error("{what} {index} contains a NUL byte")]
    Nul { what: &'static str, index: usize },
    #[error("the interpreter of {path} is not in the image (the `#!` line or the dynamic linker)")]
    Interpreter { path: String },
}

impl CommandError {
    /// The exit code a shell would give.
    pub(crate) fn exit_code(&self) -> i32 {
        match self {
            Self::NotFound(_) | Self::Interpreter { .. } => 127,
            Self::NotExecutable(_) => 126,
            Self::Empty | Self::Nul { .. } => 125,
        }
    }
}

/// The path to execute for `args`, in the caller's root, relative names as seen from `directory`.
pub(super) fn find(args: &[String], env: &[String], directory: &str) -> Result<CString, CommandError> {
    let name = args.first().filter(|name| !name.is_empty()).ok_or(CommandError::Empty)?;
    let candidates: Vec<PathBuf> = if name.contains('/') {
        vec![Path::new(directory).join(name)]
    } else {
        let path = env.iter().rev().find_map(|var| var.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
        path.split(':')
            .filter(|dir| !dir.is_empty())
            .map(|dir| Path::new(directory).join(dir).join(name))
            .collect()
    };
    let mut seen_unexecutable = false;
    for candidate in candidates {
        match executable(&candidate) {
            Some(true) => return c_string("argument", 0, &candidate.to_string_lossy()),
            Some(false) => seen_unexecutable = true,
            None => {}
        }
    }
    let error = if seen_unexecutable { CommandError::NotExecutable } else { CommandError::NotFound };
    Err(error(name.clone()))
}

/// Whether the file can be executed by anyone; `None` if there is none.
fn executable(path: &Path) -> Option<bool> {
    let metadata = fs::metadata(path).ok()?;
    Some(metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// Texts for the kernel, which ends them at the first NUL.
pub(crate) fn c_strings(what: &'static str, texts: &[String]) -> Result<Vec<CString>, CommandError> {
    texts.iter().enumerate().map(|(index, text)| c_string(what, index, text)).collect()
}

fn c_string(what: &'static str, index: usize, text: &str) -> Result<CString, CommandError> {
    CString::new(text).map_err(|_nul| CommandError::Nul { what, index })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(args: &[&str], env: &[&str], directory: &str, expected: Result<&str, CommandError>) {
        let owned = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        let found = find(&owned(args), &owned(env), directory);
        assert_eq!(found, expected.map(|path| CString::new(path).expect("no NUL")), "{args:?} {env:?}");
    }

    #[test]
    fn a_command_is_found_as_a_shell_would() {
        check(&["sh"], &["PATH=/nowhere:/bin"], "/", Ok("/bin/sh"));
        check(&["sh"], &["PATH=bin"], "/", Ok("/bin/sh"));
        assert!(find(&["sh".to_owned()], &[], "/").is_ok(), "the default path");
        check(&["/bin/sh"], &["PATH="], "/", Ok("/bin/sh"));
        check(&["./sh"], &[], "/bin", Ok("/bin/./sh"));
        check(&["no-such"], &[], "/", Err(CommandError::NotFound("no-such".into())));
        check(&["/etc/passwd"], &[], "/", Err(CommandError::NotExecutable("/etc/passwd".into())));
        check(&["/etc"], &[], "/", Err(CommandError::NotExecutable("/etc".into())));
        check(&[], &[], "/", Err(CommandError::Empty));
        check(&[""], &[], "/", Err(CommandError::Empty));
    }

    #[test]
    fn nul_bytes_are_refused_by_position() {
        let args = ["sh".to_owned(), "a\0b".to_owned()];
        assert_eq!(c_strings("argument", &args), Err(CommandError::Nul { what: "argument", index: 1 }));
    }
}
