//! The cache of what CRIU finds out about the kernel.
//!
//! CRIU probes the kernel at each start, which takes 30 to 45 ms, and keeps the result in `/run/criu.kdat`, but only
//! if `/run` is a tmpfs: the result must not outlive a boot. Where `/run` is none, the probing is done once in a mount
//! namespace that has a tmpfs there; the result is kept on `/dev/shm`, and every later CRIU runs in a mount namespace
//! of its own in which that file is bound over `/run/criu.kdat`. The rest of `/run` stays visible, because the root
//! file systems of containers are mounted below it.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::statfs;
use thiserror::Error;

use super::launch::feature_check;
use super::session::{Place, Session, SessionError};
use crate::sys::ChildMount;

/// Where CRIU looks, and only there.
const LOOKED_FOR: &str = "/run/criu.kdat";

/// What CRIU leaves behind when it could not cache; as long as it is there, it never caches again.
const LEFT_BEHIND: &str = "/run/criu.kdat.tmp";

/// Where the result is kept if not in `/run`.
const KEPT_BELOW: &str = "/dev/shm";

/// How CRIU's starts get at the cache.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum KernelCache {
    /// CRIU keeps it by itself, or does without.
    #[default]
    Own,
    /// This file is bound over CRIU's.
    Bound(PathBuf),
}

/// The probing of the kernel can't be cached.
#[derive(Debug, Error)]
pub enum CacheError {
    /// CRIU couldn't probe.
    #[error("have CRIU probe the kernel")]
    Probe(#[from] SessionError),
    /// A file is in the way or can't be written.
    #[error("keep CRIU's kernel cache at {path}")]
    Keep {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
}

impl KernelCache {
    /// Makes sure that there is a cache.
    pub(super) fn warm(program: &Path) -> Result<Self, CacheError> {
        if is_tmpfs(Path::new("/run")) {
            if !Path::new(LOOKED_FOR).exists() {
                // May not be there, which is the usual case.
                let _absent = fs::remove_file(LEFT_BEHIND);
                probe(program, None)?;
            }
            return Ok(Self::Own);
        }
        if !is_tmpfs(Path::new(KEPT_BELOW)) {
            return Ok(Self::Own);
        }
        let kept = kept_at(program);
        let failed = |cause: io::Error| CacheError::Keep { path: kept.clone(), cause };
        if !is_ours(&kept).map_err(failed)? {
            let found = probe(program, Some(private_run()))?;
            keep(&kept, &found).map_err(failed)?;
        }
        // The bind needs something to cover. It stays empty: any other CRIU takes it for stale and removes it.
        let covered = OpenOptions::new().append(true).create(true).mode(0o600).open(LOOKED_FOR);
        covered.map_err(|cause| CacheError::Keep { path: PathBuf::from(LOOKED_FOR), cause })?;
        Ok(Self::Bound(kept))
    }

    /// The mount that a start needs.
    pub(super) fn mount(&self) -> Option<ChildMount> {
        match self {
            Self::Own => None,
            Self::Bound(kept) => {
                let source = CString::new(kept.as_os_str().as_encoded_bytes()).ok()?;
                Some(ChildMount { source, target: CString::new(LOOKED_FOR).ok()?, kind: None })
            }
        }
    }
}

/// A tmpfs of its own at `/run`.
fn private_run() -> ChildMount {
    ChildMount { source: c"tmpfs".to_owned(), target: c"/run".to_owned(), kind: Some(c"tmpfs".to_owned()) }
}

/// Has CRIU probe the kernel, and returns the cache it wrote.
fn probe(program: &Path, mount: Option<ChildMount>) -> Result<Vec<u8>, CacheError> {
    let mut setup = Place::default().setup()?;
    setup.mounts.extend(mount);
    let mut session = Session::start(program, setup)?;
    session.call(&feature_check())?;
    // Seen through the process, which is still there: its `/run` may be its own.
    let path = PathBuf::from(format!("/proc/{}/root{LOOKED_FOR}", session.pid()));
    fs::read(&path).map_err(|cause| CacheError::Keep { path, cause })
}

/// One file for each installed CRIU: the content is only valid for the build that wrote it.
fn kept_at(program: &Path) -> PathBuf {
    let installed = fs::metadata(program).map(|meta| (meta.ino(), meta.mtime())).unwrap_or_default();
    Path::new(KEPT_BELOW).join(format!("dray-criu-{}-{}.kdat", installed.0, installed.1))
}

/// Whether the cache is there. Anybody may write to `/dev/shm`, so a file of somebody else is an error.
fn is_ours(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_file() && meta.uid() == 0 && meta.mode() & 0o022 == 0 => Ok(true),
        Ok(_) => Err(io::Error::other("somebody else's file has this name")),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(cause) => Err(cause),
    }
}

/// Writes beside it and renames, so that nobody reads half of it.
fn keep(path: &Path, content: &[u8]) -> io::Result<()> {
    let beside = path.with_extension(format!("{}.new", std::process::id()));
    let mut file: File = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    file.write_all(content)?;
    fs::rename(&beside, path)
}

fn is_tmpfs(dir: &Path) -> bool {
    const TMPFS_MAGIC: i64 = 0x0102_1994;
    statfs(dir).is_ok_and(|found| found.f_type == TMPFS_MAGIC)
}
