//! The backend, and the batcher around it, before an endpoint that misbehaves on request.

use std::path::Path;

use millrace_testkit::ModelEndpoint;
use millrace_testkit::model::{Misbehaviour, NOT_A_NUMBER, NULL, REFUSED, SHORT};
use millrace_tls::testing::Front;

use super::*;
use crate::batch::{BatchLimits, Class, EmbedError, Embedder, Health, batcher};
use crate::model::manifest::Pooling;
use crate::model::{Loaded, Manifest, tokenizer};

const DIMENSIONS: usize = 384;
const SECOND: Duration = Duration::from_secs(1);

fn options(stub: &ModelEndpoint, key: Key) -> EndpointOptions {
    EndpointOptions {
        url: stub.url.clone(),
        model: ModelEndpoint::MODEL.into(),
        ca_file: PathBuf::new(),
        key,
        timeout: SECOND,
        runtime: Handle::current(),
    }
}

async fn stub() -> ModelEndpoint {
    ModelEndpoint::start(DIMENSIONS, None).await.unwrap()
}

/// Asks as the model's thread does.
async fn ask(mut endpoint: Endpoint, texts: &[&str]) -> (Endpoint, Result<Vec<Vec<f32>>, BackendError>) {
    let tokenizer = tokenizer::tests::trapped(16).keeping_text();
    let tokens: Vec<Tokens> = texts.iter().map(|text| tokenizer.tokenize(text).unwrap()).collect();
    tokio::task::spawn_blocking(move || {
        let answer = endpoint.embed(&tokens.iter().collect::<Vec<_>>());
        (endpoint, answer)
    })
    .await
    .unwrap()
}

async fn ask_once(options: EndpointOptions, texts: &[&str]) -> Result<Vec<Vec<f32>>, BackendError> {
    ask(Endpoint::new(options, DIMENSIONS).unwrap(), texts).await.1
}

#[tokio::test]
async fn a_vector_for_each_text_in_their_order() {
    let stub = stub().await;
    let texts = ["one mill", "a river", "two mills and a river"];
    let vectors = ask_once(options(&stub, Key::None), &texts).await.unwrap();
    for (text, found) in texts.iter().zip(vectors) {
        let expected = millrace_testkit::model::vector(text, DIMENSIONS);
        assert!(expected.iter().zip(&found).all(|(a, b)| (a - b).abs() < 1e-6), "{text}");
    }
    assert_eq!((stub.counts().calls, stub.counts().texts), (1, 3));
}

/// The rows without an answer, and those whose body matters; the others stand beside the table.
#[tokio::test]
async fn what_befalls_a_call_has_its_class_and_quotes_nothing() {
    let stub = stub().await;
    let (broken, config) = ("broken", "config");
    for (misbehaviour, class) in [
        (Misbehaviour::Hang, broken),
        (Misbehaviour::HangUp, broken),
        (Misbehaviour::Cut, broken),
        (Misbehaviour::Html, broken),
        (Misbehaviour::Status(500), broken),
        (Misbehaviour::Slow(2 * SECOND), broken),
        (Misbehaviour::Status(404), config),
        (Misbehaviour::RateLimit { retry_after: None }, "patience"),
    ] {
        stub.misbehave(misbehaviour);
        let error = ask_once(options(&stub, Key::None), &["SECRET"]).await.unwrap_err();
        let found = match &error {
            BackendError::Outage(Outage::Broken(_)) => broken,
            BackendError::Outage(Outage::Config(_)) => config,
            BackendError::Outage(Outage::RateLimited { .. }) => "patience",
            BackendError::Failed(_) | BackendError::Refused(_) | BackendError::TooLarge(_) => "the text's fault",
        };
        assert_eq!(found, class, "{misbehaviour:?}: {error}");
        assert!(
            !error.to_string().contains("SECRET") && !error.to_string().contains("/v1"),
            "{error}"
        );
    }
    let options = options(&stub, Key::None);
    drop(stub);
    let error = ask_once(options, &["a"]).await.unwrap_err().to_string();
    assert!(error.starts_with("cannot connect"), "{error}");
}

