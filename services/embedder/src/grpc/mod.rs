//! Adapters: request → domain → status.

mod embedder;

pub use embedder::EmbedderGrpc;
