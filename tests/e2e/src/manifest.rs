//! The manifests that tests apply.

use crate::cluster::repository;
use anyhow::{Context, Result};

/// The example of Redis, as users get it.
///
/// # Errors
/// When the file can't be read.
pub fn redis_example() -> Result<String> {
    let path = repository().join("examples/redis.yaml");
    std::fs::read_to_string(&path).with_context(|| path.display().to_string())
}

/// Redis, with little memory and a short time for each migration.
#[must_use]
pub fn redis(replicas: u32, timeout: &str) -> String {
    format!(
        "apiVersion: dray/v1
kind: Workload
metadata: {{ name: redis }}
spec:
  kind: service
  replicas: {replicas}
  template:
    containers:
      - name: redis
        image: redis:7
        resources:
          requests: {{ cpu: 50m, memory: 32Mi }}
          limits: {{ memory: 128Mi, pids: 64 }}
    stopGrace: 1s
  migration: {{ timeout: {timeout} }}
"
    )
}

/// A shell script in the busybox image.
#[must_use]
pub fn shell(name: &str, replicas: u32, script: &str) -> String {
    let script = serde_json::Value::from(script);
    format!(
        "apiVersion: dray/v1
kind: Workload
metadata: {{ name: {name}, labels: {{ app: {name} }} }}
spec:
  kind: service
  replicas: {replicas}
  template:
    containers:
      - name: main
        image: busybox:1
        command: [/bin/sh, -c]
        args: [{script}]
        resources:
          requests: {{ cpu: 10m, memory: 8Mi }}
          limits: {{ memory: 64Mi, pids: 32 }}
    restart: {{ backoff: 200ms, backoffMax: 2s }}
    stopGrace: 1s
  migration: {{ timeout: 20s }}
"
    )
}

/// Prints a number that grows by one ten times a second, and ends when asked to.
pub const COUNT: &str = "trap 'exit 0' TERM; n=0; while true; do n=$((n+1)); echo count $n; sleep 0.1; done";
