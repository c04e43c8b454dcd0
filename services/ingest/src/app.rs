//! Puts ingest together: the only file that names concrete implementations.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use millrace_events::topics::{self, PARTITIONS, Topic};
use millrace_events::{DocumentKey, Record};
use millrace_flow::progress::{ProgressReader, StageProgress};
use millrace_flow::{Failure, Output};
use millrace_kafka::partitioner::partition_for;
use millrace_kafka::{Admin, AdminError, Producer, SendError, StageConfig, StageError, Tail, TailConfig, TailEvent};
use millrace_rpc::error::chain;
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

use crate::EPOCH;
use crate::accept::{Acceptor, Recreated};
use crate::codec::RecordCodec;
use crate::config::Config;
use crate::documents::{Documents, JustAccepted};
use crate::grpc::Ingest;
use crate::log::{AppendError, CommandLog, EndsError, LogEnds, Position};
use crate::pipeline::chunk::Chunker;
use crate::pipeline::parse::{Parse, STAGE};
use crate::pipeline::repeats::Repeats;
use crate::pipeline::tokens::{TokenCounter, TokenizerError};
use crate::status::replica::{Event, Feed, ReplicaError, replica};
use crate::status::{Replica, Store, StoreError};

/// The process's name in GetPipeline.
pub const SERVICE: &str = "millrace-ingest";
/// Consumer group of the parse stage.
pub const GROUP: &str = "millrace.parse";
/// gRPC services with a health of their own.
const GRPC_SERVICES: [&str; 2] = [
    "millrace.ingest.v1.IngestService",
    "millrace.pipeline.v1.PipelineService",
];
/// Topics in which a document lives in one and the same partition.
const DOCUMENT_TOPICS: [Topic; 3] = [topics::SUBMITTED, topics::PARSED, topics::STATUS];
const EXIT_FENCED: u8 = 78;
const PROBE: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_secs(1);

/// Why ingest did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The configuration cannot work.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Kafka's settings are not accepted.
    #[error(transparent)]
    Kafka(#[from] millrace_kafka::ConfigError),
    /// Kafka's administration cannot be used.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// The tokenizer cannot be read.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The status replica cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
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
            Self::Config(_) | Self::Kafka(_) | Self::Tokenizer(_) | Self::Registry(_) => config::EXIT_CODE,
            Self::Task(error) => match error.cause::<PathError>() {
                Some(PathError::Stage(StageError::Fenced { .. })) => EXIT_FENCED,
                Some(PathError::Stage(StageError::Config { .. }) | PathError::Kafka(_)) => config::EXIT_CODE,
                _ => 1,
            },
            Self::Admin(_) | Self::Store(_) | Self::Server(_) => 1,
        }
    }
}

/// Why documents stopped flowing.
#[derive(Debug, thiserror::Error)]
pub enum PathError {
    /// Topics cannot be read or written.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// Kafka's settings are not accepted.
    #[error(transparent)]
    Kafka(#[from] millrace_kafka::ConfigError),
    /// A topic has another partition count than the documents' keys rely on.
    #[error(
        "{topic} has {found} partitions, the others have {PARTITIONS}: a document would not live in the same one \
         everywhere; re-create it with `millrace topics apply` in a new epoch"
    )]
    Partitions {
        /// The topic.
        topic: String,
        /// Its partitions.
        found: i32,
    },
    /// The status replica stopped.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
    /// The stage ended.
    #[error(transparent)]
    Stage(#[from] StageError),
}

impl From<StoreError> for PathError {
    fn from(error: StoreError) -> Self {
        Self::Replica(error.into())
    }
}

