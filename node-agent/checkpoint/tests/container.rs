//! Real dumps and restores of a real process tree. Needs root, CRIU, `bash`, `unshare`, `nsenter` and `ip`.

#![expect(unreachable_pub, reason = "the fixture is a module of several test binaries")]

mod fixture;

use std::env;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio, id};
use std::thread;

use container_checkpoint::criu::session::{Event, Refused, SessionError};
use container_checkpoint::dump::DumpError;
use container_checkpoint::{DumpHooks, DumpSpec, Fate, Freezer, Outcome, dump, preflight};
use fixture::{Container, chain, children, criu, freezers, kill_by_pid, wait_for, workload};

/// Not a test: this binary is also the program in the container, and an agent that will be killed.
#[test]
fn workload() {
    workload::run_if_asked();
    if env::var(workload::ROLE).as_deref() == Ok("agent") {
        agent();
    }
}

/// Dumps what it is told to, and holds for ever.
fn agent() {
    let spec: DumpSpec = serde_json::from_str(&env::var("DRAY_TEST_DUMP").expect("a dump")).expect("a dump");
    let held = spec.logs.join("held");
    let mut hold = |_: &_| {
        fs::write(&held, b"").expect("say so");
        loop {
            thread::park();
        }
    };
    let result = dump(&criu(), &spec, DumpHooks { frozen: &mut || Ok(()), held: &mut hold });
    unreachable!("{result:?}");
}

/// Dumps, and does to the container what `fate` says.
fn dumped(container: &Container, fate: Fate) -> Outcome {
    let hooks = DumpHooks { frozen: &mut || Ok(()), held: &mut |_| fate };
    let outcome = dump(&criu(), &container.dump_spec(), hooks);
    outcome.unwrap_or_else(|error| panic!("{}", chain(&error)))
}

fn dump_away(container: &mut Container) {
    match dumped(container, Fate::Kill) {
        Outcome::Killed { phases, complaint: None } => eprintln!("{phases:?}"),
        other => panic!("{other:?}"),
    }
    container.wait_until_gone();
}

/// A small container for each kind of freezer this machine has.
fn one_of_each() -> impl Iterator<Item = Container> {
    freezers().into_iter().map(|top| Container::start_below(&top, 1))
}

/// Thaws, and asserts that it goes on: memory, connection and all.
fn goes_on(container: &Container) {
    container.rounds.are_still();
    assert!(container.freezer().is_frozen().expect("a state"));
    container.freezer().thaw().expect("thaw");
    let first = container.rounds.next();
    assert_eq!(container.rounds.next(), first + 1);
}

#[test]
fn a_container_goes_there_and_back() {
    freezers().iter().for_each(|top| there_and_back(Container::start_below(top, 16)));
}

fn there_and_back(mut container: Container) {
    for _ in 0..2 {
        let before = container.rounds.next();
        dump_away(&mut container);
        let at_dump = container.rounds_on_disk();
        assert!(at_dump >= before);
        let restored = container.restore(&mut |_| Ok(())).unwrap_or_else(|error| panic!("{error}"));
        eprintln!("{restored:?}");
        assert!(container.rounds.next() >= at_dump);
        container.rounds.next();
        sees_its_cgroup_as_root(restored.init);
    }
}

/// Seen from outside it is somewhere, seen from inside at the top.
fn sees_its_cgroup_as_root(init: i32) {
    let path = format!("/proc/{init}/cgroup");
    let namespace = format!("--cgroup=/proc/{init}/ns/cgroup");
    let inside = Command::new("nsenter").args([&namespace, "cat", &path]).output().expect("nsenter").stdout;
    let inside = String::from_utf8(inside).expect("text");
    assert!(fs::read_to_string(&path).expect("cgroups").contains("/dray-checkpoint-"));
    assert!(inside.contains(":/\n") && !inside.contains("dray-checkpoint-"), "{inside}");
}

#[test]
fn a_container_that_is_kept_goes_on_when_thawed() {
    for container in one_of_each() {
        for _ in 0..2 {
            assert!(matches!(dumped(&container, Fate::Keep), Outcome::Kept { .. }));
            goes_on(&container);
        }
    }
}

#[test]
fn a_refusal_after_the_freeze_leaves_it_frozen() {
    let container = Container::start(1);
    let mut refuse = || Err(Refused::because("no shield"));
    let hooks = DumpHooks { frozen: &mut refuse, held: &mut |_| unreachable!("refused before") };
    let error = dump(&criu(), &container.dump_spec(), hooks).unwrap_err();
    assert!(chain(&error).contains("no shield"), "{}", chain(&error));
    goes_on(&container);
}

#[test]
fn connections_survive_the_death_of_criu() {
    one_of_each().for_each(criu_dies_holding);
}

