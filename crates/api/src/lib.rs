//! Clients and servers generated from `proto/`, and nothing else: what a Rust client of another team depends on.
//!
//! One module per package, named as the package is.
#![allow(missing_docs, unused_qualifications, clippy::large_futures)]
// Lists in the comments of protos lose a space of their indentation on the way into Rust.
#![allow(clippy::doc_lazy_continuation)]

/// Accepting documents and telling what became of them.
pub mod ingest {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("millrace.ingest.v1");
    }
}
/// Vectors for texts.
pub mod embedder {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("millrace.embedder.v1");
    }
}
/// Searching what has been indexed.
pub mod indexer {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("millrace.indexer.v1");
    }
}
/// How a service's stages are doing.
pub mod pipeline {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("millrace.pipeline.v1");
    }
}

/// Descriptors of all packages above, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/millrace.binpb"));
