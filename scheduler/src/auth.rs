//! Who may call what. A request's certificate says who sent it; the Unix
//! socket's are the machine's root.
//!
//! | service | users, root | nodes | schedulers |
//! | --- | --- | --- | --- |
//! | the user's API | yes | no | no |
//! | AgentSession | no | each for itself | no |
//! | Raft | no | no | voters |

use dray_model::NodeName;
use dray_proto::status::with_reason;
use dray_proto::tls::Peer;
use tonic::{Code, Request, Status};

/// Lets users in.
///
/// # Errors
/// `UNAUTHENTICATED` or `PERMISSION_DENIED`.
pub fn users_only(request: Request<()>) -> Result<Request<()>, Status> {
    match Peer::of_request(&request)? {
        Peer::User(_) => Ok(request),
        other @ (Peer::Node(_) | Peer::Scheduler(_)) => {
            Err(denied(format!("{other} may not use the user's API; use a dray://user certificate")))
        }
    }
}

/// The scheduler that sent a request.
///
/// # Errors
/// `UNAUTHENTICATED` or `PERMISSION_DENIED`.
pub fn scheduler<T>(request: &Request<T>) -> Result<u64, Status> {
    match Peer::of_request(request)? {
        Peer::Scheduler(id) => Ok(id),
        other @ (Peer::Node(_) | Peer::User(_)) => Err(denied(format!("{other} is not a scheduler"))),
    }
}

/// The node that sent a request.
///
/// # Errors
/// `UNAUTHENTICATED` or `PERMISSION_DENIED`.
pub fn node<T>(request: &Request<T>) -> Result<NodeName, Status> {
    match Peer::of_request(request)? {
        Peer::Node(name) => Ok(name),
        other @ (Peer::Scheduler(_) | Peer::User(_)) => Err(denied(format!("{other} is not a node"))),
    }
}

/// An answer to those who may not.
pub fn denied(message: impl Into<String>) -> Status {
    with_reason(Code::PermissionDenied, "Denied", message)
}
