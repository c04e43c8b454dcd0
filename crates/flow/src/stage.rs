//! What a service implements: a function of one record.

use std::time::Duration;

use bytes::Bytes;
use millrace_telemetry::{Span, TRACEPARENT, TRACESTATE, TraceContext};

/// Where a record stands in its log.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin {
    /// Topic's name.
    pub topic: std::sync::Arc<str>,
    /// Partition of the topic.
    pub partition: i32,
    /// Offset in the partition.
    pub offset: i64,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}", self.topic, self.partition, self.offset)
    }
}

/// A partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    /// Topic's name.
    pub topic: std::sync::Arc<str>,
    /// Partition of the topic.
    pub partition: i32,
}

impl std::fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

impl Origin {
    /// The partition it stands in.
    pub fn topic_partition(&self) -> TopicPartition {
        TopicPartition {
            topic: self.topic.clone(),
            partition: self.partition,
        }
    }
}

/// A record's headers, in order. Names may repeat; the last one counts, as Kafka's clients have it. A value may be absent,
/// which is not the same as empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers(pub Vec<(String, Option<Bytes>)>);

impl Headers {
    /// The last value under a name.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        let (_, value) = self.0.iter().rev().find(|(n, _)| n == name)?;
        value.as_deref()
    }
    /// The last value under a name, if it is UTF-8.
    pub fn get_str(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(|v| std::str::from_utf8(v).ok())
    }
    /// Adds a header behind the others.
    pub fn push(&mut self, name: impl Into<String>, value: impl Into<Bytes>) {
        self.0.push((name.into(), Some(value.into())));
    }
    /// The trace context that they carry, if it is one.
    pub fn trace(&self) -> Option<TraceContext> {
        let context = self.get_str(TRACEPARENT)?.parse::<TraceContext>().ok()?;
        Some(context.with_tracestate(self.get_str(TRACESTATE).map(str::to_owned)))
    }
    /// Adds a trace context behind the others.
    pub fn push_trace(&mut self, context: &TraceContext) {
        self.push(TRACEPARENT, context.traceparent().to_owned());
        if let Some(state) = context.tracestate() {
            self.push(TRACESTATE, state.to_owned());
        }
    }
    /// Bytes of names and values.
    pub fn size_bytes(&self) -> usize {
        let size = |(name, value): &(String, Option<Bytes>)| name.len() + value.as_ref().map_or(0, Bytes::len);
        self.0.iter().map(size).sum()
    }
}

/// One record to process. Cheap to clone: bodies are shared.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Where it stands.
    pub origin: Origin,
    /// Its key; records of equal key run one after another. Records without a key count as one key a partition.
    pub key: Option<Bytes>,
    /// Its value; none for a tombstone.
    pub value: Option<Bytes>,
    /// Its headers.
    pub headers: Headers,
    /// Its timestamp, milliseconds since 1970 UTC.
    pub timestamp_ms: i64,
    /// Which attempt this is, from 1. Waiting for an outage burns none.
    pub attempt: u32,
    /// From when it was received until what came of it is committed.
    pub span: Span,
}

impl Delivery {
    /// Bytes it keeps in memory, roughly: what the window's bound counts.
    pub fn size_bytes(&self) -> usize {
        const OVERHEAD: usize = 256;
        /// Attributes of a span, as long as the record is held.
        const SPAN: usize = 2048;
        OVERHEAD
            + if self.span.is_some() { SPAN } else { 0 }
            + self.key.as_ref().map_or(0, Bytes::len)
            + self.value.as_ref().map_or(0, Bytes::len)
            + self.headers.size_bytes()
    }
}

/// A record to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Topic to write to.
    pub topic: String,
    /// Partition, where the key does not decide it.
    pub partition: Option<i32>,
    /// Key; decides the partition unless one is given.
    pub key: Bytes,
    /// Value; none writes a tombstone.
    pub value: Option<Bytes>,
    /// Headers.
    pub headers: Headers,
}

impl Output {
    /// Bytes it occupies in a transaction, roughly.
    pub fn size_bytes(&self) -> usize {
        64 + self.key.len() + self.value.as_ref().map_or(0, Bytes::len) + self.headers.size_bytes()
    }
}

