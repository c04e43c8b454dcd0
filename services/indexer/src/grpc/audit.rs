//! `AuditService`: validation and translation around [`crate::audit`].

use std::pin::Pin;
use std::time::Duration;

use futures::{Stream, StreamExt};
use millrace_api::indexer::v1 as api;
use millrace_api::indexer::v1::audit_index_response::Event as Told;
use millrace_api::indexer::v1::audit_service_server::{AuditService, AuditServiceServer};
use millrace_events::{DocumentKey, Revision, Tenant};
use millrace_rpc::error::{
    Rejection, chain, failed_precondition, internal, invalid_field, resource_exhausted, unavailable,
};
use millrace_runtime::server::MAX_MESSAGE_BYTES;
use tonic::{Code, Request, Response, Status};

use crate::audit::job::{Event, Phase, Progress, Summary};
use crate::audit::judge::{Finding, Kind};
use crate::audit::log::{AuditLog, LogError};
use crate::audit::parts::Lost;
use crate::audit::repair::Outcome;
use crate::audit::{AuditError, Auditor, MAX_DOCUMENTS, Order};
use crate::index::{IndexError, Scope};

const MAX_NAMED: usize = 1000;
const SOON: Duration = Duration::from_millis(500);
const LATER: Duration = Duration::from_secs(2);
const SUBMIT_AGAIN: &str = "submit the document again";
const AUDIT_AGAIN: &str = "audit with repair again once the index stage has caught up";

/// The gRPC adapter.
#[derive(Debug)]
pub struct Audit<L>(pub Auditor<L>);

impl<L: AuditLog> Audit<L> {
    /// The gRPC service.
    pub fn server(self) -> AuditServiceServer<Self> {
        AuditServiceServer::new(self)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }
}

#[tonic::async_trait]
impl<L: AuditLog> AuditService for Audit<L> {
    type AuditIndexStream = Pin<Box<dyn Stream<Item = Result<api::AuditIndexResponse, Status>> + Send>>;

    async fn audit_index(
        &self,
        request: Request<api::AuditIndexRequest>,
    ) -> Result<Response<Self::AuditIndexStream>, Status> {
        let order = order(request.into_inner())?;
        let events = self.0.order(order).map_err(refused)?;
        let answers = events.map(|event| event.map(answer).map_err(refused));
        Ok(Response::new(answers.boxed()))
    }
}

fn order(request: api::AuditIndexRequest) -> Result<Order, Status> {
    let tenant = match request.tenant.as_str() {
        "" => None,
        name => Some(Tenant::new(name).map_err(|e| invalid_field("tenant", "INVALID_TENANT", e.to_string()))?),
    };
    let named = request.document_ids;
    if named.len() > MAX_NAMED {
        let message = format!("at most {MAX_NAMED} document ids, these are {}", named.len());
        return Err(invalid_field("document_ids", "TOO_MANY_DOCUMENTS", message).into());
    }
    let documents = match &tenant {
        Some(tenant) => documents(tenant, named)?,
        None if named.is_empty() => Vec::new(),
        None => {
            let message = "documents are named within a tenant: give it too";
            return Err(invalid_field("tenant", "TENANT_MISSING", message).into());
        }
    };
    Ok(Order {
        scope: Scope { tenant, documents },
        repair: request.repair,
    })
}

fn documents(tenant: &Tenant, named: Vec<String>) -> Result<Vec<DocumentKey>, Status> {
    let key = |(at, id): (usize, String)| {
        let field = format!("document_ids[{at}]");
        DocumentKey::new(tenant.as_str(), id)
            .map_err(|e| invalid_field(field, "INVALID_DOCUMENT_ID", e.to_string()).into())
    };
    named.into_iter().enumerate().map(key).collect()
}