fn criu_dies_holding(container: Container) {
    let mut hold = |_: &_| {
        let criu = children(id());
        let killed = criu.into_iter().filter(|pid| is_criu(*pid)).map(kill_by_pid).count();
        assert_eq!(killed, 1, "one CRIU holds it");
        Fate::Keep
    };
    let hooks = DumpHooks { frozen: &mut || Ok(()), held: &mut hold };
    let error = dump(&criu(), &container.dump_spec(), hooks).expect_err("CRIU is dead");
    assert!(matches!(error, DumpError::Criu { cause: SessionError::Gone { .. }, .. }), "{error:?}");
    goes_on(&container);
}

#[test]
fn a_container_stays_frozen_when_the_agent_dies() {
    one_of_each().for_each(agent_dies_holding);
}

fn agent_dies_holding(container: Container) {
    let spec = container.dump_spec();
    let mut agent = Command::new(env::current_exe().expect("myself"))
        .args(["workload", "--exact", "--nocapture"])
        .env(workload::ROLE, "agent")
        .env("DRAY_TEST_DUMP", serde_json::to_string(&spec).expect("text"))
        .spawn()
        .expect("an agent");
    wait_for("the dump to be held", || spec.logs.join("held").exists());
    let held_by: Vec<u32> = children(agent.id()).into_iter().filter(|pid| is_criu(*pid)).collect();
    assert_eq!(held_by.len(), 1, "one CRIU holds it");
    kill_by_pid(agent.id());
    assert_eq!(agent.wait().expect("its end").signal(), Some(9));
    wait_for("CRIU to let go", || !held_by.iter().any(|pid| is_criu(*pid)));
    goes_on(&container);
}

#[test]
fn a_refused_restore_leaves_nothing_and_can_be_repeated() {
    let mut container = Container::start(1);
    dump_away(&mut container);
    let at_dump = container.rounds_on_disk();
    for stage in [Event::SetupNamespaces, Event::PostRestore] {
        let mut init = None;
        let refused = container.restore(&mut |notification| {
            init = notification.pid.or(init);
            if notification.event == stage { Err(Refused::because("the log says no")) } else { Ok(()) }
        });
        assert!(refused.unwrap_err().contains("the log says no"));
        container.init = init.unwrap();
        container.wait_until_gone();
        assert_eq!(container.rounds_on_disk(), at_dump, "nothing may have run");
    }
    container.restore(&mut |_| Ok(())).unwrap();
    container.rounds.next();
}

#[test]
fn a_freezer_stops_thaws_and_kills() {
    for top in freezers() {
        let cgroup = fixture::make_cgroup(&top);
        let freezer = Freezer::at(&cgroup).unwrap();
        let mut counter = Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
        fs::write(cgroup.join("cgroup.procs"), counter.id().to_string()).unwrap();
        let used = || fs::read_to_string(format!("/proc/{}/schedstat", counter.id())).unwrap();
        for _ in 0..20 {
            freezer.freeze(fixture::PATIENCE).unwrap();
            let before = used();
            assert!(freezer.is_frozen().unwrap() && before == used(), "{}", top.display());
            freezer.thaw().unwrap();
            wait_for("the counter to run", || used() != before);
        }
        freezer.freeze(fixture::PATIENCE).unwrap();
        freezer.kill_all().unwrap();
        assert_eq!(counter.wait().unwrap().signal(), Some(9));
        assert!(freezer.pids().unwrap().is_empty());
        fs::remove_dir(&cgroup).unwrap();
        assert!(
            freezer.freeze(fixture::PATIENCE).unwrap_err().to_string().contains(cgroup.to_str().unwrap())
        );
    }
}

#[test]
fn preflight_finds_what_was_started_from_outside() {
    let container = Container::start(1);
    let mounts = [workload::DATA.into()];
    let inspect = || preflight::inspect(container.init, &container.freezer(), &mounts).unwrap();
    let clean = inspect();
    assert_eq!((clean.blockers.as_slice(), clean.processes), (&[][..], 2));
    assert!(clean.resident_bytes > 2 << 20);
    let inside = format!("{}", container.init);
    let script = r#"echo 0 > "$1"/cgroup.procs; exec nsenter -t "$0" -p -n cat"#;
    let mut exec = Command::new("sh")
        .args(["-c", script, &inside])
        .arg(container.freezer().dir())
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for("a blocker", || inspect().blockers.iter().any(|blocker| blocker.to_string().contains("exec")));
    drop(exec.stdin.take());
    exec.wait().unwrap();
    wait_for("no blocker", || inspect().blockers.is_empty());
}

#[test]
fn a_restore_without_a_mount_says_which() {
    let mut container = Container::start(1);
    dump_away(&mut container);
    container.mounts_offered = false;
    let error = container.restore(&mut |_| Ok(())).unwrap_err();
    assert!(error.contains("/data"), "{error}");
}

/// CRIU names itself after what it does.
fn is_criu(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|title| title.contains("dump --rpc"))
}
