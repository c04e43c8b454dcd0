//! A service from its arguments to its exit code: the same in a binary of its own and in `millrace run`.
//!
//! | exit code | the process |
//! |---|---|
//! | 0 | stopped as it was asked to |
//! | 1 | failed, the log and standard error say at what |
//! | 64 | has a configuration that cannot be used |
//! | 78 | was fenced: another process runs under its instance name |

use std::error::Error;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};
use millrace_kafka::StageError;
use millrace_rpc::error::chain;
use millrace_schema::RegistryError;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::config::{self, ConfigError};
use crate::server::ServerError;
use crate::stage::StageTaskError;
use crate::tasks::TaskError;
use crate::telemetry::{self, Ops, TelemetryError, Telling};

/// What is received in one thread is processed in others and let go of in a third one: see ADR 11.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Exit code of a process that failed.
pub const EXIT_FAILED: u8 = 1;
/// Exit code of a process whose instance name another one has.
pub const EXIT_FENCED: u8 = 78;

/// A service as a process.
pub trait Process {
    /// Its short name: `ingest` for the binary `millrace-ingest` and the environment `MILLRACE_INGEST_…`.
    const NAME: &'static str;
    /// What it does, for `--help`.
    const ABOUT: &'static str;
    /// Its configuration.
    type Config: Default + Serialize + DeserializeOwned;

    /// The part of the configuration that logs and traces are started with.
    fn telling(config: &Self::Config) -> Telling<'_>;
    /// Builds the service and runs it until SIGTERM, SIGINT or the first failure, and until it is drained.
    fn run(config: Self::Config, ops: Ops) -> impl Future<Output = Result<(), ProcessError>>;
}

/// Why a process did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Logs cannot be started.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// Kafka's settings are not accepted.
    #[error(transparent)]
    Kafka(#[from] millrace_kafka::ConfigError),
    /// The registry's address is none.
    #[error("the registry cannot be used as configured")]
    Registry(#[from] RegistryError),
    /// The gRPC server cannot start.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// Something of the service's own cannot start.
    #[error("cannot {what}")]
    Start {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: Box<dyn Error + Send + Sync>,
    },
    /// A task failed.
    #[error(transparent)]
    Task(#[from] TaskError),
}

impl ProcessError {
    /// For what only one service has: `map_err(ProcessError::start("open the status replica"))`.
    pub fn start<E: Error + Send + Sync + 'static>(what: &'static str) -> impl Fn(E) -> Self {
        move |source| Self::Start {
            what,
            source: Box::new(source),
        }
    }

    /// The process's exit code, see the module.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Telemetry(_) | Self::Kafka(_) | Self::Registry(_) => config::EXIT_CODE,
            Self::Server(_) | Self::Start { .. } => EXIT_FAILED,
            Self::Task(error) if error.cause::<millrace_kafka::ConfigError>().is_some() => config::EXIT_CODE,
            Self::Task(error) => match error.cause::<StageTaskError>() {
                Some(StageTaskError::Stage(StageError::Config { .. })) => config::EXIT_CODE,
                Some(StageTaskError::Stage(StageError::Fenced { .. })) => EXIT_FENCED,
                Some(StageTaskError::Stage(StageError::Thread { .. }) | StageTaskError::Codec(_)) | None => EXIT_FAILED,
            },
        }
    }
}

#[derive(Debug, clap::Parser)]
struct Arguments {
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    flags: Flags,
}

#[derive(Debug, clap::Args, Serialize)]
struct Flags {
    /// Address of the gRPC server; port 0 takes a free one
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
    /// Stable name of this process in its consumer group
    #[arg(long)]
    instance: Option<String>,
}

/// All of a service's own `main`.
pub async fn main<P: Process>() -> ExitCode {
    let name = format!("millrace-{}", P::NAME);
    let arguments = match Arguments::from_arg_matches(&command::<P>(&name).get_matches()) {
        Ok(arguments) => arguments,
        Err(error) => error.exit(),
    };
    run::<P>(&name, arguments.config.as_deref(), &arguments.flags).await
}

fn command<P: Process>(name: &str) -> clap::Command {
    let environment = format!(
        "The environment goes before the file: MILLRACE_{}_<FIELD>, with __ for a step down. Exit codes: 0 stopped as \
         asked, 1 failed, 64 the configuration cannot be used, 78 another process has the same instance name.",
        P::NAME.to_uppercase()
    );
    // All crates of the workspace have one version.
    Arguments::command()
        .name(P::NAME)
        .bin_name(name)
        .display_name(name)
        .about(P::ABOUT)
        .version(env!("CARGO_PKG_VERSION"))
        .after_help(environment)
}

