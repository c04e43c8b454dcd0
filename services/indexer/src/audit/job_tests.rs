//! Whole audits: damage of each kind is planted, found and healed.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use millrace_events::{State, Tenant, headers};

use super::super::judge::Kind;
use super::super::log::LogError;
use super::super::parts::Lost;
use super::super::testing::{Bench, document, model, parts, r};
use super::*;
use crate::index::Scope;
use crate::pipeline::index::{index, restore};

/// A busy corpus: several parts, updates, a deletion, an empty document, a revision on its way, a failed one.
async fn corpus() -> Bench {
    let bench = Bench::new();
    bench.submit("a", 1, &[3]).await;
    bench.submit("a", 5, &[2, 2]).await;
    bench.submit("b", 2, &[2]).await;
    bench.submit("gone", 3, &[2]).await;
    bench.submit("gone", 4, &[]).await;
    bench.submit("empty", 6, &[0]).await;
    bench.status("b", 7, State::Parsed, 0);
    let half = &parts("b", 7, &[1, 1], model("tiny"))[0];
    bench.embedded(half);
    index(&bench.auditor.generations, half.clone(), || 1).await.unwrap();
    bench.status("b", 8, State::Failed, 0);
    bench.plant("b", 8, 0..1, true).await;
    bench
}

#[tokio::test]
async fn what_is_right_or_on_its_way_is_no_finding() {
    let bench = corpus().await;
    let (findings, summary) = bench.audit(false).await;
    assert_eq!(findings, []);
    assert_eq!(
        (summary.documents, summary.points),
        (4, 3 + 4 + 1 + 2 + 1 + 1 + 1 + 2 + 1 + 1)
    );
    // The head has moved, and what it announces is not committed yet.
    bench.status("c", 9, State::Parsed, 0);
    for part in parts("c", 9, &[1], model("tiny")) {
        index(&bench.auditor.generations, part, || 1).await.unwrap();
    }
    assert_eq!(bench.found().await, []);
}

/// The first reading does not know them, and the index shows them: suspected, looked at again, and no finding.
#[tokio::test]
async fn what_changed_between_the_readings_is_suspected_and_no_finding() {
    let bench = corpus().await;
    bench.submit_meanwhile("a", 30);
    bench.submit_meanwhile("new", 31);
    let (findings, summary) = bench.audit(true).await;
    assert_eq!((findings, summary.suspects), (vec![], 2));
    assert_eq!(bench.shown("new").await, (Some(r(31)), 1));
}

#[tokio::test]
async fn a_lost_head_over_all_its_points_needs_no_parts() {
    let bench = corpus().await;
    *bench.topics.0.gone_below.lock().unwrap() = 1000;
    bench.index().delete_head(document("a"), r(5)).await.unwrap();
    bench.found_and_healed(&[("a", Kind::Missing)]).await;
    assert_eq!(bench.shown("a").await, (Some(r(5)), 4));
    assert_eq!(bench.topics.0.sent.lock().unwrap().len(), 0);
}

#[tokio::test]
async fn what_was_lost_is_missing_and_comes_back() {
    let bench = corpus().await;
    bench.lose("a", 5).await;
    bench.index().delete_head(document("empty"), r(6)).await.unwrap();
    bench
        .found_and_healed(&[("a", Kind::Missing), ("empty", Kind::Missing)])
        .await;
    assert_eq!(bench.shown("a").await, (Some(r(5)), 4));
    let sent = bench.topics.0.sent.lock().unwrap();
    assert_eq!(sent.len(), 2, "the empty one needs none");
    for output in &*sent {
        assert_eq!(output.headers.get_str(headers::REDRIVE), Some("1"));
        assert_eq!(output.headers.get_str(headers::RESTORE), Some("1"));
        assert_eq!(output.headers.get_str("theirs"), Some("x"));
    }
}

