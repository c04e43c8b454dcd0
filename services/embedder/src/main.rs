//! The embedder as a process of its own.

use std::process::ExitCode;

fn main() -> ExitCode {
    millrace_embedder::model::worker::main().unwrap_or_else(service)
}

#[tokio::main]
async fn service() -> ExitCode {
    millrace_runtime::process::main::<millrace_embedder::EmbedderProcess>().await
}
