//! Each row of the publish table, the clean-up, and what a restart finds.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use millrace_indexer::index::embedded::OpenEmbedded;
use millrace_indexer::index::generation::{GenerationError, Generations};
use millrace_indexer::publish::{Published, Publisher};
use millrace_indexer::sweep::{SweepConfig, Sweeper};

use crate::kit::*;

#[tokio::test]
async fn one_part_is_searchable_at_once() {
    let bench = Bench::new();
    let d = document("a.md");
    let live = bench.publish_all(&parts(&d, revision(7), &[3])).await;
    assert_eq!(live, Published::Live { chunk_count: 3 });
    let answer = bench.search(10).await;
    assert_eq!(answer.hits.iter().map(|h| h.ordinal).collect::<Vec<_>>(), [0, 1, 2]);
    let best = &answer.hits[0];
    assert_eq!((&best.document, best.revision), (&d, revision(7)));
    assert_eq!(best.section, ["Top", "Part 0"]);
    assert_eq!((best.start_byte, best.end_byte, best.text.as_str()), (0, 9, "r7 c0"));
    let head = bench.head(&d).await.unwrap();
    assert_eq!((head.live, head.previous, head.chunk_count), (revision(7), None, 3));
}

#[tokio::test]
async fn parts_stay_hidden_until_the_last_one_arrives_in_any_order() {
    for order in [[0, 1, 2], [2, 0, 1]] {
        let bench = Bench::new();
        let d = document("a.md");
        bench.publish_all(&parts(&d, revision(1), &[2])).await;
        let next = parts(&d, revision(2), &[2, 2, 1]);
        for part in &order[..2] {
            assert_eq!(bench.publish(&next[*part]).await, Published::Nothing);
            assert_eq!(bench.seen(&d).await, whole(1, 2));
        }
        let completing = &next[order[2]];
        assert_eq!(bench.publish(completing).await, Published::Live { chunk_count: 5 });
        assert_eq!(bench.seen(&d).await, whole(2, 5));
        let head = bench.head(&d).await.unwrap();
        assert_eq!((head.previous, head.part), (Some(revision(1)), completing.part));
    }
}

#[tokio::test]
async fn a_late_older_revision_is_superseded_and_nothing_changes() {
    let bench = Bench::new();
    let d = document("a.md");
    bench.publish_all(&parts(&d, revision(5), &[2])).await;
    let before = bench.search(10).await;
    for late in parts(&d, revision(4), &[2, 2])
        .iter()
        .chain(&[deletion(&d, revision(3))])
    {
        let superseded = Published::Superseded { by: revision(5) };
        assert_eq!(bench.publish(late).await, superseded);
    }
    assert_eq!(bench.search(10).await, before);
    assert_eq!(bench.points(&d, revision(4)).await, 0, "it left no points");
}

#[tokio::test]
async fn an_empty_document_is_live_with_no_chunks() {
    let bench = Bench::new();
    let d = document("a.md");
    bench.publish_all(&parts(&d, revision(1), &[2])).await;
    let live = bench.publish_all(&parts(&d, revision(2), &[0])).await;
    assert_eq!(live, Published::Live { chunk_count: 0 });
    assert!(bench.seen(&d).await.is_empty());
    assert!(!bench.head(&d).await.unwrap().deleted);
}

#[tokio::test]
async fn a_deleted_document_is_not_found_until_it_comes_again() {
    let bench = Bench::new();
    let d = document("a.md");
    bench.publish_all(&parts(&d, revision(1), &[2, 2])).await;
    assert_eq!(bench.publish(&deletion(&d, revision(2))).await, Published::Deleted);
    assert!(bench.seen(&d).await.is_empty());
    let late = bench.publish_all(&parts(&d, revision(1), &[2, 2])).await;
    assert_eq!(late, Published::Superseded { by: revision(2) });
    bench.sweep().await;
    assert_eq!(bench.points(&d, revision(1)).await, 0);
    assert!(
        bench.head(&d).await.unwrap().deleted,
        "the head stays to refuse older revisions"
    );
    bench.publish_all(&parts(&d, revision(3), &[1])).await;
    assert_eq!(bench.seen(&d).await, whole(3, 1));
    assert_eq!(
        bench.publish(&deletion(&document("never.md"), revision(4))).await,
        Published::Deleted
    );
}

