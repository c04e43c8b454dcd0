//! The seam to the topics that an audit reads and writes, and reading one of them up to an end.

use std::collections::BTreeMap;
use std::future::Future;

use futures::StreamExt;
use futures::stream::BoxStream;
use millrace_events::Epoch;
use millrace_events::topics::{PARTITIONS, Topic};
use millrace_flow::{Delivery, Output};
use millrace_kafka::{Admin, BatchError, BatchWriter, KafkaConfig, TailConfig, TailEvent};
use millrace_rpc::error::chain;

/// Transactional id of whoever sends parts again: one for all processes, so that one of them writes at a time.
const WRITER: &str = "millrace.audit";

/// The topics could not be read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// Somebody else repairs now.
    #[error(
        "another repair took over, or Kafka was away for longer than a transaction may last: {0}; what was done stands, \
         call again to go on"
    )]
    TakenOver(String),
    /// A record is refused for what it is.
    #[error("the log refused a record: {0}")]
    Refused(String),
    /// The log or the registry does not answer, or the writer cannot go on.
    #[error("the log is away: {0}")]
    Away(String),
}

/// First offset and end of each partition of a topic.
pub type Ranges = BTreeMap<i32, (i64, i64)>;

/// Reads and writes the topics of an audit.
pub trait AuditLog: Clone + Send + Sync + 'static {
    /// The one writer.
    type Writer: PartWriter;
    /// Where the partitions of a topic begin and end now, whatever is not committed included.
    fn ranges(&self, topic: Topic) -> impl Future<Output = Result<Ranges, LogError>> + Send;
    /// Reads what is committed, from these offsets or from the start of a partition, for as long as it is asked.
    fn read(&self, topic: Topic, starts: BTreeMap<i32, i64>) -> Result<BoxStream<'static, TailEvent>, LogError>;
    /// Becomes the one writer, in all processes. Waits for the log.
    fn take_over(&self) -> impl Future<Output = Result<Self::Writer, LogError>> + Send;
}

/// Writes batches, each whole or not at all.
pub trait PartWriter: Send + Sync + 'static {
    /// Writes one.
    fn write(&self, outputs: Vec<Output>) -> impl Future<Output = Result<(), LogError>> + Send;
}

/// A topic being read, up to one end after another.
pub struct Reading {
    topic: Topic,
    events: BoxStream<'static, TailEvent>,
    /// Where reading goes on, by partition.
    positions: BTreeMap<i32, i64>,
}

impl std::fmt::Debug for Reading {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reading")
            .field("topic", &self.topic.name)
            .field("positions", &self.positions)
            .finish_non_exhaustive()
    }
}

impl Reading {
    /// Reads from these offsets, or from the start of a partition.
    pub fn begin<L: AuditLog>(log: &L, topic: Topic, starts: BTreeMap<i32, i64>) -> Result<Self, LogError> {
        Ok(Self {
            topic,
            events: log.read(topic, starts.clone())?,
            positions: starts,
        })
    }

    /// The next record; none once all that is below these ends was read. What came since may be among it.
    pub async fn next_below(&mut self, ends: &Ranges) -> Result<Option<Delivery>, LogError> {
        while !self.has_reached(ends) {
            match self.events.next().await {
                Some(TailEvent::Record(delivery)) => {
                    let origin = &delivery.origin;
                    self.positions.insert(origin.partition, origin.offset + 1);
                    return Ok(Some(delivery));
                }
                Some(TailEvent::CaughtUp { partition, next_offset }) => {
                    self.positions.insert(partition, next_offset);
                }
                None => {
                    return Err(LogError::Away(format!(
                        "{} cannot be read any further",
                        self.topic.name
                    )));
                }
            }
        }
        Ok(None)
    }

    fn has_reached(&self, ends: &Ranges) -> bool {
        let reached = |(partition, (first, end)): (&i32, &(i64, i64))| {
            first >= end || self.positions.get(partition).is_some_and(|at| at >= end)
        };
        ends.iter().all(reached)
    }
}

/// The topics in Kafka.
#[derive(Debug, Clone)]
pub struct AuditTopics {
    /// How to reach Kafka.
    pub kafka: KafkaConfig,
    /// Asked where partitions end.
    pub admin: Admin,
    /// Epoch of the topics.
    pub epoch: Epoch,
}

impl AuditLog for AuditTopics {
    type Writer = BatchWriter;

    async fn ranges(&self, topic: Topic) -> Result<Ranges, LogError> {
        let name = topic.in_epoch(self.epoch);
        let ranges = self.admin.ranges(&name, PARTITIONS).await;
        ranges.map_err(|error| LogError::Away(chain(&error)))
    }

    fn read(&self, topic: Topic, starts: BTreeMap<i32, i64>) -> Result<BoxStream<'static, TailEvent>, LogError> {
        let topic = topic.in_epoch(self.epoch);
        let tail = millrace_kafka::tail(&self.kafka, TailConfig { topic, starts });
        let tail = tail.map_err(|error| LogError::Away(chain(&error)))?;
        let events = futures::stream::unfold(tail, |mut tail| async move {
            let event = tail.next().await?;
            Some((event, tail))
        });
        Ok(events.boxed())
    }

    async fn take_over(&self) -> Result<BatchWriter, LogError> {
        let name = format!("{WRITER}.e{}", self.epoch.get());
        BatchWriter::open(&self.kafka, &name).await.map_err(failed)
    }
}

impl PartWriter for BatchWriter {
    async fn write(&self, outputs: Vec<Output>) -> Result<(), LogError> {
        Self::write(self, outputs).await.map_err(failed)
    }
}

fn failed(error: BatchError) -> LogError {
    match error {
        BatchError::Fenced(why) => LogError::TakenOver(why),
        BatchError::Refused(why) => LogError::Refused(why),
        BatchError::Config(_) | BatchError::Thread(_) | BatchError::Over(_) => LogError::Away(chain(&error)),
    }
}
