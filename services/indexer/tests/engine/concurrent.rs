//! Searches that run throughout, while revisions come, go and are cleaned up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use millrace_events::DocumentKey;
use millrace_indexer::index::VectorIndex;
use millrace_indexer::index::embedded::{EmbeddedConfig, EmbeddedIndex};

use crate::kit::*;

/// Chunks of a revision: other numbers for each, so that a mixture or a half cannot pass for a whole.
fn chunks(revision: i64) -> i32 {
    3 + (revision % 5) as i32
}

fn sizes(revision: i64) -> Vec<usize> {
    let all = chunks(revision) as usize;
    match revision % 3 {
        0 => vec![all],
        1 => vec![1, all - 1],
        _ => vec![1, 1, all - 2],
    }
}

/// Searches for one document until told to stop: always exactly one whole revision, never an older one than before.
async fn watch(index: Arc<dyn VectorIndex>, of: DocumentKey, stop: Arc<AtomicBool>, searches: Arc<AtomicU64>) {
    let mut newest = 0;
    while !stop.load(Ordering::Relaxed) {
        let answer = search_in(&*index, 100, std::slice::from_ref(&of)).await;
        assert!(!answer.partial);
        let seen = by_revision(&answer.hits);
        let (&revision, _) = seen.first_key_value().unwrap_or_else(|| panic!("{of}: none"));
        assert_eq!(seen, whole(revision, chunks(revision)), "{of}: a mixture or a half");
        assert!(revision >= newest, "{of}: {newest} was seen, then {revision}");
        newest = revision;
        searches.fetch_add(1, Ordering::Relaxed);
        tokio::task::yield_now().await;
    }
}

async fn update_under_searches(bench: Bench, documents: usize, revisions: i64) {
    let (stop, searches) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let documents: Vec<_> = (0..documents).map(|n| document(&format!("{n}.md"))).collect();
    for d in &documents {
        bench.publish_all(&parts(d, revision(0), &sizes(0))).await;
    }
    let watchers: Vec<_> = documents
        .iter()
        .map(|d| {
            let index = Arc::clone(&bench.index);
            tokio::spawn(watch(index, d.clone(), Arc::clone(&stop), Arc::clone(&searches)))
        })
        .collect();
    let writer = async {
        for r in 1..revisions {
            for d in &documents {
                bench.publish_all(&parts(d, revision(r), &sizes(r))).await;
            }
        }
        stop.store(true, Ordering::Relaxed);
    };
    // A grace in rounds instead of seconds: what is due now is swept when every watcher has begun a new search.
    let sweeps = async {
        while !stop.load(Ordering::Relaxed) {
            let due = bench.sweeper.due().await.unwrap();
            let all_began_anew = searches.load(Ordering::Relaxed) + 50 * documents.len() as u64;
            while searches.load(Ordering::Relaxed) < all_began_anew && !stop.load(Ordering::Relaxed) {
                tokio::task::yield_now().await;
            }
            if !stop.load(Ordering::Relaxed) {
                bench.sweeper.sweep(due).await.unwrap();
            }
        }
    };
    futures::join!(writer, sweeps);
    for watcher in watchers {
        watcher.await.unwrap();
    }
    let searches = searches.load(Ordering::Relaxed);
    println!(
        "{searches} searches over {} switches",
        (revisions - 1) * documents.len() as i64
    );
    assert!(searches > 100, "only {searches}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_search_sees_one_whole_revision() {
    update_under_searches(Bench::new(), 3, 24).await;
}

/// The same while the engine optimises after every few points: points move between segments under the searches.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_search_sees_one_whole_revision_while_the_engine_optimises() {
    let folder = new_folder();
    let config = EmbeddedConfig {
        optimize_after_points: 20,
        indexing_threshold_kib: Some(1),
        ..EmbeddedConfig::default()
    };
    let index = Arc::new(EmbeddedIndex::open(&folder.path().join("shard"), &model(), &config).unwrap());
    update_under_searches(Bench::with(index.clone(), folder), 3, 24).await;
    assert!(index.indexed_points().unwrap() > 0, "it never optimised");
}

/// New documents too: not seen, or seen whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_new_document_is_seen_whole_or_not_at_all() {
    let bench = Bench::new();
    let stop = Arc::new(AtomicBool::new(false));
    let watcher = {
        let (index, stop) = (Arc::clone(&bench.index), Arc::clone(&stop));
        tokio::spawn(async move {
            let mut most = 0;
            while !stop.load(Ordering::Relaxed) {
                let answer = search_in(&*index, 1000, &[]).await;
                let seen = by_revision(&answer.hits);
                for revision in seen.keys() {
                    assert_eq!(seen[revision], whole(*revision, chunks(*revision))[revision]);
                }
                assert!(seen.len() >= most, "a document vanished");
                most = seen.len();
            }
            most
        })
    };
    for n in 0..40 {
        bench
            .publish_all(&parts(&document(&format!("{n}.md")), revision(n), &sizes(n)))
            .await;
    }
    stop.store(true, Ordering::Relaxed);
    watcher.await.unwrap();
    assert_eq!(by_revision(&bench.search(1000).await.hits).len(), 40);
}
