//! Single records with a receipt: idempotent, acknowledged by all in-sync replicas.

use std::time::Instant;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{FutureProducer, FutureRecord};

use crate::config::{ConfigError, KafkaConfig};
use crate::{convert, trace};
use millrace_flow::Output;
use millrace_telemetry::Span;

/// Where a record stands, acknowledged by all in-sync replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// Partition.
    pub partition: i32,
    /// Offset in the partition.
    pub offset: i64,
}

/// Why there is no receipt.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// Larger than a record may be. It was not sent.
    #[error("the record is larger than a topic accepts")]
    TooLarge,
    /// Too much waits to be acknowledged already. It was not sent.
    #[error("too many records wait to be acknowledged")]
    QueueFull,
    /// It may or may not stand in the log.
    #[error("the log did not answer: {0}")]
    OutcomeUnknown(String),
    /// The broker, or this client, does not take it. It does not stand in the log.
    #[error("the log refused the record: {0}")]
    Refused(String),
}

impl SendError {
    fn code(&self) -> &'static str {
        match self {
            Self::TooLarge => "TOO_LARGE",
            Self::QueueFull => "QUEUE_FULL",
            Self::OutcomeUnknown(_) => "OUTCOME_UNKNOWN",
            Self::Refused(_) => "REFUSED",
        }
    }
}

/// Writes single records. Cheap to clone.
#[derive(Clone)]
pub struct Producer {
    inner: FutureProducer,
}

impl std::fmt::Debug for Producer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Producer")
    }
}

impl Producer {
    /// A producer; connects by itself, now and after every outage.
    pub fn new(kafka: &KafkaConfig, client_id: &str) -> Result<Self, ConfigError> {
        let inner = kafka.producer(client_id)?.create().map_err(ConfigError::Client)?;
        Ok(Self { inner })
    }

    /// Writes a record and waits for its acknowledgement, at most 10 seconds.
    ///
    /// Dropping the future does not take the record back.
    pub async fn send(&self, output: Output) -> Result<Sent, SendError> {
        let span = trace::send(&output, &Span::current(), false);
        let (topic, began) = (output.topic.clone(), Instant::now());
        let sent = self.send_within(output, &span).await;
        let error = sent.as_ref().err();
        if let Some(error) = error {
            span.failed(error.code(), error.to_string());
        }
        trace::took("send", &topic, began, error.map(SendError::code));
        sent
    }

    async fn send_within(&self, output: Output, span: &Span) -> Result<Sent, SendError> {
        let mut record = FutureRecord::<[u8], [u8]>::to(&output.topic).key(&output.key);
        let carried = trace::carried(&output.headers, span);
        record.headers = convert::headers(carried.as_ref().unwrap_or(&output.headers));
        record.payload = output.value.as_deref();
        record.partition = output.partition;
        let delivery = self
            .inner
            .send_result(record)
            .map_err(|(error, _)| send_error(&error))?;
        match delivery.await {
            // A report without an offset is no receipt.
            Ok(Ok(sent)) if sent.offset >= 0 => Ok(Sent {
                partition: sent.partition,
                offset: sent.offset,
            }),
            Ok(Ok(_)) => Err(SendError::OutcomeUnknown("acknowledged without an offset".into())),
            Ok(Err((error, _))) => Err(send_error(&error)),
            Err(_) => Err(SendError::OutcomeUnknown("the producer was closed".into())),
        }
    }
}

/// | code | answer |
/// |---|---|
/// | too large (here or at the broker) | `TooLarge` |
/// | local queue full | `QueueFull` |
/// | unknown topic, not authorised, invalid record | `Refused` |
/// | time-out, transport, anything else | `OutcomeUnknown`: it may stand in the log |
fn send_error(error: &KafkaError) -> SendError {
    use RDKafkaErrorCode as Code;
    match error.rdkafka_error_code() {
        Some(Code::MessageSizeTooLarge | Code::InvalidMessageSize) => SendError::TooLarge,
        Some(Code::QueueFull) => SendError::QueueFull,
        Some(
            code @ (Code::UnknownTopic
            | Code::UnknownTopicOrPartition
            | Code::UnknownPartition
            | Code::TopicAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::InvalidRecord
            | Code::PolicyViolation),
        ) => SendError::Refused(code.to_string()),
        _ => SendError::OutcomeUnknown(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_stand_in_the_log_is_never_called_refused() {
        let of = |code| send_error(&KafkaError::MessageProduction(code));
        assert!(matches!(
            of(RDKafkaErrorCode::MessageTimedOut),
            SendError::OutcomeUnknown(_)
        ));
        assert!(matches!(
            of(RDKafkaErrorCode::NotEnoughReplicasAfterAppend),
            SendError::OutcomeUnknown(_)
        ));
        assert!(matches!(
            of(RDKafkaErrorCode::UnknownTopicOrPartition),
            SendError::Refused(_)
        ));
        assert!(matches!(of(RDKafkaErrorCode::QueueFull), SendError::QueueFull));
        assert!(matches!(of(RDKafkaErrorCode::MessageSizeTooLarge), SendError::TooLarge));
    }
}