fn number(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn answer(event: Event) -> api::AuditIndexResponse {
    let told = match event {
        Event::Progress(told) => Told::Progress(progress(&told)),
        Event::Finding(document, told, outcome) => Told::Finding(finding(&document, &told, outcome)),
        Event::Summary(told) => Told::Summary(summary(&told)),
    };
    api::AuditIndexResponse { event: Some(told) }
}

fn progress(told: &Progress) -> api::AuditProgress {
    let phase = match told.phase {
        Phase::ReadingLog => api::AuditPhase::ReadingLog,
        Phase::ReadingIndex => api::AuditPhase::ReadingIndex,
        Phase::LookingAgain => api::AuditPhase::LookingAgain,
        Phase::SendingAgain => api::AuditPhase::SendingAgain,
        Phase::Repairing => api::AuditPhase::Repairing,
    };
    api::AuditProgress {
        phase: phase.into(),
        documents: number(told.documents),
        points: number(told.points),
        suspects: number(told.suspects),
        parts_sent: number(told.sent),
        healed: number(told.healed),
    }
}

fn finding(document: &DocumentKey, told: &Finding, outcome: Outcome) -> api::AuditFinding {
    let kind = match told.kind {
        Kind::Missing => api::AuditFindingKind::Missing,
        Kind::Stale => api::AuditFindingKind::Stale,
        Kind::WrongCount => api::AuditFindingKind::WrongCount,
        Kind::Extra => api::AuditFindingKind::Extra,
        Kind::Orphaned => api::AuditFindingKind::Orphaned,
    };
    let (repair, advice) = match outcome {
        Outcome::Found => (api::AuditRepair::Unspecified, ""),
        Outcome::Repaired => (api::AuditRepair::Repaired, ""),
        Outcome::NotRepairable(Lost::Parts) => (api::AuditRepair::PartsGone, SUBMIT_AGAIN),
        Outcome::NotRepairable(Lost::Model) => (api::AuditRepair::OtherModel, SUBMIT_AGAIN),
        Outcome::Pending => (api::AuditRepair::Pending, AUDIT_AGAIN),
    };
    api::AuditFinding {
        kind: kind.into(),
        tenant: document.tenant.as_str().to_owned(),
        document_id: document.document_id.as_str().to_owned(),
        log_revision: told.log.map_or(0, Revision::get),
        index_revision: told.index.map_or(0, Revision::get),
        expected_chunks: told.expected.into(),
        found_chunks: told.found.into(),
        repair: repair.into(),
        advice: advice.to_owned(),
    }
}

fn summary(told: &Summary) -> api::AuditSummary {
    api::AuditSummary {
        documents: number(told.documents),
        points: number(told.points),
        found: number(told.found),
        repaired: number(told.repaired),
        not_repairable: number(told.not_repairable),
        suspects: number(told.suspects),
        not_judged: number(told.not_judged),
    }
}

fn refused(error: AuditError) -> Status {
    rejection(&error).into()
}

fn rejection(error: &AuditError) -> Rejection {
    match error {
        AuditError::Running => resource_exhausted("AUDIT_RUNNING", error.to_string(), LATER),
        AuditError::Starting => unavailable("SCHEMAS_UNKNOWN", error.to_string(), LATER),
        AuditError::Leaving => unavailable("DRAINING", error.to_string(), SOON),
        AuditError::TooMany => failed_precondition("TOO_MANY_DOCUMENTS", error.to_string()).with("max", MAX_DOCUMENTS),
        AuditError::Index(IndexError::Unavailable { .. }) => {
            tracing::warn!(error = chain(error), "the index did not answer an audit");
            unavailable("INDEX_UNAVAILABLE", "the index is away", LATER)
        }
        AuditError::Unreadable { .. }
        | AuditError::Index(IndexError::Refused { .. } | IndexError::Unreadable { .. }) => {
            internal("AUDIT_FAILED", chain(error))
        }
        AuditError::Log(LogError::TakenOver(cause)) => {
            tracing::warn!(cause, "a repair was taken over");
            let message = "another repair took over, or Kafka was away for longer than a transaction may last: what was \
                           done stands, call again to go on";
            Rejection::new(Code::Aborted, "TAKEN_OVER", message)
        }
        AuditError::Log(LogError::Away(cause)) => {
            tracing::warn!(cause, "the topics of an audit are away");
            let message = "the log is away: what was done stands, call again to go on";
            unavailable("LOG_UNAVAILABLE", message, LATER)
        }
        AuditError::Log(LogError::Refused(_)) => internal("LOG_REFUSED", chain(error)),
    }
}

#[cfg(test)]
#[path = "audit_tests.rs"]
mod tests;
