//! Compiles the specification's seccomp rules into kernel filters.
//!
//! A compiled filter knows two answers: one for what matches, one for the rest. The specification knows more, so there is
//! one filter for the default action and one for every other; the kernel asks all and takes the strictest answer.

use std::collections::BTreeMap;
use std::io;

use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall,
};
use seccompiler::{BpfProgram, TargetArch, compile_from_json};
use serde_json::{Value, json};
use thiserror::Error;

use crate::sys::install_seccomp_filter;

/// Rules that can't be compiled or installed.
#[derive(Debug, Error)]
pub(crate) enum SeccompError {
    #[error("seccomp filters aren't supported on this architecture")]
    Architecture,
    #[error("seccomp action {0} isn't supported")]
    Action(LinuxSeccompAction),
    #[error("compile the seccomp filter")]
    Compile(#[source] Box<seccompiler::Error>),
    #[error("install the seccomp filter")]
    Install(#[source] io::Error),
}

/// Compiled filters, ready to install.
#[derive(Debug, Default)]
pub(crate) struct SeccompFilters {
    programs: Vec<BpfProgram>,
}

impl SeccompFilters {
    /// Compiles the rules.
    pub(crate) fn compile(spec: &LinuxSeccomp) -> Result<Self, SeccompError> {
        let arch =
            TargetArch::try_from(std::env::consts::ARCH).map_err(|_unknown| SeccompError::Architecture)?;
        let text = filters(spec)?.to_string();
        let compiled = compile_from_json(text.as_bytes(), arch);
        let compiled = compiled.map_err(|cause| SeccompError::Compile(Box::new(cause)))?;
        Ok(Self { programs: compiled.into_values().collect() })
    }

    /// Installs them for this process and its children, for ever.
    pub(crate) fn install(&self) -> Result<(), SeccompError> {
        self.programs
            .iter()
            .try_for_each(|program| install_seccomp_filter(program).map_err(SeccompError::Install))
    }
}

/// The filters in the compiler's language, by name.
fn filters(spec: &LinuxSeccomp) -> Result<Value, SeccompError> {
    let default = action(spec.default_action(), spec.default_errno_ret())?;
    let syscalls = spec.syscalls().as_deref().unwrap_or_default();
    let mut others: BTreeMap<String, (Value, Vec<Value>)> = BTreeMap::new();
    // The first filter lets through all that has any other answer: that one is another filter's to give.
    let mut passed = Vec::new();
    for syscall in syscalls {
        let answer = action(syscall.action(), syscall.errno_ret())?;
        if answer == default {
            continue;
        }
        passed.extend(rules(syscall));
        if syscall.action() != LinuxSeccompAction::ScmpActAllow {
            others.entry(answer.to_string()).or_insert((answer, Vec::new())).1.extend(rules(syscall));
        }
    }
    let mut filters = serde_json::Map::new();
    if spec.default_action() != LinuxSeccompAction::ScmpActAllow {
        filters.insert("default".into(), filter(&default, &json!("allow"), &passed));
    }
    for (name, (answer, rules)) in others {
        filters.insert(name, filter(&json!("allow"), &answer, &rules));
    }
    Ok(filters.into())
}

fn filter(otherwise: &Value, matched: &Value, rules: &[Value]) -> Value {
    json!({ "mismatch_action": otherwise, "match_action": matched, "filter": rules })
}

fn rules(syscall: &LinuxSyscall) -> impl Iterator<Item = Value> + '_ {
    let args: Vec<Value> = syscall.args().iter().flatten().map(condition).collect();
    syscall.names().iter().map(move |name| {
        if args.is_empty() { json!({ "syscall": name }) } else { json!({ "syscall": name, "args": args }) }
    })
}

fn condition(arg: &LinuxSeccompArg) -> Value {
    let (op, value) = match arg.op() {
        LinuxSeccompOperator::ScmpCmpNe => (json!("ne"), arg.value()),
        LinuxSeccompOperator::ScmpCmpLt => (json!("lt"), arg.value()),
        LinuxSeccompOperator::ScmpCmpLe => (json!("le"), arg.value()),
        LinuxSeccompOperator::ScmpCmpEq => (json!("eq"), arg.value()),
        LinuxSeccompOperator::ScmpCmpGe => (json!("ge"), arg.value()),
        LinuxSeccompOperator::ScmpCmpGt => (json!("gt"), arg.value()),
        LinuxSeccompOperator::ScmpCmpMaskedEq => {
            (json!({ "masked_eq": arg.value() }), arg.value_two().unwrap_or_default())
        }
    };
    json!({ "index": arg.index(), "type": "qword", "op": op, "val": value })
}

fn action(action: LinuxSeccompAction, errno: Option<u32>) -> Result<Value, SeccompError> {
    Ok(match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => json!("kill_thread"),
        LinuxSeccompAction::ScmpActKillProcess => json!("kill_process"),
        LinuxSeccompAction::ScmpActTrap => json!("trap"),
        LinuxSeccompAction::ScmpActErrno => json!({ "errno": errno.unwrap_or(libc::EPERM.unsigned_abs()) }),
        LinuxSeccompAction::ScmpActTrace => json!({ "trace": errno.unwrap_or(libc::EPERM.unsigned_abs()) }),
        LinuxSeccompAction::ScmpActLog => json!("log"),
        LinuxSeccompAction::ScmpActAllow => json!("allow"),
        // It needs a process on the other side of a descriptor, which we don't offer.
        LinuxSeccompAction::ScmpActNotify => return Err(SeccompError::Action(action)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::security::default_seccomp;

    #[test]
    fn the_default_profile_compiles_into_two_filters() {
        let filters = SeccompFilters::compile(&default_seccomp()).expect("compile");
        assert_eq!(filters.programs.len(), 2);
    }

    #[test]
    fn every_action_other_than_the_default_gets_its_own_filter() {
        let spec: LinuxSeccomp = serde_json::from_value(json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [
                { "names": ["mount"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1 },
                { "names": ["reboot"], "action": "SCMP_ACT_KILL_PROCESS" },
                { "names": ["read"], "action": "SCMP_ACT_ALLOW" },
            ],
        }))
        .expect("a profile");
        let filters = filters(&spec).expect("filters");
        assert_eq!(
            filters,
            json!({
                "{\"errno\":1}": {
                    "mismatch_action": "allow", "match_action": {"errno": 1}, "filter": [{"syscall": "mount"}],
                },
                "\"kill_process\"": {
                    "mismatch_action": "allow", "match_action": "kill_process", "filter": [{"syscall": "reboot"}],
                },
            })
        );
    }

    #[test]
    fn an_unknown_call_is_an_error() {
        let spec: LinuxSeccomp = serde_json::from_value(json!({
            "defaultAction": "SCMP_ACT_ERRNO",
            "syscalls": [{ "names": ["no_such_call"], "action": "SCMP_ACT_ALLOW" }],
        }))
        .expect("a profile");
        assert!(matches!(SeccompFilters::compile(&spec), Err(SeccompError::Compile(_))));
    }
}
