//! Agents come and go, leases end, containers are deleted.

mod node;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use container_runtime::{Adopted, Event, InstanceId, LogLimits, Phase, Process, RequestError};
use node::{Node, PATIENCE, eventually, wait_exit};

const FOREVER: &str = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.01; done";

#[test]
fn signals_reach_init_and_death_takes_everything_along() {
    let node = Node::new();
    let bundle = node.script(
        "term@1",
        "trap 'echo bye; exit 5' TERM; sleep 1000 & echo ready; while :; do sleep 0.01; done",
    );
    let container = node.start(&bundle);
    eventually("it is ready", || node.log(&bundle) == ["ready"]);
    container.signal(libc::SIGTERM).expect("signal");
    let exit = wait_exit(&container);
    assert_eq!((exit.code, node.log(&bundle).last().map(String::as_str)), (5, Some("bye")));
    assert!(bundle.cgroup.pids().expect("pids").is_empty(), "the background process is gone too");
    assert!(matches!(container.signal(libc::SIGTERM), Err(RequestError::Refused(_))));
}

#[test]
fn another_agent_adopts_what_one_left_behind() {
    let node = Node::new();
    let bundle = node.script("adopt@1", FOREVER);
    let pid = {
        let container = node.start(&bundle);
        container.init().expect("ask").expect("runs").pid()
    };
    let other = node.other_agent();
    assert_eq!(other.list().expect("list"), std::slice::from_ref(&bundle.instance));
    let Adopted::Live(container, state) = other.adopt(&bundle.instance).expect("adopt") else {
        panic!("not alive")
    };
    assert_eq!((state.phase, state.init.map(|init| init.pid)), (Phase::Running, Some(pid)));
    let before = node.log(&bundle).len();
    eventually("it still counts", || node.log(&bundle).len() > before);
    container.kill_all().expect("kill");
    assert_eq!(wait_exit(&container).signal, Some(9));
    container.release().expect("release");
    eventually("the shim ends", || matches!(container.status(), Err(RequestError::Connect { .. })));
    let Adopted::Dead(Some(state)) = other.adopt(&bundle.instance).expect("adopt") else {
        panic!("not dead")
    };
    assert_eq!(state.exit.expect("the exit is remembered").signal, Some(9));
}

/// The agent of this test is a process of its own, killed without warning.
#[test]
fn containers_do_not_notice_the_death_of_their_agent() {
    let node = Node::new();
    let bundle = node.script("orphan@1", FOREVER);
    let spec = node.dir.path().join("bundle.json");
    fs::write(&spec, serde_json::to_vec(&bundle).expect("json")).expect("write");
    let mut agent = Command::new(env!("CARGO_BIN_EXE_dray-container"))
        .arg("run")
        .args([node.dir.path().join("containers"), node.dir.path().join("run"), spec])
        .spawn()
        .expect("an agent");
    let instance = bundle.instance.clone();
    let running =
        || matches!(node.runtime.last_state(&instance), Ok(Some(state)) if state.phase == Phase::Running);
    eventually("it runs", running);
    agent.kill().expect("kill -9");
    agent.wait().expect("wait");
    let before = node.log(&bundle).len();
    eventually("it still counts", || node.log(&bundle).len() > before);
    assert!(matches!(node.runtime.adopt(&instance), Ok(Adopted::Live(..))));
}

#[test]
fn a_lease_that_ends_freezes_and_a_new_one_thaws() {
    let node = Node::new();
    let bundle = node.script("lease@1", FOREVER);
    let container = node.start(&bundle);
    let mut events = container.events().expect("events");
    let mut next = || events.next_within(PATIENCE).expect("in time").expect("alive");
    assert!(matches!(next(), Event::State { .. }));
    let begun = std::time::Instant::now();
    container.lease(Some(Duration::from_millis(150))).expect("lease");
    assert_eq!(next(), Event::Fenced);
    assert!(begun.elapsed() >= Duration::from_millis(150), "not before its time");
    assert!(bundle.cgroup.is_frozen().expect("freezer"));
    assert!(container.status().expect("status").fenced);
    let frozen_at = bundle.cgroup.usage().expect("usage").cpu_us;
    container.lease(Some(PATIENCE)).expect("lease");
    assert_eq!(next(), Event::Unfenced);
    assert!(!bundle.cgroup.is_frozen().expect("freezer"));
    eventually("it runs again", || bundle.cgroup.usage().expect("usage").cpu_us > frozen_at);
    container.lease(None).expect("for ever");
}

