//! Checks the meaning of a spec, field by field. Every violation names the
//! field as the user wrote it and says what to do.

use crate::ids::is_label;
use crate::resources::{Amounts, Quantities};
use crate::spec::{Container, Labels, Template, WorkloadSpec};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// Most replicas one workload may have.
pub const REPLICAS_MAX: u32 = 10_000;
/// Most processor one container may ask for, in thousandths.
pub const CPU_MAX: u64 = 1_024_000;
/// Least and most memory one container may have, in bytes.
pub const MEMORY_MIN: u64 = 4 << 20;
/// See [`MEMORY_MIN`].
pub const MEMORY_MAX: u64 = 64 << 40;
/// Most processes one container may have.
pub const PIDS_MAX: u64 = 4_194_304;

/// A field whose value can't be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// The path, for instance `spec.template.containers[0].image`.
    pub field: String,
    /// What is wrong and what to do.
    pub problem: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.problem)
    }
}

/// Collects violations under a path.
#[derive(Default)]
struct Findings(Vec<Violation>);

impl Findings {
    fn check(&mut self, fine: bool, field: impl Into<String>, problem: impl Into<String>) {
        if !fine {
            self.0.push(Violation { field: field.into(), problem: problem.into() });
        }
    }
}

/// Everything wrong with a workload; empty when it may be applied.
pub fn violations(name: &str, labels: &Labels, spec: &WorkloadSpec) -> Vec<Violation> {
    let mut found = Findings::default();
    // Task ids append a dash and up to ten digits, and are host names.
    found.check(
        is_label(name) && name.len() <= 52,
        "metadata.name",
        format!("{name:?}: use 1 to 52 of a-z, 0-9 and '-', beginning and ending with a letter or digit"),
    );
    check_labels(&mut found, "metadata.labels", labels);
    found.check(
        spec.replicas <= REPLICAS_MAX,
        "spec.replicas",
        format!("{} is more than {REPLICAS_MAX}", spec.replicas),
    );
    check_duration(
        &mut found,
        "spec.migration.timeout",
        spec.migration.timeout,
        Duration::from_secs(1),
        Duration::from_secs(86_400),
    );
    check_template(&mut found, &spec.template);
    found.0
}

fn check_template(found: &mut Findings, template: &Template) {
    let count = template.containers.len();
    found.check(
        count == 1,
        "spec.template.containers",
        format!("{count} containers; exactly one is supported for now"),
    );
    let (none, hour) = (Duration::ZERO, Duration::from_secs(3600));
    let some = Duration::from_millis(10);
    check_duration(found, "spec.template.stopGrace", template.stop_grace, none, hour);
    check_duration(found, "spec.template.restart.backoff", template.restart.backoff, some, hour);
    check_duration(
        found,
        "spec.template.restart.backoffMax",
        template.restart.backoff_max,
        template.restart.backoff.max(some),
        hour,
    );
    if let Some(signal) = &template.stop_signal {
        found.check(
            signal_number(signal).is_some(),
            "spec.template.stopSignal",
            format!("{signal:?} is not a signal: write SIGTERM, TERM or a number from 1 to 64"),
        );
    }
    check_labels(found, "spec.template.nodeSelector", &template.node_selector);
    for (i, container) in template.containers.iter().enumerate() {
        check_container(found, &format!("spec.template.containers[{i}]"), container);
    }
}

fn check_container(found: &mut Findings, path: &str, container: &Container) {
    found.check(
        is_label(&container.name),
        format!("{path}.name"),
        format!("{:?}: use 1 to 63 of a-z, 0-9 and '-'", container.name),
    );
    found.check(
        is_reference(&container.image),
        format!("{path}.image"),
        format!("{:?} is not an image reference: write name:tag", container.image),
    );
    for (field, texts) in [("command", &container.command), ("args", &container.args)] {
        for (i, text) in texts.iter().enumerate() {
            found.check(!text.contains('\0'), format!("{path}.{field}[{i}]"), "contains a NUL byte");
        }
    }
    found.check(
        container.command.first().is_none_or(|word| !word.is_empty()),
        format!("{path}.command[0]"),
        "is empty",
    );
    check_env(found, path, container);
    check_ports(found, path, container);
    if let Some(dir) = &container.working_dir {
        found.check(
            dir.starts_with('/') && !dir.contains('\0'),
            format!("{path}.workingDir"),
            format!("{dir:?} is not an absolute path"),
        );
    }
    check_resources(found, path, container);
}

