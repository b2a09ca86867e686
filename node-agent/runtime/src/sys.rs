//! Every system call that no safe wrapper offers. Nothing else in this crate is unsafe.
#![expect(
    unsafe_code,
    reason = "clone3, fork and mount_setattr have no safe wrapper; this file is the one place"
)]

use std::ffi::CStr;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use seccompiler::BpfProgramRef;

/// What [`clone3`] should make.
#[derive(Debug, Default)]
pub(crate) struct CloneOptions<'a> {
    /// `CLONE_NEW*` flags.
    pub namespaces: u64,
    /// A v2 cgroup directory the child is born into.
    pub cgroup: Option<BorrowedFd<'a>>,
}

/// Which side of a [`clone3`] we are on.
#[derive(Debug)]
pub(crate) enum Forked {
    /// The new process.
    Child,
    /// The old one: the child's pid, and a pidfd for it.
    Parent(i32, OwnedFd),
}

/// `struct clone_args`, clone3(2).
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Forks with new namespaces. The caller must be single-threaded, as shim and exec processes are.
pub(crate) fn clone3(options: &CloneOptions<'_>) -> io::Result<Forked> {
    let mut pidfd: RawFd = -1;
    let into = options.cgroup.map_or(0, |_| CLONE_INTO_CGROUP);
    let args = CloneArgs {
        flags: options.namespaces | into | widen(libc::CLONE_PIDFD),
        pidfd: (&raw mut pidfd) as u64,
        exit_signal: widen(libc::SIGCHLD),
        cgroup: options.cgroup.map_or(0, |fd| widen(fd.as_raw_fd())),
        ..CloneArgs::default()
    };
    // SAFETY: `args` is a live clone_args of the size we name, `pidfd` a live i32. No stack and no CLONE_VM: the child
    // gets a copy of this memory, as after fork. The process has one thread (dispatch runs before any other is made), so
    // the copy holds no lock of a thread that isn't there.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) };
    match i32::try_from(pid) {
        Ok(0) => Ok(Forked::Child),
        // SAFETY: clone3 returned a pid, so it stored a new file descriptor that nobody else owns.
        Ok(pid) if pid > 0 => Ok(Forked::Parent(pid, unsafe { OwnedFd::from_raw_fd(pidfd) })),
        _failed => Err(io::Error::last_os_error()),
    }
}

fn widen(value: i32) -> u64 {
    u64::from(value.cast_unsigned())
}

/// Ends this process at once: no destructors, no buffered output, for the child side of a fork.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit never returns and touches no memory of ours.
    unsafe { libc::_exit(code) }
}

/// Closes every file descriptor from `first` on at the next exec.
pub(crate) fn close_from_on_exec(first: u32) -> io::Result<()> {
    // SAFETY: close_range takes three integers. CLOEXEC closes nothing now, so no OwnedFd is invalidated.
    let rc = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sets every signal's action to the default, ignored ones included (they would survive an exec).
pub(crate) fn default_signal_actions() {
    for number in 1..=libc::SIGRTMAX() {
        // SAFETY: signal(2) with SIG_DFL installs no handler of ours. It fails for SIGKILL and SIGSTOP, which can't be
        // ignored anyway.
        unsafe { libc::signal(number, libc::SIG_DFL) };
    }
}

/// Lets a signal pass without effect on this process. Not by ignoring it, which our children would inherit: CRIU waits for
/// ever for a helper that it has sent a SIGTERM.
pub(crate) fn survive_signal(number: i32) {
    extern "C" fn nothing(_number: libc::c_int) {}
    let nothing: extern "C" fn(libc::c_int) = nothing;
    // SAFETY: the handler touches nothing, so it may run at any point.
    unsafe { libc::signal(number, nothing as libc::sighandler_t) };
}

/// `struct mount_attr`, mount_setattr(2).
#[repr(C)]
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct MountAttr {
    /// `MOUNT_ATTR_*` to set.
    pub set: u64,
    /// `MOUNT_ATTR_*` to clear.
    pub clear: u64,
    /// New propagation type.
    pub propagation: u64,
    /// A user namespace's fd, with `MOUNT_ATTR_IDMAP`.
    pub userns_fd: u64,
}

/// How far a change of a mount goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    /// This mount.
    One,
    /// It and all mounts below it.
    Tree,
}

/// Changes the attributes of mounts.
pub(crate) fn mount_setattr(mount: BorrowedFd<'_>, attr: MountAttr, depth: Depth) -> io::Result<()> {
    const EMPTY: &CStr = c"";
    let flags = match depth {
        Depth::One => libc::AT_EMPTY_PATH,
        Depth::Tree => libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
    };
    // SAFETY: the path is a static C string, `attr` a live mount_attr of the size we name.
    let rc = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            EMPTY.as_ptr(),
            flags,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Installs a seccomp filter for this thread. Unlike the compiler crate's own function this leaves no-new-privileges alone.
pub(crate) fn install_seccomp_filter(program: BpfProgramRef<'_>) -> io::Result<()> {
    let len = u16::try_from(program.len()).map_err(|_too_long| io::ErrorKind::InvalidInput)?;
    // Both types are the kernel's `struct sock_filter`.
    let filter = program.as_ptr().cast::<libc::sock_filter>().cast_mut();
    let program = libc::sock_fprog { len, filter };
    // SAFETY: the kernel copies `len` instructions from `filter`, which point into the caller's live slice, and writes
    // nothing.
    let rc =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Gives unused heap back to the kernel.
pub(crate) fn trim_heap() {
    // SAFETY: malloc_trim takes an integer and keeps every live allocation where it is.
    unsafe { libc::malloc_trim(0) };
}

/// Takes over a file descriptor that this process inherited by its number (standard input of a re-exec).
pub(crate) fn take_stdin() -> io::Result<OwnedFd> {
    rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3).map_err(io::Error::from)
}

/// Sends any signal, real-time ones too, to the process behind a pidfd.
pub(crate) fn send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    let no_info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo makes the kernel fill in one as kill(2) does; the other arguments are integers.
    let rc = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, no_info, 0) };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Owns a file descriptor that a system call has just returned as a number.
pub(crate) fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: callers pass a descriptor that the kernel has just made for them and that they hand over here.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