/// Runs a service to its end. `who` stands before an error on standard error; `flags` go before environment and file,
/// `()` for none.
pub async fn run<P: Process>(who: &str, file: Option<&Path>, flags: impl Serialize) -> ExitCode {
    millrace_failpoints::follow(P::NAME);
    let served = async {
        let config: P::Config = config::load(P::NAME, file, flags)?;
        let telemetry = telemetry::init(P::NAME, P::telling(&config))?;
        let ended = tokio::select! {
            ended = P::run(config, telemetry.ops.clone()) => ended,
            never = telemetry.keep_telling() => match never {},
        };
        telemetry.stop().await;
        ended
    };
    // On the heap: a service's whole life is one large future.
    match Box::pin(served).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{who}: {}", chain(&error));
            ExitCode::from(error.exit_code())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::CodecError;

    fn task(source: impl Into<Box<dyn Error + Send + Sync>>) -> ProcessError {
        let source = source.into();
        ProcessError::Task(TaskError::Failed { task: "parse", source })
    }

    fn reserved() -> millrace_kafka::ConfigError {
        millrace_kafka::ConfigError::Reserved("acks".into())
    }

    #[test]
    fn an_exit_code_says_what_kind_of_failure_it_was() {
        let stage = "parse";
        let (source, reason) = (reserved(), "by another".to_owned());
        let no_thread = std::io::Error::other("no thread");
        let no_schema = CodecError::NoSchema { topic: "documents.dlq" };
        let no_address = RegistryError::Address {
            address: "x".into(),
            why: "y".into(),
        };
        let rows = [
            (ProcessError::Config(ConfigError::refused("listen", "x")), 64),
            (TelemetryError::Started("twice".into()).into(), 64),
            (reserved().into(), 64),
            (no_address.into(), 64),
            (ProcessError::start("open it")(std::io::Error::other("full")), 1),
            (task(reserved()), 64),
            (task(StageTaskError::Stage(StageError::Config { stage, source })), 64),
            (task(StageTaskError::Stage(StageError::Fenced { stage, reason })), 78),
            (
                task(StageTaskError::Stage(StageError::Thread {
                    stage,
                    source: no_thread,
                })),
                1,
            ),
            (task(StageTaskError::Codec(no_schema)), 1),
            (task("anything else"), 1),
            (TaskError::EndedEarly { task: "parse" }.into(), 1),
        ];
        for (error, code) in rows {
            assert_eq!(error.exit_code(), code, "{error}");
        }
    }

    #[derive(Debug)]
    struct Mill;

    #[derive(Debug, Default, Serialize, serde::Deserialize)]
    struct Grist {
        log: telemetry::Log,
        traces: telemetry::Traces,
    }

    impl Process for Mill {
        const NAME: &'static str = "mill";
        const ABOUT: &'static str = "Grinds.";
        type Config = Grist;
        fn telling(config: &Grist) -> Telling<'_> {
            Telling {
                instance: "mill-0",
                log: &config.log,
                traces: &config.traces,
            }
        }
        async fn run(_: Grist, _: Ops) -> Result<(), ProcessError> {
            Ok(())
        }
    }

    #[test]
    fn the_arguments_are_the_same_for_every_service() {
        let command = command::<Mill>("millrace-mill");
        command.clone().debug_assert();
        let help = command.clone().render_long_help().to_string();
        for word in [
            "Grinds.",
            "MILLRACE_MILL_<FIELD>",
            "--config",
            "--listen",
            "--instance",
            "78",
        ] {
            assert!(help.contains(word), "{word}: {help}");
        }
        let given = ["millrace-mill", "--config", "m.toml", "--listen", "h:1"];
        let arguments = Arguments::from_arg_matches(&command.try_get_matches_from(given).unwrap()).unwrap();
        assert_eq!(arguments.config.as_deref(), Some(Path::new("m.toml")));
        assert_eq!(
            (arguments.flags.listen.as_deref(), arguments.flags.instance),
            (Some("h:1"), None)
        );
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_read_is_a_wrong_configuration() {
        let code = run::<Mill>("test", Some(Path::new("/nowhere/mill.toml")), ()).await;
        assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::from(64)));
    }
}
