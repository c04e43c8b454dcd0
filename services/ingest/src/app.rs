//! Puts ingest together: the only file that names concrete implementations.

use std::sync::Arc;

use millrace_events::topics;
use millrace_flow::layers::{GateLayer, TimeoutLayer, TraceLayer};
use millrace_kafka::{Admin, Producer, StageConfig};
use millrace_rpc::error::chain;
use millrace_runtime::config::ConfigError;
use millrace_runtime::http::Http;
use millrace_runtime::pipeline::Pipeline;
use millrace_runtime::process::{Process, ProcessError};
use millrace_runtime::readiness::Readiness;
use millrace_runtime::server::{self, Server};
use millrace_runtime::stage::{StageParts, shared_by_tenants};
use millrace_runtime::tasks::Tasks;
use millrace_runtime::telemetry::{Ops, Telling};
use tonic::service::Routes;
use tower::ServiceBuilder;

use crate::EPOCH;
use crate::accept::Acceptor;
use crate::codec::LateCodec;
use crate::config::Config;
use crate::documents::{Documents, JustAccepted};
use crate::grpc::{Ingest, Letters};
use crate::health::{follow_kafka, follow_log};
use crate::kafka::{self, Ends, LetterTopics, Log, ReplicaTopic};
use crate::letters::{self, DeadLetters};
use crate::pipeline::chunk::Chunker;
use crate::pipeline::parse::{Parse, STAGE};
use crate::pipeline::repeats::{Repeats, follow_assignment};
use crate::pipeline::tokens::TokenCounter;
use crate::replica::replica as replica_of;
use crate::status::Store;

/// The process's name in GetPipeline.
pub const SERVICE: &str = "millrace-ingest";
/// Consumer group of the parse stage.
pub const GROUP: &str = "millrace.parse";
/// gRPC services with a health of their own.
const GRPC_SERVICES: [&str; 3] = [
    "millrace.ingest.v1.IngestService",
    "millrace.ingest.v1.DeadLetterService",
    "millrace.pipeline.v1.PipelineService",
];

/// Ingest as a process.
#[derive(Debug)]
pub struct IngestProcess;

impl Process for IngestProcess {
    const NAME: &'static str = "ingest";
    const ABOUT: &'static str = "Accepts documents, cuts them into chunks, tells what became of them";
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
        let shutdown = tasks.shutdown_token();
        let (listener, _) = server::bind(&config.listen).await?;
        let registry = config.registry.connect()?;
        let admin = Admin::new(&config.kafka).map_err(ProcessError::start("ask Kafka for its topics"))?;
        let producer = Producer::new(&config.kafka, &format!("{SERVICE}.{}", config.instance))?;
        let counter =
            TokenCounter::open(&config.tokenizer).map_err(|e| ConfigError::refused("tokenizer", chain(&e)))?;
        let opening = ProcessError::start("open the status replica");
        let store = Store::open(&config.data_dir).map_err(&opening)?;
        let known = store.submitted().map_err(&opening)?;
        let opening = ProcessError::start("open the replica of dead letters");
        let letters = letters::Store::open(&config.data_dir).map_err(&opening)?;

        let (readiness, health) = Readiness::new(&GRPC_SERVICES);
        let (reachable, log) = (readiness.condition("kafka"), readiness.condition("documents.submitted"));
        let (schemas, complete, letters_complete) = (
            readiness.condition("schema registry"),
            readiness.condition("status replica"),
            readiness.condition("replica of dead letters"),
        );
        let running = readiness.condition("stage parse");

        let codec = LateCodec::default();
        let ends = Ends(admin.clone());
        let (replica, feed) = replica_of(store);
        let accepted = JustAccepted::default();
        let (appending, encoding) = (Log(producer), codec.clone());
        let acceptor = Arc::new(Acceptor::new(
            (appending, encoding),
            replica.clone(),
            config.lanes.clone(),
            accepted.clone(),
            known,
        ));
        let documents = Documents::new(replica.clone(), accepted, ends.clone(), shutdown.clone());
        tasks.spawn("kafka-probe", follow_kafka(admin.clone(), reachable, shutdown.clone()));
        tasks.spawn_once("log-health", follow_log(acceptor.recreated(), log, shutdown.clone()));
        let statuses = ReplicaTopic {
            kafka: config.kafka.clone(),
            admin: admin.clone(),
            codec: codec.clone(),
            replica: replica.clone(),
            topics: kafka::document_topics(&config.lanes),
            complete,
        };
        tasks.spawn("status-replica", statuses.run(feed, shutdown.clone()));
        let (letters, feed) = replica_of(letters);
        let states = ReplicaTopic {
            kafka: config.kafka.clone(),
            admin: admin.clone(),
            codec: codec.clone(),
            replica: letters.clone(),
            topics: kafka::document_topics(&config.lanes),
            complete: letters_complete,
        };
        tasks.spawn("letter-replica", states.run(feed, shutdown.clone()));
        let log = LetterTopics {
            kafka: config.kafka.clone(),
            admin,
        };
        let letters = DeadLetters::new(letters, log, codec.clone(), config.lanes.clone(), shutdown.clone());

        let stage = StageParts {
            config: stage_config(&config),
            kafka: config.kafka.clone(),
            registry,
            epoch: EPOCH,
            writes: &[topics::SUBMITTED, topics::PARSED, topics::STATUS],
            reads: &[topics::SUBMITTED, topics::STATUS, topics::FAILED],
            waits_for: "waiting for the schema registry, the topics and the status replica",
            schemas,
            running,
        };
        let repeats = Arc::new(Repeats::new(replica.clone(), ends));
        let parse = Parse::new(
            codec.clone(),
            Chunker::new(counter, config.max_chunk_tokens),
            repeats.clone(),
            config.lanes.clone(),
        );
        let calls = config.calls;
        let stage = stage.spawn(&mut tasks, async move |connected, gate| {
            codec.set(connected);
            // A stage that does not know what was parsed before would parse repeats again.
            kafka::complete(&replica).await;
            ServiceBuilder::new()
                .layer(TraceLayer::new(STAGE))
                .layer(GateLayer::new(gate))
                .concurrency_limit(calls.concurrency)
                .layer(TimeoutLayer::new(calls.timeout()))
                .service(parse)
        });
        tasks.spawn_once("parse-assignment", follow_assignment(stage.progress.clone(), repeats));

        let pipeline = Pipeline {
            service: SERVICE.into(),
            instance: config.instance,
            stages: vec![stage],
            readiness: readiness.clone(),
        };
        let http = Http::bind(&config.http, pipeline.clone(), ops).await?;
        tasks.spawn("http", http.serve(tasks.shutdown_token()));
        let server = Server {
            listener,
            routes: Routes::new(Ingest::server(acceptor, documents))
                .add_service(Letters::server(letters))
                .add_service(pipeline.server()),
            readiness,
            health,
            drain: server::DRAIN,
        };
        tasks.spawn("grpc", server.serve(shutdown));
        Ok(tasks.run_until_signal().await?)
    }
}

fn stage_config(config: &Config) -> StageConfig {
    StageConfig {
        name: STAGE,
        group: GROUP.into(),
        instance: config.instance.clone(),
        topics: vec![topics::SUBMITTED.in_epoch(EPOCH)],
        limits: config.stage,
        sharing: shared_by_tenants(),
    }
}
