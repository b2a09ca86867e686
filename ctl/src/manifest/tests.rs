//! Tables of what is refused, and what is said about it.

use super::*;
use std::path::Path;

const GOOD: &str = "\
apiVersion: dray/v1
kind: Workload
metadata:
  name: redis
spec:
  kind: service
  replicas: 1
  template:
    containers:
      - name: main
        image: redis:7
        resources:
          limits: {cpu: 500m, memory: 64Mi}
";

/// Loads files of a directory; problems name them by their path in it.
fn load_files(files: &[(&str, &str)], arguments: &[&str]) -> Result<Vec<Document>, String> {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let arguments: Vec<String> =
        arguments.iter().map(|name| dir.path().join(name).display().to_string()).collect();
    let shown = |problems: Problems| problems.to_string().replace(&format!("{}/", dir.path().display()), "");
    load(&arguments).map_err(shown)
}

fn load_text(text: &str) -> Result<Vec<Document>, String> {
    load_files(&[("a.yaml", text)], &["a.yaml"])
}

fn names(documents: &[Document]) -> Vec<&str> {
    documents.iter().map(|document| document.manifest.metadata.name.as_str()).collect()
}

#[test]
fn a_status_is_passed_over() {
    let documents = load_text(&format!("{GOOD}status: {{running: 1, more: [x]}}\n")).unwrap();
    assert_eq!(documents[0].manifest, load_text(GOOD).unwrap()[0].manifest);
}

/// A line of the good manifest, what is written instead, and the first line of
/// what is said about it.
const REFUSED: &[(&str, &str, &str)] = &[
    // Unknown and missing fields.
    ("  replicas: 1", "  replcas: 1", "7:3: spec.replcas: unknown field; did you mean \"replicas\"?"),
    (
        "        image: redis:7",
        "        imge: redis:7",
        "11:9: spec.template.containers[0].imge: unknown field; did you mean \"image\"?",
    ),
    (
        "    containers:",
        "    volumes: []\n    containers:",
        "9:5: spec.template.volumes: unknown field; known here: containers, restart, stopSignal, stopGrace, nodeSelector",
    ),
    (
        "{cpu: 500m, memory: 64Mi}",
        "{cpus: 1}",
        "13:20: spec.template.containers[0].resources.limits.cpus: unknown field; did you mean \"cpu\"?",
    ),
    ("apiVersion: dray/v1\n", "", "1:1: apiVersion: is missing"),
    ("        image: redis:7\n", "", "10:9: spec.template.containers[0].image: is missing"),
    ("metadata:\n  name: redis", "metadata: {}", "3:1: metadata.name: is missing"),
    ("  replicas: 1", "  replicas: 1\n  replicas: 2", "8:3: spec.replicas: is given twice"),
    // Wrong types.
    ("  replicas: 1", "  replicas: three", "7:13: spec.replicas: expected a whole number, zero or more"),
    ("  replicas: 1", "  replicas: -1", "7:13: spec.replicas: expected a whole number, zero or more"),
    ("  replicas: 1", "  replicas: 1.5", "7:13: spec.replicas: expected a whole number, zero or more"),
    ("  replicas: 1", "  replicas: [1]", "7:13: spec.replicas: expected a single value"),
    ("  replicas: 1", "  replicas: # none", "7:11: spec.replicas: has no value"),
    ("  name: redis", "  name:", "4:7: metadata.name: has no value; write \"\" for an empty text"),
    (
        "  kind: service",
        "  kind: servce",
        "6:9: spec.kind: \"servce\" is not known; did you mean \"service\"?",
    ),
    ("kind: Workload", "kind: Deployment", "2:7: kind: \"Deployment\" is not known; known here: Workload"),
    (
        "      - name: main",
        "      - name: main\n        command: redis-server",
        "11:18: spec.template.containers[0].command: expected a list: one `- item` per line, or [item, item]",
    ),
    (
        "      - name: main",
        "      - name: main\n        ports: [{port: 70000}]",
        "11:24: spec.template.containers[0].ports[0].port: expected a whole number from 0 to 65535",
    ),
    // Wrong meanings.
    ("apiVersion: dray/v1", "apiVersion: v1", "1:1: apiVersion: \"v1\": write dray/v1"),
    ("  replicas: 1", "  replicas: 99999", "7:3: spec.replicas: 99999 is more than 10000"),
    (
        "  name: redis",
        "  name: Redis",
        "4:3: metadata.name: \"Redis\": use 1 to 52 of a-z, 0-9 and '-', beginning and ending with a letter or digit",
    ),
    (
        "cpu: 500m",
        "cpu: lots",
        "13:25: spec.template.containers[0].resources.limits.cpu: \"lots\" is not an amount of cpu: write 250m, 1 or 1.5",
    ),
    (
        "memory: 64Mi",
        "memory: 0",
        "13:31: spec.template.containers[0].resources.limits.memory: 0 is out of range: use 4Mi to 64Ti",
    ),
    (
        "  template:",
        "  migration: {timeout: 5}\n  template:",
        "8:24: spec.migration.timeout: \"5\" is not a duration: write 250ms, 10s or 1m 30s",
    ),
    (
        "  name: redis",
        "  name: redis\n  labels: {a.b/c: \"x y\"}",
        "5:12: metadata.labels.a.b/c: \"x y\": a label's value is up to 63 of a-z, A-Z, 0-9, '-', '_' and '.'",
    ),
    (
        "      - name: main",
        "      - name: main\n        env: [{name: A, value: 1}, {name: A}]",
        "11:37: spec.template.containers[0].env[1].name: \"A\" is set twice",
    ),
    // Not YAML, or not a manifest.
    (
        "    containers:",
        "\tcontainers:",
        "9:2: this is not YAML: tabs disallowed within this context (block indentation)",
    ),
    ("metadata:", "metadata: *nope", "3:11: this is not YAML: while parsing node, found unknown anchor"),
    (GOOD, "just text", "1:1: expected fields: one `name: value` per line"),
    (GOOD, "[1, 2]", "1:1: expected fields: one `name: value` per line"),
    (GOOD, "{", "1:1: this is not YAML: unclosed bracket '{'"),
];

