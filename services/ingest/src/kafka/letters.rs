//! The topics of dead letters behind their seam.

use std::collections::BTreeMap;

use futures::StreamExt;
use futures::stream::BoxStream;
use millrace_events::topics;
use millrace_flow::{Delivery, Output};
use millrace_kafka::{Admin, BatchError, BatchWriter, KafkaConfig, Tail, TailConfig, TailEvent};
use millrace_rpc::error::chain;

use super::ranges;
use crate::EPOCH;
use crate::letters::log::{LetterLog, LetterWriter, LogError};

/// Transactional id of whoever redrives or discards: one for all processes, so that one of them writes at a time.
const WRITER: &str = "millrace.redrive";

/// Reads and writes `documents.failed` and `documents.dlq`, writes the stages' inputs.
#[derive(Debug, Clone)]
pub struct LetterTopics {
    /// How to reach Kafka.
    pub kafka: KafkaConfig,
    /// Asked where partitions end.
    pub admin: Admin,
}

impl LetterLog for LetterTopics {
    type Writer = BatchWriter;

    async fn take_over(&self) -> Result<BatchWriter, LogError> {
        let name = format!("{WRITER}.e{}", EPOCH.get());
        BatchWriter::open(&self.kafka, &name).await.map_err(failed)
    }

    async fn ends(&self) -> Result<BTreeMap<i32, i64>, LogError> {
        let ranges = ranges(&self.admin, topics::FAILED).await;
        let ranges = ranges.map_err(|error| LogError::Away(chain(&error)))?;
        Ok(ranges
            .into_iter()
            .map(|(partition, (_, end))| (partition, end))
            .collect())
    }

    async fn letters(&self) -> Result<BoxStream<'static, Result<Delivery, LogError>>, LogError> {
        let ranges = ranges(&self.admin, topics::DLQ).await;
        let ranges = ranges.map_err(|error| LogError::Away(chain(&error)))?;
        let not_empty = ranges.into_iter().filter(|(_, (first, end))| first < end);
        let config = TailConfig {
            topic: topics::DLQ.in_epoch(EPOCH),
            ..TailConfig::default()
        };
        let tail = millrace_kafka::tail(&self.kafka, config).map_err(|error| LogError::Away(chain(&error)))?;
        let ends = not_empty.map(|(partition, (_, end))| (partition, end)).collect();
        let reading = Reading { tail, ends };
        let letters = futures::stream::unfold(reading, |mut reading| async move {
            let next = reading.next().await?;
            Some((next, reading))
        });
        Ok(letters.boxed())
    }
}

/// A read of a topic up to its end as it was.
struct Reading {
    tail: Tail,
    /// Of the partitions that are not read to their ends yet.
    ends: BTreeMap<i32, i64>,
}

impl Reading {
    async fn next(&mut self) -> Option<Result<Delivery, LogError>> {
        while !self.ends.is_empty() {
            match self.tail.next().await {
                Some(TailEvent::Record(delivery)) => {
                    self.reached(delivery.origin.partition, delivery.origin.offset + 1);
                    return Some(Ok(delivery));
                }
                Some(TailEvent::CaughtUp { partition, next_offset }) => self.reached(partition, next_offset),
                None => {
                    self.ends.clear();
                    let why = format!("{} cannot be read any further", topics::DLQ.name);
                    return Some(Err(LogError::Away(why)));
                }
            }
        }
        None
    }

    fn reached(&mut self, partition: i32, next_offset: i64) {
        self.ends.retain(|of, end| *of != partition || next_offset < *end);
    }
}

impl LetterWriter for BatchWriter {
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
