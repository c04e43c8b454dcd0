//! Diff and apply against a registry in this process. The real one is met in the end-to-end tests.
// Clippy takes only `#[test]` functions for tests, not what they call.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use millrace_schema::Registry;
use millrace_schema::compat::Mode;
use millrace_schema::publish::{Applied, Place, PublishError, Step, Wanted, apply, diff, diff_all};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// What a registry keeps. It accepts what it is told to accept.
#[derive(Default)]
struct State {
    /// Subject to number and schema; ids are 100 + the number.
    subjects: BTreeMap<String, Vec<(i64, String)>>,
    levels: BTreeMap<String, String>,
    says_no: bool,
    /// Method and path of each change.
    changes: Vec<String>,
}

struct Fake {
    state: Arc<Mutex<State>>,
    registry: Registry,
    server: JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Fake {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let registry = Registry::new(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let kept = state.clone();
        let server = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = Vec::new();
                let (head, body) = loop {
                    stream.read_buf(&mut request).await.unwrap();
                    let text = String::from_utf8_lossy(&request).into_owned();
                    let Some((head, body)) = text.split_once("\r\n\r\n") else {
                        continue;
                    };
                    let length = |line: &str| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok();
                    if body.len() >= head.lines().find_map(length).unwrap_or(0) {
                        break (head.to_owned(), body.to_owned());
                    }
                };
                let line: Vec<&str> = head.split(' ').collect();
                let body = serde_json::from_str(&body).unwrap_or(Value::Null);
                let (status, answer) = kept.lock().unwrap().answer(line[0], line[1], &body);
                let answer = answer.to_string();
                let length = answer.len();
                let head = format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
                stream.write_all(format!("{head}{answer}").as_bytes()).await.unwrap();
                stream.shutdown().await.unwrap();
            }
        });
        Self {
            state,
            registry,
            server,
        }
    }

    fn changes(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().changes)
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
    }

    async fn apply(&self, wanted: &[Wanted]) -> Result<Vec<Applied>, PublishError> {
        apply(&self.registry, wanted, false).await
    }
}

impl State {
    fn answer(&mut self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let path = path.split('?').next().unwrap();
        let steps: Vec<&str> = path.trim_matches('/').split('/').collect();
        let not_found = (404, json!({"error_code": 40401, "message": "not found"}));
        let schema = body["schema"].as_str().unwrap_or_default();
        let of = |subject: &str| self.subjects.get(subject).cloned().unwrap_or_default();
        match (method, steps.as_slice()) {
            ("GET", ["subjects", s, "versions"]) => match of(s) {
                versions if versions.is_empty() => not_found,
                versions => (200, versions.iter().map(|(n, _)| *n).collect()),
            },
            ("GET", ["subjects", s, "versions", number]) => {
                let (n, schema) = of(s).into_iter().find(|(n, _)| n.to_string() == *number).unwrap();
                (
                    200,
                    json!({"subject": s, "version": n, "id": 100 + n, "schema": schema}),
                )
            }
            ("GET", ["config", s]) => match self.levels.get(*s) {
                None => not_found,
                Some(level) => (200, json!({"compatibilityLevel": level})),
            },
            ("PUT", ["config", s]) => {
                self.changes.push(format!("PUT {path}"));
                self.levels
                    .insert((*s).to_owned(), body["compatibility"].as_str().unwrap().to_owned());
                (200, body.clone())
            }
            // As some registries do, it finds a schema by more than its text.
            ("POST", ["subjects", s]) => match of(s)
                .iter()
                .find(|(_, found)| found.replace("\"doc\":\"\",", "") == schema)
            {
                None => not_found,
                Some((n, _)) => (200, json!({"id": 100 + n})),
            },
            ("POST", ["compatibility", "subjects", _, "versions"]) => {
                (200, json!({"is_compatible": !self.says_no, "messages": ["because"]}))
            }
            ("POST", ["subjects", s, "versions"]) => {
                self.changes.push(format!("POST {path}"));
                let versions = self.subjects.entry((*s).to_owned()).or_default();
                let number = versions.last().map_or(0, |(n, _)| *n) + 1;
                versions.push((number, schema.to_owned()));
                (200, json!({"id": 100 + number}))
            }
            other => unreachable!("{other:?}"),
        }
    }
}

const ONE: &str = r#"{"type":"record","name":"R","fields":[{"name":"a","type":"int"}]}"#;
const TWO: &str =
    r#"{"type":"record","name":"R","fields":[{"name":"a","type":"int"},{"name":"b","type":"int","default":0}]}"#;
const BAD: &str = r#"{"type":"record","name":"R","fields":[{"name":"b","type":"int"}]}"#;

fn wanted(versions: &[&str]) -> Wanted {
    Wanted {
        subject: "r-value".to_owned(),
        mode: Mode::FullTransitive,
        versions: versions.iter().map(|v| (*v).to_owned()).collect(),
    }
}

