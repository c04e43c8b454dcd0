//! The embedder: turns chunks into vectors, those of many documents together.
//!
//! Promises:
//! - Nothing is cut: a text that the model does not take whole is an error.
//! - The same text gives the same vector to 1e-5, whatever else is in its batch; in bf16, which somebody has to configure, to 2e-3.
//! - No vector leaves that is NaN, infinite, zero or of the wrong size.
//! - A query waits for the batch that runs, and for those that are prepared (none, unless configured); documents and queries wait in bounded queues.
//! - The model file that runs is the one that the manifest's sha256 means. (At an endpoint nobody can tell.)
//!
//! Parts: [`model`] (directory, tokenizer, ONNX runtime, OpenVINO or endpoint, gate), [`batch`] (who shares the model, and when), [`cache`]
//! (what was computed before), [`pipeline`] (the embed stage), [`grpc`] and [`openai`] (queries), [`app`] (puts all together), [`mod@bench`] (what the model alone
//! reaches).
//!
//! Figures behind the defaults (`cargo run --release -p millrace-embedder --example model_alone` gives those of another
//! machine), chunks a second of real prose on two cores of an AMX Xeon that other work wanted too, so that only the
//! proportions count; debug build of this crate:
//!
//! | texts in a batch | 1 | 2 | 4 | 8 | 16 | 32 |
//! |---|---|---|---|---|---|---|
//! | 76 tokens, 2 threads | 18 | 16 | 17 | 20 | 18 | 17 |
//! | 162 tokens, 2 threads | 8 | 9 | 9 | 8 | 8 | 6 |
//! | 76 tokens, 1 thread | 28 | 31 | 32 | 27 | 25 | 21 |
//! | 162 tokens, 1 thread | 12 | 10 | 12 | 11 | 10 | 8 |
//!
//! From 4 to 8 texts on a larger batch gains nothing and a query waits longer for its end: hence 1,024 tokens a batch.
//! Where other processes want the same cores, two threads wait for each other at every step of the graph and one thread
//! alone is faster: there set `model.threads` below the number of cores. On idle cores two threads of this machine reach
//! 62 (128 tokens) and 37 (200 tokens), from an earlier measurement.

pub mod app;
pub mod batch;
pub mod bench;
pub mod cache;
pub mod config;
pub mod grpc;
pub mod model;
pub mod openai;
pub mod pipeline;

pub use app::EmbedderProcess;
pub use config::Config;
