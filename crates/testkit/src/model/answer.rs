//! Questions as they are read, answers as they are written.

use std::pin::Pin;
use std::task::{Context, Poll};

use anyhow::{Result, bail};
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::CONTENT_TYPE;
use hyper::{Response, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{NOT_A_NUMBER, NULL, SHORT, vector};

/// A call, as far as it counts.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Question {
    pub(super) model: String,
    #[serde(default)]
    encoding_format: Option<String>,
    input: Input,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Input {
    One(String),
    Many(Vec<String>),
}

impl Default for Input {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl Question {
    /// Reads a call; one that asks for another encoding than floats is none.
    pub(super) fn read(body: &[u8]) -> Result<Self> {
        let question: Self = serde_json::from_slice(body)?;
        match question.encoding_format.as_deref() {
            None | Some("float") => Ok(question),
            Some(other) => bail!("there is no encoding {other}"),
        }
    }

    pub(super) fn texts(&self) -> &[String] {
        match &self.input {
            Input::One(text) => std::slice::from_ref(text),
            Input::Many(texts) => texts,
        }
    }

    /// Whether a text has this in it.
    pub(super) fn has(&self, word: &str) -> bool {
        self.texts().iter().any(|text| text.contains(word))
    }

    /// The answer that was asked for, the last first, with so many vectors missing.
    pub(super) fn vectors(&self, dimensions: usize, missing: usize) -> Response<Reply> {
        let texts = self.texts().iter().enumerate().skip(missing).rev();
        let data = texts.map(|(index, text)| {
            let mut values: Vec<Value> = vector(text, dimensions).into_iter().map(Value::from).collect();
            if text.contains(SHORT) {
                values.pop();
            }
            if let Some(first) = values.first_mut().filter(|_| text.contains(NULL)) {
                *first = Value::Null;
            }
            if let Some(first) = values.first_mut().filter(|_| text.contains(NOT_A_NUMBER)) {
                *first = NOT_A_NUMBER.into();
            }
            json!({"object": "embedding", "index": index, "embedding": values})
        });
        let data: Vec<Value> = data.collect();
        let answer = json!({"object": "list", "model": self.model, "data": data});
        // JSON has no word for it.
        let answer = answer.to_string().replace(&format!("\"{NOT_A_NUMBER}\""), "NaN");
        reply(StatusCode::OK, "application/json", answer)
    }

    /// An error that quotes the texts.
    pub(super) fn error(&self, status: u16, code: &str) -> Response<Reply> {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let message = format!("no vectors for {:?}", self.texts());
        let error = json!({"error": {"message": message, "type": code, "param": null, "code": code}});
        reply(status, "application/json", error.to_string())
    }

    /// A page for people that quotes the texts.
    pub(super) fn html(&self) -> Response<Reply> {
        let page = format!("<html><body>Nothing for {:?}</body></html>", self.texts());
        reply(StatusCode::OK, "text/html", page)
    }
}

fn reply(status: StatusCode, kind: &'static str, body: String) -> Response<Reply> {
    let mut response = Response::new(Reply {
        data: Some(body.into()),
        is_cut: false,
    });
    *response.status_mut() = status;
    let kind = hyper::header::HeaderValue::from_static(kind);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// The body of an answer: whole, or its first half and then an error, which ends the connection.
#[derive(Debug)]
pub(super) struct Reply {
    data: Option<Bytes>,
    is_cut: bool,
}

impl Reply {
    pub(super) fn cut(self) -> Self {
        let half = |data: Bytes| data.slice(..data.len() / 2);
        Self {
            data: self.data.map(half),
            is_cut: true,
        }
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = anyhow::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>>>> {
        Poll::Ready(match self.data.take() {
            Some(data) => Some(Ok(Frame::data(data))),
            None if self.is_cut => Some(Err(anyhow::anyhow!("told to hang up"))),
            None => None,
        })
    }

    fn size_hint(&self) -> SizeHint {
        match &self.data {
            Some(data) if !self.is_cut => SizeHint::with_exact(data.len() as u64),
            _ => SizeHint::default(),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_none() && !self.is_cut
    }
}
