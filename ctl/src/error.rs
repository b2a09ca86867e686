//! What can go wrong between a command and the cluster, told to people.

use dray_proto::status::details;
use std::fmt;
use tonic::{Code, Status};

/// A request that wasn't done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// No scheduler answered.
    #[error(
        "no scheduler answers; tried:{}\n\
         is the cluster up (`clusterctl local status`)? other addresses: --server HOST:PORT or --socket PATH",
        .tried.iter().map(|(place, trouble)| format!("\n  {place}: {trouble}")).collect::<String>()
    )]
    NoAnswer {
        /// Where, and why not.
        tried: Vec<(String, String)>,
    },
    /// The cluster refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl CallError {
    /// The code of the cluster's answer, if it gave one.
    pub(crate) fn code(&self) -> Option<Code> {
        match self {
            CallError::NoAnswer { .. } => None,
            CallError::Refused(refusal) => Some(refusal.0.code()),
        }
    }
}

/// A status from the cluster, shown as text for people.
#[derive(Debug)]
pub(crate) struct Refusal(pub(crate) Box<Status>);

impl From<Status> for Refusal {
    fn from(status: Status) -> Refusal {
        Refusal(Box::new(status))
    }
}

impl std::error::Error for Refusal {}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let details = details(&self.0);
        let reason = if details.reason.is_empty() { code_name(self.0.code()) } else { &details.reason };
        match details.violations.as_slice() {
            [] => write!(f, "{} ({reason})", self.0.message())?,
            [only] => write!(f, "{}: {} ({reason})", only.field, only.problem)?,
            several => {
                write!(f, "the request can't be used ({reason}):")?;
                for violation in several {
                    write!(f, "\n  {}: {}", violation.field, violation.problem)?;
                }
            }
        }
        hint(self.0.code()).map_or(Ok(()), |hint| write!(f, "\n{hint}"))
    }
}

/// A code's name as the protocol spells it.
fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "Ok",
        Code::Cancelled => "Cancelled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}

/// What to do about it, where that isn't plain.
fn hint(code: Code) -> Option<&'static str> {
    match code {
        Code::Unauthenticated => Some(
            "hint: the certificate (--context, or --cert and --key) must be a user's, from this cluster's CA",
        ),
        Code::Unimplemented => {
            Some("hint: the scheduler is older than this clusterctl: see `clusterctl version`")
        }
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::InvalidArgument
        | Code::DeadlineExceeded
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss => None,
    }
}

/// The user asked for something that makes no sense: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

#[cfg(test)]
mod tests {
    use super::*;
    use dray_model::validate::Violation;
    use dray_proto::convert::Invalid;
    use dray_proto::status::with_reason;

    #[test]
    fn refusals_are_told_to_people() {
        let violation = |field: &str| Violation { field: field.into(), problem: "is bad".into() };
        let two = Invalid { violations: vec![violation("a"), violation("b[0]")] };
        for (status, text) in [
            (
                with_reason(Code::NotFound, "UnknownTask", "there is no task x-0"),
                "there is no task x-0 (UnknownTask)",
            ),
            (Status::new(Code::Aborted, "changed"), "changed (Aborted)"),
            (Invalid::field("task", "is bad").into(), "task: is bad (Invalid)"),
            (two.into(), "the request can't be used (Invalid):\n  a: is bad\n  b[0]: is bad"),
        ] {
            assert_eq!(CallError::from(Refusal::from(status)).to_string(), text);
        }
    }
}