#[tokio::test]
async fn lost_points_come_back_and_planted_ones_go() {
    let bench = corpus().await;
    bench.index().delete_chunks(document("a"), r(5), 3).await.unwrap();
    bench.plant("b", 2, 2..4, false).await;
    bench.index().delete_chunks(document("b"), r(2), 0).await.unwrap();
    bench.plant("b", 2, 1..5, false).await;
    bench
        .found_and_healed(&[("a", Kind::WrongCount), ("b", Kind::WrongCount)])
        .await;
    assert_eq!(
        (bench.shown("a").await, bench.shown("b").await),
        ((Some(r(5)), 4), (Some(r(2)), 2))
    );
    assert_eq!(bench.index().count(document("b"), r(7)).await.unwrap(), 1, "on its way");
}

#[tokio::test]
async fn an_older_head_is_stale_for_an_update_and_for_a_deletion() {
    let bench = corpus().await;
    bench.head_back("a", 5, 1).await;
    bench.head_back("gone", 4, 3).await;
    bench
        .found_and_healed(&[("a", Kind::Stale), ("gone", Kind::Stale)])
        .await;
    assert_eq!(
        (bench.shown("a").await, bench.shown("gone").await),
        ((Some(r(5)), 4), (None, 0))
    );
}

/// Without its head, a letter of before that is sent again would bring the document back.
#[tokio::test]
async fn a_lost_deletion_comes_back_while_it_is_to_be_remembered() {
    let mut bench = corpus().await;
    bench.index().delete_head(document("gone"), r(4)).await.unwrap();
    assert_eq!(bench.found().await, [("gone".to_owned(), Kind::Orphaned)]);
    bench.auditor.keep_deleted = Duration::from_secs(60 * 60);
    bench
        .found_and_healed(&[("gone", Kind::Missing), ("gone", Kind::Orphaned)])
        .await;
    assert_eq!(bench.topics.0.sent.lock().unwrap().len(), 0);
    let older = parts("gone", 3, &[2], model("tiny")).remove(0);
    index(&bench.auditor.generations, older, || 9).await.unwrap();
    assert_eq!(bench.shown("gone").await, (None, 0));
}

#[tokio::test]
async fn what_the_log_does_not_know_is_extra_and_swept() {
    let bench = corpus().await;
    bench.plant("nobody", 3, 0..2, false).await;
    bench.plant_head("nobody", 3).await;
    bench.plant("a", 90, 0..1, false).await;
    bench.plant_head("a", 90).await;
    bench
        .found_and_healed(&[("a", Kind::Extra), ("nobody", Kind::Extra)])
        .await;
    assert_eq!(
        (bench.shown("a").await, bench.shown("nobody").await),
        ((Some(r(5)), 4), (None, 0))
    );
    assert_eq!(bench.index().count(document("nobody"), r(3)).await.unwrap(), 0);
}

#[tokio::test]
async fn points_that_nobody_owns_are_orphaned_and_swept() {
    let bench = corpus().await;
    bench.swept("a", 5).await;
    bench.plant("a", 2, 0..2, false).await;
    bench.index().delete_head(document("gone"), r(4)).await.unwrap();
    let of = |name| (name, Kind::Orphaned);
    // Two of one document: its first revision was never swept.
    bench.found_and_healed(&[of("a"), of("a"), of("gone")]).await;
    assert_eq!(bench.index().count(document("a"), r(2)).await.unwrap(), 0);
    assert_eq!(bench.shown("a").await, (Some(r(5)), 4));
}

#[tokio::test]
async fn an_index_that_is_gone_comes_back_whole() {
    let bench = corpus().await;
    let mut other = Bench::new();
    other.auditor.keep_deleted = Duration::from_secs(60 * 60);
    *other.topics.0.records.lock().unwrap() = bench.topics.0.records.lock().unwrap().clone();
    let missing = |name| (name, Kind::Missing);
    other
        .found_and_healed(&[missing("a"), missing("b"), missing("empty"), missing("gone")])
        .await;
    for name in ["a", "b", "gone", "empty"] {
        assert_eq!(other.shown(name).await, bench.shown(name).await, "{name}");
    }
}

