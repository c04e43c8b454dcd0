//! The indexer as a process of its own.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use millrace_indexer::Config;
use millrace_runtime::{config, telemetry};

/// Makes Millrace's documents searchable, and searches them.
///
/// Exit codes: 0 stopped as asked, 1 failed, 64 wrong configuration, 78 another process has the same instance name.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Configuration file (TOML). Every field also is an environment variable, MILLRACE_INDEXER_<FIELD>.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let config: Config = match config::load("indexer", args.config.as_deref(), ()) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("millrace-indexer: {error}");
            return ExitCode::from(error.exit_code());
        }
    };
    if let Err(error) = telemetry::init(&config.log) {
        eprintln!("millrace-indexer: {error}");
        return ExitCode::from(config::EXIT_CODE);
    }
    match millrace_indexer::run(config).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = millrace_rpc::error::chain(&error), "the indexer ended");
            ExitCode::from(error.exit_code())
        }
    }
}