#[tokio::test]
async fn an_endpoint_that_asks_for_patience_is_left_alone() {
    let stub = stub().await;
    let retry_after = Some(60 * SECOND);
    stub.misbehave_for_calls(Misbehaviour::RateLimit { retry_after }, 1);
    let mut endpoint = Endpoint::new(options(&stub, Key::None), DIMENSIONS).unwrap();
    for _ in 0..3 {
        let (returned, answer) = ask(endpoint, &["a"]).await;
        let Err(BackendError::Outage(Outage::RateLimited { retry_after })) = answer else {
            panic!("{answer:?}");
        };
        assert!(
            retry_after > 50 * SECOND && retry_after <= 60 * SECOND,
            "{retry_after:?}"
        );
        endpoint = returned;
    }
    assert_eq!((stub.counts().calls, stub.counts().rate_limited), (1, 1));
    endpoint.patience_until = Some(Instant::now());
    assert!(ask(endpoint, &["a"]).await.1.is_ok());
}

#[tokio::test]
async fn the_key_is_shown_to_the_endpoint_and_to_nobody_else() {
    let stub = ModelEndpoint::start(DIMENSIONS, Some("hunter2")).await.unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "hunter2\n").unwrap();
    let right = [Key::Given(Secret::new("hunter2")), Key::File(file.path().to_owned())];
    for key in right {
        let endpoint = Endpoint::new(options(&stub, key), DIMENSIONS).unwrap();
        assert!(!format!("{endpoint:?}").contains("hunter2"));
        assert!(ask(endpoint, &["a"]).await.1.is_ok());
    }
    for key in [Key::None, Key::Given(Secret::new("hunter3"))] {
        let error = ask_once(options(&stub, key), &["a"]).await.unwrap_err();
        let expected = Outage::Config("HTTP 401, invalid_api_key".into());
        assert_eq!(error, BackendError::Outage(expected));
    }
    let missing = Endpoint::new(options(&stub, Key::File("/nowhere".into())), DIMENSIONS).unwrap_err();
    assert!(missing.to_string().contains("/nowhere"), "{missing}");
    for key in ["", " ", "hunter2\nX: y"] {
        let error = Endpoint::new(options(&stub, Key::Given(Secret::new(key))), DIMENSIONS).unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}

/// A batcher around an endpoint that has not been asked yet.
async fn with_batcher<F: Future<Output = ()>>(test: impl FnOnce(Embedder, ModelEndpoint) -> F) {
    let stub = stub().await;
    let backend = Endpoint::new(options(&stub, Key::None), DIMENSIONS).unwrap();
    let model = Loaded {
        manifest: Manifest {
            id: "stub".into(),
            dtype: "f32".into(),
            dimensions: DIMENSIONS,
            pooling: Pooling::Mean,
            query_prefix: String::new(),
            document_prefix: String::new(),
            normalized: true,
            max_tokens: 16,
            sha256: "0".repeat(64),
        },
        tokenizer: tokenizer::tests::trapped(16).keeping_text(),
        backend: Box::new(backend),
        proven: false,
    };
    let (embedder, batcher) = batcher(model, BatchLimits::default());
    assert!(matches!(&*embedder.health().borrow(), Health::Broken(_)));
    let test = test(embedder, stub);
    let (ended, ()) = tokio::join!(batcher.run(), test);
    ended.unwrap();
}

async fn good(embedder: &Embedder) {
    let mut health = embedder.health();
    let good = health.wait_for(|health| *health == Health::Good);
    tokio::time::timeout(30 * SECOND, good).await.unwrap().unwrap();
}

async fn embed(embedder: &Embedder, texts: &[&str]) -> Result<usize, EmbedError> {
    let texts = texts.iter().map(|text| (*text).to_owned()).collect();
    Ok(embedder.embed(texts, Class::Document).await?.len())
}

#[tokio::test]
async fn it_is_good_once_its_canary_has_sung() {
    with_batcher(|embedder, stub| async move {
        good(&embedder).await;
        assert_eq!((stub.counts().calls, stub.counts().texts), (1, 3));
        assert_eq!(embed(&embedder, &["a", "b"]).await, Ok(2));
    })
    .await;
}

/// Long enough to share a batch with a text that holds a marker.
const MATE: &str = "a b a b a b";

