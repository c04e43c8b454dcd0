//! What is written of a document's record that is given up, by any stage.
//!
//! | output | key | value |
//! |---|---|---|
//! | `documents.dlq` | the original's | the original's bytes; its headers, and behind them ours |
//! | `documents.failed` | [`LetterKey`] of where the record first stood | [`DeadLetter`], OPEN |
//! | `documents.status` | `tenant/document_id#revision` | FAILED; left out where no revision is known, and of a part that an audit has sent again: its revision is live |
//!
//! Ours begin with the last `failure_reason`: what stands before it are the original's headers, byte for byte. A header
//! that the original had under one of our names stays, and ours, behind it, is the one that Kafka's clients read.
//!
//! Whose record it is:
//!
//! | key | the record | document |
//! |---|---|---|
//! | names a document | names the same, another, or cannot be read | the key's: order and partition follow it |
//! | absent, or names none | names a document | the record's |
//! | absent, or names none | cannot be read | not known |
//!
//! Which revision:
//!
//! | | revision |
//! |---|---|
//! | redriven: header `millrace-revision` | that one; not known if it cannot be read |
//! | `documents.submitted`, on the document's own partition | its offset's |
//! | `documents.submitted`, elsewhere | not known: another command of the document may have that offset |
//! | another topic, the record names the document | the record's |
//! | another topic, it names another or cannot be read | not known |
//!
//! Messages are cut at [`MAX_MESSAGE_CHARS`] and never hold text of a document; whoever makes a failure sees to that,
//! and a panic's words, which may quote anything, are left out here.

use bytes::Bytes;
use millrace_events::headers::{
    FAILURE_ATTEMPTS, FAILURE_REASON, FAILURE_STAGE, FIRST_FAILED_AT_MS, KEY_ABSENT, ORIGIN, ORIGINAL_OMITTED,
    ORIGINAL_TIMESTAMP_MS, REDRIVE, RESTORE, REVISION, connect,
};
use millrace_events::partial::Partial;
use millrace_events::topics::{self, MAX_DEAD_LETTER_BYTES, PARTITIONS, Topic};
use millrace_events::{
    DeadLetter, DocumentKey, DocumentStatus, Epoch, LetterKey, LetterState, Record, Revision, State,
};
use millrace_flow::{DeadLetters, Delivery, Headers, Output, Outputs, Rejection};

use crate::codec::{Codec, carried_headers};
use crate::partition::partition_of;

/// Longest message of a dead letter, in characters.
pub const MAX_MESSAGE_CHARS: usize = 1000;
/// Longest header that is taken over to a state or a status. W3C bounds `tracestate` to 512.
const MAX_TRACE_HEADER_BYTES: usize = 1024;
/// What Kafka adds to a record: lengths, and a batch's head.
const FRAMING_BYTES: usize = 4096;
/// Reason of a record whose service panicked.
const PANIC: &str = "PANIC";

/// Buries the records of documents.
#[derive(Debug, Clone)]
pub struct DocumentLetters {
    codec: Codec,
    stage: &'static str,
    epoch: Epoch,
}

impl DocumentLetters {
    /// Topics with a schema that it writes: to be named when the codec is connected.
    pub const WRITES: [Topic; 2] = [topics::FAILED, topics::STATUS];

    /// For one stage, to the topics of an epoch. The codec is connected as a writer of [`Self::WRITES`].
    pub fn new(codec: Codec, stage: &'static str, epoch: Epoch) -> Self {
        Self { codec, stage, epoch }
    }

    fn letter(&self, rejection: &Rejection, subject: &Subject) -> Output {
        let delivery = &rejection.delivery;
        let mut ours = self.error_headers(rejection, subject);
        let mut letter = Output {
            topic: topics::DLQ.in_epoch(self.epoch),
            // A key finds its partition, as in every topic; what has none stays where it stood.
            partition: delivery
                .key
                .is_none()
                .then(|| delivery.origin.partition.rem_euclid(PARTITIONS)),
            key: delivery.key.clone().unwrap_or_default(),
            value: delivery.value.clone(),
            headers: delivery.headers.clone(),
        };
        if delivery.key.is_none() {
            ours.push(KEY_ABSENT, "1");
        }
        let bytes = letter.size_bytes() + ours.size_bytes() + FRAMING_BYTES;
        if bytes > MAX_DEAD_LETTER_BYTES {
            // A compressed batch of somebody else's may unpack to more than the topic takes. The stage must not stop at it.
            tracing::error!(origin = %delivery.origin, bytes, "a dead letter is larger than documents.dlq takes, its original is left out");
            letter.partition = Some(subject.partition);
            letter.key = Bytes::new();
            letter.value = None;
            letter.headers = Headers::default();
            ours.push(ORIGINAL_OMITTED, delivery.size_bytes().to_string());
        }
        letter.headers.0.extend(ours.0);
        letter
    }

