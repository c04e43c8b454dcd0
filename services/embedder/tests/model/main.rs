//! The real model on the real runtime. Needs both on disk: `./millrace fetch` puts them into the cache, or the
//! variables below name them.
#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests are outside of what clippy knows as tests"
)]

mod device;
mod openai;
mod openvino;
mod parity;

use std::path::{Path, PathBuf};

use millrace_embedder::batch::{BatchLimits, Class, EmbedError, Embedder, batcher};
use millrace_embedder::bench;
use millrace_embedder::model::onnx::Provider;
use millrace_embedder::model::{Loaded, ModelError, ModelSource, TextError, Vector};
use millrace_testkit::python::Python;

const MODEL: &str = "models/all-minilm-l6-v2-1.20.0-beta30";
const RUNTIME: &str = if cfg!(target_os = "macos") {
    "onnxruntime-1.29.0/libonnxruntime.dylib"
} else {
    "onnxruntime-1.29.0/libonnxruntime.so"
};

/// What a script of `tests/python` says, given this on stdin. Blocking.
fn python(script: &str, arguments: &[&str], stdin: &str) -> String {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python");
    let requirements = std::fs::read_to_string(scripts.join("requirements.txt")).unwrap();
    let python = Python::with(&requirements, Path::new(env!("CARGO_TARGET_TMPDIR"))).unwrap();
    python.run(&scripts.join(script), arguments, stdin).unwrap()
}

/// The user's cache.
fn cache() -> PathBuf {
    std::env::var_os("MILLRACE_CACHE")
        .map(PathBuf::from)
        .unwrap_or_else(|| {
            let home = std::env::var_os("HOME").expect("HOME or MILLRACE_CACHE is set");
            Path::new(&home).join(".cache/millrace")
        })
}

fn source() -> ModelSource {
    let cache = cache();
    let find = |variable: &str, cached: &str| {
        let path = std::env::var_os(variable).map_or_else(|| cache.join(cached), PathBuf::from);
        assert!(
            path.exists(),
            "{} is missing: `./millrace fetch` puts it there (or {variable} names another place)",
            path.display()
        );
        path
    };
    ModelSource {
        dir: find("MILLRACE_TEST_MODEL_DIR", MODEL),
        onnxruntime: find("MILLRACE_TEST_ONNXRUNTIME", RUNTIME),
        threads: None,
        provider: Provider::Cpu,
    }
}

/// Runs a test against the batcher around the real model.
async fn with_model<F: Future<Output = ()>>(test: impl FnOnce(Embedder) -> F) {
    let (embedder, batcher) = batcher(Loaded::load(&source()).unwrap(), BatchLimits::default());
    let (ended, ()) = tokio::join!(batcher.run(), test(embedder));
    ended.unwrap();
}

async fn embed(embedder: &Embedder, texts: &[&str]) -> Vec<Vector> {
    let texts = texts.iter().map(|text| (*text).to_owned()).collect();
    embedder.embed(texts, Class::Query).await.unwrap()
}

#[tokio::test]
async fn it_gives_the_similarities_that_its_authors_publish() {
    with_model(|embedder| async move {
        let vectors = embed(
            &embedder,
            &[
                "That is a happy person",
                "That is a happy dog",
                "That is a very happy person",
                "Today is a sunny day",
            ],
        )
        .await;
        // The model card's own example.
        for (vector, published) in vectors[1..].iter().zip([0.694_577, 0.942_915, 0.256_876]) {
            let found = vectors[0].cosine(vector);
            assert!((found - published).abs() < 1e-3, "{found} instead of {published}");
        }
    })
    .await;
}

