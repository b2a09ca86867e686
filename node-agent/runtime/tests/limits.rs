//! Limits bind: measured by the kernel's own accounts, not by the clock.

mod node;

use container_runtime::{Controller, Limits, Overrides};
use node::{Node, eventually, sh, wait_exit};

fn limited(script: &str, limits: Limits) -> Overrides {
    Overrides { limits, ..sh(script) }
}

#[test]
fn the_memory_limit_kills_and_is_reported() {
    let node = Node::new();
    let limits = Limits { memory_bytes: Some(16 << 20), ..Limits::default() };
    // dd takes one buffer of this size.
    let overrides = limited("exec dd if=/dev/zero of=/dev/null bs=64M count=1", limits);
    let (exit, log) = node.run(&node.bundle("hog@1", &overrides));
    assert_eq!((exit.code, exit.signal, exit.oom), (137, Some(9), true), "{log:#?}");
    let bundle = node.bundle("enough@1", &limited("dd if=/dev/zero of=/dev/null bs=1M count=1", limits));
    let (exit, _) = node.run(&bundle);
    assert_eq!((exit.code, exit.oom), (0, false));
}

#[test]
fn a_child_killed_for_memory_is_reported_as_well() {
    let node = Node::new();
    let limits = Limits { memory_bytes: Some(16 << 20), ..Limits::default() };
    let overrides = limited("dd if=/dev/zero of=/dev/null bs=64M count=1; exit 3", limits);
    let (exit, _) = node.run(&node.bundle("child@1", &overrides));
    assert_eq!((exit.code, exit.signal, exit.oom), (3, None, true));
}

#[test]
fn the_process_limit_binds() {
    let node = Node::new();
    let limits = Limits { pids: Some(5), ..Limits::default() };
    let overrides = limited("for i in 1 2 3 4 5 6 7 8; do sleep 100 & done", limits);
    let (exit, log) = node.run(&node.bundle("fork@1", &overrides));
    assert_eq!(exit.code, 2, "{log:#?}");
    assert_eq!(log, ["sh: can't fork: Resource temporarily unavailable"]);
}

#[test]
fn the_cpu_quota_binds() {
    let node = Node::new();
    let limits = Limits { cpu_quota_us: Some(20_000), cpu_shares: Some(512), ..Limits::default() };
    let bundle = node.bundle("spin@1", &limited("while :; do :; done", limits));
    let container = node.start(&bundle);
    let usage = || bundle.cgroup.usage().expect("usage");
    eventually("it has been held back for a while", || usage().throttled_us > 300_000);
    let used_us = usage().cpu_us;
    let cpu =
        bundle.cgroup.hierarchies.iter().find(|h| h.controllers.contains(&Controller::Cpu)).expect("cpu");
    let stat = std::fs::read_to_string(cpu.dir.join("cpu.stat")).expect("cpu.stat");
    let periods = stat.lines().find_map(|line| line.strip_prefix("nr_periods ")).expect("periods");
    let periods: u64 = periods.parse().expect("a number");
    // One period may be under way, and the scheduler hands time out in slices of 5 ms per CPU.
    assert!(used_us <= (periods + 2) * 20_000 + 10_000, "{used_us} us in {periods} periods");
    container.kill_all().expect("kill");
    wait_exit(&container);
}

#[test]
fn usage_is_accounted_and_limits_can_be_changed() {
    let node = Node::new();
    let bundle = node.script(
        "use@1",
        "dd if=/dev/zero of=/dev/shm/file bs=1M count=8 2>/dev/null; while :; do sleep 1; done",
    );
    let container = node.start(&bundle);
    let usage = || bundle.cgroup.usage().expect("usage");
    eventually("it uses memory", || usage().memory_bytes > 8 << 20);
    eventually("two processes", || usage().pids == 2);
    assert!(usage().working_set_bytes > 8 << 20, "a tmpfs can't be reclaimed");
    assert!(usage().cpu_us > 0);
    bundle.cgroup.apply_limits(&Limits { memory_bytes: Some(64 << 20), ..Limits::default() }).expect("raise");
    bundle.cgroup.apply_limits(&Limits { memory_bytes: Some(32 << 20), ..Limits::default() }).expect("lower");
    bundle
        .cgroup
        .apply_limits(&Limits { memory_bytes: Some(128 << 20), ..Limits::default() })
        .expect("raise");
    container.kill_all().expect("kill");
    wait_exit(&container);
}

#[test]
fn open_files_are_limited_within_what_the_node_has() {
    let node = Node::new();
    let ceiling =
        nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).expect("limit").1;
    let (_, log) = node.run(&node.script("files@1", "ulimit -n; ulimit -Hn"));
    let usual = ceiling.min(16_384).to_string();
    assert_eq!(log, [usual.clone(), usual]);
    let rlimit = serde_json::json!({ "type": "RLIMIT_NOFILE", "soft": 1_000_000_000, "hard": 1_000_000_000 });
    let rlimits = vec![serde_json::from_value(rlimit).expect("a limit")];
    let overrides = Overrides { rlimits, ..sh("ulimit -n") };
    let (exit, log) = node.run(&node.bundle("many@1", &overrides));
    assert_eq!((exit.code, log), (0, vec![ceiling.min(1_000_000_000).to_string()]));
}

#[test]
fn its_oom_score_is_its_own() {
    let node = Node::new();
    std::fs::write("/proc/self/oom_score_adj", "100").expect("raise our own");
    let script = "cat /proc/self/oom_score_adj";
    let overrides = Overrides { oom_score_adj: Some(500), ..sh(script) };
    assert_eq!(node.run(&node.bundle("killed-first@1", &overrides)).1, ["500"]);
}