    fn error_headers(&self, rejection: &Rejection, subject: &Subject) -> Headers {
        let origin = &rejection.delivery.origin;
        let mut headers = Headers::default();
        headers.push(FAILURE_REASON, rejection.reason.clone());
        headers.push(FAILURE_STAGE, self.stage);
        headers.push(FAILURE_ATTEMPTS, rejection.attempts.to_string());
        headers.push(ORIGIN, subject.letter.to_string());
        headers.push(FIRST_FAILED_AT_MS, subject.first_failed_at_ms.to_string());
        headers.push(ORIGINAL_TIMESTAMP_MS, subject.original_timestamp_ms.to_string());
        headers.push(connect::TOPIC, origin.topic.to_string());
        headers.push(connect::PARTITION, origin.partition.to_string());
        headers.push(connect::OFFSET, origin.offset.to_string());
        headers.push(connect::STAGE, self.stage);
        headers.push(connect::EXCEPTION_CLASS, rejection.class);
        headers.push(connect::EXCEPTION_MESSAGE, message(rejection));
        headers
    }

    fn state(&self, rejection: &Rejection, subject: &Subject) -> Option<Output> {
        let (tenant, document_id) = subject.names();
        let state = DeadLetter {
            topic: subject.letter.topic.clone(),
            partition: subject.letter.partition,
            offset: subject.letter.offset,
            tenant,
            document_id,
            revision: subject.revision.map_or(0, Revision::get),
            accepted_at_ms: subject.told.accepted_at_ms.unwrap_or(0),
            state: LetterState::Open,
            redrives: subject.redrives,
            stage: self.stage.to_owned(),
            reason: rejection.reason.clone(),
            message: message(rejection),
            attempts: i32::try_from(rejection.attempts).unwrap_or(i32::MAX),
            failed_at_ms: subject.first_failed_at_ms,
            updated_at_ms: rejection.at_ms,
        };
        self.record(&state, subject.letter.to_string(), rejection, subject)
    }

    fn status(&self, rejection: &Rejection, subject: &Subject) -> Option<Output> {
        if rejection.delivery.headers.get(RESTORE).is_some() {
            return None;
        }
        let (tenant, document_id) = subject.names();
        let status = DocumentStatus {
            tenant,
            document_id,
            revision: subject.revision?.get(),
            accepted_at_ms: subject.told.accepted_at_ms.unwrap_or(0),
            state: State::Failed,
            chunk_count: subject.told.chunk_count.unwrap_or(0),
            stage: self.stage.to_owned(),
            reason: rejection.reason.clone(),
            message: message(rejection),
            request_id: subject.told.request_id.clone().unwrap_or_default(),
            updated_at_ms: rejection.at_ms,
            ..DocumentStatus::default()
        };
        let key = status.key().ok()?.to_string();
        self.record(&status, key, rejection, subject)
    }

    /// On the document's partition, which the record's own key would not find.
    fn record<R: Record>(&self, record: &R, key: String, rejection: &Rejection, subject: &Subject) -> Option<Output> {
        let topic = R::TOPIC.in_epoch(self.epoch);
        let mut headers = carried_headers(&rejection.delivery);
        headers.0.retain(|(_, value)| {
            value
                .as_ref()
                .is_some_and(|value| value.len() <= MAX_TRACE_HEADER_BYTES)
        });
        match self.codec.encode(record) {
            Ok(value) => Some(Output {
                topic,
                partition: Some(subject.partition),
                key: key.into(),
                value: Some(value),
                headers,
            }),
            // Our own record, our own schema: a bug. The letter itself must not be lost over it.
            Err(error) => {
                tracing::error!(origin = %rejection.delivery.origin, %error, topic, "a dead letter's record cannot be written");
                None
            }
        }
    }
}

