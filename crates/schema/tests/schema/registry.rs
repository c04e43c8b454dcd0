//! The client against scripted HTTP answers. The real registry is met in the end-to-end tests.
// Clippy takes only `#[test]` functions for tests, not what they call.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use millrace_schema::{Registry, RegistryError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

/// Answers one request after the other from a script and keeps what was asked.
struct Script {
    base: String,
    asked: Arc<Mutex<Vec<String>>>,
    server: JoinHandle<()>,
}

impl Drop for Script {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Script {
    async fn play(answers: &[(u16, &str)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://user:secret@{}/apis/ccompat/v7/", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let answers: Vec<(u16, String)> = answers.iter().map(|(s, b)| (*s, (*b).to_owned())).collect();
        let log = asked.clone();
        let server = tokio::spawn(async move {
            for (status, body) in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = Vec::new();
                while !is_whole(&request) {
                    if stream.read_buf(&mut request).await.unwrap() == 0 {
                        break;
                    }
                }
                log.lock().await.push(String::from_utf8(request).unwrap());
                let length = body.len();
                let answer =
                    format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}");
                stream.write_all(answer.as_bytes()).await.unwrap();
                stream.shutdown().await.unwrap();
            }
        });
        Self { base, asked, server }
    }

    fn registry(&self) -> Registry {
        Registry::new(&self.base).unwrap()
    }

    async fn first_lines(&self) -> Vec<String> {
        let asked = self.asked.lock().await;
        asked
            .iter()
            .map(|r| r.lines().next().unwrap_or_default().to_owned())
            .collect()
    }
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head
        .lines()
        .find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
    body.len() >= length.unwrap_or(0)
}

const NO_SUBJECT: &str = r#"{"error_code":40401,"message":"Subject 's' not found."}"#;

