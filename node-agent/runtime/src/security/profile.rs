//! The default seccomp profile: an allowlist in the manner of Docker's.
//!
//! Allowed is what ordinary programs, language runtimes and databases call. Left out, and answered with `EPERM`:
//! - what changes mounts or namespaces (`mount`, `pivot_root`, `unshare`, `setns`), so that a process can't leave its
//!   namespaces or make new ones;
//! - what changes the node (`reboot`, `swapon`, clocks, modules, `kexec`, `acct`, `syslog`, quotas);
//! - what reaches far into the kernel and has a history of holes (`bpf`, `userfaultfd`, `perf_event_open`, `keyctl` and
//!   the key ring, which isn't namespaced, `fanotify_init`, `open_by_handle_at`);
//! - `io_uring`, which bypasses this filter and can't be checkpointed.
//!
//! `clone3` is answered with `ENOSYS`: its flags are behind a pointer that a filter can't follow, and C libraries fall back
//! to `clone`, whose flags are checked. `ptrace` and `process_vm_*` are allowed: within a container's own user namespace
//! they reach only the container's own processes.

use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder, LinuxSeccompOperator,
    LinuxSyscall,
};

/// Allowed on every architecture.
const COMMON: &str = "
    accept accept4 bind connect getpeername getsockname getsockopt listen recvfrom recvmmsg recvmsg sendmmsg sendmsg
    sendto setsockopt shutdown socketpair
    faccessat faccessat2 fchmodat fchmodat2 fchownat linkat mkdirat mknodat name_to_handle_at newfstatat openat
    openat2 readlinkat renameat renameat2 statx symlinkat unlinkat utimensat
    chdir chroot fchdir getcwd fchmod fchown fstat fstatfs statfs truncate ftruncate umask
    close close_range copy_file_range dup dup3 fadvise64 fallocate fcntl fdatasync flock fsync ioctl lseek memfd_create
    pipe2 pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readahead readv sendfile splice sync sync_file_range
    syncfs tee vmsplice write writev getdents64
    fgetxattr flistxattr fremovexattr fsetxattr getxattr lgetxattr listxattr llistxattr lremovexattr lsetxattr
    removexattr setxattr
    epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 eventfd2 inotify_add_watch inotify_init1 inotify_rm_watch
    ppoll pselect6 signalfd4 timerfd_create timerfd_gettime timerfd_settime
    io_cancel io_destroy io_getevents io_pgetevents io_setup io_submit
    execve execveat exit exit_group kcmp kill pidfd_getfd pidfd_open pidfd_send_signal ptrace tgkill tkill wait4
    waitid process_madvise process_mrelease process_vm_readv process_vm_writev
    capget capset getegid geteuid getgid getgroups getpgid getpid getppid getresgid getresuid getsid gettid getuid
    setfsgid setfsuid setgid setgroups setpgid setregid setresgid setresuid setreuid setsid setuid
    getcpu getpriority getrlimit getrusage ioprio_get ioprio_set prctl prlimit64 sched_getaffinity sched_getattr
    sched_get_priority_max sched_get_priority_min sched_getparam sched_getscheduler sched_rr_get_interval
    sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield setpriority setrlimit sysinfo times
    uname
    futex futex_requeue futex_wait futex_waitv futex_wake get_robust_list membarrier restart_syscall rseq
    set_robust_list set_tid_address
    brk get_mempolicy madvise mbind memfd_secret mincore mlock mlock2 mlockall mmap mprotect mremap mseal msync munlock
    munlockall munmap pkey_alloc pkey_free pkey_mprotect remap_file_pages set_mempolicy set_mempolicy_home_node
    map_shadow_stack
    adjtimex clock_adjtime clock_getres clock_gettime clock_nanosleep getitimer gettimeofday nanosleep setitimer
    timer_create timer_delete timer_getoverrun timer_gettime timer_settime
    rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait
    rt_tgsigqueueinfo sigaltstack
    mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend mq_unlink msgctl msgget msgrcv msgsnd semctl semget
    semop semtimedop shmat shmctl shmdt shmget
    getrandom landlock_add_rule landlock_create_ruleset landlock_restrict_self seccomp
";

/// Calls that newer architectures don't have any more.
#[cfg(target_arch = "x86_64")]
const LEGACY: &str = "
    access chmod chown creat lchown link lstat mkdir mknod open readlink rename rmdir stat symlink unlink utime utimes
    futimesat
    alarm arch_prctl dup2 epoll_create epoll_wait epoll_ctl_old epoll_wait_old eventfd fork getdents getpgrp
    get_thread_area inotify_init pause pipe poll select set_thread_area signalfd time uretprobe vfork
";

/// Calls that newer architectures don't have any more.
#[cfg(not(target_arch = "x86_64"))]
const LEGACY: &str = "";

/// Argument values of `personality` that change nothing dangerous: native Linux, its 32-bit and its old-uname variants,
/// and the question what it is.
const PERSONALITIES: [u64; 5] = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// All `CLONE_NEW*` flags that `clone` can carry: a filter can look at them only here.
const NAMESPACE_FLAGS: u64 = 0x7e02_0000;

/// The address family of virtual machine sockets, which aren't namespaced and reach the hypervisor.
const AF_VSOCK: u64 = 40;

/// The default profile.
#[must_use]
pub fn default_seccomp() -> LinuxSeccomp {
    let names = COMMON.split_whitespace().chain(LEGACY.split_whitespace()).map(str::to_owned).collect();
    let mut syscalls = vec![
        rule(names, None),
        rule(
            vec!["clone".into()],
            Some(arg(LinuxSeccompOperator::ScmpCmpMaskedEq, NAMESPACE_FLAGS, Some(0))),
        ),
        rule(vec!["socket".into()], Some(arg(LinuxSeccompOperator::ScmpCmpNe, AF_VSOCK, None))),
    ];
    let persona =
        |value| rule(vec!["personality".into()], Some(arg(LinuxSeccompOperator::ScmpCmpEq, value, None)));
    syscalls.extend(PERSONALITIES.map(persona));
    syscalls.push(answer_unknown("clone3"));
    let mut profile = LinuxSeccomp::default();
    profile.set_default_action(LinuxSeccompAction::ScmpActErrno);
    profile.set_default_errno_ret(Some(libc::EPERM.unsigned_abs()));
    profile.set_syscalls(Some(syscalls));
    profile
}

/// Allows `names`, if the condition on the first argument holds.
fn rule(names: Vec<String>, condition: Option<LinuxSeccompArg>) -> LinuxSyscall {
    let mut rule = LinuxSyscall::default();
    rule.set_names(names);
    rule.set_action(LinuxSeccompAction::ScmpActAllow);
    rule.set_args(condition.map(|condition| vec![condition]));
    rule
}

fn arg(op: LinuxSeccompOperator, value: u64, value_two: Option<u64>) -> LinuxSeccompArg {
    let arg = LinuxSeccompArgBuilder::default().index(0_usize).op(op).value(value);
    let arg = if let Some(second) = value_two { arg.value_two(second) } else { arg };
    arg.build().unwrap_or_else(|error| unreachable!("every field is set: {error}"))
}

/// Answers as a kernel that doesn't know the call.
fn answer_unknown(name: &str) -> LinuxSyscall {
    let mut rule = rule(vec![name.to_owned()], None);
    rule.set_action(LinuxSeccompAction::ScmpActErrno);
    rule.set_errno_ret(Some(libc::ENOSYS.unsigned_abs()));
    rule
}