#[tokio::test]
async fn only_the_part_that_completed_a_revision_announces_it_again() {
    let bench = Bench::new();
    let d = document("a.md");
    let all = parts(&d, revision(1), &[2, 2, 2]);
    bench.publish_all(&all).await;
    let replays = [
        bench.publish(&all[0]).await,
        bench.publish(&all[1]).await,
        bench.publish(&all[2]).await,
        bench.publish(&all[2]).await,
    ];
    let live = Published::Live { chunk_count: 6 };
    assert_eq!(replays, [Published::Nothing, Published::Nothing, live, live]);
    assert_eq!(bench.seen(&d).await, whole(1, 6), "a replay hides nothing");
    let deleted = deletion(&d, revision(2));
    assert_eq!(bench.publish(&deleted).await, Published::Deleted);
    assert_eq!(bench.publish(&deleted).await, Published::Deleted);
}

/// Kill the process before every single write, then replay what was not committed: always the same end.
#[tokio::test]
async fn a_death_before_any_write_changes_nothing_but_time() {
    let bench = Bench::new();
    let dying = Dying::new(Arc::clone(&bench.index));
    let publisher = Publisher::new(dying.clone());
    for deaths_after in 0..12 {
        let d = document(&format!("{deaths_after}.md"));
        bench.publish_all(&parts(&d, revision(1), &[1])).await;
        let all = parts(&d, revision(2), &[2, 2]);
        dying.budget.store(deaths_after, Ordering::SeqCst);
        let mut died = false;
        for part in &all {
            died |= publisher.publish(part.clone(), 1).await.is_err();
            let seen = bench.seen(&d).await;
            assert!(
                seen == whole(1, 1) || seen == whole(2, 4),
                "after {deaths_after} writes: {seen:?}"
            );
            if died {
                break;
            }
        }
        assert_eq!(died, deaths_after < 6, "two parts make 6 writes and flushes");
        dying.budget.store(i64::MAX, Ordering::SeqCst);
        let mut announced = Vec::new();
        for part in &all {
            announced.push(publisher.publish(part.clone(), 1).await.unwrap());
        }
        announced.retain(|a| *a != Published::Nothing);
        assert_eq!(
            announced,
            [Published::Live { chunk_count: 4 }],
            "after {deaths_after} writes"
        );
        assert_eq!(bench.seen(&d).await, whole(2, 4));
    }
}

#[tokio::test]
async fn more_points_than_the_revision_has_are_refused() {
    let bench = Bench::new();
    let d = document("a.md");
    let cut_otherwise = parts(&d, revision(1), &[3, 3]);
    bench.publish(&cut_otherwise[0]).await;
    let other = parts(&d, revision(1), &[1, 1]);
    let refused = bench.publisher.publish(other[0].clone(), 1).await.unwrap_err();
    assert!(
        refused
            .to_string()
            .contains("has 3 points in the index, but its parts say 2"),
        "{refused}"
    );
}

#[tokio::test]
async fn clean_up_takes_older_revisions_only_and_survives_a_restart() {
    let bench = Bench::new();
    let (d, other) = (document("a.md"), document("b.md"));
    bench.publish_all(&parts(&other, revision(1), &[2])).await;
    bench.publish_all(&parts(&d, revision(2), &[2])).await;
    bench.publish(&parts(&d, revision(3), &[2, 2])[0]).await; // never completed
    bench.publish_all(&parts(&d, revision(4), &[3])).await;
    bench.publish(&parts(&d, revision(5), &[2, 2])[0]).await; // still coming
    let bench = bench.reopen();
    assert!(bench.head(&d).await.unwrap().sweep, "the head remembers what is due");
    bench.sweep().await;
    let left = [2, 3, 4, 5].map(|r| bench.points(&d, revision(r)));
    assert_eq!(futures::future::join_all(left).await, [0, 0, 3, 2]);
    assert_eq!(bench.points(&other, revision(1)).await, 2);
    assert!(!bench.head(&d).await.unwrap().sweep);
    assert!(bench.sweeper.due().await.unwrap().0.is_empty());
    assert_eq!(bench.seen(&d).await, whole(4, 3));
}