#[tokio::test]
async fn what_is_found_is_asked_for_once() {
    let script = Script::play(&[
        (200, r#"{"subject":"s","id":7,"version":1,"schema":"x"}"#),
        (200, r#"{"schema":"{}"}"#),
    ])
    .await;
    let registry = script.registry();
    for _ in 0..3 {
        assert_eq!(registry.lookup("a/b c", "{}").await.unwrap(), Some(7));
        assert_eq!(registry.schema_by_id(7).await.unwrap().as_deref(), Some("{}"));
    }
    assert_eq!(
        script.first_lines().await,
        [
            "POST /apis/ccompat/v7/subjects/a%2Fb%20c HTTP/1.1",
            "GET /apis/ccompat/v7/schemas/ids/7 HTTP/1.1"
        ]
    );
    assert!(script.asked.lock().await[0].ends_with(r#"{"schema":"{}"}"#));
}

#[tokio::test]
async fn an_outage_or_a_no_is_not_remembered() {
    let found = r#"{"id":7}"#;
    let script = Script::play(&[(503, "starting"), (404, NO_SUBJECT), (200, found)]).await;
    let registry = script.registry();
    assert!(registry.lookup("s", "{}").await.unwrap_err().is_outage());
    assert_eq!(registry.lookup("s", "{}").await.unwrap(), None);
    assert_eq!(registry.lookup("s", "{}").await.unwrap(), Some(7));
}

#[tokio::test]
async fn not_registered_is_what_the_registry_says() {
    let script = Script::play(&[
        (404, NO_SUBJECT),
        (404, r#"{"error_code":40403,"message":"Schema not found"}"#),
        (404, "<html>"),
    ])
    .await;
    let registry = script.registry();
    assert!(registry.versions("s").await.unwrap().is_empty());
    assert_eq!(registry.schema_by_id(9).await.unwrap(), None);
    let error = registry.schema_by_id(9).await.unwrap_err();
    assert!(
        matches!(error, RegistryError::NotARegistry { status: 404, .. }),
        "{error}"
    );
    assert!(error.to_string().contains("/apis/ccompat/v7"), "{error}");
}

#[tokio::test]
async fn a_refusal_carries_the_registrys_words() {
    let script = Script::play(&[
        (409, r#"{"error_code":409,"message":"incompatible with version 1"}"#),
        (422, r#"{"error_code":42201,"message":"Invalid schema"}"#),
        (401, ""),
    ])
    .await;
    let registry = script.registry();
    for expected in [
        "could not register the schema in subject s: the registry at http://ADDRESS/apis/ccompat/v7 refused with HTTP 409 (code 409): incompatible with version 1",
        "could not register the schema in subject s: the registry at http://ADDRESS/apis/ccompat/v7 refused with HTTP 422 (code 42201): Invalid schema",
        "could not register the schema in subject s: the registry at http://ADDRESS/apis/ccompat/v7 refused with HTTP 401: an empty body; a user and password were sent",
    ] {
        let error = registry.register("s", "{}").await.unwrap_err();
        assert!(!error.is_outage());
        let address = registry
            .address()
            .trim_start_matches("http://")
            .trim_end_matches("/apis/ccompat/v7");
        assert_eq!(error.to_string(), expected.replace("ADDRESS", address));
    }
}

#[tokio::test]
async fn outages_are_told_apart_and_keep_secrets() {
    let script = Script::play(&[
        (500, r#"{"error_code":50001,"message":"store"}"#),
        (429, "slow down"),
        (200, "not json"),
    ])
    .await;
    let registry = script.registry();
    let error = registry.reachable().await.unwrap_err();
    assert!(
        error.is_outage() && error.to_string().contains("HTTP 500: store"),
        "{error}"
    );
    let error = registry.reachable().await.unwrap_err();
    assert!(
        error.is_outage() && error.to_string().ends_with("asks to be spared for 1s"),
        "{error}"
    );
    let error = registry.reachable().await.unwrap_err();
    assert!(
        matches!(error, RegistryError::NotARegistry { status: 200, .. }),
        "{error}"
    );

    // The script is over: nothing listens any more.
    let base = script.base.clone();
    drop(script);
    let registry = Registry::new(&base).unwrap();
    let error = registry.schema_by_id(3).await.unwrap_err();
    assert!(
        error.is_outage() && error.to_string().contains("fetch the schema with id 3"),
        "{error}"
    );
    assert!(
        !format!("{error} {registry:?}").contains("secret"),
        "{error} {registry:?}"
    );
}

#[tokio::test]
async fn the_rest_of_the_interface_asks_what_it_says() {
    let script = Script::play(&[
        (200, "[1,2]"),
        (
            200,
            r#"{"subject":"s","version":2,"id":5,"schema":"{}","schemaType":"AVRO"}"#,
        ),
        (200, r#"{"id":5}"#),
        (200, r#"{"is_compatible":false,"messages":["no"]}"#),
        (200, r#"{"compatibility":"FULL_TRANSITIVE"}"#),
        (200, r#"{"compatibilityLevel":"FULL_TRANSITIVE"}"#),
        (
            404,
            r#"{"error_code":40408,"message":"Subject 's' does not have subject-level compatibility configured"}"#,
        ),
        (200, r#"["AVRO"]"#),
    ])
    .await;
    let registry = script.registry();
    assert_eq!(registry.versions("s").await.unwrap(), [1, 2]);
    let version = registry.version("s", 2).await.unwrap().unwrap();
    assert_eq!((version.id, version.version, version.schema.as_str()), (5, 2, "{}"));
    assert_eq!(registry.register("s", "{}").await.unwrap(), 5);
    let verdict = registry.check("s", "{}").await.unwrap();
    assert_eq!(
        (verdict.is_compatible, verdict.messages),
        (false, vec!["no".to_owned()])
    );
    registry.set_compatibility("s", "FULL_TRANSITIVE").await.unwrap();
    assert_eq!(
        registry.compatibility("s").await.unwrap().as_deref(),
        Some("FULL_TRANSITIVE")
    );
    assert_eq!(registry.compatibility("s").await.unwrap(), None);
    registry.reachable().await.unwrap();
    let lines = script.first_lines().await;
    assert_eq!(
        lines[3],
        "POST /apis/ccompat/v7/compatibility/subjects/s/versions?verbose=true HTTP/1.1"
    );
    assert_eq!(lines[4], "PUT /apis/ccompat/v7/config/s HTTP/1.1");
}

#[test]
fn an_address_is_checked_before_it_is_used() {
    for (address, expected) in [
        ("registry", "relative URL"),
        ("ftp://registry", "write http://"),
        ("http://user:secret@:99999", "cannot be used as a registry"),
    ] {
        let error = Registry::new(address).unwrap_err().to_string();
        assert!(error.contains(expected) && !error.contains("secret"), "{error}");
    }
}
