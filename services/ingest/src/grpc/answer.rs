//! Answers and refusals as the contract has them.

use std::time::Duration;

use millrace_api::ingest::v1 as api;
use millrace_events::{DocumentKey, Revision, State as Recorded};
use millrace_rpc::error::{
    Rejection, chain, failed_precondition, internal, invalid_field, not_found, resource_exhausted, unavailable,
};

use crate::accept::{AcceptError, Receipt};
use crate::documents::{Document, DocumentError, State};
use crate::log::AppendError;
use millrace_flow::Failure;

const SOON: Duration = Duration::from_millis(500);
const LATER: Duration = Duration::from_secs(2);

pub fn receipt(receipt: Receipt) -> api::Receipt {
    api::Receipt {
        tenant: receipt.document.tenant.as_str().to_owned(),
        document_id: receipt.document.document_id.as_str().to_owned(),
        revision: receipt.revision.get(),
        trace_id: receipt.trace_id,
    }
}

pub fn document(document: Document) -> api::Document {
    let mut answer = api::Document {
        tenant: document.key.tenant.as_str().to_owned(),
        document_id: document.key.document_id.as_str().to_owned(),
        revision: document.revision.get(),
        latest_revision: document.latest.get(),
        live_revision: document.live.map_or(0, Revision::get),
        lane: document.lane.as_str().to_owned(),
        ..api::Document::default()
    };
    match document.state {
        State::Accepted { accepted_at_ms } => {
            answer.set_state(api::DocumentState::Accepted);
            answer.accepted_at_ms = accepted_at_ms.unwrap_or(0);
            answer.updated_at_ms = answer.accepted_at_ms;
        }
        State::Status(status) => {
            let record = status.record;
            answer.set_state(state(record.state));
            answer.chunk_count = record.chunk_count;
            answer.accepted_at_ms = record.accepted_at_ms;
            answer.updated_at_ms = record.updated_at_ms;
            answer.reason = record.reason;
            answer.message = record.message;
            answer.duplicate_of_revision = record.duplicate_of_revision;
        }
    }
    answer
}

fn state(state: Recorded) -> api::DocumentState {
    match state {
        Recorded::Parsed => api::DocumentState::Parsed,
        Recorded::Indexed => api::DocumentState::Indexed,
        Recorded::Deleted => api::DocumentState::Deleted,
        Recorded::Failed => api::DocumentState::Failed,
        Recorded::Superseded => api::DocumentState::Superseded,
        Recorded::DuplicateOf => api::DocumentState::DuplicateOf,
        Recorded::Unknown => api::DocumentState::Unspecified,
    }
}

pub fn refused(error: &AcceptError) -> Rejection {
    match error {
        AcceptError::LogRecreated {
            partition,
            offset,
            known,
        } => failed_precondition("LOG_RECREATED", error.to_string())
            .with("partition", partition)
            .with("offset", offset)
            .with("known_offset", known),
        AcceptError::LaneUnknown(lane) => invalid_field("lane", "LANE_UNKNOWN", error.to_string()).with("lane", lane),
        AcceptError::LaneChanged { is_in, .. } => {
            failed_precondition("LANE_CHANGED", error.to_string()).with("lane", is_in)
        }
        AcceptError::Append(AppendError::TooLarge) => invalid_field("body", "BODY_TOO_LARGE", error.to_string()),
        AcceptError::Append(AppendError::QueueFull) => resource_exhausted("QUEUE_FULL", error.to_string(), SOON),
        AcceptError::Append(AppendError::OutcomeUnknown(cause)) => {
            tracing::warn!(cause, "a command's outcome is unknown");
            let message =
                "the log did not answer in time: send it again with the same request_id, it takes effect once";
            unavailable("OUTCOME_UNKNOWN", message, LATER)
        }
        AcceptError::Append(AppendError::Refused(_)) => internal("LOG_REFUSED", chain(error)),
        AcceptError::Encode(Failure::Transient { reason, message }) => {
            tracing::warn!(reason, message, "a command cannot be encoded yet");
            unavailable(reason, "the service is not ready to accept documents", LATER)
        }
        AcceptError::Encode(_) => internal("ENCODING_FAILED", chain(error)),
        AcceptError::Replica(_) => internal("STATUS_REPLICA_FAILED", chain(error)),
        AcceptError::Offset(_) => internal("OFFSET_INVALID", chain(error)),
    }
}

pub fn missing(document: &DocumentKey, error: &DocumentError) -> Rejection {
    match error {
        DocumentError::Unknown => {
            let message = format!("document {document}: {error}");
            not_found("document", document.to_string(), "DOCUMENT_UNKNOWN", message)
        }
        DocumentError::Log(cause) => {
            tracing::warn!(%cause, "a document's state is unknown");
            unavailable(
                "LOG_UNAVAILABLE",
                "the log is away, it alone knows this revision",
                LATER,
            )
        }
        DocumentError::Replica(_) => internal("STATUS_REPLICA_FAILED", chain(error)),
        DocumentError::Leaving => unavailable("DRAINING", error.to_string(), SOON),
    }
}
