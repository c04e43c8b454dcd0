//! Rounds, pins, filters and order of results.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use millrace_events::{DocumentKey, Tenant};
use millrace_indexer::index::RevisionPoints;
use millrace_indexer::publish::{Part, Published};
use millrace_indexer::search::{Answer, Wanted, search};
use tokio::time::Instant;

use crate::kit::*;

#[tokio::test]
async fn k_hits_although_most_points_are_stale() {
    let bench = Bench::new();
    for n in 0..30 {
        let d = document(&format!("{n}.md"));
        for r in 0..5 {
            bench.publish_all(&parts(&d, revision(r), &[3])).await;
        }
    }
    for k in [1, 10, 60] {
        let answer = bench.search(k).await;
        assert_eq!((answer.hits.len(), answer.partial), (k, false));
        assert!(answer.hits.iter().all(|h| h.revision == revision(4)));
    }
    let all = bench.search(1000).await;
    assert_eq!((all.hits.len(), all.partial), (90, false));
}

#[tokio::test]
async fn equal_scores_are_ordered_by_document_and_ordinal() {
    let bench = Bench::new();
    for name in ["b.md", "a.md", "c.md"] {
        bench.publish_all(&parts(&document(name), revision(1), &[2])).await;
    }
    let answer = bench.search(10).await;
    let order: Vec<_> = answer
        .hits
        .iter()
        .map(|h| (h.ordinal, h.document.to_string()))
        .collect();
    let expected = [0, 1].map(|o| ["acme/a.md", "acme/b.md", "acme/c.md"].map(|d| (o, d.to_owned())));
    assert_eq!(order, expected.concat());
    assert!(answer.hits.windows(2).all(|pair| pair[0].score >= pair[1].score));
}

#[tokio::test]
async fn tenants_never_see_each_other() {
    let bench = Bench::new();
    let theirs = DocumentKey::new("other", "a.md").unwrap();
    bench.publish_all(&parts(&theirs, revision(1), &[2])).await;
    assert!(bench.search(10).await.hits.is_empty());
    bench.publish_all(&parts(&document("a.md"), revision(2), &[1])).await;
    assert_eq!(by_revision(&bench.search(10).await.hits), whole(2, 1));
    // Not even when asked for by name.
    let sly = search_in(&*bench.index, 10, &[theirs]).await;
    assert!(sly.hits.is_empty());
}

#[tokio::test]
async fn filters_by_document_and_score() {
    let bench = Bench::new();
    for n in 0..5 {
        let d = document(&format!("{n}.md"));
        bench.publish_all(&parts(&d, revision(n), &[2])).await;
    }
    let two = search_in(&*bench.index, 10, &[document("1.md"), document("3.md")]).await;
    assert_eq!(by_revision(&two.hits).keys().copied().collect::<Vec<_>>(), [1, 3]);
    let best = bench.search(1).await.hits[0].score;
    let near = Wanted {
        min_score: Some(best),
        ..wanted(100, &[])
    };
    let near = search(&*bench.index, near, Instant::now() + MINUTE).await.unwrap();
    assert_eq!(near.hits.len(), 5, "one of each document");
    let nobody = Wanted {
        tenant: Tenant::new("nobody").unwrap(),
        ..wanted(10, &[])
    };
    let nothing = search(&*bench.index, nobody, Instant::now() + MINUTE).await.unwrap();
    assert_eq!(nothing, Answer::default());
}

#[tokio::test]
async fn a_passed_deadline_is_partial() {
    let bench = Bench::new();
    bench.publish_all(&parts(&document("a.md"), revision(1), &[2])).await;
    let passed = Instant::now().checked_sub(Duration::from_secs(1)).unwrap();
    let answer = search(&*bench.index, wanted(10, &[]), passed).await.unwrap();
    assert!(answer.partial);
}

/// While points are written and shown but the head has not moved, a search sees the old revision.
#[tokio::test]
async fn shown_points_without_a_head_are_not_seen() {
    let bench = Bench::new();
    let d = document("a.md");
    bench.publish_all(&parts(&d, revision(1), &[2])).await;
    let dying = Dying::new(Arc::clone(&bench.index));
    let publisher = millrace_indexer::publish::Publisher::new(dying.clone());
    let next = parts(&d, revision(2), &[4]);
    dying.budget.store(1, std::sync::atomic::Ordering::SeqCst);
    assert!(
        publisher.publish(next[0].clone(), 1).await.is_err(),
        "dies before the head moves"
    );
    assert_eq!(bench.points(&d, revision(2)).await, 4);
    assert_eq!(bench.seen(&d).await, whole(1, 2));
    assert_eq!(by_revision(&bench.search(2).await.hits), whole(1, 2), "k hits remain");
    assert_eq!(bench.publish(&next[0]).await, Published::Live { chunk_count: 4 });
    assert_eq!(bench.seen(&d).await, whole(2, 4));
}