/// A pass deletes below the revision that was live when the pass began: searches that began later may be pinned to it.
#[tokio::test]
async fn a_revision_replaced_during_the_grace_stays_for_the_next_pass() {
    let bench = Bench::new();
    let d = document("a.md");
    bench.publish_all(&parts(&d, revision(1), &[1])).await;
    bench.publish_all(&parts(&d, revision(2), &[1])).await;
    let due = bench.sweeper.due().await.unwrap();
    bench.publish_all(&parts(&d, revision(3), &[1])).await;
    bench.sweeper.sweep(due).await.unwrap();
    assert_eq!(bench.points(&d, revision(1)).await, 0);
    assert_eq!(bench.points(&d, revision(2)).await, 1);
    assert!(bench.head(&d).await.unwrap().sweep, "still due");
    bench.sweep().await;
    assert_eq!(bench.points(&d, revision(2)).await, 0);
}

/// Pass after pass by itself, with what came meanwhile, until it is told to stop.
#[tokio::test]
async fn the_sweeper_goes_on_by_itself() {
    let bench = Bench::new();
    let config = SweepConfig {
        grace: Duration::from_millis(1),
        heads: 2,
        keep_deleted: Duration::ZERO,
    };
    let sweeper = Sweeper::new(Arc::clone(&bench.index), config);
    let work = async {
        for n in 0..5 {
            let d = document(&format!("{n}.md"));
            bench.publish_all(&parts(&d, revision(1), &[1])).await;
            bench.publish_all(&parts(&d, revision(2), &[1])).await;
        }
        bench.publish(&deletion(&document("0.md"), revision(3))).await;
        let settled = async {
            while !bench.sweeper.due().await.unwrap().0.is_empty() || bench.head(&document("0.md")).await.is_some() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(MINUTE, settled)
            .await
            .expect("clean-up does not end");
    };
    tokio::select! {
        () = sweeper.run(|| 1000) => unreachable!("it runs until it is dropped"),
        () = work => {}
    }
    for n in 1..5 {
        let d = document(&format!("{n}.md"));
        assert_eq!(
            (bench.points(&d, revision(1)).await, bench.points(&d, revision(2)).await),
            (0, 1)
        );
    }
    assert_eq!(bench.points(&document("0.md"), revision(2)).await, 0);
}

#[tokio::test]
async fn heads_of_deleted_documents_are_forgotten_in_the_end() {
    let bench = Bench::new();
    let (d, live) = (document("a.md"), document("b.md"));
    bench.publish(&deletion(&d, revision(1))).await;
    bench.publish_all(&parts(&live, revision(2), &[1])).await;
    bench.index.forget_deleted(10).await.unwrap();
    assert!(bench.head(&d).await.is_some(), "its clean-up is not done yet");
    bench.sweep().await;
    bench.index.forget_deleted(1).await.unwrap();
    assert!(bench.head(&d).await.is_some(), "not old enough");
    bench.index.forget_deleted(2).await.unwrap();
    assert!(bench.head(&d).await.is_none());
    assert!(bench.head(&live).await.is_some());
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let bench = Bench::new();
    for n in 0..20 {
        let d = document(&format!("{n}.md"));
        bench.publish_all(&parts(&d, revision(n), &[2, 1])).await;
    }
    let before = bench.search(100).await;
    assert_eq!(before.hits.len(), 60);
    let bench = bench.reopen();
    assert_eq!(bench.search(100).await, before);
}

#[tokio::test]
async fn the_first_model_is_served_and_another_one_refused() {
    let folder = new_folder();
    let open = || Generations::open(folder.path(), OpenEmbedded::default());
    let generations = open().unwrap();
    assert!(generations.serving().is_none());
    let empty = generations.for_model(&millrace_events::Model::default()).await;
    assert!(matches!(empty, Err(GenerationError::NoModel(_))));
    let taken = open().unwrap_err();
    assert!(matches!(taken, GenerationError::Taken { .. }), "{taken}");
    let serving = generations.for_model(&model()).await.unwrap();
    assert_eq!(serving.generation, "tiny-f32-4-01234567");
    drop((serving, generations));

    let generations = open().unwrap();
    assert_eq!(generations.serving().unwrap().model, model());
    let other = millrace_events::Model {
        id: "larger".into(),
        ..model()
    };
    let refused = generations.for_model(&other).await.unwrap_err().to_string();
    assert!(
        refused.contains("larger-f32-4-01234567") && refused.contains("tiny-f32-4-01234567"),
        "{refused}"
    );
    let outside = new_folder();
    let generations = Generations::open(outside.path(), OpenEmbedded::default()).unwrap();
    let escaping = millrace_events::Model {
        id: "../x".into(),
        ..model()
    };
    assert!(matches!(
        generations.for_model(&escaping).await,
        Err(GenerationError::NoModel(_))
    ));
}
