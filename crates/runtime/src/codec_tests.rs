use std::collections::BTreeMap;
use std::sync::Mutex;

use millrace_events::{DocumentParsed, DocumentStatus, Kind, topics};
use millrace_flow::Origin;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::*;

/// A registry's answers by the start of the request's first line. Only for error paths: the real one is met end to end.
struct Answers {
    address: String,
    by_request: Arc<Mutex<BTreeMap<String, (u16, String)>>>,
    asked: Arc<Notify>,
    server: JoinHandle<()>,
}

impl Drop for Answers {
    fn drop(&mut self) {
        self.server.abort();
    }
}

const NOT_FOUND: &str = r#"{"error_code":40403,"message":"Schema not found"}"#;

impl Answers {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let by_request = Arc::new(Mutex::new(BTreeMap::<String, (u16, String)>::new()));
        let answers = by_request.clone();
        let asked = Arc::new(Notify::new());
        let tell = asked.clone();
        let server = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = vec![0; 64 << 10];
                let mut len = 0;
                while !is_whole(&request[..len]) {
                    len += stream.read(&mut request[len..]).await.unwrap();
                }
                let line = String::from_utf8_lossy(&request[..len])
                    .lines()
                    .next()
                    .unwrap()
                    .replace(" HTTP/1.1", "");
                let answer = answers.lock().unwrap().get(&line).cloned();
                let (status, body) = answer.unwrap_or((404, NOT_FOUND.to_owned()));
                let length = body.len();
                let head = format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
                stream.write_all((head + &body).as_bytes()).await.unwrap();
                tell.notify_one();
            }
        });
        Self {
            address,
            by_request,
            asked,
            server,
        }
    }

    fn set(&self, request: &str, status: u16, body: impl Into<String>) {
        self.by_request
            .lock()
            .unwrap()
            .insert(request.to_owned(), (status, body.into()));
    }

    fn registered(&self, topic: &Topic, id: u32, schema: &str) {
        let subject = topic.subject();
        let version = serde_json::json!({ "subject": subject, "version": 1, "id": id, "schema": schema }).to_string();
        self.set(&format!("POST /subjects/{subject}"), 200, version.clone());
        self.set(&format!("GET /subjects/{subject}/versions"), 200, "[1]");
        self.set(&format!("GET /subjects/{subject}/versions/1"), 200, version);
        self.set(
            &format!("GET /schemas/ids/{id}"),
            200,
            serde_json::json!({ "schema": schema }).to_string(),
        );
    }

    fn registry(&self) -> Registry {
        Registry::new(&self.address).unwrap()
    }
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head
        .lines()
        .find_map(|l| l.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
    body.len() >= length.unwrap_or(0)
}

fn parsed() -> DocumentParsed {
    DocumentParsed {
        tenant: "t".into(),
        document_id: "d".into(),
        revision: 1 << 48,
        kind: Kind::Upsert,
        ..DocumentParsed::default()
    }
}

async fn connected(answers: &Answers, reads: &[Topic]) -> Codec {
    answers.registered(&topics::PARSED, 7, topics::PARSED.schema.unwrap());
    Codec::connect(answers.registry(), &[topics::PARSED], reads)
        .await
        .unwrap()
}

#[tokio::test]
async fn what_is_encoded_is_decoded_with_or_without_having_met_the_schema() {
    let answers = Answers::start().await;
    for reads in [&[topics::PARSED][..], &[]] {
        let codec = connected(&answers, reads).await;
        let value = codec.encode(&parsed()).unwrap();
        assert_eq!(&value[..5], [0, 0, 0, 0, 7]);
        assert_eq!(codec.decode::<DocumentParsed>(&value).await.unwrap(), parsed());
    }
}

#[tokio::test]
async fn a_topic_that_is_not_written_cannot_be_encoded() {
    let answers = Answers::start().await;
    let codec = connected(&answers, &[]).await;
    let failure = codec.encode(&DocumentStatus::default()).unwrap_err();
    assert_eq!((failure.class(), failure.reason()), ("CONFIG", "TOPIC_NOT_WRITTEN"));
}

