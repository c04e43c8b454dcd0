//! What an endpoint's answer means.
//!
//! | status | body | becomes |
//! |---|---|---|
//! | none (connect, time-out, reset) | | broken |
//! | 200 | a vector for each index | the vectors, in the order of their texts |
//! | 200 | another number of vectors | those: the engine counts |
//! | 200 | indexes that do not fit | failed |
//! | 200 | anything else, cut off, or larger than such vectors can be | broken |
//! | 429 | any | patience, for as long as `Retry-After` says, in seconds or as a date; else for one |
//! | 400, 413, 422 | any | refused: one of the texts, or so many of them |
//! | 3xx, 401, 403, 404, 405 | any | config: the key, the model's name, the address |
//! | any other: 408, 409, 423, 424, 425, 5xx | any | broken: it may pass. text-embeddings-inference says 424 when it is out of memory |
//!
//! A value that is null or NaN passes as NaN: the gate judges it. Of an error's body only its code is told, if it is a
//! word such as `context_length_exceeded`: sentences may quote a text.

use std::time::{Duration, SystemTime};

use reqwest::StatusCode;
use reqwest::header::HeaderValue;
use serde::Deserialize;

use super::{BackendError, Outage};

/// For an endpoint that asks for patience and does not say how much. The stage's gate adds more each time.
const PATIENCE: Duration = Duration::from_secs(1);
/// Longest time that is waited because the endpoint says so.
const LONGEST_PATIENCE: Duration = Duration::from_secs(60 * 60);
const MAX_CODE_BYTES: usize = 40;

/// An answer.
pub(super) struct Answered<'a> {
    pub(super) status: StatusCode,
    pub(super) retry_after: Option<&'a HeaderValue>,
    /// Its body, or why it could not be read.
    pub(super) body: Result<Vec<u8>, String>,
    /// Texts that vectors were asked for.
    pub(super) texts: usize,
}

/// One vector per text, in their order.
pub(super) fn judge(answered: Answered<'_>) -> Result<Vec<Vec<f32>>, BackendError> {
    let status = answered.status;
    let said = || match answered.body.as_deref().ok().and_then(code) {
        Some(code) => format!("HTTP {}, {code}", status.as_u16()),
        None => format!("HTTP {}", status.as_u16()),
    };
    match status {
        StatusCode::OK => vectors(answered.body, answered.texts),
        StatusCode::TOO_MANY_REQUESTS => {
            let retry_after = retry_after(answered.retry_after, SystemTime::now());
            Err(Outage::RateLimited { retry_after }.into())
        }
        StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY => {
            Err(BackendError::Refused(said()))
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => {
            Err(Outage::Config(said()).into())
        }
        status if status.is_redirection() => Err(Outage::Config(said()).into()),
        _ => Err(Outage::Broken(said()).into()),
    }
}

#[derive(Deserialize)]
struct Answer {
    data: Vec<Embedding>,
}

#[derive(Deserialize)]
struct Embedding {
    index: usize,
    embedding: Vec<Option<f32>>,
}

fn vectors(body: Result<Vec<u8>, String>, texts: usize) -> Result<Vec<Vec<f32>>, BackendError> {
    let body = body.map_err(Outage::Broken)?;
    let Answer { data } = parse(&body)?;
    let count = data.len();
    let mut ordered = vec![None; count];
    for Embedding { index, embedding } in data {
        let values = embedding.into_iter().map(|value| value.unwrap_or(f32::NAN));
        if let Some(place) = ordered.get_mut(index) {
            *place = Some(values.collect());
        }
    }
    let vectors: Vec<Vec<f32>> = ordered.into_iter().flatten().collect();
    if vectors.len() < count {
        let what = format!("the indexes of {count} vectors for {texts} texts do not fit");
        return Err(BackendError::Failed(what));
    }
    Ok(vectors)
}

/// Servers written in Python put NaN where JSON has no word for it. One bad vector is not to cost its neighbours theirs.
fn parse(body: &[u8]) -> Result<Answer, Outage> {
    let strict = serde_json::from_slice(body);
    let parsed = match str::from_utf8(body) {
        Ok(text) if strict.is_err() && (text.contains("NaN") || text.contains("Infinity")) => serde_json::from_str(
            &text
                .replace("-Infinity", "null")
                .replace("Infinity", "null")
                .replace("NaN", "null"),
        ),
        _ => strict,
    };
    // Its place alone: the sentence may quote what stands there.
    parsed.map_err(|e: serde_json::Error| {
        let (line, column) = (e.line(), e.column());
        let of = body.len();
        Outage::Broken(format!(
            "the answer of {of} bytes is not that of an embeddings API, at line {line} column {column}"
        ))
    })
}

fn retry_after(header: Option<&HeaderValue>, now: SystemTime) -> Duration {
    let told = header.and_then(|value| value.to_str().ok());
    let asked = told.and_then(|text| match text.trim().parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        // A date that has passed asks for nothing more.
        Err(_) => Some(
            httpdate::parse_http_date(text)
                .ok()?
                .duration_since(now)
                .unwrap_or_default(),
        ),
    });
    asked.unwrap_or(PATIENCE).min(LONGEST_PATIENCE)
}

/// The code of an error's body, or its type.
fn code(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Body {
        error: Named,
    }
    #[derive(Deserialize)]
    struct Named {
        code: Option<serde_json::Value>,
        r#type: Option<serde_json::Value>,
    }
    let Named { code, r#type } = serde_json::from_slice::<Body>(body).ok()?.error;
    let is_word = |text: &&str| {
        (1..=MAX_CODE_BYTES).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
    };
    let word = |value: Option<serde_json::Value>| value?.as_str().filter(is_word).map(str::to_owned);
    word(code).or_else(|| word(r#type))
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
