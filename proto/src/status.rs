//! Errors on the wire: a status whose details name what is wrong.

use crate::convert::Invalid;
use crate::v1::{ErrorDetails, FieldViolation};
use prost::Message;
use tonic::{Code, Status};

/// The metadata key under which a follower names the leader's address.
pub const LEADER_KEY: &str = "dray-leader";

/// A status with a machine-readable reason.
pub fn with_reason(code: Code, reason: &str, message: impl Into<String>) -> Status {
    let details = ErrorDetails { reason: reason.into(), violations: Vec::new() };
    Status::with_details(code, message, details.encode_to_vec().into())
}

/// What a status says beyond its text.
pub fn details(status: &Status) -> ErrorDetails {
    ErrorDetails::decode(status.details()).unwrap_or_default()
}

/// The answer of a scheduler that isn't the leader.
pub fn not_leader(leader: Option<&str>) -> Status {
    let mut status = with_reason(Code::FailedPrecondition, "NotLeader", "this scheduler is not the leader");
    if let Some(address) = leader.and_then(|text| text.parse().ok()) {
        status.metadata_mut().insert(LEADER_KEY, address);
    }
    status
}

/// The leader's address, if that is what a status is about.
pub fn leader_hint(status: &Status) -> Option<&str> {
    status.metadata().get(LEADER_KEY)?.to_str().ok()
}

impl From<Invalid> for Status {
    fn from(invalid: Invalid) -> Status {
        let violations = invalid.violations.iter();
        let violations = violations
            .map(|v| FieldViolation { field: v.field.clone(), problem: v.problem.clone() })
            .collect();
        let details = ErrorDetails { reason: "Invalid".into(), violations };
        Status::with_details(Code::InvalidArgument, invalid.to_string(), details.encode_to_vec().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_survive() {
        let status = Status::from(Invalid::field("spec.replicas", "is too large"));
        assert_eq!(details(&status).violations[0].field, "spec.replicas");
        assert_eq!(leader_hint(&not_leader(Some("10.77.0.1:7000"))), Some("10.77.0.1:7000"));
        assert_eq!(leader_hint(&not_leader(None)), None);
    }
}