#[tokio::test]
async fn the_class_of_a_failed_decode_follows_its_cause() {
    let answers = Answers::start().await;
    let codec = connected(&answers, &[topics::PARSED]).await;
    answers.set("GET /schemas/ids/8", 503, "");
    answers.set("GET /schemas/ids/9", 403, r#"{"error_code":40301,"message":"no"}"#);
    answers.set("GET /schemas/ids/11", 200, r#"{"schema":"not avro"}"#);
    answers.set("GET /schemas/ids/13", 422, r#"{"error_code":42201,"message":"no"}"#);
    for (value, class, reason) in [
        (&b""[..], "INVALID", "UNREADABLE_RECORD"),
        (b"{}", "INVALID", "UNREADABLE_RECORD"),
        (&[0, 0, 0, 0, 7, 200], "INVALID", "UNREADABLE_RECORD"),
        (&[0, 0, 0, 0, 8, 1], "TRANSIENT", "REGISTRY_UNAVAILABLE"),
        (&[0, 0, 0, 0, 9, 1], "CONFIG", "REGISTRY_REFUSED"),
        (&[0, 0, 0, 0, 10, 1], "INVALID", "UNREADABLE_RECORD"),
        (&[0, 0, 0, 0, 11, 1], "INVALID", "UNREADABLE_RECORD"),
        (&[0, 0, 0, 0, 13, 1], "INVALID", "UNREADABLE_RECORD"),
    ] {
        let failure = codec.decode::<DocumentParsed>(value).await.unwrap_err();
        assert_eq!(
            (failure.class(), failure.reason()),
            (class, reason),
            "{value:?}: {failure}"
        );
    }
    // The outage is over: the same id is asked for again.
    answers.set(
        "GET /schemas/ids/8",
        200,
        serde_json::json!({ "schema": topics::PARSED.schema }).to_string(),
    );
    let mut value = codec.encode(&parsed()).unwrap().to_vec();
    value[4] = 8;
    assert_eq!(codec.decode::<DocumentParsed>(&value).await.unwrap(), parsed());
}

#[tokio::test]
async fn a_registry_that_wants_to_be_spared_is_spared_and_the_known_goes_on() {
    let answers = Answers::start().await;
    let codec = connected(&answers, &[topics::PARSED]).await;
    answers.set("GET /schemas/ids/12", 429, "");
    let failure = codec.decode::<DocumentParsed>(&[0, 0, 0, 0, 12, 1]).await.unwrap_err();
    assert_eq!(
        (failure.class(), failure.reason()),
        ("TRANSIENT", "REGISTRY_RATE_LIMITED")
    );
    // It would answer now, and is not asked for a second.
    let schema = serde_json::json!({ "schema": topics::PARSED.schema }).to_string();
    answers.set("GET /schemas/ids/12", 200, schema);
    let failure = codec.decode::<DocumentParsed>(&[0, 0, 0, 0, 12, 1]).await.unwrap_err();
    assert!(failure.message().contains("are left"), "{failure}");
    let value = codec.encode(&parsed()).unwrap();
    assert_eq!(codec.decode::<DocumentParsed>(&value).await.unwrap(), parsed());
}

/// A row for each line of the registry's table.
#[test]
fn each_answer_of_the_registry_has_its_class() {
    let (operation, registry) = (String::from("fetch it"), String::from("http://r"));
    let refused = |status| RegistryError::Refused {
        operation: operation.clone(),
        registry: registry.clone(),
        status,
        code: None,
        message: "no".into(),
    };
    let away = RegistryError::Away {
        operation: operation.clone(),
        registry: registry.clone(),
        why: "HTTP 503".into(),
    };
    let limited = RegistryError::RateLimited {
        operation: operation.clone(),
        registry: registry.clone(),
        retry_after: Duration::from_secs(7),
    };
    let foreign = RegistryError::NotARegistry {
        operation: operation.clone(),
        registry: registry.clone(),
        status: 200,
        why: "<html>".into(),
    };
    let address = RegistryError::Address {
        address: "x".into(),
        why: "no".into(),
    };
    let rows = [
        (away, "TRANSIENT", "REGISTRY_UNAVAILABLE"),
        (limited, "TRANSIENT", "REGISTRY_RATE_LIMITED"),
        (refused(400), "INVALID", "UNREADABLE_RECORD"),
        (refused(401), "CONFIG", "REGISTRY_REFUSED"),
        (refused(403), "CONFIG", "REGISTRY_REFUSED"),
        (refused(404), "INVALID", "UNREADABLE_RECORD"),
        (refused(405), "CONFIG", "REGISTRY_REFUSED"),
        (refused(413), "INVALID", "UNREADABLE_RECORD"),
        (refused(422), "INVALID", "UNREADABLE_RECORD"),
        (foreign, "CONFIG", "REGISTRY_REFUSED"),
        (address, "CONFIG", "REGISTRY_REFUSED"),
    ];
    for (error, class, reason) in rows {
        let failure = registry_failure(&error);
        assert_eq!((failure.class(), failure.reason()), (class, reason), "{error}");
    }
}

#[tokio::test]
async fn a_start_without_schemas_is_refused_by_name() {
    let answers = Answers::start().await;
    let error = Codec::connect(answers.registry(), &[topics::STATUS], &[])
        .await
        .unwrap_err();
    assert!(error.to_string().contains("documents.status-value"), "{error}");
    let error = Codec::connect(answers.registry(), &[topics::DLQ], &[])
        .await
        .unwrap_err();
    assert!(
        matches!(error, CodecError::NoSchema { topic: "documents.dlq" }),
        "{error}"
    );
}

#[tokio::test]
async fn a_version_that_cannot_be_read_refuses_the_start() {
    let answers = Answers::start().await;
    let lacking = r#"{"type":"record","name":"DocumentParsed","namespace":"NAMESPACE","fields":[{"name":"tenant","type":"string"}]}"#;
    let own = Schema::parse_str(topics::PARSED.schema.unwrap()).unwrap();
    let namespace = own.namespace().map(|n| n.to_string()).unwrap_or_default();
    let int = topics::PARSED.schema.unwrap().replace(
        r#""name": "revision",
      "type": "long""#,
        r#""name": "revision",
      "type": "int""#,
    );
    assert_ne!(int, topics::PARSED.schema.unwrap());
    for (schema, why) in [
        ("not avro".to_owned(), "at /: NOT_A_SCHEMA: "),
        (r#""string""#.to_owned(), "at /: TYPE_MISMATCH: "),
        (topics::STATUS.schema.unwrap().to_owned(), "at /name: NAME_MISMATCH: "),
        (
            lacking.replace("NAMESPACE", &namespace),
            "at /fields/document_id: READER_FIELD_MISSING_DEFAULT_VALUE: ",
        ),
        // Avro's rules allow it, our decoder does not do it.
        (int, "at /: NOT_DECODED: "),
    ] {
        answers.registered(&topics::PARSED, 3, &schema);
        let error = Codec::connect(answers.registry(), &[], &[topics::PARSED])
            .await
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(why) && error.contains("version 1 of subject documents.parsed-value"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_version_that_is_registered_meanwhile_is_read_or_waits_for_a_build_that_reads_it() {
    let answers = Answers::start().await;
    let codec = connected(&answers, &[topics::PARSED]).await;
    let own = topics::PARSED.schema.unwrap();
    let added = r#""fields": [{"name":"added","type":"string","default":""},"#;
    let readable = own.replacen(r#""fields": ["#, added, 1);
    let unreadable = own.replacen(r#""name": "tenant""#, r#""name": "owner""#, 1);
    assert!(readable != own && unreadable != own);
    let by_id = |id: u32, schema: &str| {
        let schema = serde_json::json!({ "schema": schema }).to_string();
        answers.set(&format!("GET /schemas/ids/{id}"), 200, schema);
    };
    by_id(20, &readable);
    by_id(21, &unreadable);
    by_id(22, &unreadable);
    // 21 is version 2 of the subject, 22 of none.
    answers.set("GET /subjects/documents.parsed-value/versions", 200, "[1,2]");
    let version =
        serde_json::json!({ "subject": "documents.parsed-value", "version": 2, "id": 21, "schema": unreadable });
    answers.set(
        "GET /subjects/documents.parsed-value/versions/2",
        200,
        version.to_string(),
    );

    let value = codec.encode(&parsed()).unwrap();
    // `added`, of length 0, stands before all else.
    let newer = [&[0, 0, 0, 0, 20, 0], &value[5..]].concat();
    assert_eq!(codec.decode::<DocumentParsed>(&newer).await.unwrap(), parsed());

    let failure = codec.decode::<DocumentParsed>(&[0, 0, 0, 0, 21, 0]).await.unwrap_err();
    assert_eq!((failure.class(), failure.reason()), ("CONFIG", "SCHEMA_UNREADABLE"));
    for word in [
        "version 2 of subject documents.parsed-value (schema id 21)",
        "at /fields/tenant: READER_FIELD_MISSING_DEFAULT_VALUE",
    ] {
        assert!(failure.message().contains(word), "{failure}");
    }
    let failure = codec.decode::<DocumentParsed>(&[0, 0, 0, 0, 22, 0]).await.unwrap_err();
    assert_eq!((failure.class(), failure.reason()), ("INVALID", "UNREADABLE_RECORD"));
    // A registry that refuses the question after the subject says nothing of the record.
    answers.set(
        "GET /subjects/documents.parsed-value/versions",
        400,
        r#"{"error_code":400,"message":"no"}"#,
    );
    let failure = codec.decode::<DocumentParsed>(&[0, 0, 0, 0, 22, 0]).await.unwrap_err();
    assert_eq!((failure.class(), failure.reason()), ("CONFIG", "REGISTRY_REFUSED"));
    // Whether it is a version cannot be told: no reason to bury anything.
    answers.set("GET /subjects/documents.parsed-value/versions", 503, "");
    let failure = codec.decode::<DocumentParsed>(&[0, 0, 0, 0, 22, 0]).await.unwrap_err();
    assert_eq!(
        (failure.class(), failure.reason()),
        ("TRANSIENT", "REGISTRY_UNAVAILABLE")
    );
}

#[tokio::test]
async fn an_outage_is_waited_for() {
    let answers = Answers::start().await;
    answers.set("POST /subjects/documents.parsed-value", 503, "");
    let registry = answers.registry();
    let connecting = tokio::spawn(async move { Codec::connect(registry, &[topics::PARSED], &[]).await });
    answers.asked.notified().await;
    answers.registered(&topics::PARSED, 7, topics::PARSED.schema.unwrap());
    let codec = connecting.await.unwrap().unwrap();
    assert!(codec.encode(&parsed()).is_ok());
}

#[test]
fn trace_and_redrive_marks_are_taken_over_once() {
    let context = TraceContext::generate().with_tracestate(Some("a=1".into()));
    let mut headers = Headers::default();
    headers.push("traceparent", "an older one");
    headers.0.extend(headers_of(&context).0);
    headers.push("millrace-redrive", "2");
    headers.push("other", "x");
    let delivery = Delivery {
        origin: Origin {
            topic: "documents.submitted".into(),
            partition: 0,
            offset: 0,
        },
        key: None,
        value: None,
        headers,
        timestamp_ms: 0,
        attempt: 1,
        span: Default::default(),
    };
    let taken = carried_headers(&delivery);
    assert_eq!(taken.0.len(), 3);
    assert_eq!(taken.get_str("traceparent"), Some(context.traceparent()));
    assert_eq!(
        (taken.get_str("tracestate"), taken.get_str("millrace-redrive")),
        (Some("a=1"), Some("2"))
    );
}
