//! Dray's wire contract.
//!
//! [`v1`] is generated from `dray/v1/*.proto`; [`convert`] is the only
//! passage between wire and model, and the only validator of what comes from
//! outside; [`tls`] says who is at the other end of a connection and
//! [`connect`] sees to it that it is the right one; [`status`]
//! carries field-by-field errors.

#![forbid(unsafe_code)]

pub mod connect;
pub mod convert;
pub mod status;
pub mod tls;

/// The generated messages, clients and servers.
pub mod v1 {
    #![allow(
        missing_docs,
        unreachable_pub,
        unused_qualifications,
        clippy::all,
        clippy::allow_attributes_without_reason,
        clippy::too_many_lines,
        clippy::unwrap_used,
        reason = "generated code"
    )]
    tonic::include_proto!("dray.v1");

    /// The encoded file descriptors, for gRPC reflection.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/dray.v1.descriptors"));
}
