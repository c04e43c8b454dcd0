//! `millrace run`.

use std::error::Error;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use millrace_runtime::telemetry::Telemetry;
use millrace_runtime::{config, telemetry};
use rustix::process::{Signal, getpid, kill_process};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::stack::services::ENDS_WITH_STDIN;

/// Run one of the services in this process, until SIGTERM or Ctrl-C
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millrace run ingest --config ingest.toml
  MILLRACE_EMBEDDER_LISTEN=0.0.0.0:7702 millrace run embedder --config embedder.toml

Configuration: defaults, then the file, then MILLRACE_<SERVICE>_<FIELD> (`__` nests). Exit codes: 0 stopped cleanly, 1 a
failure, 64 the configuration is not usable, 78 fenced by another process with the same instance name.")]
pub struct Run {
    /// Which one
    #[arg(value_enum)]
    service: Service,
    /// Its config file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Service {
    /// Accepts documents, tells their state, cuts them into chunks
    Ingest,
    /// Turns chunks into vectors
    Embedder,
    /// Keeps the vector index and searches it
    Indexer,
}

/// Runs it to its end.
pub async fn run(run: Run) -> ExitCode {
    if std::env::var_os(ENDS_WITH_STDIN).is_some() {
        end_with_stdin();
    }
    let file = run.config.as_deref();
    match run.service {
        Service::Ingest => {
            use millrace_ingest::{AppError, Config, run};
            serve("ingest", file, |c: &Config| &c.log, run, AppError::exit_code).await
        }
        Service::Embedder => {
            use millrace_embedder::{AppError, Config, run};
            serve("embedder", file, |c: &Config| &c.log, run, AppError::exit_code).await
        }
        Service::Indexer => {
            use millrace_indexer::{Config, RunError, run};
            serve("indexer", file, |c: &Config| &c.log, run, RunError::exit_code).await
        }
    }
}

/// What the service's own binary does: config, logs, run, an exit code.
async fn serve<C, E, F>(
    name: &str,
    file: Option<&Path>,
    log: fn(&C) -> &Telemetry,
    run: fn(C) -> F,
    exit_code: fn(&E) -> u8,
) -> ExitCode
where
    C: Default + Serialize + DeserializeOwned,
    E: Error + 'static,
    F: Future<Output = Result<(), E>>,
{
    let fail = |error: &(dyn Error + 'static), code: u8| {
        eprintln!("millrace run {name}: {}", millrace_rpc::error::chain(error));
        ExitCode::from(code)
    };
    let config: C = match config::load(name, file, ()) {
        Ok(config) => config,
        Err(error) => return fail(&error, error.exit_code()),
    };
    if let Err(error) = telemetry::init(log(&config)) {
        return fail(&error, config::EXIT_CODE);
    }
    // On the heap: a service's whole life is one large future.
    match Box::pin(run(config)).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, exit_code(&error)),
    }
}

/// Ends this process cleanly when whoever holds the other end of its stdin is gone: a service does not outlive an `up`
/// that was killed.
fn end_with_stdin() {
    let wait = || {
        let mut byte = [0];
        while matches!(std::io::stdin().lock().read(&mut byte), Ok(1..)) {}
        let _ = kill_process(getpid(), Signal::TERM);
    };
    if let Err(e) = std::thread::Builder::new().name("stdin".to_owned()).spawn(wait) {
        eprintln!("millrace: cannot watch stdin: {e}");
    }
}