#[test]
fn each_problem_has_file_line_column_and_field() {
    for (line, with, expected) in REFUSED {
        let problem = load_text(&GOOD.replace(line, with)).expect_err(expected);
        assert_eq!(problem.lines().next(), Some(format!("a.yaml:{expected}").as_str()), "\n{problem}");
    }
}

#[test]
fn a_problem_shows_its_line() {
    let problem = load_text(&GOOD.replace("replicas: 1", "replcas: 1 \u{1b}[31m")).unwrap_err();
    assert!(!problem.contains('\u{1b}'), "{problem}");
    let problem = load_text(&GOOD.replace("replicas", "replcas")).unwrap_err();
    let shown = "\n  7 |   replcas: 1\n    |   ^^^^^^^";
    assert!(problem.ends_with(shown), "{problem}");
}

#[test]
fn a_long_line_is_cropped_around_the_problem() {
    let filler = "x".repeat(1_000_000);
    let problem = load_text(&format!("{{apiVersion: dray/v1, {filler}: 1}}")).unwrap_err();
    assert!(problem.len() < 2_000, "{}", problem.len());
    let snippet = problem.lines().last().unwrap();
    assert!(snippet.len() < 200, "{snippet}");
}

#[test]
fn several_documents_keep_their_order_and_lines() {
    let second = GOOD.replace("name: redis", "name: web");
    let text = format!("# head\n{GOOD}---\n---\n# only a comment\n---\n{second}...\n");
    let documents = load_text(&text).unwrap();
    assert_eq!(names(&documents), ["redis", "web"]);
    let problem = load_text(&text.replace("name: web", "name: We_b")).unwrap_err();
    assert!(problem.starts_with("a.yaml:22:3: metadata.name: \"We_b\""), "{problem}");
    let problem = load_text(&format!("{GOOD}---\n{}", second.replace("replicas", "replica"))).unwrap_err();
    assert!(problem.starts_with("a.yaml:21:3: spec.replica: unknown field"), "{problem}");
}

#[test]
fn all_problems_of_all_documents_are_told() {
    let bad = GOOD.replace("replicas: 1", "replicas: x").replace("name: redis", "name: web");
    let worse = GOOD.replace("redis:7", "\"\"").replace("name: redis", "name: Web");
    let problem = load_files(&[("a.yaml", &bad), ("b.yml", GOOD), ("c.json", &worse)], &["."]).unwrap_err();
    let firsts: Vec<&str> =
        problem.lines().filter(|line| line.contains(": spec") || line.contains(": meta")).collect();
    assert_eq!(firsts.len(), 3, "{problem}");
    assert!(problem.ends_with("3 problems; nothing was changed"), "{problem}");
}

