use millrace_events::Epoch;
use millrace_rpc::error::{self, retry_after};

use super::*;

#[test]
fn what_cannot_be_audited_is_refused_with_the_field() {
    let named = |tenant: &str, ids: Vec<String>| api::AuditIndexRequest {
        tenant: tenant.into(),
        document_ids: ids,
        repair: false,
    };
    for (request, reason) in [
        (named("a/b", vec![]), "INVALID_TENANT"),
        (named("", vec!["a".into()]), "TENANT_MISSING"),
        (named("acme", vec!["a".into(), "b\n".into()]), "INVALID_DOCUMENT_ID"),
        (named("acme", vec!["a".into(); MAX_NAMED + 1]), "TOO_MANY_DOCUMENTS"),
    ] {
        let refused = order(request).unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{reason}");
        assert_eq!(error::reason(&refused).as_deref(), Some(reason));
    }
    assert_eq!(order(named("", vec![])).unwrap(), Order::default());
    let one = order(named("acme", vec!["a".into()])).unwrap();
    assert_eq!(one.scope.documents, [DocumentKey::new("acme", "a").unwrap()]);
}

#[test]
fn each_end_has_its_code_and_says_when_to_come_again() {
    let (operation, message) = ("scan", String::from("x"));
    let unavailable = IndexError::Unavailable { operation, message };
    let (place, why) = (String::from("documents.status/1/2"), String::from("x"));
    let unreadable = AuditError::Unreadable { place, why };
    let taken_over = LogError::TakenOver("x".into());
    for (error, code, reason) in [
        (AuditError::Running, Code::ResourceExhausted, "AUDIT_RUNNING"),
        (AuditError::Starting, Code::Unavailable, "SCHEMAS_UNKNOWN"),
        (AuditError::Leaving, Code::Unavailable, "DRAINING"),
        (AuditError::TooMany, Code::FailedPrecondition, "TOO_MANY_DOCUMENTS"),
        (unavailable.into(), Code::Unavailable, "INDEX_UNAVAILABLE"),
        (unreadable, Code::Internal, "AUDIT_FAILED"),
        (LogError::Away("x".into()).into(), Code::Unavailable, "LOG_UNAVAILABLE"),
        (LogError::Refused("x".into()).into(), Code::Internal, "LOG_REFUSED"),
        (taken_over.into(), Code::Aborted, "TAKEN_OVER"),
    ] {
        let status = refused(error);
        assert_eq!((status.code(), error::reason(&status).as_deref()), (code, Some(reason)));
        let waits = matches!(code, Code::Unavailable | Code::ResourceExhausted);
        assert_eq!(retry_after(&status).is_some(), waits, "{reason}");
    }
}

#[test]
fn a_finding_says_what_can_be_done() {
    let document = DocumentKey::new("acme", "a").unwrap();
    let told = Finding {
        kind: Kind::Missing,
        log: Revision::new(Epoch::FIRST, 7).ok(),
        index: None,
        expected: 3,
        found: 1,
        remedy: Vec::new(),
    };
    let gone = finding(&document, &told, Outcome::NotRepairable(Lost::Parts));
    assert_eq!(gone.repair(), api::AuditRepair::PartsGone);
    assert_eq!(gone.advice, SUBMIT_AGAIN);
    assert_eq!((gone.log_revision, gone.index_revision), ((1 << 48) + 7, 0));
    assert_eq!((gone.expected_chunks, gone.found_chunks), (3, 1));
}
