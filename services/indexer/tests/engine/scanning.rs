//! Reading a collection through, and deleting exactly what is named.

use std::collections::BTreeSet;

use millrace_events::{DocumentKey, Tenant};
use millrace_indexer::index::{Scope, Stored, VectorIndex};

use crate::kit::*;

async fn all(index: &dyn VectorIndex, scope: Scope, page: usize) -> Vec<Stored> {
    let (mut points, mut from) = (Vec::new(), None);
    loop {
        let read = index.scan(scope.clone(), from, page).await.unwrap();
        assert!(read.points.len() <= page);
        points.extend(read.points);
        match read.next {
            Some(next) => from = Some(next),
            None => return points,
        }
    }
}

/// Document, revision (-1 of a head), ordinal, staged.
fn names(points: &[Stored]) -> BTreeSet<(String, i64, i32, bool)> {
    let name = |point: &Stored| match point {
        Stored::Head(document, _) => (document.to_string(), -1, 0, false),
        Stored::Chunk {
            document,
            revision,
            ordinal,
            staged,
        } => (document.to_string(), revision.offset(), *ordinal, *staged),
    };
    points.iter().map(name).collect()
}

#[tokio::test]
async fn a_scan_meets_every_point_once_in_pages_of_any_size() {
    let bench = Bench::new();
    for n in 0..7 {
        let d = document(&format!("{n}.md"));
        bench.publish_all(&parts(&d, revision(n), &[2, 1])).await;
    }
    let theirs = DocumentKey::new("other", "0.md").unwrap();
    bench.publish_all(&parts(&theirs, revision(9), &[1])).await;
    let late = parts(&document("0.md"), revision(10), &[1, 1]);
    bench.publish(&late[0]).await;
    for page in [1, 4, 30, 31, 1000] {
        let points = all(&*bench.index, Scope::default(), page).await;
        assert_eq!(points.len(), 7 * 4 + 2 + 1, "pages of {page}");
        assert_eq!(names(&points).len(), points.len());
    }
    let of = |documents: &[&str]| Scope {
        tenant: Some(Tenant::new("acme").unwrap()),
        documents: documents.iter().map(|name| document(name)).collect(),
    };
    assert_eq!(all(&*bench.index, of(&[]), 5).await.len(), 29);
    let one = all(&*bench.index, of(&["0.md"]), 2).await;
    let a = |revision, ordinal, staged| ("acme/0.md".to_owned(), revision, ordinal, staged);
    assert_eq!(
        names(&one),
        [
            a(-1, 0, false),
            a(0, 0, false),
            a(0, 1, false),
            a(0, 2, false),
            a(10, 0, true)
        ]
        .into()
    );
    let heads = one.iter().filter_map(|point| match point {
        Stored::Head(_, head) => Some((head.live, head.chunk_count)),
        Stored::Chunk { .. } => None,
    });
    assert_eq!(heads.collect::<Vec<_>>(), [(revision(0), 3)]);
}

#[tokio::test]
async fn only_what_is_named_is_deleted() {
    let bench = Bench::new();
    let (d, other) = (document("a.md"), document("b.md"));
    for of in [&d, &other] {
        bench.publish_all(&parts(of, revision(1), &[4])).await;
        bench.publish_all(&parts(of, revision(2), &[3])).await;
    }
    bench.index.delete_chunks(d.clone(), revision(1), 2).await.unwrap();
    assert_eq!(
        (bench.points(&d, revision(1)).await, bench.points(&d, revision(2)).await),
        (2, 3)
    );
    bench.index.delete_chunks(d.clone(), revision(1), 0).await.unwrap();
    assert_eq!(bench.points(&d, revision(1)).await, 0);
    bench.index.delete_head(d.clone(), revision(1)).await.unwrap();
    assert!(bench.head(&d).await.is_some(), "it stands at another revision");
    bench.index.delete_head(d.clone(), revision(2)).await.unwrap();
    assert!(bench.head(&d).await.is_none());
    assert_eq!(bench.points(&d, revision(2)).await, 3);
    assert_eq!(bench.points(&other, revision(1)).await, 4);
    assert_eq!(bench.seen(&other).await, whole(2, 3));
}