fn check_env(found: &mut Findings, path: &str, container: &Container) {
    let mut seen = std::collections::BTreeSet::new();
    for (i, var) in container.env.iter().enumerate() {
        let named = !var.name.is_empty() && !var.name.contains(['=', '\0']);
        found.check(
            named,
            format!("{path}.env[{i}].name"),
            format!("{:?} can't name an environment variable", var.name),
        );
        found.check(!var.value.contains('\0'), format!("{path}.env[{i}].value"), "contains a NUL byte");
        found.check(
            seen.insert(&var.name),
            format!("{path}.env[{i}].name"),
            format!("{:?} is set twice", var.name),
        );
    }
}

fn check_ports(found: &mut Findings, path: &str, container: &Container) {
    let mut seen = std::collections::BTreeSet::new();
    for (i, port) in container.ports.iter().enumerate() {
        found.check(port.port > 0, format!("{path}.ports[{i}].port"), "0 is not a port");
        let twice = !seen.insert((port.port, port.protocol == crate::spec::Protocol::Tcp));
        found.check(!twice, format!("{path}.ports[{i}].port"), format!("{} is listed twice", port.port));
        found.check(
            port.name.is_empty() || is_label(&port.name),
            format!("{path}.ports[{i}].name"),
            format!("{:?}: use 1 to 63 of a-z, 0-9 and '-'", port.name),
        );
    }
}

fn check_resources(found: &mut Findings, path: &str, container: &Container) {
    let resources = &container.resources;
    for (field, amounts) in [("requests", &resources.requests), ("limits", &resources.limits)] {
        check_quantities(found, &format!("{path}.resources.{field}"), amounts);
    }
    let (asked, most) = (Amounts::from(resources.requests), Amounts::from(resources.limits));
    for (name, asked, most) in [
        ("cpu", asked.cpu_millis, most.cpu_millis),
        ("memory", asked.memory_bytes, most.memory_bytes),
        ("pids", asked.pids, most.pids),
    ] {
        found.check(
            most == 0 || asked <= most,
            format!("{path}.resources.requests.{name}"),
            format!("is more than limits.{name}"),
        );
    }
}

fn check_quantities(found: &mut Findings, path: &str, amounts: &Quantities) {
    if let Some(cpu) = amounts.cpu {
        found.check(
            (1..=CPU_MAX).contains(&cpu.0),
            format!("{path}.cpu"),
            format!("{cpu} is out of range: use 1m to {}", CPU_MAX / 1000),
        );
    }
    if let Some(memory) = amounts.memory {
        found.check(
            (MEMORY_MIN..=MEMORY_MAX).contains(&memory.0),
            format!("{path}.memory"),
            format!("{memory} is out of range: use 4Mi to 64Ti"),
        );
    }
    if let Some(pids) = amounts.pids {
        found.check(
            (1..=PIDS_MAX).contains(&pids),
            format!("{path}.pids"),
            format!("{pids} is out of range: use 1 to {PIDS_MAX}"),
        );
    }
}

fn check_duration(found: &mut Findings, field: &str, value: Duration, least: Duration, most: Duration) {
    found.check(
        (least..=most).contains(&value),
        field,
        format!(
            "{} is out of range: use {} to {}",
            humantime::format_duration(value),
            humantime::format_duration(least),
            humantime::format_duration(most)
        ),
    );
}

fn check_labels(found: &mut Findings, path: &str, labels: &Labels) {
    for (key, value) in labels {
        found.check(
            is_label_key(key),
            format!("{path}.{key}"),
            "a label's name is up to 63 of a-z, A-Z, 0-9, '-', '_' and '.', after an optional prefix and '/'",
        );
        found.check(
            value.len() <= 63 && value.bytes().all(is_label_byte),
            format!("{path}.{key}"),
            format!("{value:?}: a label's value is up to 63 of a-z, A-Z, 0-9, '-', '_' and '.'"),
        );
    }
}