const SET: &str = "PUT /config/r-value";
const REGISTER: &str = "POST /subjects/r-value/versions";

#[tokio::test]
async fn what_lacks_is_registered_once_and_in_order() {
    let fake = Fake::start().await;
    let both = [wanted(&[ONE, TWO])];
    let told = apply(&fake.registry, &both, true).await.unwrap();
    let level = || Step::Level {
        from: None,
        to: "FULL_TRANSITIVE".to_owned(),
    };
    let register = |version, id| Step::Register { version, id };
    assert_eq!(told[0].steps, [level(), register(1, None), register(2, None)]);
    assert_eq!(fake.changes(), [""; 0]);
    assert!(!diff_all(&fake.registry, &both).await.unwrap()[0].is_none());

    let done = fake.apply(&both).await.unwrap();
    assert_eq!(done[0].steps, [level(), register(1, Some(101)), register(2, Some(102))]);
    assert_eq!(fake.changes(), [SET, REGISTER, REGISTER]);
    assert!(diff(&fake.registry, &both[0]).await.unwrap().is_none());

    assert_eq!(fake.apply(&both).await.unwrap()[0].steps, []);
    assert_eq!(fake.changes(), [""; 0]);
}

#[tokio::test]
async fn a_schema_that_the_registry_wrote_anew_is_the_same() {
    let fake = Fake::start().await;
    fake.set(|state| {
        let anew = ONE.replace("{\"type\":\"record\"", "{\"doc\":\"\",\"type\":\"record\"");
        state.subjects.insert("r-value".to_owned(), vec![(3, anew)]);
        state.levels.insert("r-value".to_owned(), "FULL_TRANSITIVE".to_owned());
    });
    let found = diff(&fake.registry, &wanted(&[ONE])).await.unwrap();
    // A number of its own: versions 1 and 2 were deleted there.
    let same = Place::Same {
        version: 1,
        registered: 3,
        id: 103,
    };
    assert_eq!((found.is_none(), found.versions), (true, vec![same]));
}

#[tokio::test]
async fn an_older_folder_leaves_a_newer_registry_alone() {
    let fake = Fake::start().await;
    fake.apply(&[wanted(&[ONE, TWO])]).await.unwrap();
    fake.changes();
    let older = [wanted(&[ONE])];
    let found = diff(&fake.registry, &older[0]).await.unwrap();
    assert!(!found.is_none() && found.can_be_applied());
    assert_eq!(found.versions[1], Place::Extra { registered: 2, id: 102 });
    let done = fake.apply(&older).await.unwrap();
    assert_eq!((done[0].steps.len(), done[0].ahead), (0, 1));
    assert_eq!(fake.changes(), [""; 0]);
}

#[tokio::test]
async fn nothing_changes_where_one_subject_cannot_be_brought_in_line() {
    let fake = Fake::start().await;
    fake.set(|state| {
        state.subjects.insert("z-value".to_owned(), vec![(1, TWO.to_owned())]);
    });
    let other = Wanted {
        subject: "z-value".to_owned(),
        ..wanted(&[ONE, TWO])
    };
    let error = fake.apply(&[wanted(&[ONE]), other]).await.unwrap_err();
    assert!(matches!(error, PublishError::Diverged { .. }), "{error}");
    let text = error.to_string();
    assert!(
        text.contains("z-value") && text.contains("version 1 (id 101) is not our version 1"),
        "{text}"
    );

    let error = fake.apply(&[wanted(&[ONE, BAD])]).await.unwrap_err();
    assert!(
        matches!(error, PublishError::Incompatible { version: 2, .. }),
        "{error}"
    );
    assert!(
        error
            .to_string()
            .contains("READER_FIELD_MISSING_DEFAULT_VALUE against version 1"),
        "{error}"
    );
    assert_eq!(fake.changes(), [""; 0]);
}

#[tokio::test]
async fn a_registry_that_disagrees_is_not_overruled() {
    let fake = Fake::start().await;
    fake.apply(&[wanted(&[ONE])]).await.unwrap();
    fake.changes();
    fake.set(|state| state.says_no = true);
    for dry_run in [true, false] {
        let error = apply(&fake.registry, &[wanted(&[ONE, TWO])], dry_run)
            .await
            .unwrap_err();
        assert!(matches!(error, PublishError::Disagree { version: 2, .. }), "{error}");
        assert!(error.to_string().ends_with("The registry: because"), "{error}");
    }
    // With another level its check would not have meant the same: it is asked after the level is set.
    fake.set(|state| drop(state.levels.insert("r-value".to_owned(), "NONE".to_owned())));
    let error = fake.apply(&[wanted(&[ONE, TWO])]).await.unwrap_err();
    assert!(matches!(error, PublishError::Disagree { .. }), "{error}");
    assert_eq!(fake.changes(), [SET]);
}
