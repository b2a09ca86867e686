//! A container leaves one node and goes on at another, with the real CRIU.

mod node;

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use container_checkpoint::dump::LogLevel;
use container_checkpoint::{Criu, DumpHooks, DumpSpec, Fate, Freezer, Outcome, dump};
use container_runtime::{Adopted, Bundle, Container, Event, Events, Hook, Phase, RestoreOrder, State};
use node::{Node, PATIENCE, eventually, wait_exit};

const COUNTER: &str =
    "i=0; echo $$ > /dev/shm/pid; while :; do i=$((i+1)); echo $i; echo $i > /count; sleep 0.02; done";

struct Checkpoint {
    dir: tempfile::TempDir,
}

impl Checkpoint {
    fn images(&self) -> PathBuf {
        self.dir.path().join("images")
    }

    fn order(&self) -> RestoreOrder {
        RestoreOrder {
            criu: Criu::find().expect("CRIU").program().to_owned(),
            images_dir: self.images(),
            log_dir: self.dir.path().to_owned(),
        }
    }
}

fn criu() -> Criu {
    let mut criu = Criu::find().expect("CRIU");
    criu.warm().expect("warm");
    criu
}

/// Dumps the container and kills it.
fn take(container: &Container, bundle: &Bundle) -> Checkpoint {
    let checkpoint = Checkpoint { dir: tempfile::tempdir().expect("a directory") };
    std::fs::create_dir(checkpoint.images()).expect("mkdir");
    let state = container.hold().expect("hold");
    let spec = DumpSpec {
        init: state.init.expect("init").pid,
        freezer: Freezer::at(bundle.cgroup.freezer_dir().expect("a freezer")).expect("freezer"),
        images: checkpoint.images(),
        logs: checkpoint.dir.path().to_owned(),
        mounts: state.externals.iter().map(|external| external.path.clone()).collect(),
        stdio: state.stdio,
        log_level: LogLevel::Errors,
    };
    let hooks = DumpHooks { frozen: &mut || Ok(()), held: &mut |_| Fate::Kill };
    let outcome = dump(&criu(), &spec, hooks).expect("dump");
    assert!(matches!(outcome, Outcome::Killed { complaint: None, .. }), "{outcome:?}");
    assert_eq!(wait_exit(container).signal, Some(libc::SIGKILL));
    checkpoint
}

/// What the agent carries: the upper directory and the content of `/dev/shm`.
fn carry(from: &Bundle, to: &Bundle, state: &State) {
    let copy = |from: PathBuf, to: PathBuf| {
        let done = Command::new("cp").arg("-a").arg(from.join(".")).arg(&to).status().expect("cp");
        assert!(done.success());
    };
    std::fs::create_dir_all(to.upper_dir()).expect("mkdir");
    copy(from.upper_dir(), to.upper_dir());
    let shm = state.externals.iter().find(|external| external.path.ends_with("shm")).expect("/dev/shm");
    let staged = shm.staged.as_ref().expect("staged").strip_prefix("/").expect("absolute");
    let seen = PathBuf::from(format!("/proc/{}/root", state.shim.pid)).join(staged);
    std::fs::write(seen.join("carried"), "yes").expect("write");
}

fn wait_for_hook(events: &mut Events, wanted: Hook) -> i32 {
    loop {
        match events.next_within(PATIENCE).expect("an event in time").expect("a living shim") {
            Event::Held { hook, pid } if hook == wanted => return pid,
            Event::State { .. } => {}
            other => panic!("{other:?} instead of {wanted:?}"),
        }
    }
}

/// Carries a checkpoint to `node` and restores it up to the hook `wanted`.
fn restore_until(
    node: &Node,
    from: &Bundle,
    to: &Bundle,
    checkpoint: &Checkpoint,
    wanted: Hook,
) -> (Container, Events) {
    let container = node.runtime.prepare_restore(to, &checkpoint.order()).expect("prepare");
    let state = container.status().expect("status");
    assert_eq!(state.phase, Phase::Prepared);
    carry(from, to, &state);
    let mut events = container.events().expect("events");
    container.restore().expect("restore");
    for hook in [Hook::SetupNamespaces, Hook::PostRestore] {
        wait_for_hook(&mut events, hook);
        if hook == wanted {
            break;
        }
        container.answer(hook, true).expect("answer");
    }
    (container, events)
}

fn counting(node: &Node) -> (Bundle, Container) {
    let bundle = node.script("count-0@1", COUNTER);
    let container = node.start(&bundle);
    eventually("it counts", || node.log(&bundle).len() > 3);
    (bundle, container)
}