/// Runs ingest until SIGTERM, SIGINT or the first task that fails.
pub async fn run(config: Config) -> Result<(), AppError> {
    config.check()?;
    let mut tasks = Tasks::new()?;
    let (listener, _) = server::bind(&config.listen).await?;
    let registry = Registry::new(&config.registry.url)?;
    let admin = Admin::new(&config.kafka)?;
    let producer = Producer::new(&config.kafka, &format!("{SERVICE}.{}", config.instance))?;
    let store = Store::open(&config.data_dir)?;
    let counter = TokenCounter::open(&config.tokenizer)?;
    let chunker = Chunker::new(counter, config.max_chunk_tokens);

    let (readiness, health) = Readiness::new(&GRPC_SERVICES);
    let conditions = Conditions::new(&readiness);
    let codec = LateCodec::default();
    let ends = Ends(admin.clone());
    let known = store.submitted()?;
    let (replica, feed) = replica(store);
    let just_accepted = JustAccepted::default();
    let acceptor = Acceptor::new(
        Log(producer),
        codec.clone(),
        replica.clone(),
        just_accepted.clone(),
        known,
    );
    let acceptor = Arc::new(acceptor);
    let documents = Documents::new(replica.clone(), just_accepted, ends.clone(), tasks.shutdown_token());
    let repeats = Arc::new(Repeats::new(replica.clone(), ends));

    let (progress, seen) = watch::channel(StageProgress {
        name: STAGE.into(),
        consumer_group: GROUP.into(),
        reason: "waiting for the registry, the topics and the status replica".into(),
        ..StageProgress::default()
    });
    tasks.spawn(
        "kafka-probe",
        probe(admin.clone(), conditions.kafka.clone(), tasks.shutdown_token()),
    );
    tasks.spawn_once(
        "log-health",
        follow_log(acceptor.recreated(), conditions.log.clone(), tasks.shutdown_token()),
    );
    tasks.spawn_once("parse-health", pipeline::follow(seen.clone(), conditions.stage.clone()));
    tasks.spawn_once("parse-assignment", follow_assignment(seen.clone(), repeats.clone()));
    let path = Path {
        config: config.clone(),
        registry,
        admin,
        codec: codec.clone(),
        replica,
        feed,
        parse: Parse::new(codec, chunker, repeats),
        conditions,
        progress,
        shutdown: tasks.shutdown_token(),
    };
    tasks.spawn("path", path.run());

    let pipeline = Pipeline {
        service: SERVICE.into(),
        instance: config.instance,
        stages: vec![seen],
        readiness: readiness.clone(),
    };
    let routes = Routes::new(Ingest::server(acceptor, documents)).add_service(pipeline.server());
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

/// What must hold before the process serves.
#[derive(Debug, Clone)]
struct Conditions {
    kafka: Condition,
    log: Condition,
    registry: Condition,
    replica: Condition,
    stage: Condition,
}

impl Conditions {
    fn new(readiness: &Readiness) -> Self {
        Self {
            kafka: readiness.condition("kafka"),
            log: readiness.condition("documents.submitted"),
            registry: readiness.condition("schema registry"),
            replica: readiness.condition("status replica"),
            stage: readiness.condition("stage parse"),
        }
    }
}

/// The way of the documents, begun while the server already says what is waited for: schemas, then topics, then the
/// replica to its end, then the stage.
struct Path {
    config: Config,
    registry: Registry,
    admin: Admin,
    codec: LateCodec,
    replica: Replica,
    feed: Feed,
    parse: Parse<LateCodec, Ends>,
    conditions: Conditions,
    progress: watch::Sender<StageProgress>,
    shutdown: CancellationToken,
}

impl Path {
    async fn run(self) -> Result<(), PathError> {
        let shutdown = self.shutdown.clone();
        let started = shutdown.run_until_cancelled(self.prepare()).await;
        let Some(ends) = started.transpose()? else {
            return Ok(());
        };
        let starts = self.feed.starts(&ends).await?;
        let topic = topics::STATUS.in_epoch(EPOCH);
        let tail = millrace_kafka::tail(&self.config.kafka, TailConfig { topic, starts })?;
        let feeding = self.feed.run(events(tail), self.codec.clone(), shutdown.clone());
        let (replica, condition) = (self.replica, self.conditions.replica);
        let stage = StageConfig {
            name: STAGE,
            group: GROUP.into(),
            instance: self.config.instance,
            topics: vec![topics::SUBMITTED.in_epoch(EPOCH)],
            limits: self.config.stage,
        };
        let (task, seen) = millrace_kafka::stage(&self.config.kafka, stage, self.parse);
        let parsing = async {
            // A stage that does not know what was parsed before would parse repeats again.
            if shutdown
                .run_until_cancelled(caught_up(&replica, &ends, &condition))
                .await
                .is_none()
            {
                return Ok(());
            }
            task.run(shutdown.clone()).await.map_err(PathError::from)
        };
        let feeding = async { feeding.await.map_err(PathError::from) };
        // The first that fails drops the other; a shutdown waits for both.
        let both = async { tokio::try_join!(feeding, parsing).map(|_| ()) };
        tokio::select! {
            ended = both => ended,
            () = forward(seen, self.progress) => Ok(()),
        }
    }

    /// Waits for registry and topics; returns the status topic's partitions as they are.
    async fn prepare(&self) -> Result<BTreeMap<i32, (i64, i64)>, PathError> {
        self.conditions.registry.not_ready("connecting");
        let [failed, status] = DocumentLetters::WRITES;
        let writes = [topics::SUBMITTED, topics::PARSED, failed, status];
        let reads = [topics::SUBMITTED, topics::STATUS];
        self.codec
            .set(Codec::connect(self.registry.clone(), &writes, &reads).await?);
        self.conditions.registry.ready();
        let condition = &self.conditions.replica;
        loop {
            match self.status_ends().await? {
                Ok(ends) => return Ok(ends),
                Err(why) => {
                    tracing::warn!(why, "waiting for the topics");
                    condition.not_ready(why);
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    /// The partitions' ends; what is worth waiting for is in the inner error.
    async fn status_ends(&self) -> Result<Result<BTreeMap<i32, (i64, i64)>, String>, PathError> {
        let found = match self.admin.topics().await {
            Ok(found) => found,
            Err(error) => return Ok(Err(chain(&error))),
        };
        for topic in DOCUMENT_TOPICS {
            let name = topic.in_epoch(EPOCH);
            match found.iter().find(|info| info.name == name) {
                Some(info) if info.partitions == PARTITIONS => {}
                Some(info) if info.partitions > 0 => {
                    let found = info.partitions;
                    return Err(PathError::Partitions { topic: name, found });
                }
                _ => return Ok(Err(format!("{name} does not exist: run `millrace topics apply`"))),
            }
        }
        let topic = topics::STATUS.in_epoch(EPOCH);
        let mut ends = BTreeMap::new();
        for partition in 0..PARTITIONS {
            match self.admin.watermarks(&topic, partition).await {
                Ok(range) => ends.insert(partition, range),
                Err(error) => return Ok(Err(chain(&error))),
            };
        }
        Ok(Ok(ends))
    }
}

async fn caught_up(replica: &Replica, ends: &BTreeMap<i32, (i64, i64)>, condition: &Condition) {
    let records: i64 = ends.values().map(|(first, end)| end - first).sum();
    condition.not_ready("reading documents.status to its end");
    tracing::info!(records, "reading documents.status to its end");
    replica.complete(&ends.keys().copied().collect()).await;
    tracing::info!("the status replica is complete");
    condition.ready();
}

fn events(tail: Tail) -> impl Stream<Item = Event> + Send {
    futures::stream::unfold(tail, |mut tail| async move {
        let event = match tail.next().await? {
            TailEvent::Record(delivery) => Event::Record(delivery),
            TailEvent::CaughtUp { partition, next_offset } => Event::CaughtUp { partition, next_offset },
        };
        Some((event, tail))
    })
}

async fn probe(admin: Admin, condition: Condition, shutdown: CancellationToken) -> Result<(), Infallible> {
    let probing = async {
        let mut ticks = tokio::time::interval(PROBE);
        loop {
            ticks.tick().await;
            match admin.reachable().await {
                Ok(()) => condition.ready(),
                Err(error) => condition.not_ready(chain(&error)),
            }
        }
    };
    shutdown.run_until_cancelled(probing).await;
    Ok(())
}

async fn follow_log(
    mut recreated: watch::Receiver<Option<Recreated>>,
    condition: Condition,
    shutdown: CancellationToken,
) -> Result<(), Infallible> {
    condition.ready();
    if let Some(Ok(_)) = shutdown.run_until_cancelled(recreated.wait_for(Option::is_some)).await {
        condition.not_ready("it was re-created: nothing is accepted until it is drained and switched to a new epoch");
    }
    Ok(())
}

/// Tells the stage which partitions it lost, so that it looks again at what others did with them.
async fn follow_assignment(mut seen: ProgressReader, repeats: Arc<Repeats<Ends>>) -> Result<(), Infallible> {
    loop {
        let held: BTreeSet<i32> = seen
            .borrow_and_update()
            .partitions
            .iter()
            .map(|p| p.partition)
            .collect();
        repeats.assigned(&held);
        if seen.changed().await.is_err() {
            return Ok(());
        }
    }
}

/// Passes a stage's pictures on, for ever: the stage's end is told by its task.
async fn forward(mut from: ProgressReader, to: watch::Sender<StageProgress>) {
    loop {
        to.send_replace(from.borrow_and_update().clone());
        if from.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// The registry's codec, once it is connected.
#[derive(Debug, Clone, Default)]
struct LateCodec(Arc<OnceLock<Codec>>);

impl LateCodec {
    fn set(&self, codec: Codec) {
        // Set once; a second one would be the same.
        let _ = self.0.set(codec);
    }
    fn get(&self) -> Result<&Codec, Failure> {
        self.0.get().ok_or_else(|| Failure::Transient {
            reason: "REGISTRY_UNAVAILABLE",
            message: "the schema registry has not answered yet".into(),
        })
    }
}

impl RecordCodec for LateCodec {
    fn encode<R: Record>(&self, record: &R) -> Result<Bytes, Failure> {
        self.get()?.encode(record)
    }
    async fn decode<R: Record>(&self, value: &[u8]) -> Result<R, Failure> {
        self.get()?.decode(value).await
    }
}

/// Appends through Kafka's idempotent producer.
#[derive(Debug)]
struct Log(Producer);

impl CommandLog for Log {
    async fn append(&self, output: Output) -> Result<Position, AppendError> {
        let sent = self.0.send(output).await.map_err(|error| match error {
            SendError::TooLarge => AppendError::TooLarge,
            SendError::QueueFull => AppendError::QueueFull,
            SendError::OutcomeUnknown(cause) => AppendError::OutcomeUnknown(cause),
            SendError::Refused(cause) => AppendError::Refused(cause),
        })?;
        Ok(Position {
            partition: sent.partition,
            offset: sent.offset,
        })
    }
}

/// Asks Kafka for watermarks.
#[derive(Debug, Clone)]
struct Ends(Admin);

impl LogEnds for Ends {
    async fn submitted(&self, document: &DocumentKey) -> Result<(i64, i64), EndsError> {
        let partition = partition_for(document.to_string().as_bytes(), PARTITIONS);
        let ends = self.0.watermarks(&topics::SUBMITTED.in_epoch(EPOCH), partition).await;
        ends.map_err(|error| EndsError(chain(&error)))
    }
    async fn status_end(&self, partition: i32) -> Result<i64, EndsError> {
        let ends = self.0.watermarks(&topics::STATUS.in_epoch(EPOCH), partition).await;
        ends.map(|(_, end)| end).map_err(|error| EndsError(chain(&error)))
    }
}
