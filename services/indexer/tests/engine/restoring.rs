//! Rows 10 to 12 of the publish table: what an audit sends again.

use millrace_indexer::publish::{Part, Published};

use crate::kit::*;

impl Bench {
    async fn restore_all(&self, parts: &[Part]) {
        for part in parts {
            part.check(DIMENSIONS).unwrap();
            self.publisher.restore(part.clone(), 2).await.unwrap();
        }
    }
}

#[tokio::test]
async fn what_came_since_counts() {
    let bench = Bench::new();
    let d = document("a.md");
    let first = parts(&d, revision(1), &[2, 2]);
    bench.publish_all(&first).await;
    bench.publish_all(&parts(&d, revision(2), &[1])).await;
    bench.sweep().await;
    bench.restore_all(&first).await;
    assert_eq!(
        (bench.seen(&d).await, bench.points(&d, revision(1)).await),
        (whole(2, 1), 0)
    );
    bench.publish(&deletion(&d, revision(3))).await;
    bench.restore_all(&parts(&d, revision(2), &[1])).await;
    bench.restore_all(&parts(&d, revision(3), &[1])).await;
    assert!(bench.seen(&d).await.is_empty());
    assert_eq!(bench.points(&d, revision(3)).await, 0);
}

#[tokio::test]
async fn a_live_revision_gets_its_points_back_and_keeps_its_head() {
    let bench = Bench::new();
    let d = document("a.md");
    let all = parts(&d, revision(1), &[2, 2]);
    bench.publish_all(&all).await;
    let head = bench.head(&d).await;
    bench.index.delete_chunks(d.clone(), revision(1), 1).await.unwrap();
    assert_eq!(bench.seen(&d).await[&1].len(), 1);
    bench.restore_all(&all).await;
    assert_eq!((bench.seen(&d).await, bench.head(&d).await), (whole(1, 4), head));
    bench.restore_all(&all).await;
    assert_eq!(bench.seen(&d).await, whole(1, 4), "again is the same");
}

#[tokio::test]
async fn a_lost_or_older_head_moves_once_all_parts_came() {
    for behind in [false, true] {
        let bench = Bench::new();
        let d = document("a.md");
        if behind {
            bench.publish_all(&parts(&d, revision(1), &[1])).await;
        }
        let all = parts(&d, revision(2), &[2, 2]);
        bench.restore_all(&all[..1]).await;
        assert!(!bench.seen(&d).await.contains_key(&2), "a half is not seen");
        bench.restore_all(&all[1..]).await;
        assert_eq!(bench.seen(&d).await, whole(2, 4));
        let superseded = Published::Superseded { by: revision(2) };
        assert_eq!(bench.publish_all(&parts(&d, revision(1), &[1])).await, superseded);
    }
}
