//! The indexer as a process of its own.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use millrace_indexer::{Config, run};
use millrace_runtime::{config, telemetry};
use serde::Serialize;

/// Makes documents searchable, and searches them.
#[derive(Debug, Parser)]
#[command(name = "millrace-indexer", version)]
struct Args {
    /// Configuration file (TOML). MILLRACE_INDEXER_<FIELD> in the environment goes before it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    flags: Flags,
}

#[derive(Debug, clap::Args, Serialize)]
struct Flags {
    /// Address of the gRPC server; port 0 takes a free one.
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
    /// Stable name of this process in its consumer group.
    #[arg(long)]
    instance: Option<String>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let config: Config = match config::load("indexer", args.config.as_deref(), &args.flags) {
        Ok(config) => config,
        Err(error) => return fail(&error, error.exit_code()),
    };
    if let Err(error) = telemetry::init(&config.log) {
        return fail(&error, config::EXIT_CODE);
    }
    match run(config).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, error.exit_code()),
    }
}

/// 0 stopped as asked, 1 failed, 64 wrong configuration, 78 another process has the same instance name.
fn fail(error: &(dyn std::error::Error + 'static), code: u8) -> ExitCode {
    eprintln!("millrace-indexer: {}", millrace_rpc::error::chain(error));
    ExitCode::from(code)
}