#[tokio::test]
async fn an_index_that_is_gone_comes_back_with_what_needs_no_parts() {
    let bench = Bench::new();
    bench.submit("empty", 6, &[0]).await;
    let other = Bench::new();
    *other.topics.0.records.lock().unwrap() = bench.topics.0.records.lock().unwrap().clone();
    other.found_and_healed(&[("empty", Kind::Missing)]).await;
    assert_eq!(other.shown("empty").await, (Some(r(6)), 0));
}

#[tokio::test]
async fn what_retention_took_and_what_another_model_made_is_not_repairable() {
    let bench = corpus().await;
    bench.lose("a", 5).await;
    *bench.topics.0.gone_below.lock().unwrap() = 2;
    bench.status("other", 11, State::Indexed, 1);
    for n in 0..2 {
        let filling = parts("other", 9 + n, &[1], model("larger"));
        bench.embedded(&filling[0]);
    }
    bench.embedded(&parts("other", 11, &[1], model("larger"))[0]);
    let (findings, summary) = bench.audit(true).await;
    let lost = |name: &str, why| (name.to_owned(), Kind::Missing, Outcome::NotRepairable(why));
    assert_eq!(findings, [lost("a", Lost::Parts), lost("other", Lost::Model)]);
    assert_eq!((summary.repaired, summary.not_repairable), (0, 2));
    assert_eq!(bench.topics.0.sent.lock().unwrap().len(), 0);
}

#[tokio::test]
async fn while_the_stage_is_away_a_repair_is_left_and_goes_on_when_asked_again() {
    let mut bench = corpus().await;
    bench.auditor.patience = Duration::from_millis(1);
    bench.lose("a", 5).await;
    *bench.topics.0.away.lock().unwrap() = true;
    let (findings, _) = bench.audit(true).await;
    assert_eq!(findings, [("a".to_owned(), Kind::Missing, Outcome::Pending)]);
    *bench.topics.0.away.lock().unwrap() = false;
    bench.auditor.patience = Duration::from_secs(60);
    bench.found_and_healed(&[("a", Kind::Missing)]).await;
    let sent = bench.topics.0.sent.lock().unwrap();
    let counts = sent
        .iter()
        .map(|output| output.headers.get_str(headers::REDRIVE).unwrap());
    assert_eq!(counts.collect::<Vec<_>>(), ["1", "1", "2", "2"]);
}

/// What a client submits while its parts are sent again counts.
#[tokio::test]
async fn a_newer_revision_wins_over_a_repair() {
    let bench = corpus().await;
    bench.lose("a", 5).await;
    *bench.topics.0.away.lock().unwrap() = true;
    let repairing = bench.audit(true);
    let newer = async {
        while bench.topics.0.sent.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        bench.submit("a", 20, &[1]).await;
        for part in parts("a", 5, &[2, 2], model("tiny")) {
            restore(&bench.auditor.generations, part, 9).await.unwrap();
        }
    };
    let ((findings, _), ()) = tokio::join!(repairing, newer);
    assert_eq!(findings, [("a".to_owned(), Kind::Missing, Outcome::Repaired)]);
    assert_eq!(bench.shown("a").await, (Some(r(20)), 1));
}

#[tokio::test]
async fn only_what_is_asked_for_is_audited() {
    let bench = corpus().await;
    for (name, at) in [("a", 5), ("b", 2)] {
        bench.index().delete_head(document(name), r(at)).await.unwrap();
    }
    let scope = Scope {
        tenant: Some(Tenant::new("acme").unwrap()),
        documents: vec![document("b")],
    };
    let order = Order { scope, repair: false };
    let events: Vec<_> = bench.auditor.order(order).unwrap().collect().await;
    let findings = events.into_iter().filter_map(|event| match event.unwrap() {
        Event::Finding(of, ..) => Some(of.document_id.as_str().to_owned()),
        _ => None,
    });
    assert_eq!(findings.collect::<Vec<_>>(), ["b"]);
}

