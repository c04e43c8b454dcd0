use std::sync::Mutex;

use futures::FutureExt;
use futures::future::BoxFuture;
use millrace_api::indexer::v1::Vector;
use millrace_events::{Epoch, Model, Revision, TraceContext};
use tempfile::TempDir;

use super::*;
use crate::embedder::Embedded;
use crate::index::ChunkPoint;
use crate::index::embedded::OpenEmbedded;
use crate::publish::{Content, Part, Publisher};

fn model() -> Model {
    Model {
        id: "tiny".into(),
        revision: "0123456789".into(),
        dimensions: 2,
        dtype: "f32".into(),
        normalized: true,
    }
}

/// Answers with what it was told to, and remembers what it was asked.
#[derive(Default)]
struct Embedder {
    answer: Mutex<Option<Result<Embedded, Status>>>,
    asked: Mutex<Vec<(String, Duration)>>,
}

impl EmbedQuery for Embedder {
    fn embed(&self, text: String, within: Duration, _: TraceContext) -> BoxFuture<'_, Result<Embedded, Status>> {
        self.asked.lock().unwrap().push((text, within));
        let answer = self.answer.lock().unwrap().take().unwrap();
        futures::future::ready(answer).boxed()
    }
}

struct Bench {
    search: Search,
    embedder: Arc<Embedder>,
    _folder: TempDir,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let embedder = Arc::new(Embedder::default());
        let search = Search {
            generations: Generations::open(folder.path(), OpenEmbedded::default()).unwrap(),
            embedder: embedder.clone(),
            longest: Duration::from_secs(30),
        };
        Self {
            search,
            embedder,
            _folder: folder,
        }
    }

    async fn with_a_document() -> Self {
        let bench = Self::new();
        let serving = bench.search.generations.for_model(&model()).await.unwrap();
        let part = Part {
            document: DocumentKey::new("acme", "guide/a.md").unwrap(),
            revision: Revision::new(Epoch::FIRST, 7).unwrap(),
            part: 0,
            parts: 1,
            content: Content::Chunks {
                chunk_count: 1,
                points: vec![ChunkPoint {
                    ordinal: 0,
                    vector: vec![0.6, 0.8],
                    text: "hello".into(),
                    section: vec!["Top".into()],
                    start_byte: 3,
                    end_byte: 8,
                }],
            },
        };
        Publisher::new(serving.index).publish(part, 1).await.unwrap();
        bench
    }

    async fn search(&self, request: SearchRequest) -> Result<SearchResponse, Status> {
        self.search
            .search(Request::new(request))
            .await
            .map(Response::into_inner)
    }

    async fn search_text(&self, answer: Result<Embedded, Status>) -> Result<SearchResponse, Status> {
        *self.embedder.answer.lock().unwrap() = Some(answer);
        self.search(by_text("hi")).await
    }
}

fn by_vector(values: &[f32]) -> SearchRequest {
    SearchRequest {
        tenant: "acme".into(),
        query: Some(Query::Vector(Vector {
            values: values.to_vec(),
        })),
        ..SearchRequest::default()
    }
}

fn by_text(text: &str) -> SearchRequest {
    SearchRequest {
        query: Some(Query::Text(text.into())),
        ..by_vector(&[])
    }
}

#[tokio::test]
async fn a_hit_tells_where_it_stands() {
    let bench = Bench::with_a_document().await;
    let answer = bench.search(by_vector(&[3.0, 4.0])).await.unwrap();
    let [hit] = &answer.hits[..] else { panic!("{answer:?}") };
    assert!((hit.score - 1.0).abs() < 1e-6 && !answer.partial);
    assert_eq!((hit.document_id.as_str(), hit.revision), ("guide/a.md", (1 << 48) + 7));
    assert_eq!((hit.text.as_str(), hit.start_byte, hit.end_byte), ("hello", 3, 8));
    assert_eq!(hit.section, ["Top"]);
}

