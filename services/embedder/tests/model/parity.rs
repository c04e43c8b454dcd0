//! The same vectors as PyPI's onnxruntime and tokenizers compute of the same files, for each model that Millrace knows.

use std::path::{Path, PathBuf};

use millrace_embedder::batch::{BatchLimits, Class, batcher};
use millrace_embedder::model::{Loaded, ModelSource};

use crate::{cache, python, source};

const HERE: &str = env!("CARGO_MANIFEST_DIR");

/// Paragraphs of our own prose, and what tokenizers stumble over.
pub(crate) fn texts() -> Vec<String> {
    let prose = std::fs::read_to_string(Path::new(HERE).join("../../docs/guarantees.md")).unwrap();
    let paragraphs = prose
        .split("\n\n")
        .map(str::trim)
        .filter(|text| (20..1_200).contains(&text.len()));
    let odd = [
        "a",
        "Zürich, São Paulo, Łódź, naïve façade",
        "水车由河流推动。",
        "Мельница стоит у реки",
        "🦀 crab 🌊 river 🏞️",
        "line one\nline two\r\n\tline three",
        "x\u{200b}y\u{00ad}z \u{fb01}ne",
        "{\"id\": 42, \"tags\": [\"a\", \"b\"], \"nested\": {\"deep\": null}}",
        "fn main() { println!(\"{}\", 1 + 1); }",
        "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft",
    ];
    paragraphs
        .take(24)
        .map(str::to_owned)
        .chain(odd.map(str::to_owned))
        .collect()
}

/// A model that Millrace knows, and what its authors want done with it.
#[derive(Clone, Copy)]
pub(crate) struct Known {
    folder: &'static str,
    pooling: &'static str,
    document_prefix: &'static str,
    query_prefix: &'static str,
}

pub(crate) const MINILM: Known = Known {
    folder: "models/all-minilm-l6-v2-1.20.0-beta30",
    pooling: "mean",
    document_prefix: "",
    query_prefix: "",
};
pub(crate) const BGE_SMALL: Known = Known {
    folder: "models/bge-small-en-v1.5-1.20.0-beta30",
    pooling: "cls",
    document_prefix: "",
    query_prefix: "Represent this sentence for searching relevant passages: ",
};
pub(crate) const E5_SMALL: Known = Known {
    folder: "models/e5-small-v2-1.8.0-beta15",
    pooling: "mean",
    document_prefix: "passage: ",
    query_prefix: "query: ",
};

impl Known {
    pub(crate) fn dir(self) -> PathBuf {
        let dir = cache().join(self.folder);
        assert!(
            dir.exists(),
            "{} is missing: `./millrace fetch --all-models` puts it there",
            dir.display()
        );
        dir
    }
}

/// Holds what a backend computes against the reference. Opening it is blocking work.
pub(crate) async fn of_model(known: Known, open: impl FnOnce(PathBuf) -> Loaded + Send + 'static) {
    let Known {
        pooling,
        document_prefix,
        query_prefix,
        ..
    } = known;
    let (dir, model) = (known.dir(), known.dir());
    let loaded = tokio::task::spawn_blocking(move || open(model)).await.unwrap();
    let (embedder, batcher) = batcher(loaded, BatchLimits::default());
    let test = async move {
        for (class, prefix) in [(Class::Document, document_prefix), (Class::Query, query_prefix)] {
            // Query batches are small: those of documents show padding.
            let texts = match class {
                Class::Document => texts(),
                Class::Query => texts().split_off(20),
            };
            let ours = embedder.embed(texts.clone(), class).await.unwrap();
            let prefixed: Vec<String> = texts.iter().map(|text| format!("{prefix}{text}")).collect();
            let dir = dir.clone();
            let theirs = tokio::task::spawn_blocking(move || {
                let texts = serde_json::to_string(&prefixed).unwrap();
                python("reference.py", &[&dir.to_string_lossy(), pooling], &texts)
            });
            let theirs: Vec<Vec<f64>> = serde_json::from_str(&theirs.await.unwrap()).unwrap();
            assert_eq!(theirs.len(), ours.len());
            for ((text, ours), theirs) in texts.iter().zip(&ours).zip(&theirs) {
                assert_eq!(ours.values().len(), theirs.len());
                let pairs = ours.values().iter().zip(theirs);
                let apart = pairs
                    .map(|(ours, theirs)| (f64::from(*ours) - theirs).abs())
                    .fold(0.0, f64::max);
                assert!(apart <= 1e-5, "{apart} apart: {text}");
            }
        }
    };
    let (ended, ()) = tokio::join!(batcher.run(), test);
    ended.unwrap();
}

fn on_onnxruntime(dir: PathBuf) -> Loaded {
    Loaded::load(&ModelSource { dir, ..source() }).unwrap()
}

#[tokio::test]
async fn minilm_is_that_of_others() {
    of_model(MINILM, on_onnxruntime).await;
}

#[tokio::test]
async fn bge_small_is_that_of_others() {
    of_model(BGE_SMALL, on_onnxruntime).await;
}

#[tokio::test]
async fn e5_small_is_that_of_others() {
    of_model(E5_SMALL, on_onnxruntime).await;
}
