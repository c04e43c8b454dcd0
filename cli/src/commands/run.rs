//! `millrace run`.

use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;

use millrace_embedder::EmbedderProcess;
use millrace_indexer::IndexerProcess;
use millrace_ingest::IngestProcess;
use millrace_runtime::process;
use rustix::process::{Signal, getpid, kill_process};

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
        Service::Ingest => process::run::<IngestProcess>("millrace run ingest", file, ()).await,
        Service::Embedder => process::run::<EmbedderProcess>("millrace run embedder", file, ()).await,
        Service::Indexer => process::run::<IndexerProcess>("millrace run indexer", file, ()).await,
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
