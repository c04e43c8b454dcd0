//! `grpc.health.v1`, generated; [`crate::readiness`] answers it.
#![allow(missing_docs, unused_qualifications)]

tonic::include_proto!("grpc.health.v1");

/// For gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/health.binpb"));
