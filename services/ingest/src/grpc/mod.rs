//! `IngestService` on the wire: requests checked, answers and refusals translated. No logic of its own.

mod answer;
mod request;
mod service;

pub use service::Ingest;
