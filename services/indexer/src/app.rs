//! Puts the indexer together: the only file that names concrete implementations.
//!
//! Ready when the index is open, the registry's schemas are known and the stage runs. The embedder being away does not
//! count: documents go on being indexed and searches by vector work; a search by text says so itself.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use millrace_events::{Epoch, topics};
use millrace_kafka::{StageConfig, StageError};
use millrace_rpc::client::{self, InvalidAddress};
use millrace_runtime::codec::{Codec, CodecError};
use millrace_runtime::config::ConfigError;
use millrace_runtime::dead_letters::DocumentLetters;
use millrace_runtime::pipeline::{self, Pipeline};
use millrace_runtime::readiness::{Condition, Readiness};
use millrace_runtime::server::{self, Server, ServerError};
use millrace_runtime::tasks::{TaskError, Tasks};
use millrace_schema::{Registry, RegistryError};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::config::Config;
use crate::embedder::EmbedderClient;
use crate::grpc::search::Search;
use crate::index::embedded::OpenEmbedded;
use crate::index::generation::{GenerationError, Generations};
use crate::pipeline::index::{IndexStage, STAGE, now_ms};
use crate::sweep::{SweepConfig, Sweeper};

const SERVICE: &str = "millrace-indexer";
const GROUP: &str = "millrace.index";
const HEALTH_NAMES: [&str; 2] = [
    "millrace.indexer.v1.SearchService",
    "millrace.pipeline.v1.PipelineService",
];

/// Why the indexer did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration contradicts itself.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// An address is not one.
    #[error(transparent)]
    Address(#[from] InvalidAddress),
    /// The registry's address is not one.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// gRPC cannot be served.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The data folder cannot be used.
    #[error(transparent)]
    Index(#[from] GenerationError),
    /// The thread that opened the data folder stopped.
    #[error("opening the data folder stopped")]
    Opening(#[source] tokio::task::JoinError),
    /// A task failed.
    #[error(transparent)]
    Task(#[from] TaskError),
}

impl RunError {
    /// 64 for a wrong configuration, 78 when another process runs under the same instance name, else 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(error) => error.exit_code(),
            Self::Address(_) => millrace_runtime::config::EXIT_CODE,
            Self::Task(error) if matches!(error.cause(), Some(StageError::Fenced { .. })) => 78,
            _ => 1,
        }
    }
}

/// Why the stage's task ended.
#[derive(Debug, thiserror::Error)]
enum StageTaskError {
    #[error(transparent)]
    Codec(#[from] CodecError),
}

/// Runs the indexer until SIGTERM, SIGINT or a failure. Logging is the caller's to start.
pub async fn run(config: Config) -> Result<(), RunError> {
    config.check()?;
    let registry = Registry::new(&config.registry.url)?;
    let embedder = client::channel(&config.embedder)?;
    let mut tasks = Tasks::new()?;
    let shutdown = tasks.shutdown_token();
    let (listener, _) = server::bind(&config.listen).await?;
    let (readiness, health) = Readiness::new(&HEALTH_NAMES);
    let (index_open, schemas_known) = (readiness.condition("index"), readiness.condition("registry"));
    let stage_runs = readiness.condition("stage index");

    // The folder's lock comes before the group is joined: two indexers on one folder must not both get partitions.
    let opening = open(&config);
    let Some(generations) = tasks.unless_stopped(opening).await else {
        return Ok(tasks.run_until_signal().await?);
    };
    let generations = generations?;
    index_open.ready();

    let codec = Arc::new(OnceLock::new());
    let stage = IndexStage {
        generations: generations.clone(),
        codec: Arc::clone(&codec),
        epoch: Epoch::FIRST,
    };
    let (stage, progress) = millrace_kafka::stage(&config.kafka, stage_config(&config), stage);

    let search = Search {
        generations: generations.clone(),
        embedder: Arc::new(EmbedderClient::new(embedder)),
        longest: config.search.longest(),
    };
    let pipeline = Pipeline {
        service: SERVICE.to_owned(),
        instance: config.instance.clone(),
        stages: vec![progress.clone()],
        readiness: readiness.clone(),
    };
    let server = Server {
        listener,
        routes: Routes::new(search.server()).add_service(pipeline.server()),
        readiness,
        health,
        drain: server::DRAIN,
    };

    tasks.spawn("grpc", server.serve(shutdown.clone()));
    tasks.spawn_once("readiness", pipeline::follow(progress, stage_runs));
    let sweeper = sweep(generations.clone(), sweep_config(&config), shutdown.clone());
    tasks.spawn("sweep", sweeper);
    let connecting = connect(registry, codec, schemas_known, shutdown.clone());
    tasks.spawn("index-stage", async move {
        if connecting.await? {
            stage.run(shutdown).await?;
        }
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
    });
    tasks.run_until_signal().await?;
    close(generations).await;
    Ok(())
}

async fn open(config: &Config) -> Result<Generations, RunError> {
    let (folder, engine) = (config.data_dir.clone(), OpenEmbedded(config.embedded.clone()));
    let opening = tokio::task::spawn_blocking(move || Generations::open(&folder, engine));
    Ok(opening.await.map_err(RunError::Opening)??)
}

/// False when the process is to stop instead.
async fn connect(
    registry: Registry,
    codec: Arc<OnceLock<Codec>>,
    known: Condition,
    shutdown: CancellationToken,
) -> Result<bool, StageTaskError> {
    known.not_ready("the schema registry is waited for");
    let [failed, status] = DocumentLetters::WRITES;
    let writes = [topics::INDEXED, failed, status];
    let connecting = Codec::connect(registry, &writes, &[topics::EMBEDDED]);
    let Some(connected) = shutdown.run_until_cancelled(connecting).await else {
        return Ok(false);
    };
    // Set once, here.
    let _ = codec.set(connected?);
    known.ready();
    Ok(true)
}

async fn sweep(
    generations: Generations,
    config: SweepConfig,
    shutdown: CancellationToken,
) -> Result<(), std::convert::Infallible> {
    let sweeping = async {
        let serving = generations.served().await;
        Sweeper::new(serving.index, config).run(now_ms).await;
    };
    shutdown.run_until_cancelled(sweeping).await;
    Ok(())
}

/// Everything announced is durable already; this spares the next start the replay of the engine's log.
async fn close(generations: Generations) {
    if let Some(serving) = generations.serving()
        && let Err(error) = serving.index.flush().await
    {
        tracing::warn!(%error, "the last flush of the index failed");
    }
    // Closing the engine blocks.
    let closed = tokio::task::spawn_blocking(move || drop(generations)).await;
    if closed.is_err() {
        tracing::warn!("the index was not closed cleanly");
    }
}

fn stage_config(config: &Config) -> StageConfig {
    StageConfig {
        name: STAGE,
        group: GROUP.to_owned(),
        instance: config.instance.clone(),
        topics: vec![topics::EMBEDDED.in_epoch(Epoch::FIRST)],
        limits: config.stage,
    }
}

fn sweep_config(config: &Config) -> SweepConfig {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    SweepConfig {
        grace: Duration::from_millis(config.sweep.grace_ms),
        heads: config.sweep.documents,
        keep_deleted: DAY.saturating_mul(config.sweep.keep_deleted_days),
    }
}
