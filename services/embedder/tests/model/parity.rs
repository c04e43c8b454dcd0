//! The same vectors as PyPI's onnxruntime and tokenizers compute of the same files, for each model that Millrace knows.

use std::path::Path;

use millrace_embedder::batch::{BatchLimits, Class, batcher};
use millrace_embedder::model::{Loaded, ModelSource};

use crate::{cache, python, source};

const HERE: &str = env!("CARGO_MANIFEST_DIR");

/// Paragraphs of our own prose, and what tokenizers stumble over.
fn texts() -> Vec<String> {
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

async fn of_model(folder: &str, pooling: &str, document_prefix: &str, query_prefix: &str) {
    let dir = cache().join(folder);
    assert!(
        dir.exists(),
        "{} is missing: `./millrace fetch --all-models` puts it there",
        dir.display()
    );
    let model = dir.clone();
    let loaded = tokio::task::spawn_blocking(move || Loaded::load(&ModelSource { dir: model, ..source() }));
    let (embedder, batcher) = batcher(loaded.await.unwrap().unwrap(), BatchLimits::default());
    let test = async move {
        for (class, prefix) in [(Class::Document, document_prefix), (Class::Query, query_prefix)] {
            // Query batches are small: those of documents show padding.
            let texts = match class {
                Class::Document => texts(),
                Class::Query => texts().split_off(20),
            };
            let ours = embedder.embed(texts.clone(), class).await.unwrap();
            let prefixed: Vec<String> = texts.iter().map(|text| format!("{prefix}{text}")).collect();
            let (dir, pooling) = (dir.clone(), pooling.to_owned());
            let theirs = tokio::task::spawn_blocking(move || {
                let texts = serde_json::to_string(&prefixed).unwrap();
                python("reference.py", &[&dir.to_string_lossy(), &pooling], &texts)
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

#[tokio::test]
async fn minilm_is_that_of_others() {
    of_model("models/all-minilm-l6-v2-1.20.0-beta30", "mean", "", "").await;
}

#[tokio::test]
async fn bge_small_is_that_of_others() {
    let query = "Represent this sentence for searching relevant passages: ";
    of_model("models/bge-small-en-v1.5-1.20.0-beta30", "cls", "", query).await;
}

#[tokio::test]
async fn e5_small_is_that_of_others() {
    of_model("models/e5-small-v2-1.8.0-beta15", "mean", "passage: ", "query: ").await;
}