#[test]
fn a_name_may_be_used_once() {
    let problem = load_files(&[("a.yaml", GOOD), ("b.yaml", GOOD)], &["a.yaml", "b.yaml"]).unwrap_err();
    let expected = "b.yaml:4:3: metadata.name: \"redis\" was described already at a.yaml:4";
    assert!(problem.starts_with(expected), "{problem}");
}

#[test]
fn a_directory_is_read_in_order() {
    let named = |name: &str| GOOD.replace("name: redis", &format!("name: {name}"));
    let (b, a, j) = (named("b"), named("a"), named("j"));
    let json = serde_json::to_string(&load_text(&j).unwrap()[0].manifest).unwrap();
    let files = [
        ("2.yml", b.as_str()),
        ("1.yaml", a.as_str()),
        ("3.json", json.as_str()),
        ("notes.txt", "not a manifest"),
        ("sub/4.yaml", "not read"),
    ];
    assert_eq!(names(&load_files(&files, &["."]).unwrap()), ["a", "b", "j"]);
    let problem = load_files(&[("x.txt", "")], &["."]).unwrap_err();
    assert!(problem.contains("there is no *.yaml, *.yml or *.json"), "{problem}");
}

#[test]
fn what_cannot_be_read_is_said_without_a_line() {
    assert!(load_text("").unwrap_err().contains("a.yaml: holds no document"));
    assert!(load_text("# nothing\n---\n---\n").unwrap_err().contains("holds no document"));
    let problem = load_files(&[], &["none.yaml"]).unwrap_err();
    assert!(problem.starts_with("none.yaml: can't open: No such file"), "{problem}");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.yaml");
    std::fs::write(&path, [b'a', b'\n', b'b', 0xff]).unwrap();
    let problem = load(&[path.display().to_string()]).unwrap_err().to_string();
    assert!(problem.ends_with("a.yaml:2: is not UTF-8 text"), "{problem}");
}

#[test]
fn a_huge_file_is_refused_without_reading_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.yaml");
    std::fs::File::create(&path).unwrap().set_len(100 << 30).unwrap();
    let problem = load(&[path.display().to_string()]).unwrap_err().to_string();
    assert!(problem.ends_with("is larger than 4 MiB, the limit for a manifest"), "{problem}");
}

#[test]
fn what_would_blow_up_is_refused_quickly() {
    let bomb: String =
        (1..30).map(|i| format!("a{i}: &a{i} [{}]\n", vec![format!("*a{}", i - 1); 9].join(","))).collect();
    let bomb = format!("a0: &a0 [x,x,x,x,x,x,x,x,x]\n{bomb}");
    let labels = "metadata:\n  name: redis\n  labels: {a: &x b, c: *x}";
    let began = std::time::Instant::now();
    for text in [
        format!("{bomb}{GOOD}"),
        "[".repeat(1_000_000),
        format!("a: {}", "[1],".repeat(900_000)),
        "- ".repeat(100_000),
        "a:\n".repeat(1_000_000),
        format!("{}: 1\n", "x".repeat(3_000_000)),
    ] {
        let problem = load_text(&text).unwrap_err();
        assert!(problem.starts_with("a.yaml:"), "{problem:.200}");
    }
    assert!(began.elapsed() < std::time::Duration::from_secs(20), "{:?}", began.elapsed());
    // An honest alias is fine.
    assert!(load_text(&GOOD.replace("metadata:\n  name: redis", labels)).is_ok());
}

#[test]
fn the_scheduler_s_problems_get_lines_too() {
    let documents = load_text(GOOD).unwrap();
    for (field, line) in [
        ("spec.template.containers[0].image", "a.yaml:11:9"),
        ("spec.template.containers[0].resources.requests.cpu", "a.yaml:12:9"),
        ("spec.onNodeLoss", "a.yaml:5:1"),
        ("elsewhere", "a.yaml:1:1"),
    ] {
        let problem = documents[0].problem(field, "is bad").to_string();
        assert!(problem.contains(&format!("{line}: {field}: is bad")), "{problem}");
    }
}

#[test]
fn the_examples_are_good() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    load(&[examples.display().to_string()]).unwrap();
}
