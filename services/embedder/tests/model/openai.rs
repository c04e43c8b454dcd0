//! The embeddings API before OpenAI's own client.

use millrace_embedder::batch::{BatchLimits, Class, batcher};
use millrace_embedder::model::Loaded;
use millrace_embedder::openai;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{python, source};

#[tokio::test]
async fn openais_own_client_gets_the_vectors_and_the_refusals() {
    let (embedder, batches) = batcher(Loaded::load(&source()).unwrap(), BatchLimits::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let shutdown = CancellationToken::new();
    let serving = tokio::spawn(openai::serve(listener, embedder.clone(), shutdown.clone()));
    let test = async move {
        // More than a query has: these are bulk.
        let texts: Vec<String> = (0..70)
            .map(|at| format!("Mill number {at} stands at the river, Zürich."))
            .collect();
        let id = embedder.info().model.id.clone();
        let input = json!(texts).to_string();
        let seen = tokio::task::spawn_blocking(move || python("openai_client.py", &[&url, &id], &input));
        let seen: Value = serde_json::from_str(&seen.await.unwrap()).unwrap();

        let ours = embedder.embed(texts, Class::Document).await.unwrap();
        let vectors: Vec<Vec<f32>> = serde_json::from_value(seen["vectors"].clone()).unwrap();
        assert_eq!(vectors.len(), ours.len());
        for (theirs, ours) in vectors.iter().zip(&ours) {
            let apart = theirs
                .iter()
                .zip(ours.values())
                .map(|(a, b)| (a - b).abs())
                .fold(0.0, f32::max);
            assert!(theirs.len() == 384 && apart <= 1e-5, "{apart}");
        }
        let floats: Vec<f32> = serde_json::from_value(seen["floats"].clone()).unwrap();
        assert!(floats.iter().zip(&vectors[0]).all(|(a, b)| (a - b).abs() <= 1e-6));
        assert_eq!(seen["indexes"], json!((0..70).collect::<Vec<_>>()));
        assert_eq!(seen["model"], json!("all-minilm-l6-v2"));
        assert_eq!(seen["models"], json!(["all-minilm-l6-v2"]));
        assert!(
            seen["tokens"].as_u64().is_some_and(|tokens| tokens > 70 * 10),
            "{}",
            seen["tokens"]
        );
        for (case, class, status, code, param) in [
            ("empty", "BadRequestError", 400, None, "input"),
            ("empty_in_bulk", "BadRequestError", 400, None, "input"),
            ("long", "BadRequestError", 400, None, "input"),
            ("model", "NotFoundError", 404, Some("model_not_found"), "model"),
            ("dimensions", "BadRequestError", 400, None, "dimensions"),
            ("tokens", "BadRequestError", 400, None, "input"),
        ] {
            let expected = json!({"class": class, "status": status, "code": code, "param": param});
            assert_eq!(seen["refused"][case], expected, "{case}");
        }
        shutdown.cancel();
        serving.await.unwrap().unwrap();
        drop(embedder);
    };
    let (ended, ()) = tokio::join!(batches.run(), test);
    ended.unwrap();
}