#[tokio::test]
async fn a_text_that_is_refused_or_fails_costs_its_batch_mates_nothing() {
    with_batcher(|embedder, stub| async move {
        good(&embedder).await;
        for marker in [REFUSED, NULL, NOT_A_NUMBER, SHORT] {
            let bad = format!("a {marker}");
            let bad = [MATE, bad.as_str()];
            let (one, two, failed, last) = tokio::join!(
                embed(&embedder, &[MATE]),
                embed(&embedder, &[MATE, MATE]),
                embed(&embedder, &bad),
                embed(&embedder, &[MATE]),
            );
            assert_eq!((one, two, last), (Ok(1), Ok(2), Ok(1)), "{marker}");
            let found = failed.unwrap_err();
            match marker {
                REFUSED => assert!(matches!(found, EmbedError::Refused { index: 1, .. }), "{found}"),
                _ => assert!(matches!(found, EmbedError::Failed { index: 1, .. }), "{found}"),
            }
            assert!(!found.to_string().contains(marker), "{found}");
            assert_eq!(*embedder.health().borrow(), Health::Good);
        }
        assert!(stub.counts().refused > 1, "{:?}", stub.counts());
    })
    .await;
}

#[tokio::test]
async fn an_endpoint_that_refuses_everything_is_broken_and_no_texts_fault() {
    with_batcher(|embedder, stub| async move {
        good(&embedder).await;
        for misbehaviour in [Misbehaviour::Status(400), Misbehaviour::OneTooFew] {
            stub.misbehave(misbehaviour);
            let error = embed(&embedder, &["a", "b"]).await.unwrap_err();
            assert!(
                matches!(error, EmbedError::Outage(Outage::Broken(_))),
                "{misbehaviour:?}: {error}"
            );
            assert!(matches!(&*embedder.health().borrow(), Health::Broken(_)));
            stub.behave();
            good(&embedder).await;
        }
    })
    .await;
}

#[tokio::test]
async fn an_outage_is_one_call_and_over_by_itself() {
    with_batcher(|embedder, stub| async move {
        good(&embedder).await;
        stub.misbehave_for_calls(Misbehaviour::Status(503), 1);
        let error = embed(&embedder, &["a", "b", "a b", "b a"]).await.unwrap_err();
        assert_eq!(
            error,
            EmbedError::Outage(Outage::Broken("HTTP 503, server_error".into()))
        );
        assert_eq!(stub.counts().failed, 1);
        good(&embedder).await;
        assert!(embed(&embedder, &["a"]).await.is_ok());
    })
    .await;
}

#[tokio::test]
async fn a_request_for_patience_does_not_make_it_broken() {
    with_batcher(|embedder, stub| async move {
        good(&embedder).await;
        let retry_after = Some(60 * SECOND);
        stub.misbehave_for_calls(Misbehaviour::RateLimit { retry_after }, 1);
        for class in [Class::Document, Class::Query] {
            let error = embedder.embed(vec!["a".into(), "b".into()], class).await.unwrap_err();
            let EmbedError::Outage(Outage::RateLimited { retry_after }) = error else {
                panic!("{error}");
            };
            assert!(retry_after > 50 * SECOND, "{retry_after:?}");
        }
        assert_eq!(*embedder.health().borrow(), Health::Good);
        // The canary's, and one.
        assert_eq!(stub.counts().calls, 2);
    })
    .await;
}

#[tokio::test]
async fn over_tls_only_whom_we_trust_is_shown_the_key() {
    let stub = ModelEndpoint::start(DIMENSIONS, Some("hunter2")).await.unwrap();
    let address = stub.url.trim_start_matches("http://").trim_end_matches("/v1");
    let (front, other) = (
        Front::before(address.parse().unwrap()).await,
        Front::before(address.parse().unwrap()).await,
    );
    let trusting = |ca_file: &Path| EndpointOptions {
        url: format!("https://localhost:{}/v1", front.port),
        ca_file: ca_file.to_owned(),
        ..options(&stub, Key::Given(Secret::new("hunter2")))
    };
    let vectors = ask_once(trusting(front.ca_file()), &["one mill", "a river"]).await;
    assert_eq!((vectors.unwrap().len(), stub.counts().calls), (2, 1));
    let error = ask_once(trusting(other.ca_file()), &["a"]).await.unwrap_err();
    assert!(matches!(error, BackendError::Outage(Outage::Broken(_))), "{error}");
    assert!(error.to_string().contains("certificate"), "{error}");
    assert_eq!(stub.counts().calls, 1, "it was asked");
    let missing = Endpoint::new(trusting(Path::new("/nowhere/ca.pem")), DIMENSIONS);
    let told = millrace_rpc::error::chain(&missing.unwrap_err());
    assert!(told.contains("/nowhere/ca.pem"), "{told}");
}
