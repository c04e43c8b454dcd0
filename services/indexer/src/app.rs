//! Puts the indexer together: the only file that names concrete implementations.
//!
//! Ready when the index is open, the registry's schemas are known and the stage runs. The embedder being away does not
//! count: documents go on being indexed and searches by vector work; a search by text says so itself.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use millrace_events::{Epoch, topics};
use millrace_flow::layers::{GateLayer, TimeoutLayer, TraceLayer};
use millrace_kafka::{Admin, StageConfig};
use millrace_rpc::client;
use millrace_rpc::error::chain;
use millrace_runtime::clock::now_ms;
use millrace_runtime::config::ConfigError;
use millrace_runtime::http::Http;
use millrace_runtime::pipeline::Pipeline;
use millrace_runtime::process::{Process, ProcessError};
use millrace_runtime::readiness::Readiness;
use millrace_runtime::server::{self, Server};
use millrace_runtime::stage::{StageParts, shared_by_tenants};
use millrace_runtime::tasks::Tasks;
use millrace_runtime::telemetry::{Ops, Telling};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tower::ServiceBuilder;

use crate::audit::Auditor;
use crate::audit::log::AuditTopics;
use crate::config::Config;
use crate::embedder::EmbedderClient;
use crate::grpc::audit::Audit;
use crate::grpc::search::Search;
use crate::index::embedded::OpenEmbedded;
use crate::index::generation::Generations;
use crate::pipeline::index::{IndexStage, STAGE};
use crate::sweep::{SweepConfig, Sweeper};

const SERVICE: &str = "millrace-indexer";
const GROUP: &str = "millrace.index";
const EPOCH: Epoch = Epoch::FIRST;
/// How long a repair waits for the index stage while nothing changes.
const REPAIR_PATIENCE: Duration = Duration::from_secs(60);
const HEALTH_NAMES: [&str; 3] = [
    "millrace.indexer.v1.SearchService",
    "millrace.indexer.v1.AuditService",
    "millrace.pipeline.v1.PipelineService",
];

/// The indexer as a process.
#[derive(Debug)]
pub struct IndexerProcess;

impl Process for IndexerProcess {
    const NAME: &'static str = "indexer";
    const ABOUT: &'static str = "Makes documents searchable, and searches them";
    type Config = Config;

    fn telling(config: &Config) -> Telling<'_> {
        Telling {
            instance: &config.instance,
            log: &config.log,
            traces: &config.traces,
        }
    }

    async fn run(config: Config, ops: Ops) -> Result<(), ProcessError> {
        config.check()?;
        let registry = config.registry.connect()?;
        let embedder = client::channel(&config.embedder).map_err(|e| ConfigError::refused("embedder", chain(&e)))?;
        let mut tasks = Tasks::new()?;
        let shutdown = tasks.shutdown_token();
        let (listener, _) = server::bind(&config.listen).await?;
        let (readiness, health) = Readiness::new(&HEALTH_NAMES);
        let index_open = readiness.condition("index");
        let (schemas, running) = (
            readiness.condition("schema registry"),
            readiness.condition("stage index"),
        );

        // The folder's lock comes before the group is joined: two indexers on one folder must not both get partitions.
        let opening = open(&config);
        let Some(generations) = tasks.unless_stopped(opening).await else {
            return Ok(tasks.run_until_signal().await?);
        };
        let generations = generations?;
        index_open.ready();

        let stage = StageParts {
            config: stage_config(&config),
            kafka: config.kafka.clone(),
            registry,
            epoch: EPOCH,
            writes: &[topics::INDEXED],
            reads: &[topics::EMBEDDED, topics::STATUS],
            waits_for: "waiting for the schema registry",
            schemas,
            running,
        };
        let (indexed, calls) = (generations.clone(), config.calls);
        let auditor = auditor(&config, generations.clone(), shutdown.clone())?;
        let schemas_known = Arc::clone(&auditor.codec);
        let stage = stage.spawn(&mut tasks, async move |codec, gate| {
            // Set once; a second one would be the same.
            let _ = schemas_known.set(codec.clone());
            ServiceBuilder::new()
                .layer(TraceLayer::new(STAGE))
                .layer(GateLayer::new(gate))
                .concurrency_limit(calls.concurrency)
                .layer(TimeoutLayer::new(calls.timeout()))
                .service(IndexStage {
                    generations: indexed,
                    codec,
                    epoch: EPOCH,
                })
        });
        let sweeper = sweep(generations.clone(), sweep_config(&config), shutdown.clone());
        tasks.spawn("sweep", sweeper);

        let search = Search {
            generations: generations.clone(),
            embedder: Arc::new(EmbedderClient::new(embedder, &config.embedder)),
            longest: config.search.longest(),
        };
        let pipeline = Pipeline {
            service: SERVICE.to_owned(),
            instance: config.instance.clone(),
            stages: vec![stage],
            readiness: readiness.clone(),
        };
        let http = Http::bind(&config.http, pipeline.clone(), ops).await?;
        tasks.spawn("http", http.serve(tasks.shutdown_token()));
        let server = Server {
            listener,
            routes: Routes::new(search.server())
                .add_service(Audit(auditor).server())
                .add_service(pipeline.server()),
            readiness,
            health,
            drain: server::DRAIN,
        };
        tasks.spawn("grpc", server.serve(shutdown));
        tasks.run_until_signal().await?;
        close(generations).await;
        Ok(())
    }
}

async fn open(config: &Config) -> Result<Generations, ProcessError> {
    const WHAT: &str = "open the index";
    let (folder, engine) = (config.data_dir.clone(), OpenEmbedded(config.embedded.clone()));
    let opening = tokio::task::spawn_blocking(move || Generations::open(&folder, engine));
    let opened = opening.await.map_err(ProcessError::start(WHAT))?;
    opened.map_err(ProcessError::start(WHAT))
}

fn auditor(
    config: &Config,
    generations: Generations,
    leaving: CancellationToken,
) -> Result<Auditor<AuditTopics>, ProcessError> {
    let admin = Admin::new(&config.kafka).map_err(ProcessError::start("ask Kafka for its topics"))?;
    Ok(Auditor {
        log: AuditTopics {
            kafka: config.kafka.clone(),
            admin,
            epoch: EPOCH,
        },
        codec: Arc::default(),
        generations,
        epoch: EPOCH,
        patience: REPAIR_PATIENCE,
        keep_deleted: sweep_config(config).keep_deleted,
        leaving,
        turn: Arc::new(Semaphore::new(1)),
    })
}

async fn sweep(generations: Generations, config: SweepConfig, shutdown: CancellationToken) -> Result<(), Infallible> {
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
        topics: vec![topics::EMBEDDED.in_epoch(EPOCH)],
        limits: config.stage,
        sharing: shared_by_tenants(),
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
