//! Kafka behind the seams: the log of commands, where partitions end, and the topics that feed replicas.

mod letters;

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::error::Error;
use std::time::Duration;

use futures::Stream;
use millrace_events::topics::{self, PARTITIONS, Topic};
use millrace_events::{DocumentKey, Record};
use millrace_flow::Output;
use millrace_kafka::{Admin, AdminError, KafkaConfig, Producer, SendError, Tail, TailConfig, TailEvent};
use millrace_rpc::error::chain;
use millrace_runtime::partition::partition_of;
use millrace_runtime::readiness::Condition;
use tokio_util::sync::CancellationToken;

pub use letters::LetterTopics;

use crate::EPOCH;
use crate::codec::LateCodec;
use crate::log::{AppendError, CommandLog, EndsError, LogEnds, Position};
use crate::pipeline::lanes::LaneConfig;
use crate::replica::{Event, Feed, Kept, Replica, Standing};

/// Names of the topics in which a document lives in one and the same partition.
pub fn document_topics(lanes: &LaneConfig) -> Vec<String> {
    let others = [topics::SUBMITTED, topics::STATUS, topics::FAILED, topics::DLQ];
    let lanes = lanes.all().map(|lane| topics::PARSED.in_lane(&lane, EPOCH));
    others
        .map(|topic| topic.in_epoch(EPOCH))
        .into_iter()
        .chain(lanes)
        .collect()
}

const RETRY: Duration = Duration::from_secs(1);

/// Appends through Kafka's idempotent producer.
#[derive(Debug)]
pub struct Log(pub Producer);

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
pub struct Ends(pub Admin);

impl LogEnds for Ends {
    async fn submitted(&self, document: &DocumentKey) -> Result<(i64, i64), EndsError> {
        let partition = partition_of(document);
        let ends = self.0.watermarks(&topics::SUBMITTED.in_epoch(EPOCH), partition).await;
        ends.map_err(|error| EndsError(chain(&error)))
    }
    async fn status_end(&self, partition: i32) -> Result<i64, EndsError> {
        let ends = self.0.watermarks(&topics::STATUS.in_epoch(EPOCH), partition).await;
        ends.map(|(_, end)| end).map_err(|error| EndsError(chain(&error)))
    }
}

/// A topic has another partition count than the documents' keys rely on.
#[derive(Debug, thiserror::Error)]
#[error(
    "{topic} has {found} partitions, the others have {PARTITIONS}: a document would not live in the same one \
     everywhere; re-create it with `millrace topics apply` in a new epoch"
)]
pub struct PartitionCount {
    /// The topic.
    pub topic: String,
    /// Its partitions.
    pub found: i32,
}

/// Reads a topic into its replica.
#[derive(Debug)]
pub struct ReplicaTopic<T> {
    /// How to reach Kafka.
    pub kafka: KafkaConfig,
    /// Asked for the topics and their ends.
    pub admin: Admin,
    /// Reads the records, once the registry has answered.
    pub codec: LateCodec,
    /// What is fed.
    pub replica: Replica<T>,
    /// Names of the topics that must be there.
    pub topics: Vec<String>,
    /// Holds once all that stood in the topic at the start is in the replica.
    pub complete: Condition,
}

impl<T: Kept> ReplicaTopic<T> {
    const TOPIC: Topic = T::Record::TOPIC;

    /// Feeds the replica until `shutdown`. Waits for the registry and the topics first.
    pub async fn run(self, feed: Feed<T>, shutdown: CancellationToken) -> Result<(), Box<dyn Error + Send + Sync>> {
        let Some(ends) = shutdown.run_until_cancelled(self.ends()).await else {
            return Ok(());
        };
        let ends = ends?;
        let starts = feed.starts(&ends).await?;
        let topic = Self::TOPIC.in_epoch(EPOCH);
        let tail = millrace_kafka::tail(&self.kafka, TailConfig { topic, starts })?;
        tokio::select! {
            // Ends on shutdown by itself, and with an error when it cannot go on.
            fed = feed.run(events(tail), self.codec.clone(), shutdown) => Ok(fed?),
            never = self.follow(&ends) => match never {},
        }
    }

    async fn follow(&self, ends: &BTreeMap<i32, (i64, i64)>) -> Infallible {
        let records: i64 = ends.values().map(|(first, end)| end - first).sum();
        let topic = Self::TOPIC.name;
        let (mut before, mut was_complete) = (None, false);
        loop {
            let now = self.replica.standing(&partitions(), before.as_ref()).await;
            match &now {
                Standing::Reading => {
                    tracing::info!(topic, records, "reading a topic to its end");
                    self.complete.not_ready(format!("reading {topic} to its end"));
                }
                // What is accepted needs no registry: once complete, an outage of it takes nobody out of service.
                Standing::Waiting { outage: true, .. } if was_complete => {}
                Standing::Waiting { why, .. } => self.complete.not_ready(why.clone()),
                Standing::Complete => {
                    was_complete = true;
                    tracing::info!(topic, "the replica is complete");
                    self.complete.ready();
                }
            }
            before = Some(now);
        }
    }

    /// The topic's partitions as they are, once all topics exist.
    async fn ends(&self) -> Result<BTreeMap<i32, (i64, i64)>, PartitionCount> {
        self.codec.connected().await;
        loop {
            match self.try_ends().await? {
                Ok(ends) => return Ok(ends),
                Err(why) => {
                    tracing::warn!(why, "waiting for the topics");
                    self.complete.not_ready(why);
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    /// What is worth waiting for is in the inner error.
    async fn try_ends(&self) -> Result<Result<BTreeMap<i32, (i64, i64)>, String>, PartitionCount> {
        let found = match self.admin.topics().await {
            Ok(found) => found,
            Err(error) => return Ok(Err(chain(&error))),
        };
        for name in &self.topics {
            match found.iter().find(|info| info.name == *name) {
                Some(info) if info.partitions == PARTITIONS => {}
                Some(info) if info.partitions > 0 => {
                    let found = info.partitions;
                    let topic = name.clone();
                    return Err(PartitionCount { topic, found });
                }
                _ => {
                    return Ok(Err(format!(
                        "{name} does not exist: run `millrace topics apply`, with --lane for each lane"
                    )));
                }
            }
        }
        Ok(ranges(&self.admin, Self::TOPIC).await.map_err(|error| chain(&error)))
    }
}

/// First offset and end of each partition of a topic, transaction markers included.
async fn ranges(admin: &Admin, topic: Topic) -> Result<BTreeMap<i32, (i64, i64)>, AdminError> {
    admin.ranges(&topic.in_epoch(EPOCH), PARTITIONS).await
}

/// Returns once all that stood in the topic at the start is in its replica.
pub async fn complete<T: Kept>(replica: &Replica<T>) {
    replica.complete(&partitions()).await;
}

fn partitions() -> BTreeSet<i32> {
    (0..PARTITIONS).collect()
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
