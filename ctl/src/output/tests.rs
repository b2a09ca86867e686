//! What people and programs see of sample messages, as files in `golden/`.
//! `DRAY_BLESS=1 cargo test -p clusterctl` writes them anew; review them as
//! carefully as code.

use super::*;
use crate::resource::Kind;
use dray_proto::v1 as wire;
use std::path::Path;

const NOW_MS: u64 = 1_700_000_600_000;
const THEN_MS: u64 = 1_700_000_000_000;

fn check(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/output/golden").join(name);
    if std::env::var_os("DRAY_BLESS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        text == expected,
        "{name} differs:\n{}",
        similar::TextDiff::from_lines(&expected, text).unified_diff()
    );
}

fn labels(pairs: &[(&str, &str)]) -> std::collections::BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn workload() -> wire::Workload {
    let limits = wire::Quantities { cpu_millis: Some(1_500), memory_bytes: Some(64 << 20), pids: None };
    let container = wire::Container {
        name: "main".into(),
        image: "redis:7".into(),
        args: vec!["--port".into(), "6379".into()],
        resources: Some(wire::Resources { requests: None, limits: Some(limits) }),
        ..Default::default()
    };
    let template = wire::Template { containers: vec![container], ..Default::default() };
    wire::Workload {
        name: "redis".into(),
        labels: labels(&[("app", "redis"), ("tier", "cache")]),
        spec: Some(wire::WorkloadSpec {
            kind: wire::WorkloadKind::Service.into(),
            replicas: 3,
            template: Some(template),
            ..Default::default()
        }),
        revision: 2,
        etag: "17".into(),
        created_ms: THEN_MS,
        running: 2,
        updated: 1,
        deleting: false,
    }
}

fn task() -> wire::Task {
    wire::Task {
        id: "redis-0".into(),
        workload: "redis".into(),
        slot: 0,
        revision: 2,
        epoch: 3,
        ip: "10.88.0.9".into(),
        mac: "02:d7:0a:58:00:09".into(),
        node: "node-1".into(),
        desired: wire::Desired::Run.into(),
        phase: wire::TaskPhase::Running.into(),
        created_ms: THEN_MS,
        since_ms: THEN_MS + 1_234,
        migration: "m-3".into(),
        labels: labels(&[("app", "redis")]),
        image: "redis:7".into(),
        ..Default::default()
    }
}

/// Waiting for a node, and ended for want of memory.
fn troubled() -> Vec<Object> {
    let pending = wire::Task {
        id: "redis-1".into(),
        node: String::new(),
        migration: String::new(),
        phase: wire::TaskPhase::Pending.into(),
        message: "0 of 3 nodes fit: 2 lack memory, 1 is cordoned".into(),
        ..task()
    };
    let exit = wire::Exit { code: 137, signal: 9, oom_killed: true, at_ms: NOW_MS - 5_000 };
    let killed = wire::Task {
        id: "redis-2".into(),
        migration: String::new(),
        phase: wire::TaskPhase::Backoff.into(),
        restarts: 4,
        last_exit: Some(exit),
        ..task()
    };
    vec![Object::Task(task()), Object::Task(pending), Object::Task(killed)]
}

fn node() -> wire::Node {
    wire::Node {
        name: "node-1".into(),
        labels: labels(&[("zone", "a")]),
        capacity: Some(wire::Quantities {
            cpu_millis: Some(2_000),
            memory_bytes: Some(4 << 30),
            pids: Some(32_768),
        }),
        used: Some(wire::Quantities { cpu_millis: Some(250), memory_bytes: Some(64 << 20), pids: Some(100) }),
        liveness: wire::Liveness::Ready.into(),
        cordoned: true,
        peer_address: "10.77.0.11:7100".into(),
        underlay_ip: "10.77.0.11".into(),
        overlay_ip: "10.88.0.2".into(),
        capabilities: Some(wire::Capabilities {
            kernel: "6.18.0".into(),
            criu: "4.2.1".into(),
            cgroup: "hybrid".into(),
            agent_version: "0.1.0".into(),
            cpus: 2,
        }),
        registered_ms: THEN_MS,
        since_ms: THEN_MS,
        tasks: 1,
        ..Default::default()
    }
}

fn migration() -> wire::Migration {
    use wire::MigrationPhase::{Cleaned, Committed, Frozen, Prepared, Reserved, Resumed};
    let times =
        [(Reserved, 0), (Prepared, 41), (Frozen, 52), (Committed, 130), (Resumed, 141), (Cleaned, 1_250)];
    let step = |side: wire::Side, name: &str, at_us, took_us| wire::Step {
        side: side.into(),
        name: name.into(),
        began_us: THEN_MS * 1_000 + at_us,
        took_us,
    };
    wire::Migration {
        name: "m-3".into(),
        task: "redis-0".into(),
        source: "node-1".into(),
        target: "node-2".into(),
        epoch: 3,
        phase: Cleaned.into(),
        reason: "user".into(),
        failure: String::new(),
        history: times
            .map(|(phase, at)| wire::PhaseTime { phase: phase.into(), at_ms: THEN_MS + at })
            .to_vec(),
        steps: vec![
            step(wire::Side::Target, "prepare", 500, 39_200),
            step(wire::Side::Source, "dump", 52_000, 31_400),
            step(wire::Side::Target, "restore", 85_000, 42_700),
        ],
        bytes: 2_800_000,
        memory_bytes: 16 << 20,
        freeze_us: 98_700,
        deadline_ms: THEN_MS + 60_000,
    }
}