#[tokio::test]
async fn known_pairs_rank_as_they_should() {
    const PAIRS: [(&str, &str); 6] = [
        (
            "how to bake bread at home",
            "Mix flour, water, salt and yeast, let the dough rise, then put it in the oven.",
        ),
        (
            "reset a forgotten password",
            "If you cannot log in, request a link by mail that lets you choose new credentials.",
        ),
        (
            "what causes earthquakes",
            "Tectonic plates slip along faults and release stored elastic energy as seismic waves.",
        ),
        (
            "retry a failed network request",
            "The client waits with exponential backoff and then sends the call again.",
        ),
        (
            "symptoms of the flu",
            "Patients report fever, aching muscles, cough and great tiredness.",
        ),
        (
            "deadlock between two threads",
            "Each holds one mutex while it waits for the other's, so neither makes progress.",
        ),
    ];
    with_model(|embedder| async move {
        let queries = embed(&embedder, &PAIRS.map(|(query, _)| query)).await;
        let passages = embed(&embedder, &PAIRS.map(|(_, passage)| passage)).await;
        for (at, query) in queries.iter().enumerate() {
            let best = (0..passages.len()).max_by(|a, b| {
                let score = |at: &usize| query.cosine(&passages[*at]);
                score(a).total_cmp(&score(b))
            });
            assert_eq!(
                best,
                Some(at),
                "{:?} finds {:?}",
                PAIRS[at].0,
                best.map(|at| PAIRS[at].1)
            );
        }
    })
    .await;
}

#[tokio::test]
async fn a_vector_does_not_depend_on_its_batch_mates() {
    const TEXT: &str = "A batch of documents shares the model, and nobody can tell from a vector who was beside it.";
    with_model(|embedder| async move {
        let alone = embed(&embedder, &[TEXT]).await.remove(0);
        let length: f32 = alone.values().iter().map(|value| value * value).sum();
        assert_eq!(alone.values().len(), 384);
        assert!((length - 1.0).abs() < 1e-5, "squared length {length}");
        for words in [2, 8, 16, 24, 40] {
            // Mates of about its length end up in its batch, and both shorter and longer ones among them.
            let mates = (0..12).map(|n| format!("{n} {}", "stone river ".repeat(words / 2)));
            let texts = mates.chain([TEXT.to_owned()]).collect();
            let together = embedder.embed(texts, Class::Document).await.unwrap().remove(12);
            let apart = alone
                .values()
                .iter()
                .zip(together.values())
                .map(|(a, b)| (a - b).abs())
                .fold(0.0, f32::max);
            assert!(apart <= 1e-5, "{apart} apart beside texts of {words} words");
        }
    })
    .await;
}

#[tokio::test]
async fn a_long_text_counts_to_its_end_and_a_longer_one_is_refused() {
    with_model(|embedder| async move {
        // 512 tokens with the two special ones: the tokenizer file would cut at 128.
        let longest = "river ".repeat(510);
        let changed = format!("{}volcano", "river ".repeat(509));
        let vectors = embed(&embedder, &[&longest, &changed]).await;
        assert!(vectors[0].cosine(&vectors[1]) < 0.9999);
        let refused = embedder.embed(vec!["river ".repeat(511)], Class::Query).await;
        let source = TextError::TooManyTokens {
            tokens: 513,
            max_tokens: 512,
        };
        assert_eq!(refused, Err(EmbedError::Text { index: 0, source }));
        let empty = embedder.embed(vec![String::new()], Class::Document).await;
        assert!(matches!(
            empty,
            Err(EmbedError::Text {
                source: TextError::Empty,
                ..
            })
        ));
    })
    .await;
}

#[test]
fn another_model_file_does_not_start() {
    let good = source();
    let dir = tempfile::tempdir().unwrap();
    for file in ["tokenizer.json", "model.toml"] {
        std::fs::copy(good.dir.join(file), dir.path().join(file)).unwrap();
    }
    std::fs::write(dir.path().join("model.onnx"), "not the model").unwrap();
    let dir = dir.path().to_owned();
    let error = Loaded::load(&ModelSource { dir, ..good }).err().unwrap();
    assert!(matches!(error, ModelError::Checksum { .. }), "{error}");
}

#[test]
fn the_model_alone_is_measured() {
    let chunks = (1..20).map(|n| "water over the wheel ".repeat(n)).collect();
    assert!(bench::model_alone(&source(), chunks, 8).unwrap() > 0.0);
    assert!(bench::model_alone(&source(), Vec::new(), 8).is_err());
}
