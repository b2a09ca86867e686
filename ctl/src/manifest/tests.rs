//! Tables of what is refused, and what it says.

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

fn load_text(text: &str) -> Result<Vec<Document>, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.yaml");
    std::fs::write(&path, text).unwrap();
    let prefix = format!("{}/", dir.path().display());
    load(&[path.display().to_string()]).map_err(|problems| problems.to_string().replace(&prefix, ""))
}

fn names(files: &[&Path]) -> Result<Vec<String>, String> {
    let files: Vec<String> = files.iter().map(|path| path.display().to_string()).collect();
    let documents = load(&files).map_err(|problems| problems.to_string())?;
    Ok(documents.into_iter().map(|document| document.manifest.metadata.name).collect())
}

#[test]
fn a_good_manifest_is_read() {
    let documents = load_text(GOOD).unwrap();
    assert_eq!(documents[0].manifest.metadata.name, "redis");
}

/// Replaces a line of the good manifest and expects the problem.
#[test]
fn each_problem_has_file_line_column_and_field() {
    for (line, with, expected) in [(
        "  replicas: 1",
        "  replcas: 1",
        "a.yaml:7:3: spec.replcas: unknown field; did you mean \"replicas\"?",
    )] {
        let text = GOOD.replace(line, with);
        let problem = load_text(&text).unwrap_err();
        assert_eq!(problem.lines().next().unwrap(), expected, "{problem}");
    }
}

#[test]
fn explore() {
    for (line, with) in [
        ("  replicas: 1", "  replcas: 1"),
        ("  replicas: 1", "  replicas: three"),
        ("  replicas: 1", "  replicas: -1"),
        ("  replicas: 1", "  replicas: \"3\""),
        ("  replicas: 1", "  replicas: 1\n  replicas: 2"),
        ("  replicas: 1", "  replicas: 99999"),
        ("  replicas: 1", "  replicas: [1]"),
        ("  replicas: 1", "  replicas:"),
        ("  kind: service", "  kind: servce"),
        ("kind: Workload", "kind: Deployment"),
        ("apiVersion: dray/v1", "apiVersion: v1"),
        ("apiVersion: dray/v1\n", ""),
        ("  name: redis", "  nam: redis"),
        ("  name: redis", "  name: Redis"),
        ("  name: redis", "  name:"),
        ("        image: redis:7", "        imge: redis:7"),
        ("        image: redis:7\n", ""),
        ("        image: redis:7", "        image: \"\""),
        ("        image: redis:7", "        image: [a]"),
        ("        image: redis:7", "        image: {a: b}"),
        ("{cpu: 500m, memory: 64Mi}", "{cpu: lots, memory: 64Mi}"),
        ("{cpu: 500m, memory: 64Mi}", "{cpu: 500m, memory: 64mb}"),
        ("{cpu: 500m, memory: 64Mi}", "{cpu: 0, memory: 0}"),
        ("{cpu: 500m, memory: 64Mi}", "{cpus: 1}"),
        ("  template:", "  migration: {timeout: 5}\n  template:"),
        ("  template:", "  migration: {mode: sometimes}\n  template:"),
        ("    containers:", "    stopGrace: soon\n    containers:"),
        ("    containers:", "\tcontainers:"),
        ("    containers:", "   containers:"),
        ("  name: redis", "  name: redis\n  labels: {a.b/c: \"x y\"}"),
        ("      - name: main", "      - name: main\n        env: [{name: A, value: 1}, {name: A}]"),
        ("      - name: main", "      - name: main\n        ports: [{port: 70000}]"),
        ("      - name: main", "      - name: main\n        ports: [{port: 0}]"),
        ("      - name: main", "      - name: main\n        command: redis-server"),
        ("metadata:", "metadata: *nope"),
        ("kind: Workload", "kind: Workload\n? [a, b]\n: c"),
        (GOOD, "just text"),
        (GOOD, "[1, 2]"),
        (GOOD, ""),
        (GOOD, "# nothing\n---\n---\n"),
        (GOOD, "{"),
        (GOOD, "\u{0}"),
    ] {
        let text = GOOD.replace(line, with);
        match load_text(&text) {
            Ok(docs) => println!("=== {with}\nOK {}", docs.len()),
            Err(problem) => println!("=== {with}\n{problem}"),
        }
    }
}
