//! Accepting commands: a receipt only for what all in-sync replicas acknowledged.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use millrace_events::{DocumentKey, DocumentSubmitted, Kind, Lane, RequestId, Revision, TraceContext, topics};
use millrace_failpoints::points;
use millrace_flow::{Failure, Headers, Output};
use millrace_runtime::clock::now_ms;
use millrace_runtime::codec::headers_of;
use millrace_telemetry::Span;
use tokio::sync::watch;

use crate::EPOCH;
use crate::codec::RecordCodec;
use crate::documents::{Accepted, JustAccepted};
use crate::log::{AppendError, CommandLog, Position};
use crate::pipeline::lanes::LaneConfig;
use crate::pipeline::media::MediaType;
use crate::recent::Recent;
use crate::status::store::REQUEST_ID_TTL_MS;
use crate::status::{Replica, StoreError};

/// Request ids that this process remembers until the replica knows them.
const REMEMBERED: usize = 10_000;

/// What a client wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// With which document.
    pub document: DocumentKey,
    /// What.
    pub action: Action,
    /// Into which lane; the base lane asks for none.
    pub lane: Lane,
    /// The client's id of this request.
    pub request_id: Option<RequestId>,
}

/// What to do with a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Make this its content.
    Upsert {
        /// The content.
        body: Vec<u8>,
        /// What it is.
        media: MediaType,
    },
    /// Delete it.
    Delete,
}

/// Proof that a command was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The document.
    pub document: DocumentKey,
    /// Its revision.
    pub revision: Revision,
    /// Trace id of the revision.
    pub trace_id: String,
}

/// Why there is no receipt.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// Offsets went backwards.
    #[error(
        "documents.submitted was re-created: offset {offset} of partition {partition} came after {known}; nothing is \
         accepted until it is drained and switched to a new epoch"
    )]
    LogRecreated {
        /// Partition.
        partition: i32,
        /// The offset that was given.
        offset: i64,
        /// The greatest one known before.
        known: i64,
    },
    /// A lane that is not configured.
    #[error("lane {0} is not configured here")]
    LaneUnknown(Lane),
    /// Another lane than the document is in.
    #[error("document {document} is in lane {is_in} and stays there until it is deleted: leave the lane out")]
    LaneChanged {
        /// The document.
        document: DocumentKey,
        /// Its lane.
        is_in: Lane,
    },
    /// The log did not take it.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The record could not be encoded.
    #[error("the command cannot be encoded")]
    Encode(#[source] Failure),
    /// The replica could not be asked for the request id.
    #[error(transparent)]
    Replica(#[from] StoreError),
    /// The position makes no revision.
    #[error("offset {0} makes no revision")]
    Offset(i64),
}

/// A log that went backwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recreated {
    partition: i32,
    offset: i64,
    known: i64,
}

impl From<Recreated> for AcceptError {
    fn from(
        Recreated {
            partition,
            offset,
            known,
        }: Recreated,
    ) -> Self {
        Self::LogRecreated {
            partition,
            offset,
            known,
        }
    }
}

/// Accepts commands.
#[derive(Debug)]
pub struct Acceptor<L, C> {
    log: L,
    codec: C,
    replica: Replica,
    lanes: LaneConfig,
    just_accepted: JustAccepted,
    requests: Mutex<Recent<(DocumentKey, RequestId), (Receipt, i64)>>,
    /// Greatest accepted offset known, by partition.
    known: Mutex<BTreeMap<i32, i64>>,
    recreated: watch::Sender<Option<Recreated>>,
}

impl<L: CommandLog, C: RecordCodec> Acceptor<L, C> {
    /// `known` holds the greatest accepted offset known of each partition, as far as any is.
    pub fn new(
        (log, codec): (L, C),
        replica: Replica,
        lanes: LaneConfig,
        just_accepted: JustAccepted,
        known: BTreeMap<i32, i64>,
    ) -> Self {
        Self {
            log,
            codec,
            replica,
            lanes,
            just_accepted,
            requests: Mutex::new(Recent::new(REMEMBERED)),
            known: Mutex::new(known),
            recreated: watch::Sender::new(None),
        }
    }

    /// Becomes set, for good, when the log was found to be re-created.
    pub fn recreated(&self) -> watch::Receiver<Option<Recreated>> {
        self.recreated.subscribe()
    }

