//! The real program against schedulers that fail in the middle of things.

#![expect(clippy::unwrap_used, reason = "a test that can't be set up must fail")]

mod fake;

use dray_proto::status::with_reason;
use dray_proto::v1 as wire;
use fake::{Schedulers, Script, Seen};
use rustix::termios::{self, tcgetattr, tcsetwinsize};
use std::io::{Read, Write};
use std::process::Stdio;
use tonic::{Code, Status};

const MANIFEST: &str = "\
apiVersion: dray/v1
kind: Workload
metadata:
  name: NAME
spec:
  kind: service
  template:
    containers:
      - {name: main, image: redis:7}
";

/// Writes manifests of these names, one per document.
fn manifest(schedulers: &Schedulers, names: &[&str]) -> String {
    let path = schedulers.path().join("a.yaml");
    let documents: Vec<String> = names.iter().map(|name| MANIFEST.replace("NAME", name)).collect();
    std::fs::write(&path, documents.join("---\n")).unwrap();
    path.display().to_string()
}

fn no_leader() -> Status {
    with_reason(Code::Unavailable, "NoLeader", "no leader is known")
}

fn applied(request: wire::ApplyWorkloadRequest) -> wire::ApplyWorkloadResponse {
    let workload = wire::Workload { name: request.name, spec: request.spec, ..Default::default() };
    let change = wire::Change::Created.into();
    wire::ApplyWorkloadResponse { workload: Some(workload), change, ..Default::default() }
}

#[test]
fn a_write_is_tried_elsewhere_with_the_same_request_id() {
    let (first, second) = (Seen::default(), Seen::default());
    let (seen_first, seen_second) = (first.clone(), second.clone());
    let schedulers = Schedulers::new()
        .with_dead_one()
        .with(Script {
            apply: Box::new(move |request| {
                seen_first.add(request.request_id);
                Err(no_leader())
            }),
            ..Default::default()
        })
        .with(Script {
            apply: Box::new(move |request| {
                seen_second.add(request.request_id.clone());
                Ok(applied(request))
            }),
            ..Default::default()
        });
    let file = manifest(&schedulers, &["redis"]);
    let (code, out, err) = schedulers.run(&format!("apply -f {file}"));
    assert_eq!((code, out.as_str(), err.as_str()), (0, "workload/redis created\n", ""));
    assert_eq!(first.all(), second.all());
    assert!(first.all().len() == 1 && !first.all()[0].is_empty());
}

#[test]
fn where_nobody_answers_it_is_said_who_was_asked() {
    let schedulers = Schedulers::new().with_dead_one().with_dead_one();
    let (code, out, err) = schedulers.run("get tasks");
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.starts_with("error: no scheduler answers; tried:"), "{err}");
    assert!(
        err.contains("scheduler-1/api.sock: Connection refused") && err.contains("scheduler-2/"),
        "{err}"
    );
    let (code, _, err) = Schedulers::new().run("get tasks");
    assert!(code == 1 && err.contains("no cluster found"), "{err}");
}

#[test]
fn nothing_is_applied_when_one_document_is_refused() {
    let seen = Seen::default();
    let applies = seen.clone();
    let schedulers = Schedulers::new().with(Script {
        apply: Box::new(move |request| {
            applies.add(request.validate_only);
            if request.name == "b" {
                let field = "spec.template.containers[0].image";
                return Err(dray_proto::convert::Invalid::field(field, "there is no such image").into());
            }
            Ok(applied(request))
        }),
        ..Default::default()
    });
    let file = manifest(&schedulers, &["a", "b", "c"]);
    let (code, out, err) = schedulers.run(&format!("apply -f {file}"));
    assert_eq!((code, out.as_str()), (1, ""));
    let first = format!("error: {file}:19:22: spec.template.containers[0].image: there is no such image\n");
    assert!(err.starts_with(&first), "{err}");
    assert_eq!(seen.all(), [true, true, true]);
}

fn migration(phase: wire::MigrationPhase, failure: &str) -> wire::Migration {
    wire::Migration {
        name: "m-1".into(),
        task: "redis-0".into(),
        source: "node-1".into(),
        target: "node-2".into(),
        phase: phase.into(),
        failure: failure.into(),
        history: vec![wire::PhaseTime { phase: phase.into(), at_ms: 1_000 }],
        ..Default::default()
    }
}

fn sent(index: u64, object: wire::watch_response::Object) -> Result<wire::WatchResponse, Status> {
    Ok(wire::WatchResponse { index, removed: false, object: Some(object) })
}

/// A scheduler whose migration ends in a phase after its first watch breaks.
fn migrating(end: wire::MigrationPhase, failure: &'static str, watches: &Seen<u64>) -> Script {
    use wire::watch_response::Object::{Migration, Synced};
    let watches = watches.clone();
    Script {
        create_migration: Box::new(|_| Ok(migration(wire::MigrationPhase::Reserved, ""))),
        watch: Box::new(move |request| {
            watches.add(request.after_index);
            let begun = migration(wire::MigrationPhase::Reserved, "");
            match watches.all().len() {
                1 => vec![sent(0, Migration(begun)), sent(7, Synced(true)), Err(no_leader())],
                2 => vec![Err(with_reason(Code::OutOfRange, "Compacted", "too long ago"))],
                _ => vec![sent(0, Migration(migration(end, failure))), sent(9, Synced(true))],
            }
        }),
        ..Default::default()
    }
}