#[test]
fn a_container_goes_on_elsewhere_and_back() {
    let (a, b) = (Node::new(), Node::new());
    let (first, container) = counting(&a);
    let checkpoint = take(&container, &first);
    let counted = a.log(&first).len();

    let second = b.script("count-0@2", COUNTER);
    let (restored, mut events) = restore_until(&b, &first, &second, &checkpoint, Hook::SetupNamespaces);
    let pid = restored.status().expect("status").init.expect("init").pid;
    assert_eq!(second.cgroup.pids().expect("pids"), [pid], "init is in its cgroup");
    assert!(restored.answer(Hook::PostRestore, true).is_err(), "another hook is held");
    restored.answer(Hook::SetupNamespaces, true).expect("answer");
    wait_for_hook(&mut events, Hook::PostRestore);
    assert_eq!(b.log(&second).len(), 0, "nothing has run");
    restored.answer(Hook::PostRestore, true).expect("answer");
    let event = events.next_within(PATIENCE).expect("in time");
    assert_eq!(event, Some(Event::Restored { pid }));
    eventually("it goes on", || b.log(&second).len() > 3);
    assert_eq!(b.log(&second)[0], (counted + 1).to_string(), "it goes on where it stopped");
    let carried = format!("/proc/{pid}/root/dev/shm/carried");
    assert_eq!(std::fs::read_to_string(carried).expect("the content of a tmpfs came along"), "yes");

    let back = take(&restored, &second);
    let third = a.script("count-0@3", COUNTER);
    let (again, _) = restore_until(&a, &second, &third, &back, Hook::PostRestore);
    again.answer(Hook::PostRestore, true).expect("answer");
    eventually("it goes on at home", || a.log(&third).len() > 3);
    again.kill_all().expect("kill");
    assert_eq!(wait_exit(&again).signal, Some(libc::SIGKILL));
}

#[test]
fn a_no_at_the_last_moment_leaves_nothing() {
    let (a, b) = (Node::new(), Node::new());
    let (first, container) = counting(&a);
    let checkpoint = take(&container, &first);
    let second = b.script("count-0@2", COUNTER);
    let (restored, mut events) = restore_until(&b, &first, &second, &checkpoint, Hook::PostRestore);
    let init = restored.init().expect("ask").expect("it is there, stopped");
    restored.answer(Hook::PostRestore, false).expect("answer");
    let event = events.next_within(PATIENCE).expect("in time").expect("alive");
    assert!(matches!(event, Event::RestoreFailed { .. }), "{event:?}");
    assert!(init.wait(PATIENCE).expect("wait"), "init is gone");
    let state = restored.status().expect("the shim still answers");
    assert_eq!((state.phase, state.held), (Phase::Exited, None));
    assert!(second.cgroup.pids().expect("pids").is_empty());
    assert!(b.log(&second).is_empty(), "nothing has run");
}

#[test]
fn another_agent_answers_the_hook_that_one_left_behind() {
    let (a, b) = (Node::new(), Node::new());
    let (first, container) = counting(&a);
    let checkpoint = take(&container, &first);
    let second = b.script("count-0@2", COUNTER);
    drop(restore_until(&b, &first, &second, &checkpoint, Hook::PostRestore));
    let Adopted::Live(container, state) = b.other_agent().adopt(&second.instance).expect("adopt") else {
        panic!("the shim is gone")
    };
    assert_eq!((state.phase, state.held), (Phase::Restoring, Some(Hook::PostRestore)));
    container.answer(Hook::PostRestore, true).expect("answer");
    eventually("it goes on", || b.log(&second).len() > 3);
}

#[test]
fn a_lease_that_ends_while_held_forbids_the_yes() {
    let (a, b) = (Node::new(), Node::new());
    let (first, container) = counting(&a);
    let checkpoint = take(&container, &first);
    let second = b.script("count-0@2", COUNTER);
    let (container, _events) = restore_until(&b, &first, &second, &checkpoint, Hook::PostRestore);
    container.lease(Some(Duration::from_millis(1))).expect("lease");
    eventually("fenced", || container.status().expect("status").fenced);
    assert!(container.answer(Hook::PostRestore, true).is_err());
    container.lease(Some(PATIENCE)).expect("lease");
    container.answer(Hook::PostRestore, true).expect("with a lease it may go on");
    eventually("it goes on", || b.log(&second).len() > 3);
}

#[test]
fn a_container_held_in_a_hook_can_be_deleted() {
    let (a, b) = (Node::new(), Node::new());
    let (first, container) = counting(&a);
    let checkpoint = take(&container, &first);
    let second = b.script("count-0@2", COUNTER);
    let (container, _events) = restore_until(&b, &first, &second, &checkpoint, Hook::SetupNamespaces);
    let init = container.init().expect("ask").expect("it is there, stopped");
    b.runtime.delete(&second.instance).expect("delete");
    assert!(init.wait(Duration::ZERO).expect("wait"), "init is gone");
    assert!(!b.runtime.instance_dir(&second.instance).exists());
}