/// What happens between a query and the reading of heads, each at its worst moment.
async fn seen_when(bench: &Bench, of: &DocumentKey, after_queries: Vec<Meanwhile>) -> BTreeMap<i64, Vec<String>> {
    let index = Dying::new(Arc::clone(&bench.index));
    *index.after_queries.lock().unwrap() = after_queries.into();
    let answer = search_in(&*index, 100, std::slice::from_ref(of)).await;
    assert!(index.after_queries.lock().unwrap().is_empty(), "too few queries");
    assert!(!answer.partial);
    by_revision(&answer.hits)
}

fn publishing(bench: &Bench, parts: Vec<Part>) -> Meanwhile {
    let publisher = bench.publisher.clone();
    Box::pin(async move {
        for part in parts {
            publisher.publish(part, 1).await.unwrap();
        }
    })
}

fn first_points(of: &DocumentKey, at: i64, count: i32) -> RevisionPoints {
    RevisionPoints {
        document: of.clone(),
        revision: revision(at),
        staged: false,
        points: (0..count).map(|ordinal| chunk(revision(at), ordinal)).collect(),
    }
}

/// The query meets a first few points; the head moves before it is read. Only the head's youth tells.
#[tokio::test]
async fn a_new_document_half_written_at_the_query_is_asked_for_again() {
    let bench = Bench::new();
    let d = document("a.md");
    bench.index.write(first_points(&d, 1, 2)).await.unwrap();
    let rest = publishing(&bench, parts(&d, revision(1), &[4]));
    assert_eq!(seen_when(&bench, &d, vec![rest]).await, whole(1, 4));
}

#[tokio::test]
async fn a_switch_between_query_and_heads_is_followed() {
    let bench = Bench::new();
    let d = document("a.md");
    bench.publish_all(&parts(&d, revision(1), &[2])).await;
    bench.sweep().await;
    bench.index.write(first_points(&d, 2, 1)).await.unwrap();
    let switch = publishing(&bench, parts(&d, revision(2), &[3]));
    assert_eq!(seen_when(&bench, &d, vec![switch]).await, whole(2, 3));
}

/// The second switch comes after the search has met the document: it holds on to what it met.
#[tokio::test]
async fn a_search_holds_on_to_the_revision_it_met() {
    let bench = Bench::new();
    let d = document("a.md");
    bench.publish_all(&parts(&d, revision(1), &[2])).await;
    let switches = (2..4)
        .map(|r| publishing(&bench, parts(&d, revision(r), &[3])))
        .collect();
    assert_eq!(seen_when(&bench, &d, switches).await, whole(2, 3));
    assert_eq!(bench.seen(&d).await, whole(3, 3));
}

#[tokio::test]
async fn a_deletion_between_query_and_heads_is_followed() {
    let bench = Bench::new();
    let d = document("a.md");
    bench.publish_all(&parts(&d, revision(1), &[2])).await;
    let deleting = publishing(&bench, vec![deletion(&d, revision(2))]);
    assert!(seen_when(&bench, &d, vec![deleting]).await.is_empty());
}

/// A round that cannot be trusted is not given away when the deadline comes: what is certain is.
#[tokio::test]
async fn a_deadline_gives_away_nothing_that_may_be_half() {
    let bench = Bench::new();
    let (old, new) = (document("old.md"), document("new.md"));
    bench.publish_all(&parts(&old, revision(1), &[2])).await;
    bench.sweep().await;
    bench.index.write(first_points(&new, 2, 1)).await.unwrap();
    let index = Dying::new(Arc::clone(&bench.index));
    let never = Box::pin(std::future::pending());
    *index.after_queries.lock().unwrap() = [publishing(&bench, parts(&new, revision(2), &[3])), never].into();
    let until = Instant::now() + Duration::from_secs(2);
    let answer = search(&*index, wanted(10, &[]), until).await.unwrap();
    assert!(answer.partial);
    assert_eq!(by_revision(&answer.hits), whole(1, 2));
}

#[tokio::test]
async fn an_index_that_settled_is_asked_once() {
    let bench = Bench::new();
    for n in 0..5 {
        bench
            .publish_all(&parts(&document(&format!("{n}.md")), revision(n), &[4]))
            .await;
    }
    bench.sweep().await;
    let index = Dying::new(Arc::clone(&bench.index));
    let second_query = Box::pin(async { panic!("a second query") });
    *index.after_queries.lock().unwrap() = [Box::pin(async {}) as Meanwhile, second_query].into();
    assert_eq!(search_in(&*index, 10, &[]).await.hits.len(), 10);
}