    /// Writes a command to the log, or finds the receipt of the same request.
    ///
    /// Dropping the future does not take the command back.
    pub async fn accept(&self, command: Command, trace: TraceContext) -> Result<Receipt, AcceptError> {
        if let Some(recreated) = *self.recreated.borrow() {
            return Err(recreated.into());
        }
        let accepted_at_ms = now_ms();
        if let Some(request) = command.request_id
            && let Some(receipt) = self.earlier(&command.document, request, accepted_at_ms).await?
        {
            return Ok(receipt);
        }
        self.check_lane(&command).await?;
        let Command {
            document,
            action,
            lane,
            request_id,
        } = command;
        let output = self.record(&document, action, &lane, request_id, accepted_at_ms, &trace)?;
        let known = locked(&self.known).clone();
        let position = self.log.append(output).await?;
        points::ACCEPT_PRODUCED.reached();
        self.check(position, &known)?;
        let receipt = Receipt {
            revision: Revision::new(EPOCH, position.offset).map_err(|_| AcceptError::Offset(position.offset))?,
            trace_id: trace.trace_id().to_owned(),
            document,
        };
        if let Some(request) = request_id {
            let key = (receipt.document.clone(), request);
            locked(&self.requests).insert(key, (receipt.clone(), accepted_at_ms));
        }
        let accepted = Accepted {
            revision: receipt.revision,
            accepted_at_ms,
        };
        self.just_accepted.insert(&receipt.document, accepted);
        points::ACCEPT_REMEMBERED.reached();
        self.replica.notify(&receipt.document);
        Ok(receipt)
    }

    /// Whether the document may be in the lane that is asked for, as far as is known here: parsing decides.
    async fn check_lane(&self, command: &Command) -> Result<(), AcceptError> {
        if command.lane.is_base() {
            return Ok(());
        }
        if !self.lanes.has(&command.lane) {
            return Err(AcceptError::LaneUnknown(command.lane.clone()));
        }
        let view = self.replica.view(&command.document, None).await?;
        match view.lane.filter(|is_in| *is_in != command.lane) {
            None => Ok(()),
            Some(is_in) => Err(AcceptError::LaneChanged {
                document: command.document.clone(),
                is_in,
            }),
        }
    }

    async fn earlier(
        &self,
        document: &DocumentKey,
        request: RequestId,
        now_ms: i64,
    ) -> Result<Option<Receipt>, StoreError> {
        // The replica first: of two processes that accepted the same request it knows whose took effect.
        if let Some(status) = self.replica.request(document, request, now_ms).await?
            && let Ok(revision) = status.record.checked_revision()
        {
            return Ok(Some(Receipt {
                document: document.clone(),
                revision,
                trace_id: status.trace_id,
            }));
        }
        let requests = locked(&self.requests);
        let own = requests.get(&(document.clone(), request));
        let in_time = own.filter(|(_, accepted_at_ms)| now_ms - accepted_at_ms <= REQUEST_ID_TTL_MS);
        Ok(in_time.map(|(receipt, _)| receipt.clone()))
    }

    fn record(
        &self,
        document: &DocumentKey,
        action: Action,
        lane: &Lane,
        request_id: Option<RequestId>,
        accepted_at_ms: i64,
        trace: &TraceContext,
    ) -> Result<Output, AcceptError> {
        let mut record = DocumentSubmitted {
            tenant: document.tenant.as_str().to_owned(),
            document_id: document.document_id.as_str().to_owned(),
            accepted_at_ms,
            kind: Kind::Delete,
            lane: lane.as_str().to_owned(),
            request_id: request_id.map(|id| id.to_string()).unwrap_or_default(),
            ..DocumentSubmitted::default()
        };
        if let Action::Upsert { body, media } = action {
            record.kind = Kind::Upsert;
            record.media_type = media.to_string();
            record.body = Some(body);
        }
        Ok(Output {
            topic: topics::SUBMITTED.in_epoch(EPOCH),
            partition: None,
            key: Bytes::from(document.to_string()),
            value: Some(self.codec.encode(&record).map_err(AcceptError::Encode)?),
            // Where the call has a span, that of its `send` carries the trace on.
            headers: match Span::current().is_some() {
                true => Headers::default(),
                false => headers_of(trace),
            },
        })
    }

    /// | offset given | greatest known when its produce began | then |
    /// |---|---|---|
    /// | 8 | none, 7 | a receipt |
    /// | 7, 8 | 8 | the log was re-created: this command and all after it are refused |
    ///
    /// Produces overlap: one that began earlier may be answered later. Hence "when it began".
    fn check(&self, Position { partition, offset }: Position, known: &BTreeMap<i32, i64>) -> Result<(), Recreated> {
        if let Some(&known) = known.get(&partition).filter(|known| offset <= **known) {
            let recreated = Recreated {
                partition,
                offset,
                known,
            };
            tracing::error!(
                partition,
                offset,
                known,
                "documents.submitted was re-created, accepting nothing more"
            );
            self.recreated.send_replace(Some(recreated));
            return Err(recreated);
        }
        let mut known = locked(&self.known);
        let greatest = known.entry(partition).or_insert(offset);
        *greatest = offset.max(*greatest);
        Ok(())
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "accept_tests.rs"]
mod tests;
