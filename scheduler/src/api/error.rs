//! The one place that chooses codes on the wire.

use crate::cluster::{ProposeError, ReadError};
use dray_proto::convert::Invalid;
use dray_proto::status::{not_leader, with_reason};
use scheduler_core::Refusal;
use scheduler_core::refusal::Kind;
use tonic::{Code, Status};

/// A refusal as an answer: its kind decides the code, its name is the reason,
/// and fields that are wrong are named in the details.
pub fn of_refusal(refusal: Refusal) -> Status {
    if let Refusal::Invalid { violations } = refusal {
        return Status::from(Invalid { violations });
    }
    let code = match refusal.kind() {
        Kind::Invalid => Code::InvalidArgument,
        Kind::NotFound => Code::NotFound,
        Kind::Precondition => Code::FailedPrecondition,
        Kind::Conflict => Code::Aborted,
        Kind::Exhausted => Code::ResourceExhausted,
    };
    with_reason(code, &reason(&refusal), refusal.to_string())
}

/// The name of the variant: one CamelCase word.
fn reason(refusal: &Refusal) -> String {
    format!("{refusal:?}").chars().take_while(|c| c.is_alphanumeric()).collect()
}

impl From<ProposeError> for Status {
    fn from(error: ProposeError) -> Status {
        match error {
            ProposeError::Refused(refusal) => of_refusal(*refusal),
            ProposeError::NotLeader(leader) => not_leader(leader.as_deref()),
            ProposeError::NoLeader => with_reason(Code::Unavailable, "NoLeader", error.to_string()),
            ProposeError::Unknown => with_reason(Code::Unavailable, "Unknown", error.to_string()),
            ProposeError::Overloaded => with_reason(Code::ResourceExhausted, "Overloaded", error.to_string()),
            ProposeError::Malformed(_) => with_reason(Code::Internal, "Malformed", error.to_string()),
        }
    }
}

impl From<ReadError> for Status {
    fn from(error: ReadError) -> Status {
        match error {
            ReadError::NotLeader(leader) => not_leader(leader.as_deref()),
            ReadError::NoLeader => with_reason(Code::Unavailable, "NoLeader", error.to_string()),
        }
    }
}

/// A name in a request that can't be one of ours.
///
/// # Errors
/// Names the field.
pub fn parsed<T>(text: &str, field: &str) -> Result<T, Status>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|e: T::Err| Invalid::field(field, e.to_string()).into())
}

/// What the stream of a request must begin with.
pub fn missing(field: &str) -> Status {
    Invalid::field(field, "must come first").into()
}

/// The message of a status that another process sent, as our own answer.
pub fn relayed(status: &Status, from: &str) -> Status {
    let message = format!("{from}: {}", status.message());
    Status::with_details(status.code(), message, bytes::Bytes::copy_from_slice(status.details()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use dray_model::validate::Violation;
    use dray_proto::status::details;

    #[test]
    fn a_refusal_keeps_its_name_and_fields() {
        let unknown = of_refusal(Refusal::UnknownWorkload { name: "redis".parse().unwrap() });
        assert_eq!((unknown.code(), details(&unknown).reason.as_str()), (Code::NotFound, "UnknownWorkload"));
        let field = Violation { field: "spec.replicas".into(), problem: "is too large".into() };
        let invalid = of_refusal(Refusal::Invalid { violations: vec![field] });
        assert_eq!(invalid.code(), Code::InvalidArgument);
        assert_eq!(details(&invalid).violations[0].field, "spec.replicas");
    }
}
