//! Puts the embedder together: the only file that names concrete implementations.

use std::collections::HashMap;
use std::convert::Infallible;

use millrace_events::{Epoch, topics};
use millrace_flow::fair::Sharing;
use millrace_flow::layers::{GateLayer, TimeoutLayer, TraceLayer};
use millrace_kafka::StageConfig;
use millrace_runtime::http::Http;
use millrace_runtime::pipeline::Pipeline;
use millrace_runtime::process::{Process, ProcessError};
use millrace_runtime::readiness::{Condition, Readiness};
use millrace_runtime::server::{self, Server};
use millrace_runtime::stage::{StageParts, shared_by_tenants};
use millrace_runtime::tasks::Tasks;
use millrace_runtime::telemetry::{Ops, Telling};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tonic::service::Routes;
use tower::ServiceBuilder;

use crate::batch::{self, Health};
use crate::cache::Cache;
use crate::config::Config;
use crate::grpc::EmbedderGrpc;
use crate::model::Loaded;
use crate::openai;
use crate::pipeline::embed::{self, Embed};

/// The process's name in GetPipeline.
pub const SERVICE: &str = "millrace-embedder";
const EPOCH: Epoch = Epoch::FIRST;
/// gRPC services with a health of their own.
const GRPC_SERVICES: [&str; 2] = [
    "millrace.embedder.v1.EmbedderService",
    "millrace.pipeline.v1.PipelineService",
];

/// The embedder as a process.
#[derive(Debug)]
pub struct EmbedderProcess;

impl Process for EmbedderProcess {
    const NAME: &'static str = "embedder";
    const ABOUT: &'static str = "Turns the chunks of documents into vectors, and the texts of queries too";
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
        let mut tasks = Tasks::new()?;
        let (listener, _) = server::bind(&config.listen).await?;
        let registry = config.registry.connect()?;
        let (readiness, health) = Readiness::new(&GRPC_SERVICES);
        let model = readiness.condition("model");
        let (schemas, running) = (
            readiness.condition("schema registry"),
            readiness.condition("stage embed"),
        );

        let loading = load(&config);
        let Some(loaded) = tasks.unless_stopped(loading).await else {
            return Ok(tasks.run_until_signal().await?);
        };
        let loaded = loaded?;
        let cache = Cache::open(&config.cache, &loaded.manifest, &loaded.tokenizer).await;
        let (cache, writer) = cache.map_err(ProcessError::start("use the cache"))?.unzip();
        if cache.is_some() && !loaded.backend.describe().batch_independent {
            tracing::warn!(
                "no vector is remembered while this backend computes: each depends on what else is in its batch"
            );
        }
        let (embedder, batcher) = batch::batcher_with(loaded, config.batch.clone(), cache);
        let info = embedder.info();
        tracing::info!(model = info.model.generation(), backend = ?embedder.at_work(), "model loaded");
        tasks.spawn("batcher", batcher.run());
        // It ends after the batcher, when all that was remembered is on disk.
        if let Some(writer) = writer {
            tasks.spawn("cache", writer.run());
        }
        tasks.spawn_once("model-health", follow_model(embedder.health(), model));

        let stage = StageParts {
            config: stage_config(&config),
            kafka: config.kafka.clone(),
            registry,
            epoch: EPOCH,
            writes: &[topics::EMBEDDED],
            reads: &[topics::PARSED],
            waits_for: "waiting for the schema registry and the model",
            schemas,
            running,
        };
        // The batcher ends with the last handle: one goes with the stage, the other with the server.
        let (documents, calls) = (embedder.clone(), config.calls);
        let stage = stage.spawn(&mut tasks, async move |codec, gate| {
            // An endpoint that is away at the start is waited for before records are taken. If the batcher ends, so does
            // the process.
            let _ = documents.health().wait_for(|health| *health == Health::Good).await;
            ServiceBuilder::new()
                .layer(TraceLayer::new(embed::NAME))
                .layer(GateLayer::new(gate))
                .concurrency_limit(calls.concurrency)
                .layer(TimeoutLayer::new(calls.timeout()))
                .service(Embed::new(documents, codec, EPOCH))
        });

        let pipeline = Pipeline {
            service: SERVICE.into(),
            instance: config.instance,
            stages: vec![stage],
            readiness: readiness.clone(),
        };
        if !config.openai.is_empty() {
            let (listener, _) = server::bind(&config.openai).await?;
            tasks.spawn(
                "openai",
                openai::serve(listener, embedder.clone(), tasks.shutdown_token()),
            );
        }
        let http = Http::bind(&config.http, pipeline.clone(), ops).await?;
        tasks.spawn("http", http.serve(tasks.shutdown_token()));
        let server = Server {
            listener,
            routes: Routes::new(EmbedderGrpc::new(embedder, tasks.shutdown_token()).server())
                .add_service(pipeline.server()),
            readiness,
            health,
            drain: server::DRAIN,
        };
        tasks.spawn("grpc", server.serve(tasks.shutdown_token()));
        Ok(tasks.run_until_signal().await?)
    }
}

async fn load(config: &Config) -> Result<Loaded, ProcessError> {
    const WHAT: &str = "use the model";
    let plan = config.plan(Handle::current());
    // A panic while loading is a bug; its message stands in the log.
    let loading = tokio::task::spawn_blocking(move || plan.open());
    let loaded = loading.await.map_err(ProcessError::start(WHAT))?;
    loaded.map_err(ProcessError::start(WHAT))
}

fn stage_config(config: &Config) -> StageConfig {
    let (lanes, tenants) = (config.lanes.all(), config.batch.tenant_weights.iter());
    let weights: HashMap<String, u32> = lanes
        .map(|(lane, weight)| (topics::PARSED.in_lane(&lane, EPOCH), weight))
        .collect();
    StageConfig {
        name: embed::NAME,
        group: embed::GROUP.into(),
        instance: config.instance.clone(),
        topics: weights.keys().cloned().collect(),
        limits: config.stage,
        sharing: Sharing {
            topics: weights,
            tenants: tenants
                .map(|(tenant, weight)| (tenant.clone().into(), *weight))
                .collect(),
            ..shared_by_tenants()
        },
    }
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