impl DeadLetters for DocumentLetters {
    fn bury(&self, rejection: &Rejection) -> Outputs {
        let told = rejection
            .delivery
            .value
            .as_deref()
            .map(|value| self.codec.partial(value));
        let subject = Subject::of(rejection, told.unwrap_or_default(), self.epoch);
        let mut outputs = vec![self.letter(rejection, &subject)];
        outputs.extend(self.state(rejection, &subject));
        outputs.extend(self.status(rejection, &subject));
        Outputs(outputs)
    }
}

/// Whose record it is, as far as it tells.
struct Subject {
    document: Option<DocumentKey>,
    revision: Option<Revision>,
    /// What the record itself says; nothing if it speaks of another document.
    told: Partial,
    /// The document's in every topic; where the record stood if the document is not known.
    partition: i32,
    letter: LetterKey,
    redrives: i32,
    first_failed_at_ms: i64,
    original_timestamp_ms: i64,
}

impl Subject {
    fn of(rejection: &Rejection, mut told: Partial, epoch: Epoch) -> Self {
        let delivery = &rejection.delivery;
        let by_key = delivery
            .key
            .as_deref()
            .and_then(|key| DocumentKey::from_bytes(key).ok());
        let by_record = told
            .tenant
            .take()
            .zip(told.document_id.take())
            .and_then(|(tenant, id)| DocumentKey::new(tenant, id).ok());
        if by_record.is_none() || by_key.as_ref().is_some_and(|key| Some(key) != by_record.as_ref()) {
            told = Partial::default();
        }
        let document = by_key.or(by_record);
        let partition = match &document {
            Some(document) => partition_of(document),
            None => delivery.origin.partition.rem_euclid(PARTITIONS),
        };
        let revision = document
            .as_ref()
            .and_then(|_| revision(delivery, &told, partition, epoch));
        let header = |name| delivery.headers.get_str(name);
        let moment = |name| header(name).and_then(|at| at.parse().ok());
        Self {
            document,
            revision,
            told,
            partition,
            letter: header(ORIGIN)
                .and_then(|at| at.parse().ok())
                .unwrap_or_else(|| place(delivery)),
            redrives: header(REDRIVE).and_then(|n| n.parse().ok()).unwrap_or(0),
            first_failed_at_ms: moment(FIRST_FAILED_AT_MS).unwrap_or(rejection.at_ms),
            original_timestamp_ms: moment(ORIGINAL_TIMESTAMP_MS).unwrap_or(delivery.timestamp_ms),
        }
    }

    fn names(&self) -> (String, String) {
        match &self.document {
            Some(document) => (
                document.tenant.as_str().to_owned(),
                document.document_id.as_str().to_owned(),
            ),
            None => (String::new(), String::new()),
        }
    }
}

fn place(delivery: &Delivery) -> LetterKey {
    LetterKey {
        topic: delivery.origin.topic.to_string(),
        partition: delivery.origin.partition,
        offset: delivery.origin.offset,
    }
}

fn revision(delivery: &Delivery, told: &Partial, partition: i32, epoch: Epoch) -> Option<Revision> {
    if delivery.headers.get(REVISION).is_some() {
        return delivery.headers.get_str(REVISION)?.parse().ok();
    }
    if *delivery.origin.topic == *topics::SUBMITTED.in_epoch(epoch) {
        let at_home = delivery.origin.partition == partition;
        return at_home
            .then(|| Revision::new(epoch, delivery.origin.offset).ok())
            .flatten();
    }
    Revision::from_i64(told.revision?).ok()
}

fn message(rejection: &Rejection) -> String {
    if rejection.reason == PANIC {
        return "the stage panicked on it; the log of its process says where".to_owned();
    }
    match rejection.message.char_indices().nth(MAX_MESSAGE_CHARS) {
        None => rejection.message.clone(),
        Some(_) => {
            let kept: String = rejection.message.chars().take(MAX_MESSAGE_CHARS - 1).collect();
            format!("{kept}…")
        }
    }
}

#[cfg(test)]
#[path = "dead_letters_tests.rs"]
mod tests;
