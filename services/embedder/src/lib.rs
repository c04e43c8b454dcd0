//! The embedder: turns chunks into vectors, those of many documents together.
//!
//! Promises:
//! - Nothing is cut: a text that the model does not take whole is an error.
//! - The same text gives the same vector to 1e-5, whatever else is in its batch.
//! - No vector leaves that is NaN, infinite, zero or of the wrong size.
//! - A query waits for at most one running batch; documents and queries wait in bounded queues.
//! - The model file that runs is the one that the manifest's sha256 means.
//!
//! Parts: [`model`] (directory, tokenizer, ONNX runtime, pooling, gate), [`batch`] (who shares the model, and when),
//! [`pipeline`] (the embed stage), [`grpc`] (queries), [`app`] (puts all together), [`bench`] (what the model alone
//! reaches).

pub mod app;
pub mod batch;
pub mod bench;
pub mod config;
pub mod grpc;
pub mod model;
pub mod pipeline;

pub use app::{AppError, run};
pub use config::Config;