#[tokio::test]
async fn one_at_a_time_and_none_before_the_schemas_or_after_the_leave() {
    let bench = corpus().await;
    let first = bench.auditor.order(Order::default()).unwrap();
    let refused = bench.auditor.order(Order::default()).err().unwrap();
    assert!(matches!(refused, AuditError::Running));
    drop(first);
    let second = bench.auditor.order(Order::default()).unwrap();
    bench.auditor.leaving.cancel();
    let events: Vec<_> = second.collect().await;
    assert!(matches!(events.last().unwrap(), Err(AuditError::Leaving)), "{events:?}");
    let early = Auditor {
        codec: Arc::default(),
        ..bench.auditor.clone()
    };
    assert!(matches!(
        early.order(Order::default()).err().unwrap(),
        AuditError::Starting
    ));
}

#[tokio::test]
async fn a_repair_that_is_taken_over_says_so() {
    let bench = corpus().await;
    bench.lose("a", 5).await;
    *bench.topics.0.taken_over.lock().unwrap() = true;
    let order = Order {
        repair: true,
        ..Order::default()
    };
    let events: Vec<_> = bench.auditor.order(order).unwrap().collect().await;
    let ended = events.last().unwrap();
    assert!(
        matches!(ended, Err(AuditError::Log(LogError::TakenOver(_)))),
        "{ended:?}"
    );
}

#[tokio::test]
async fn a_document_whose_status_cannot_be_read_is_neither_judged_nor_repaired() {
    let bench = corpus().await;
    for (name, at) in [("nobody", 3), ("a", 90)] {
        bench.plant(name, at, 0..2, false).await;
        bench.plant_head(name, at).await;
        bench.unreadable_status(&format!("acme/{name}#{}", r(at)));
    }
    let (findings, summary) = bench.audit(true).await;
    assert_eq!((findings, summary.not_judged), (vec![], 2));
    assert_eq!(bench.shown("nobody").await, (Some(r(3)), 2));
    assert_eq!(bench.shown("a").await, (Some(r(90)), 2));
    // A newer revision says all that counts.
    bench.submit("nobody", 100, &[1]).await;
    bench.index().delete_head(document("nobody"), r(100)).await.unwrap();
    bench.found_and_healed(&[("nobody", Kind::Missing)]).await;
    assert_eq!(bench.audit(false).await.1.not_judged, 1);
}

#[tokio::test]
async fn what_cannot_be_judged_any_more_is_not_told_as_repaired() {
    let bench = corpus().await;
    bench.lose("a", 5).await;
    let repairing = bench.audit(true);
    let unreadable = async {
        while bench.topics.0.sent.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        bench.unreadable_status(&format!("acme/a#{}", r(20)));
    };
    *bench.topics.0.away.lock().unwrap() = true;
    let ((findings, summary), ()) = tokio::join!(repairing, unreadable);
    assert_eq!(findings, [("a".to_owned(), Kind::Missing, Outcome::Pending)]);
    assert_eq!(summary.not_judged, 1);
}

/// It could be of any document: of this healthy one, which the log seems not to know.
#[tokio::test]
async fn a_status_that_could_be_of_any_document_ends_the_audit() {
    let bench = corpus().await;
    bench.plant("nobody", 3, 0..2, false).await;
    bench.plant_head("nobody", 3).await;
    bench.unreadable_status("nonsense");
    let order = Order {
        repair: true,
        ..Order::default()
    };
    let events: Vec<_> = bench.auditor.order(order).unwrap().collect().await;
    let ended = events.last().unwrap();
    assert!(matches!(ended, Err(AuditError::Unreadable { .. })), "{ended:?}");
    assert_eq!(bench.shown("nobody").await, (Some(r(3)), 2));
}
