//! Puts the embedder together: the only file that names concrete implementations.

use std::convert::Infallible;

use millrace_events::{Epoch, topics};
use millrace_flow::progress::{ProgressReader, StageProgress};
use millrace_kafka::{StageConfig, StageError};
use millrace_runtime::codec::{Codec, CodecError};
use millrace_runtime::config::{self, ConfigError};
use millrace_runtime::dead_letters::DocumentLetters;
use millrace_runtime::pipeline::{self, Pipeline};
use millrace_runtime::readiness::{Condition, Readiness};
use millrace_runtime::server::{self, Server, ServerError};
use millrace_runtime::tasks::{TaskError, Tasks};
use millrace_schema::{Registry, RegistryError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::batch::{self, Embedder, Health};
use crate::config::Config;
use crate::grpc::EmbedderGrpc;
use crate::model::{Loaded, ModelError};
use crate::pipeline::embed::{self, Embed};

/// The process's name in GetPipeline.
pub const SERVICE: &str = "millrace-embedder";
/// gRPC services with a health of their own.
const GRPC_SERVICES: [&str; 2] = [
    "millrace.embedder.v1.EmbedderService",
    "millrace.pipeline.v1.PipelineService",
];

/// Why an embedder did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The configuration cannot work.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The model cannot be used.
    #[error("the model cannot be used")]
    Model(#[from] ModelError),
    /// The registry's address is none.
    #[error("registry.url cannot be used")]
    Registry(#[from] RegistryError),
    /// The gRPC server cannot start.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// A task failed.
    #[error(transparent)]
    Task(#[from] TaskError),
}

impl AppError {
    /// The process's exit code: 64 for its configuration, 78 when another process has its instance name, else 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Registry(_) => config::EXIT_CODE,
            Self::Task(error) => match error.cause::<StageTaskError>() {
                Some(StageTaskError::Stage(StageError::Fenced { .. })) => 78,
                Some(StageTaskError::Stage(StageError::Config { .. })) => config::EXIT_CODE,
                _ => 1,
            },
            Self::Model(_) | Self::Server(_) => 1,
        }
    }
}

/// Why the stage's task ended.
#[derive(Debug, thiserror::Error)]
pub enum StageTaskError {
    /// Its topics cannot be read or written.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The stage ended.
    #[error(transparent)]
    Stage(#[from] StageError),
}

/// Runs an embedder until SIGTERM, SIGINT or the first task that fails.
pub async fn run(config: Config) -> Result<(), AppError> {
    config.check()?;
    let mut tasks = Tasks::new()?;
    let (listener, _) = server::bind(&config.listen).await?;
    let registry = Registry::new(&config.registry.url)?;
    let (readiness, health) = Readiness::new(&GRPC_SERVICES);
    let (model, schemas, stage) = (
        readiness.condition("model"),
        readiness.condition("schema registry"),
        readiness.condition("stage embed"),
    );

    let source = config.model_source();
    let loading = tokio::task::spawn_blocking(move || Loaded::load(&source));
    let Some(loaded) = tasks.unless_stopped(loading).await else {
        return Ok(tasks.run_until_signal().await?);
    };
    // A panic while loading is a bug; its message stands in the log.
    let loaded = loaded.map_err(|e| ModelError::Session { what: e.to_string() })??;
    let (embedder, batcher) = batch::batcher(loaded, config.batch.clone());
    let info = embedder.info();
    tracing::info!(model = info.model.generation(), backend = ?info.backend, "model loaded");
    tasks.spawn("batcher", batcher.run());
    tasks.spawn_once("model-health", follow_model(embedder.health(), model));

    let (progress, seen) = watch::channel(StageProgress {
        name: embed::NAME.into(),
        consumer_group: embed::GROUP.into(),
        reason: "waiting for the schema registry".into(),
        ..StageProgress::default()
    });
    let parts = StageParts {
        config: config.clone(),
        registry,
        embedder: embedder.clone(),
        schemas,
        progress,
        shutdown: tasks.shutdown_token(),
    };
    tasks.spawn("embed", parts.run());
    tasks.spawn_once("embed-health", pipeline::follow(seen.clone(), stage));

    let pipeline = Pipeline {
        service: SERVICE.into(),
        instance: config.instance,
        stages: vec![seen],
        readiness: readiness.clone(),
    };
    // The batcher ends with the last handle: this one goes with the server, the other with the stage.
    let routes = Routes::new(EmbedderGrpc::new(embedder).server()).add_service(pipeline.server());
    let server = Server {
        listener,
        routes,
        readiness,
        health,
        drain: server::DRAIN,
    };
    tasks.spawn("grpc", server.serve(tasks.shutdown_token()));
    Ok(tasks.run_until_signal().await?)
}

/// Keeps the model's condition as its last batch or canary showed it.
async fn follow_model(mut health: watch::Receiver<Health>, condition: Condition) -> Result<(), Infallible> {
    loop {
        match &*health.borrow_and_update() {
            Health::Good => condition.ready(),
            Health::Broken(why) => condition.not_ready(why),
        }
        if health.changed().await.is_err() {
            condition.not_ready("the model's thread has ended");
            return Ok(());
        }
    }
}

/// What the stage's task is made of.
struct StageParts {
    config: Config,
    registry: Registry,
    embedder: Embedder,
    schemas: Condition,
    progress: watch::Sender<StageProgress>,
    shutdown: CancellationToken,
}

impl StageParts {
    /// Proves the schemas, however long the registry is away, then consumes. The server answers meanwhile and says what
    /// is waited for.
    async fn run(self) -> Result<(), StageTaskError> {
        let [failed, status] = DocumentLetters::WRITES;
        let writes = [topics::EMBEDDED, failed, status];
        let connecting = Codec::connect(self.registry, &writes, &[topics::PARSED]);
        let codec = tokio::select! {
            biased;
            () = self.shutdown.cancelled() => return Ok(()),
            codec = connecting => codec?,
        };
        self.schemas.ready();
        let stage = StageConfig {
            name: embed::NAME,
            group: embed::GROUP.into(),
            instance: self.config.instance,
            topics: vec![topics::PARSED.in_epoch(Epoch::FIRST)],
            limits: self.config.stage,
        };
        let service = Embed::new(self.embedder, codec, Epoch::FIRST);
        let (task, seen) = millrace_kafka::stage(&self.config.kafka, stage, service);
        let (ended, ()) = tokio::join!(task.run(self.shutdown), forward(seen, self.progress));
        Ok(ended?)
    }
}

/// Passes a stage's pictures on, until the stage is gone.
async fn forward(mut from: ProgressReader, to: watch::Sender<StageProgress>) {
    loop {
        to.send_replace(from.borrow_and_update().clone());
        if from.changed().await.is_err() {
            return;
        }
    }
}
