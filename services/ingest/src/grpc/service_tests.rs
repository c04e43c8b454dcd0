use millrace_events::State;
use millrace_rpc::error::{reason, retry_after};
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic_types::StatusExt;

use super::*;
use crate::codec::Offline;
use crate::documents::JustAccepted;
use crate::log::AppendError;
use crate::testing::{FakeEnds, FakeLog, Statuses, TRACE, lanes, revision, status};

struct Set {
    service: Ingest<FakeLog, Offline, FakeEnds>,
    log: FakeLog,
    statuses: Statuses,
}

fn set() -> Set {
    let (log, statuses) = (FakeLog::default(), Statuses::new());
    let just_accepted = JustAccepted::default();
    let known = [(3, 4)].into();
    let acceptor = Acceptor::new(
        (log.clone(), Offline),
        statuses.replica.clone(),
        lanes(),
        just_accepted.clone(),
        known,
    );
    let ends = FakeEnds {
        submitted: Some((0, 100)),
        status: None,
    };
    let documents = Documents::new(statuses.replica.clone(), just_accepted, ends, CancellationToken::new());
    Set {
        service: Ingest {
            acceptor: Arc::new(acceptor),
            documents,
        },
        log,
        statuses,
    }
}

impl Set {
    fn answers(&self, answer: Result<i64, AppendError>) {
        self.log.0.lock().unwrap().answers.push_back(answer);
    }
    async fn submit(&self) -> Result<api::Receipt, Status> {
        let mut request = Request::new(api::SubmitDocumentRequest {
            tenant: "t".into(),
            document_id: "d".into(),
            body: b"text".to_vec(),
            media_type: "text/plain".into(),
            request_id: String::new(),
            lane: String::new(),
        });
        request.metadata_mut().insert("traceparent", TRACE.parse().unwrap());
        let answer = self.service.submit_document(request).await?;
        Ok(answer.into_inner().receipt.unwrap())
    }
    async fn get(&self, revision: i64) -> Result<api::Document, Status> {
        let request = Request::new(api::GetDocumentRequest {
            tenant: "t".into(),
            document_id: "d".into(),
            revision,
        });
        Ok(self.service.get_document(request).await?.into_inner().document.unwrap())
    }
}

#[tokio::test]
async fn a_submission_is_acknowledged_told_and_watched_to_its_end() {
    let mut set = set();
    set.answers(Ok(40));
    let receipt = set.submit().await.unwrap();
    assert_eq!(
        (receipt.revision, receipt.trace_id.as_str()),
        (revision(40).get(), &TRACE[3..35])
    );
    assert_eq!((receipt.tenant.as_str(), receipt.document_id.as_str()), ("t", "d"));
    let told = set.get(0).await.unwrap();
    assert_eq!(
        (told.state(), told.revision),
        (api::DocumentState::Accepted, receipt.revision)
    );
    assert!(told.accepted_at_ms > 0);

    let request = Request::new(api::WatchDocumentRequest {
        tenant: "t".into(),
        document_id: "d".into(),
        revision: receipt.revision,
    });
    let mut watch = set.service.watch_document(request).await.unwrap().into_inner();
    let mut seen = Vec::new();
    seen.push(watch.next().await.unwrap().unwrap().document.unwrap().state());
    let mut indexed = status("d", 40, State::Indexed);
    indexed.chunk_count = 3;
    set.statuses.write(indexed).await;
    let last = watch.next().await.unwrap().unwrap().document.unwrap();
    seen.push(last.state());
    assert_eq!(seen, [api::DocumentState::Accepted, api::DocumentState::Indexed]);
    assert_eq!((last.chunk_count, last.live_revision), (3, receipt.revision));
    assert!(watch.next().await.is_none());
}

#[tokio::test]
async fn what_the_log_says_is_what_the_client_reads() {
    for (answer, code, expected, again) in [
        (
            Err(AppendError::OutcomeUnknown("x".into())),
            Code::Unavailable,
            "OUTCOME_UNKNOWN",
            true,
        ),
        (Err(AppendError::QueueFull), Code::ResourceExhausted, "QUEUE_FULL", true),
        (
            Err(AppendError::TooLarge),
            Code::InvalidArgument,
            "BODY_TOO_LARGE",
            false,
        ),
        (
            Err(AppendError::Refused("x".into())),
            Code::Internal,
            "LOG_REFUSED",
            false,
        ),
        (Ok(4), Code::FailedPrecondition, "LOG_RECREATED", false),
    ] {
        let set = set();
        set.answers(answer);
        let status = set.submit().await.unwrap_err();
        assert_eq!((status.code(), reason(&status).as_deref()), (code, Some(expected)));
        assert_eq!(retry_after(&status).is_some(), again, "{expected}");
    }
}

#[tokio::test]
async fn an_unknown_document_is_named() {
    let mut set = set();
    let status = set.get(0).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert_eq!(status.get_details_resource_info().unwrap().resource_name, "t/d");
    assert_eq!(set.get(revision(100).get()).await.unwrap_err().code(), Code::NotFound);
    set.service.documents = {
        let ends = FakeEnds {
            submitted: None,
            status: None,
        };
        let replica = set.statuses.replica.clone();
        Documents::new(replica, JustAccepted::default(), ends, CancellationToken::new())
    };
    let status = set.get(revision(7).get()).await.unwrap_err();
    assert_eq!(
        (status.code(), reason(&status).as_deref()),
        (Code::Unavailable, Some("LOG_UNAVAILABLE"))
    );
    assert_eq!(set.get(7).await.unwrap_err().code(), Code::InvalidArgument);
}