#[tokio::test]
async fn what_cannot_be_searched_is_refused_with_the_field() {
    let bench = Bench::with_a_document().await;
    let many = vec!["d".to_owned(); MAX_DOCUMENTS + 1];
    let cases = [
        (
            SearchRequest {
                tenant: String::new(),
                ..by_text("x")
            },
            "INVALID_TENANT",
        ),
        (SearchRequest { k: -1, ..by_text("x") }, "INVALID_K"),
        (
            SearchRequest {
                k: 1001,
                ..by_text("x")
            },
            "INVALID_K",
        ),
        (
            SearchRequest {
                min_score: Some(f32::NAN),
                ..by_text("x")
            },
            "INVALID_MIN_SCORE",
        ),
        (
            SearchRequest {
                document_ids: vec!["a".into(), "b\n".into()],
                ..by_text("x")
            },
            "INVALID_DOCUMENT_ID",
        ),
        (
            SearchRequest {
                document_ids: many,
                ..by_text("x")
            },
            "TOO_MANY_DOCUMENTS",
        ),
        (
            SearchRequest {
                query: None,
                ..by_text("x")
            },
            "QUERY_MISSING",
        ),
        (by_text("  \n"), "TEXT_EMPTY"),
        (by_text(&"ü".repeat(4097)), "TEXT_TOO_LONG"),
        (by_vector(&[1.0]), "VECTOR_DIMENSIONS"),
        (by_vector(&[1.0, f32::INFINITY]), "VECTOR_NOT_FINITE"),
        (by_vector(&[0.0, 0.0]), "VECTOR_LENGTH"),
        (by_vector(&[f32::MAX, 1.0]), "VECTOR_LENGTH"),
    ];
    for (request, reason) in cases {
        let refused = bench.search(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{reason}");
        assert_eq!(error::reason(&refused).as_deref(), Some(reason));
    }
    assert!(bench.embedder.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_text_is_embedded_within_the_callers_time() {
    let bench = Bench::with_a_document().await;
    let vector = vec![0.6, 0.8];
    let answer = bench
        .search_text(Ok(Embedded { vector, model: model() }))
        .await
        .unwrap();
    assert_eq!(answer.hits.len(), 1);
    let asked = bench.embedder.asked.lock().unwrap().pop().unwrap();
    assert_eq!(asked, ("hi".to_owned(), Duration::from_secs(30)));
}

#[tokio::test]
async fn each_way_the_embedder_fails_has_its_own_answer() {
    let bench = Bench::with_a_document().await;
    let cases = [
        (
            Status::unavailable("gone"),
            Code::Unavailable,
            Some("EMBEDDER_UNAVAILABLE"),
        ),
        (
            Status::internal("broken"),
            Code::Unavailable,
            Some("EMBEDDER_UNAVAILABLE"),
        ),
        (
            Status::invalid_argument("too long"),
            Code::InvalidArgument,
            Some("TEXT_REFUSED"),
        ),
        (Status::deadline_exceeded("late"), Code::DeadlineExceeded, None),
    ];
    for (said, code, reason) in cases {
        let answer = bench.search_text(Err(said)).await.unwrap_err();
        assert_eq!((answer.code(), error::reason(&answer).as_deref()), (code, reason));
        assert_eq!(error::retry_after(&answer).is_some(), code == Code::Unavailable);
    }
    let other = Model {
        id: "larger".into(),
        ..model()
    };
    let embedded = Embedded {
        vector: vec![0.6, 0.8],
        model: other,
    };
    let refused = bench.search_text(Ok(embedded)).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("larger-f32-2-01234567"), "{refused}");
}

#[tokio::test]
async fn before_the_first_vectors_nothing_is_found() {
    let bench = Bench::new();
    assert_eq!(bench.search(by_text("hi")).await.unwrap(), SearchResponse::default());
    assert!(
        bench.embedder.asked.lock().unwrap().is_empty(),
        "the embedder is not needed for it"
    );
    assert!(
        bench.search(by_text("")).await.is_err(),
        "a bad request is refused all the same"
    );
}
