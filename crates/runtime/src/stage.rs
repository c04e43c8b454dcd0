//! A stage of a process: the registry first, then what the service builds, then Kafka.
//!
//! | while | GetPipeline shows | condition "schemas" | condition "running" |
//! |---|---|---|---|
//! | the registry is waited for | STARTING, [`StageParts::waits_for`] | not ready | not ready |
//! | the service is built | STARTING, [`StageParts::waits_for`] | ready | not ready |
//! | the stage runs | as the stage shows itself | ready | as the stage shows itself |
//!
//! The gRPC server answers meanwhile, and says what is waited for. A shutdown ends each step.

use std::future::Future;
use std::sync::Arc;

use millrace_events::Epoch;
use millrace_events::topics::Topic;
use millrace_flow::fair::Sharing;
use millrace_flow::gate::GateReader;
use millrace_flow::progress::{ProgressReader, StageProgress};
use millrace_flow::{Delivery, Failure, Outputs};
use millrace_kafka::{KafkaConfig, StageConfig, StageError, StageWork};
use millrace_schema::Registry;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tower::Service;

use crate::codec::{Codec, CodecError};
use crate::dead_letters::DocumentLetters;
use crate::pipeline;
use crate::readiness::Condition;
use crate::tasks::Tasks;

/// Why a stage's task ended.
#[derive(Debug, thiserror::Error)]
pub enum StageTaskError {
    /// Its topics cannot be read or written.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The stage ended.
    #[error(transparent)]
    Stage(#[from] StageError),
}

/// A stage of this process, for whoever shows it or holds it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct StageHandle {
    /// The stage at this moment.
    pub progress: ProgressReader,
    hold: watch::Sender<bool>,
}

impl StageHandle {
    /// Around a stage that was started with a receiver of `hold`.
    pub fn new(progress: ProgressReader, hold: watch::Sender<bool>) -> Self {
        Self { progress, hold }
    }

    /// Has it start nothing more, or go on.
    pub fn hold(&self, held: bool) {
        self.hold.send_replace(held);
    }
}

/// Documents of different tenants take turns, as equals.
pub fn shared_by_tenants() -> Sharing {
    Sharing {
        tenant_of: Some(|delivery| {
            let key = delivery.key.clone().unwrap_or_default();
            let end = key.iter().position(|byte| *byte == b'/').unwrap_or(0);
            key.slice(..end)
        }),
        ..Sharing::default()
    }
}

/// What a stage is made of, but for its service.
#[derive(Debug)]
pub struct StageParts {
    /// What is read, as whom.
    pub config: StageConfig,
    /// How to reach Kafka.
    pub kafka: KafkaConfig,
    /// The schema registry.
    pub registry: Registry,
    /// Epoch of the topics.
    pub epoch: Epoch,
    /// Topics that the service writes with the codec; those of dead letters are added.
    pub writes: &'static [Topic],
    /// Topics that the service reads with the codec.
    pub reads: &'static [Topic],
    /// Shown until the stage runs, for example `waiting for the schema registry`.
    pub waits_for: &'static str,
    /// Holds once the schemas are known.
    pub schemas: Condition,
    /// Holds while the stage runs.
    pub running: Condition,
}

impl StageParts {
    /// Starts the stage's tasks. `build` makes the service once the schemas are known, and may wait for more; it is given
    /// the codec and a reader of the stage's gate.
    pub fn spawn<S, F, B>(self, tasks: &mut Tasks, build: B) -> StageHandle
    where
        B: FnOnce(Codec, GateReader) -> F + Send + 'static,
        F: Future<Output = S> + Send + 'static,
        S: Service<Delivery, Response = Outputs, Error = Failure> + Clone + Send + 'static,
        S::Future: Send,
    {
        let name = self.config.name;
        let (progress, seen) = watch::channel(StageProgress {
            name: name.to_owned(),
            consumer_group: self.config.group.clone(),
            reason: self.waits_for.to_owned(),
            ..StageProgress::default()
        });
        tasks.spawn_once("stage-health", pipeline::follow(seen.clone(), self.running.clone()));
        let (hold, held) = watch::channel(false);
        tasks.spawn(name, self.run(build, progress, held, tasks.shutdown_token()));
        StageHandle::new(seen, hold)
    }

    async fn run<S, F>(
        self,
        build: impl FnOnce(Codec, GateReader) -> F,
        progress: watch::Sender<StageProgress>,
        hold: watch::Receiver<bool>,
        shutdown: CancellationToken,
    ) -> Result<(), StageTaskError>
    where
        F: Future<Output = S>,
        S: Service<Delivery, Response = Outputs, Error = Failure> + Clone + Send + 'static,
        S::Future: Send,
    {
        let gate = watch::Sender::new(true);
        let writes = [self.writes, &DocumentLetters::WRITES].concat();
        let preparing = async {
            self.schemas.not_ready("waiting for the schema registry");
            let codec = Codec::connect(self.registry, &writes, self.reads).await?;
            self.schemas.ready();
            let service = build(codec.clone(), gate.subscribe()).await;
            Ok::<_, CodecError>((codec, service))
        };
        let Some(prepared) = shutdown.run_until_cancelled(preparing).await else {
            return Ok(());
        };
        let (codec, service) = prepared?;
        let work = StageWork {
            service,
            dead_letters: Arc::new(DocumentLetters::new(codec, self.config.name, self.epoch)),
            gate,
            hold,
        };
        let (task, seen) = millrace_kafka::stage(&self.kafka, self.config, work);
        let (ended, ()) = tokio::join!(task.run(shutdown), forward(seen, progress));
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