fn event() -> wire::Event {
    wire::Event {
        index: 42,
        at_ms: NOW_MS - 30_000,
        level: wire::EventLevel::Warning.into(),
        object: "migration/m-3".into(),
        reason: "Aborted".into(),
        message: "redis-0 stays on node-1:\nCRIU failed".into(),
    }
}

fn image() -> wire::Image {
    wire::Image {
        reference: "redis:7".into(),
        digest: "sha256:c06eaf4928b28e34715532e54b80ab512e21152c81f1c2b1e4a3c0d01fb6555c".into(),
        size_bytes: 8_500_000,
        nodes: vec!["node-1".into(), "node-2".into()],
        imported_ms: THEN_MS,
    }
}

/// One or more of each kind.
fn samples() -> Vec<(Kind, Vec<Object>)> {
    let aborted = wire::Migration {
        name: "m-4".into(),
        phase: wire::MigrationPhase::Aborted.into(),
        failure: "cancelled by the user".into(),
        history: migration().history[..2].to_vec(),
        steps: Vec::new(),
        bytes: 0,
        memory_bytes: 0,
        freeze_us: 0,
        ..migration()
    };
    vec![
        (Kind::Workload, vec![Object::Workload(workload())]),
        (Kind::Task, troubled()),
        (Kind::Node, vec![Object::Node(node())]),
        (Kind::Migration, vec![Object::Migration(migration()), Object::Migration(aborted)]),
        (Kind::Image, vec![Object::Image(image())]),
        (Kind::Event, vec![Object::Event(event())]),
    ]
}

/// What [`Out::objects`] writes.
fn shown(objects: &[Object], format: Format, single: bool) -> String {
    let written = Written::default();
    let mut out = Out::to(written.clone());
    out.objects(objects, Style { format, headers: true, now_ms: NOW_MS }, single).unwrap();
    written.text()
}

#[test]
fn tables() {
    for (kind, objects) in samples() {
        let tables = shown(&objects, Format::Table, false) + "\n" + &shown(&objects, Format::Wide, false);
        check(&format!("{}.table.txt", kind.word()), &tables);
    }
}

#[test]
fn json_and_yaml() {
    for (kind, objects) in samples() {
        check(&format!("{}.json", kind.word()), &shown(&objects[..1], Format::Json, true));
    }
    let all: Vec<Object> = samples().into_iter().flat_map(|(_, objects)| objects).collect();
    check("list.yaml", &shown(&all, Format::Yaml, false));
}

#[test]
fn names() {
    let all: Vec<Object> = samples().into_iter().flat_map(|(_, objects)| objects).collect();
    let expected = "workload/redis\ntask/redis-0\ntask/redis-1\ntask/redis-2\nnode/node-1\n\
        migration/m-3\nmigration/m-4\nimage/redis:7\nevent/42\n";
    assert_eq!(shown(&all, Format::Name, false), expected);
}

#[test]
fn descriptions() {
    let events = || vec![Object::Event(event())];
    for (kind, objects) in samples() {
        let around = describe::Around {
            tasks: if matches!(kind, Kind::Workload | Kind::Node) { troubled() } else { Vec::new() },
            migrations: Vec::new(),
            events: if kind == Kind::Image { Vec::new() } else { events() },
        };
        let texts: Vec<String> =
            objects.iter().map(|object| describe::object(object, &around, NOW_MS).unwrap()).collect();
        check(&format!("{}.describe.txt", kind.word()), &texts.join("\n"));
    }
}

#[test]
fn a_printed_workload_is_a_manifest_with_a_status() {
    let mut value: serde_json::Value =
        serde_json::from_str(&shown(&[Object::Workload(workload())], Format::Json, true)).unwrap();
    value.as_object_mut().unwrap().remove("status").unwrap();
    let manifest: dray_model::Manifest = serde_json::from_value(value).unwrap();
    assert_eq!(manifest.spec, workload().spec.unwrap().try_into().unwrap());
}

#[test]
fn a_diff_shows_what_changes() {
    let mut after = workload().spec.unwrap();
    after.replicas = 5;
    let text = diff::specs("redis", workload().spec, Some(after)).unwrap();
    check("scale.diff", &text);
    assert_eq!(diff::specs("redis", workload().spec, workload().spec).unwrap(), "");
}

#[test]
fn an_error_tells_its_causes_once_and_chooses_the_exit_code() {
    let written = Written::default();
    let mut out = Out::to(written.clone());
    let cause = anyhow::anyhow!("no such file").context("read a.tar").context("read a.tar: no such file");
    let code = out.failure(&cause);
    assert_eq!(written.text(), "error: read a.tar: no such file\n");
    assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::from(1)));
    let usage = out.failure(&Usage("which?".into()).into());
    assert_eq!(format!("{usage:?}"), format!("{:?}", ExitCode::from(2)));
    let pipe = io::Error::from(io::ErrorKind::BrokenPipe);
    assert_eq!(format!("{:?}", out.failure(&pipe.into())), format!("{:?}", ExitCode::SUCCESS));
}

/// Keeps what is written.
#[derive(Clone, Default)]
struct Written(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

impl Written {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Out {
    /// Both outputs into one text, without a terminal.
    fn to(written: Written) -> Out {
        let (out, err) = (Box::new(written.clone()), Box::new(written));
        Out { out, err, out_color: false, err_color: false, live: false }
    }
}
