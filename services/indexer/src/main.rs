//! The indexer as a process of its own.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    millrace_runtime::process::main::<millrace_indexer::IndexerProcess>().await
}