#[test]
fn a_lease_thaws_nothing_that_the_agent_has_frozen() {
    let node = Node::new();
    let bundle = node.script("paused@1", FOREVER);
    let container = node.start(&bundle);
    let frozen = || bundle.cgroup.is_frozen().expect("freezer");
    container.pause().expect("pause");
    assert!(frozen());
    container.lease(Some(Duration::from_millis(1))).expect("lease");
    eventually("it is fenced as well", || container.status().expect("status").fenced);
    container.lease(None).expect("lease");
    assert!(frozen(), "still paused");
    container.lease(Some(Duration::from_millis(1))).expect("lease");
    eventually("it is fenced again", || container.status().expect("status").fenced);
    container.resume().expect("resume");
    assert!(frozen(), "still fenced");
    container.lease(None).expect("lease");
    assert!(!frozen());
    container.pause().expect("pause");
    container.kill_all().expect("a frozen container dies");
    assert_eq!(wait_exit(&container).signal, Some(9));
}

#[test]
fn a_container_dies_with_its_shim() {
    let node = Node::new();
    let bundle = node.script("shimless@1", FOREVER);
    let container = node.start(&bundle);
    let init = container.init().expect("ask").expect("runs");
    container.shim().expect("ask").expect("lives").kill().expect("kill");
    assert!(init.wait(PATIENCE).expect("wait"), "init is gone");
    eventually("everything is gone", || bundle.cgroup.pids().expect("pids").is_empty());
    let Adopted::Dead(Some(state)) = node.runtime.adopt(&bundle.instance).expect("adopt") else {
        panic!("alive")
    };
    assert_eq!(state.phase, Phase::Running, "nobody was left to record an exit");
    node.runtime.delete(&bundle.instance).expect("delete");
}

#[test]
fn logs_are_rotated() {
    let node = Node::new();
    let mut bundle =
        node.script("logs@1", "i=0; while [ $i -lt 2000 ]; do i=$((i+1)); echo line $i; done; echo err >&2");
    bundle.logs = LogLimits { file_bytes: 20_000, files: 3 };
    let (_, newest) = node.run(&bundle);
    assert!(newest.iter().any(|line| line == "line 2000"));
    let dir = node.runtime.instance_dir(&bundle.instance).join("logs");
    let names: BTreeSet<_> =
        fs::read_dir(&dir).expect("logs").map(|e| e.expect("entry").file_name()).collect();
    assert_eq!(names.len(), 3, "{names:?}");
    for name in names {
        assert!(fs::metadata(dir.join(name)).expect("log").len() <= 20_000);
    }
}

/// Everything on the node that a container could leave behind.
fn traces(node: &Node) -> BTreeSet<String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    let own_dir = node.dir.path().display().to_string();
    let mut traces: BTreeSet<String> =
        mounts.lines().filter(|mount| mount.contains(&own_dir)).map(str::to_owned).collect();
    let mut dirs: Vec<PathBuf> = node.cgroups.cgroup().dirs().map(Path::to_owned).collect();
    dirs.extend(["containers", "run"].map(|name| node.dir.path().join(name)));
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                dirs.push(entry.path());
                traces.insert(entry.path().display().to_string());
            }
        }
    }
    for entry in fs::read_dir("/proc").expect("proc").flatten() {
        let command = fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
        if command.contains(&own_dir) {
            traces.insert(command);
        }
    }
    traces
}

#[test]
fn deletion_leaves_nothing_whatever_the_state() {
    let node = Node::new();
    let first = node.script("first@1", "true");
    node.run(&first);
    node.runtime.delete(&first.instance).expect("delete");
    let before = traces(&node);
    let check = |name: &str, script: &str, act: &dyn Fn(&container_runtime::Container)| {
        let bundle = node.script(name, script);
        let container = node.runtime.create(&bundle).expect("create");
        let shim = container.shim().expect("ask").expect("lives");
        act(&container);
        node.runtime.delete(&bundle.instance).expect("delete");
        assert!(shim.wait(Duration::ZERO).expect("wait"), "the shim is gone");
        assert_eq!(traces(&node), before, "{name} left something");
        node.runtime.delete(&bundle.instance).expect("deleting is idempotent");
    };
    let start = |container: &container_runtime::Container| drop(container.start().expect("start"));
    check("created@1", FOREVER, &|_| {});
    check("running@1", FOREVER, &start);
    check("exited@1", "true", &|container| {
        start(container);
        wait_exit(container);
    });
    check("paused@1", FOREVER, &|container| {
        start(container);
        container.pause().expect("pause");
    });
    check("shimless@1", FOREVER, &|container| {
        start(container);
        container.shim().expect("ask").expect("lives").kill().expect("kill");
    });
    check("files@1", "mkdir -p /a/b; echo x > /a/b/c; chmod 0 /a/b", &|container| {
        start(container);
        wait_exit(container);
    });
    node.runtime
        .delete(&InstanceId::new("never@1").expect("an id"))
        .expect("what never was is deleted already");
}

#[test]
fn a_process_handle_is_readable_when_it_has_ended() {
    let node = Node::new();
    let bundle = node.script("handle@1", "sleep 0.05");
    let container = node.start(&bundle);
    let init: Process = container.init().expect("ask").expect("runs");
    assert!(init.wait(PATIENCE).expect("wait"));
}