#[test]
fn a_migration_is_followed_across_a_lost_scheduler() {
    let watches = Seen::default();
    let schedulers = Schedulers::new().with(migrating(wire::MigrationPhase::Cleaned, "", &watches));
    let (code, out, err) = schedulers.run("migrate redis-0 --to node-2 --wait");
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("redis-0 runs on node-2"), "{out}");
    // First everything, then after what was synced, then everything again.
    assert_eq!(watches.all(), [0, 7, 0]);
}

#[test]
fn an_aborted_migration_fails() {
    let watches = Seen::default();
    let script = migrating(wire::MigrationPhase::Aborted, "cancelled by the user", &watches);
    let (code, out, err) = Schedulers::new().with(script).run("migrate redis-0 --wait");
    assert_eq!(code, 1);
    assert!(out.ends_with("redis-0 runs on node-1 as before\n"), "{out}");
    assert!(err.contains("warning: migration/m-1 was aborted: cancelled by the user"), "{err}");
    let watches = Seen::default();
    let script = migrating(wire::MigrationPhase::Aborted, "cancelled by the user", &watches);
    let (code, out, _) = Schedulers::new().with(script).run("migrate redis-0 --wait -o json");
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, json["phase"].as_str()), (1, Some("aborted")));
}

#[test]
fn a_long_list_is_taken_and_a_reader_that_goes_away_is_no_error() {
    let event = wire::Event { message: "x".repeat(100), ..Default::default() };
    let events = vec![event; 100_000];
    let schedulers = Schedulers::new().with(Script {
        events: Box::new(move |_| Ok(wire::ListEventsResponse { events: events.clone(), index: 1 })),
        ..Default::default()
    });
    let mut child =
        schedulers.clusterctl("get events").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), b"".as_slice()));
}

#[test]
fn followed_logs_go_on_after_a_break_without_repeating() {
    let line = |at_ms: u64, text: &str| wire::LogLine {
        at_ms,
        stream: wire::Stream::Stdout.into(),
        text: text.as_bytes().to_vec().into(),
    };
    let opened = Seen::default();
    let opens = opened.clone();
    let schedulers = Schedulers::new().with(Script {
        logs: Box::new(move |request| {
            opens.add(request.tail_lines);
            let lines = [line(1, "one"), line(2, "two"), line(2, "three")];
            match opens.all().len() {
                1 => vec![Ok(wire::LogsResponse { lines: lines[1..2].to_vec() }), Err(no_leader())],
                _ => vec![Ok(wire::LogsResponse { lines: lines.to_vec() })],
            }
        }),
        task: Box::new(move |_| {
            // Runs at first, has ended when it is asked about again.
            let phase =
                if opened.all().len() > 1 { wire::TaskPhase::Exited } else { wire::TaskPhase::Running };
            Ok(wire::Task { phase: phase.into(), ..Default::default() })
        }),
        ..Default::default()
    });
    let (code, out, err) = schedulers.run("logs -f redis-0 --tail 1");
    assert_eq!((code, out.as_str(), err.as_str()), (0, "two\nthree\n", ""));
}

#[test]
fn exec_passes_input_and_the_exit_code_on() {
    let schedulers = Schedulers::new().with(Script::default());
    let mut command = schedulers.clusterctl("exec -i redis-0 -- cat");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"hello").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "tty false \nread \"hello\"\n");
    assert_eq!(output.status.code(), Some(3));
}

#[test]
fn exec_gives_the_terminal_back() {
    let schedulers = Schedulers::new().with(Script::default());
    let (mut master, terminal) = terminal();
    let before = tcgetattr(&terminal).unwrap();
    for (input, code) in [("exit 9", Some(9)), ("", Some(143))] {
        let mut command = schedulers.clusterctl("exec -it redis-0 -- sh");
        let io = || Stdio::from(terminal.try_clone().unwrap());
        let mut child = command.stdin(io()).stdout(io()).stderr(io()).spawn().unwrap();
        read_until(&mut master, "tty true 40x100");
        wait_until(|| !tcgetattr(&terminal).unwrap().local_modes.contains(termios::LocalModes::ICANON));
        if input.is_empty() {
            let pid = rustix::process::Pid::from_child(&child);
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        }
        master.write_all(input.as_bytes()).unwrap();
        assert_eq!(child.wait().unwrap().code(), code);
        let after = tcgetattr(&terminal).unwrap();
        assert_eq!((after.local_modes, after.input_modes), (before.local_modes, before.input_modes));
    }
}

/// Both ends of a terminal of 40 by 100.
fn terminal() -> (std::fs::File, std::fs::File) {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
    let open = |name: String| {
        use std::os::unix::fs::OpenOptionsExt;
        let noctty = i32::try_from(rustix::fs::OFlags::NOCTTY.bits()).unwrap();
        std::fs::OpenOptions::new().read(true).write(true).custom_flags(noctty).open(name).unwrap()
    };
    let terminal = open(name);
    let size = termios::Winsize { ws_row: 40, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&terminal, size).unwrap();
    (master.into(), terminal)
}

fn read_until(master: &mut std::fs::File, text: &str) {
    let (mut seen, mut piece) = (String::new(), [0; 1024]);
    while !seen.contains(text) {
        let n = master.read(&mut piece).unwrap();
        assert!(n > 0, "{seen}");
        seen.push_str(&String::from_utf8_lossy(&piece[..n]));
    }
}

fn wait_until(condition: impl Fn() -> bool) {
    let began = std::time::Instant::now();
    while !condition() {
        assert!(began.elapsed() < std::time::Duration::from_secs(10), "this never came about");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}
