//! `IngestService` and `DeadLetterService` on the wire: requests checked, answers and refusals translated. No logic of its
//! own.

mod answer;
mod letters;
mod request;
mod service;

pub use letters::Letters;
pub use service::Ingest;
