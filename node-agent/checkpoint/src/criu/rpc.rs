//! CRIU's wire messages: the part of its MIT-licensed `rpc.proto` that this crate uses, field numbers as there.

use prost::{Enumeration, Message};

/// What a request asks for, and what a response answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enumeration)]
#[repr(i32)]
pub enum Kind {
    /// Nothing: CRIU could not make sense of a request.
    Empty = 0,
    /// Checkpoint a process tree.
    Dump = 1,
    /// Bring one back.
    Restore = 2,
    /// A notification from CRIU, and the client's answer to it.
    Notify = 6,
    /// Ask which optional features kernel and CRIU have together.
    FeatureCheck = 9,
    /// Ask for CRIU's version.
    Version = 10,
}

/// How CRIU treats cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enumeration)]
#[repr(i32)]
pub enum CgroupMode {
    /// Not at all; the caller puts the restored tree where it belongs.
    Ignore = 0,
}

/// How CRIU keeps packets away during a dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enumeration)]
#[repr(i32)]
pub enum NetworkLock {
    /// Not at all; the caller has its own shield.
    Skip = 3,
}

/// A file descriptor of the client that takes the place of a dumped resource.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct InheritFd {
    /// The resource, for example `pipe:[4711]`.
    #[prost(string, required, tag = "1")]
    pub key: String,
    /// The number of the descriptor, open in the CRIU process.
    #[prost(int32, required, tag = "2")]
    pub fd: i32,
}

/// The options of a dump or a restore.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Options {
    /// The image directory: a descriptor of the *client*, opened by CRIU through `/proc/<client>/fd`.
    #[prost(int32, required, tag = "1")]
    pub images_dir_fd: i32,
    /// The root of the tree to dump, as CRIU's pid namespace numbers it.
    #[prost(int32, optional, tag = "2")]
    pub pid: Option<i32>,
    /// Dump and restore established TCP connections.
    #[prost(bool, optional, tag = "5")]
    pub tcp_established: Option<bool>,
    /// Dump and restore file locks.
    #[prost(bool, optional, tag = "8")]
    pub file_locks: Option<bool>,
    /// 0 (nothing) to 4 (everything).
    #[prost(int32, optional, tag = "9")]
    pub log_level: Option<i32>,
    /// The log file's name within the work directory.
    #[prost(string, optional, tag = "10")]
    pub log_file: Option<String>,
    /// Send notifications to the client and wait for its answers.
    #[prost(bool, optional, tag = "12")]
    pub notify_scripts: Option<bool>,
    /// The mount point that becomes the restored tree's root.
    #[prost(string, optional, tag = "13")]
    pub root: Option<String>,
    /// The directory for the log: a descriptor of the client.
    #[prost(int32, optional, tag = "17")]
    pub work_dir_fd: Option<i32>,
    /// Carry unlinked files that still have other links.
    #[prost(bool, optional, tag = "18")]
    pub link_remap: Option<bool>,
    /// Make the restored init a child of the client.
    #[prost(bool, optional, tag = "26")]
    pub rst_sibling: Option<bool>,
    /// Descriptors that replace dumped resources.
    #[prost(message, repeated, tag = "27")]
    pub inherit_fd: Vec<InheritFd>,
    /// What to do with cgroups.
    #[prost(enumeration = "CgroupMode", optional, tag = "34")]
    pub manage_cgroups_mode: Option<i32>,
    /// The largest unlinked file to carry in the images, in bytes.
    #[prost(uint32, optional, tag = "35")]
    pub ghost_limit: Option<u32>,
    /// Resources that aren't CRIU's business, for example `mnt[/dev]:dev`.
    #[prost(string, repeated, tag = "37")]
    pub external: Vec<String>,
    /// Namespaces to restore empty, as `CLONE_NEW*` bits.
    #[prost(uint32, optional, tag = "38")]
    pub empty_ns: Option<u32>,
    /// The freezer cgroup to find the tree's threads in.
    #[prost(string, optional, tag = "44")]
    pub freeze_cgroup: Option<String>,
    /// Hand the masters of terminals to the client.
    #[prost(bool, optional, tag = "50")]
    pub orphan_pts_master: Option<bool>,
    /// What to do about packets.
    #[prost(enumeration = "NetworkLock", optional, tag = "64")]
    pub network_lock: Option<i32>,
}

/// Optional features; asked with `true`, answered with whether they work.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Features {
    /// Tracking of changed pages (soft-dirty).
    #[prost(bool, optional, tag = "1")]
    pub mem_track: Option<bool>,
    /// Pages served after the restore (userfaultfd).
    #[prost(bool, optional, tag = "2")]
    pub lazy_pages: Option<bool>,
}

/// One message to CRIU.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Request {
    /// What is asked.
    #[prost(enumeration = "Kind", required, tag = "1")]
    pub kind: i32,
    /// For a dump or a restore.
    #[prost(message, optional, tag = "2")]
    pub options: Option<Options>,
    /// For an answer to a notification: go on.
    #[prost(bool, optional, tag = "3")]
    pub notify_success: Option<bool>,
    /// Wait for another request after this one.
    #[prost(bool, optional, tag = "4")]
    pub keep_open: Option<bool>,
    /// For a feature check.
    #[prost(message, optional, tag = "5")]
    pub features: Option<Features>,
}

/// What a restore answers.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct RestoreResult {
    /// The restored init, or -1.
    #[prost(int32, required, tag = "1")]
    pub pid: i32,
}

/// A notification.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Notify {
    /// Its name, for example `post-dump`.
    #[prost(string, optional, tag = "1")]
    pub script: Option<String>,
    /// The restored init, where there is one yet.
    #[prost(int32, optional, tag = "2")]
    pub pid: Option<i32>,
}

/// CRIU's version.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct VersionNumbers {
    /// The first number.
    #[prost(int32, required, tag = "1")]
    pub major: i32,
    /// The second number.
    #[prost(int32, required, tag = "2")]
    pub minor: i32,
    /// The third number.
    #[prost(int32, optional, tag = "4")]
    pub sublevel: Option<i32>,
}

/// One message from CRIU.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Response {
    /// What is answered.
    #[prost(enumeration = "Kind", required, tag = "1")]
    pub kind: i32,
    /// Whether it worked.
    #[prost(bool, required, tag = "2")]
    pub success: bool,
    /// Of a restore.
    #[prost(message, optional, tag = "4")]
    pub restore: Option<RestoreResult>,
    /// Of a notification.
    #[prost(message, optional, tag = "5")]
    pub notify: Option<Notify>,
    /// An `errno`, where CRIU has one.
    #[prost(int32, optional, tag = "7")]
    pub errno: Option<i32>,
    /// Of a feature check.
    #[prost(message, optional, tag = "8")]
    pub features: Option<Features>,
    /// The *first* error CRIU logged, which need not be the one that mattered.
    #[prost(string, optional, tag = "9")]
    pub message: Option<String>,
    /// Of a version request.
    #[prost(message, optional, tag = "10")]
    pub version: Option<VersionNumbers>,
}

impl Request {
    /// A request of `kind` with nothing else set.
    #[must_use]
    pub fn of(kind: Kind) -> Self {
        Self { kind: kind as i32, ..Self::default() }
    }

    /// The answer to a notification.
    #[must_use]
    pub fn answer(go_on: bool) -> Self {
        Self { notify_success: Some(go_on), ..Self::of(Kind::Notify) }
    }
}