fn is_label_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')
}

fn is_label_key(key: &str) -> bool {
    let part = |text: &str, max| (1..=max).contains(&text.len()) && text.bytes().all(is_label_byte);
    match key.split_once('/') {
        Some((prefix, name)) => part(prefix, 253) && part(name, 63),
        None => part(key, 63),
    }
}

/// Whether a text may name an image. The image store parses it in full.
fn is_reference(text: &str) -> bool {
    let byte = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'/' | b':' | b'@');
    (1..=255).contains(&text.len())
        && text.bytes().all(byte)
        && text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        && !text.contains("..")
}

/// The number of a signal named `SIGTERM`, `TERM` or `15`.
pub fn signal_number(text: &str) -> Option<i32> {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
        "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
        "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
    ];
    if let Ok(number) = text.parse::<i32>() {
        return (1..=64).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    NAMES.iter().position(|n| *n == name).and_then(|i| i32::try_from(i + 1).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(edit: impl FnOnce(&mut serde_json::Value)) -> Result<Vec<String>, String> {
        let mut value = serde_json::json!({
            "kind": "service", "replicas": 2,
            "template": {"containers": [{"name": "main", "image": "redis:7"}]},
        });
        edit(&mut value);
        let spec: WorkloadSpec = serde_json::from_value(value).map_err(|e| e.to_string())?;
        Ok(violations("redis", &Labels::new(), &spec).iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_small_spec_is_fine() {
        assert_eq!(spec(|_| ()), Ok(vec![]));
    }

    type Edit = Box<dyn FnOnce(&mut serde_json::Value)>;

    #[test]
    fn each_violation_names_its_field() {
        let container = |v: &mut serde_json::Value, key: &str, to: serde_json::Value| {
            v["template"]["containers"][0][key] = to;
        };
        let table: Vec<(&str, Edit)> = vec![
            ("spec.replicas", Box::new(|v| v["replicas"] = 20_000.into())),
            ("spec.template.containers", Box::new(|v| v["template"]["containers"] = serde_json::json!([]))),
            ("spec.template.containers[0].image", Box::new(move |v| container(v, "image", "".into()))),
            ("spec.template.containers[0].name", Box::new(move |v| container(v, "name", "A".into()))),
            (
                "spec.template.containers[0].resources.limits.memory",
                Box::new(move |v| container(v, "resources", serde_json::json!({"limits": {"memory": "0"}}))),
            ),
            (
                "spec.template.containers[0].resources.requests.cpu",
                Box::new(move |v| {
                    container(
                        v,
                        "resources",
                        serde_json::json!({"requests": {"cpu": 2}, "limits": {"cpu": "1"}}),
                    );
                }),
            ),
            ("spec.template.stopSignal", Box::new(|v| v["template"]["stopSignal"] = "SIGFOO".into())),
            ("spec.template.stopGrace", Box::new(|v| v["template"]["stopGrace"] = "2days".into())),
        ];
        for (field, edit) in table {
            let found = spec(edit).unwrap();
            assert!(found.iter().any(|f| f.starts_with(&format!("{field}:"))), "{field}: {found:?}");
        }
    }

    #[test]
    fn unknown_fields_and_wrong_types_are_refused() {
        assert!(spec(|v| v["replica"] = 1.into()).unwrap_err().contains("unknown field `replica`"));
        assert!(spec(|v| v["replicas"] = "three".into()).is_err());
        assert!(spec(|v| v["template"]["stopGrace"] = 5.into()).is_err());
    }

    #[test]
    fn signals() {
        for (text, number) in
            [("SIGTERM", Some(15)), ("kill", Some(9)), ("64", Some(64)), ("0", None), ("FOO", None)]
        {
            assert_eq!(signal_number(text), number, "{text}");
        }
    }
}
