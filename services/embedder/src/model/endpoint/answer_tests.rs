//! A test for each row of the table of answers.

use super::*;

fn answered(status: u16, body: &str) -> Answered<'static> {
    Answered {
        status: StatusCode::from_u16(status).unwrap(),
        retry_after: None,
        body: Ok(body.into()),
        texts: 2,
    }
}

const TWO: &str = r#"{"object": "list", "model": "m", "usage": {"prompt_tokens": 3}, "data": [
    {"object": "embedding", "index": 1, "embedding": [0, 1.5]}, {"object": "embedding", "index": 0, "embedding": [-1e-3, 2]}]}"#;

#[test]
fn vectors_stand_in_the_order_of_their_texts() {
    assert_eq!(judge(answered(200, TWO)).unwrap(), [[-1e-3, 2.0], [0.0, 1.5]]);
}

#[test]
fn another_number_of_vectors_is_left_to_the_engine() {
    for (body, count) in [
        (r#"{"data": []}"#, 0),
        (r#"{"data": [{"index": 0, "embedding": [1]}]}"#, 1),
    ] {
        assert_eq!(judge(answered(200, body)).unwrap().len(), count);
    }
}

#[test]
fn indexes_that_do_not_fit_are_a_failure() {
    for (first, second) in [(0, 0), (1, 2), (0, usize::MAX)] {
        let body =
            format!(r#"{{"data": [{{"index": {first}, "embedding": [1]}}, {{"index": {second}, "embedding": [1]}}]}}"#);
        let error = judge(answered(200, &body)).unwrap_err();
        assert!(matches!(error, BackendError::Failed(_)), "{error}");
    }
}

#[test]
fn values_that_are_none_are_left_to_the_gate() {
    for value in ["null", "NaN", "-Infinity"] {
        let body = format!(r#"{{"data": [{{"index": 0, "embedding": [1, {value}, 2]}}]}}"#);
        let vectors = judge(answered(200, &body)).unwrap();
        assert!(vectors[0][1].is_nan() && vectors[0][2] == 2.0, "{vectors:?}");
    }
    let large = judge(answered(200, r#"{"data": [{"index": 0, "embedding": [1e300]}]}"#)).unwrap();
    assert!(large[0][0].is_infinite());
}

#[test]
fn what_is_no_answer_is_an_outage_that_quotes_nothing() {
    let unread = Answered {
        body: Err("the answer is larger than 9 bytes".into()),
        ..answered(200, "")
    };
    let bodies = [
        "",
        "<html>SECRET</html>",
        r#"{"data": "SECRET"}"#,
        r#"{"SECRET": 1}"#,
        &TWO[..99],
    ];
    for answered in bodies.map(|body| answered(200, body)).into_iter().chain([unread]) {
        let error = judge(answered).unwrap_err();
        assert!(matches!(error, BackendError::Outage(Outage::Broken(_))), "{error}");
        assert!(!error.to_string().contains("SECRET"), "{error}");
    }
}

#[test]
fn each_status_has_its_class() {
    for (status, class) in [
        (400, "refused"),
        (413, "refused"),
        (422, "refused"),
        (408, "broken"),
        (409, "broken"),
        (423, "broken"),
        (424, "broken"),
        (425, "broken"),
        (500, "broken"),
        (502, "broken"),
        (503, "broken"),
        (504, "broken"),
        (429, "patience"),
        (401, "config"),
        (403, "config"),
        (404, "config"),
        (405, "config"),
        (301, "config"),
        (308, "config"),
        (204, "broken"),
        (410, "broken"),
    ] {
        let error = judge(answered(status, "SECRET")).unwrap_err();
        let found = match &error {
            BackendError::TooLarge(_) => "too large",
            BackendError::Failed(_) => "failed",
            BackendError::Refused(_) => "refused",
            BackendError::Outage(Outage::Broken(_)) => "broken",
            BackendError::Outage(Outage::RateLimited { .. }) => "patience",
            BackendError::Outage(Outage::Config(_)) => "config",
        };
        assert_eq!(found, class, "{status}");
        let told = error.to_string();
        assert!(!told.contains("SECRET"), "{told}");
        assert!(status == 429 || told.contains(&status.to_string()), "{told}");
    }
}

#[test]
fn patience_is_what_the_endpoint_asks_for_within_reason() {
    // Thursday, 1 January 1970 and 100 seconds.
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(100);
    for (header, seconds) in [
        (None, 1),
        (Some("7"), 7),
        (Some(" 7 "), 7),
        (Some("0"), 0),
        (Some("86400"), 3600),
        (Some("Thu, 01 Jan 1970 00:02:10 GMT"), 30),
        (Some("Thu, 01 Jan 1970 00:00:10 GMT"), 0),
        (Some("Fri, 02 Jan 1970 00:00:00 GMT"), 3600),
        (Some("-5"), 1),
        (Some("soon"), 1),
        (Some("1.5"), 1),
    ] {
        let value = header.map(HeaderValue::from_static);
        assert_eq!(
            retry_after(value.as_ref(), now),
            Duration::from_secs(seconds),
            "{header:?}"
        );
    }
}

#[test]
fn of_an_error_only_a_code_is_told() {
    for (body, told) in [
        (
            r#"{"error": {"message": "SECRET", "code": "context_length_exceeded"}}"#,
            "HTTP 400, context_length_exceeded",
        ),
        (
            r#"{"error": {"message": "SECRET", "type": "invalid_request_error", "code": null}}"#,
            "HTTP 400, invalid_request_error",
        ),
        (r#"{"error": {"message": "SECRET", "code": "SECRET text"}}"#, "HTTP 400"),
        (
            r#"{"error": {"message": "SECRET", "code": 400, "type": ["SECRET"]}}"#,
            "HTTP 400",
        ),
        (r#"{"error": "SECRET"}"#, "HTTP 400"),
        ("SECRET", "HTTP 400"),
    ] {
        assert_eq!(judge(answered(400, body)), Err(BackendError::Refused(told.into())));
    }
    let long = format!(r#"{{"error": {{"code": "{}"}}}}"#, "x".repeat(41));
    assert_eq!(
        judge(answered(400, &long)),
        Err(BackendError::Refused("HTTP 400".into()))
    );
}