/// What a record becomes: written in this order, in one transaction with the record's position.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outputs(pub Vec<Output>);

/// A record that is given up, and why.
#[derive(Debug, Clone)]
pub struct Rejection {
    /// The record, its bytes as they stand in the log.
    pub delivery: Delivery,
    /// Class of the last failure: INVALID or FAILED.
    pub class: &'static str,
    /// Stable code, UPPER_SNAKE.
    pub reason: String,
    /// For people.
    pub message: String,
    /// How often it was tried.
    pub attempts: u32,
    /// When it was given up, milliseconds since 1970 UTC.
    pub at_ms: i64,
}

/// Makes the records that bury a dead letter: its original bytes, its state, its document's status. They are committed
/// in one transaction with the record's position, so a letter is buried exactly once.
pub trait DeadLetters: Send + Sync {
    /// What to write for a record that is given up. Waits for nothing and cannot fail: what cannot be read of the
    /// record is left empty, its bytes never are.
    fn bury(&self, rejection: &Rejection) -> Outputs;
}

/// Why a record was not processed. The class decides what happens next.
///
/// | class | what it means | what the runtime does |
/// |---|---|---|
/// | `Transient` | a dependency is away | the same record again after a backoff; burns no attempt, until only this one fails |
/// | `Away` | a dependency is away that no record can bring down, and not all need | the same record again after a backoff, for as long as it takes; burns no attempt |
/// | `RateLimited` | a dependency asks for patience | as `Transient`, not before `retry_after` |
/// | `Config` | refused for all records alike: unauthorised, unknown topic | stops, says so |
/// | `Invalid` | this record can never work | a dead letter at once |
/// | `Failed` | it did not work this time | tried again after a backoff, a dead letter after the last attempt |
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A dependency is away.
    #[error("{reason}: {message}")]
    Transient {
        /// Stable code, UPPER_SNAKE.
        reason: &'static str,
        /// For people; names the operation and its cause.
        message: String,
    },
    /// A dependency is away that no record can bring down: others may succeed meanwhile, since they did not need it.
    #[error("{reason}: {message}")]
    Away {
        /// Stable code, UPPER_SNAKE.
        reason: &'static str,
        /// For people; names the operation and its cause.
        message: String,
    },
    /// A dependency asks for patience.
    #[error("{reason}: {message}")]
    RateLimited {
        /// Stable code, UPPER_SNAKE.
        reason: &'static str,
        /// For people.
        message: String,
        /// Not before this time has passed.
        retry_after: Duration,
    },
    /// Refused for all records alike.
    #[error("{reason}: {message}")]
    Config {
        /// Stable code, UPPER_SNAKE.
        reason: &'static str,
        /// For people.
        message: String,
    },
    /// This record can never work.
    #[error("{reason}: {message}")]
    Invalid {
        /// Stable code, UPPER_SNAKE.
        reason: &'static str,
        /// For people.
        message: String,
    },
    /// It did not work this time.
    #[error("{reason}: {message}")]
    Failed {
        /// Stable code, UPPER_SNAKE.
        reason: &'static str,
        /// For people.
        message: String,
    },
}

impl Failure {
    /// Name of the class as `GetPipeline` shows it.
    pub fn class(&self) -> &'static str {
        match self {
            Self::Transient { .. } | Self::Away { .. } => "TRANSIENT",
            Self::RateLimited { .. } => "RATE_LIMITED",
            Self::Config { .. } => "CONFIG",
            Self::Invalid { .. } => "INVALID",
            Self::Failed { .. } => "FAILED",
        }
    }
    /// The stable code.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Transient { reason, .. }
            | Self::Away { reason, .. }
            | Self::RateLimited { reason, .. }
            | Self::Config { reason, .. }
            | Self::Invalid { reason, .. }
            | Self::Failed { reason, .. } => reason,
        }
    }
    /// The sentence for people.
    pub fn message(&self) -> &str {
        match self {
            Self::Transient { message, .. }
            | Self::Away { message, .. }
            | Self::RateLimited { message, .. }
            | Self::Config { message, .. }
            | Self::Invalid { message, .. }
            | Self::Failed { message, .. } => message,
        }
    }
}
