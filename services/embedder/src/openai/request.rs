//! What a client asks for.

use serde::Deserialize;

use super::answer::Refusal;
use crate::batch::{InputKind, ModelInfo};

/// As many as OpenAI takes.
pub(super) const MAX_INPUTS: usize = 2048;

/// How vectors are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Encoding {
    /// As numbers.
    #[default]
    Float,
    /// As little-endian f32, in base64.
    Base64,
}

#[derive(Debug, Deserialize)]
struct Body {
    input: Input,
    model: String,
    #[serde(default)]
    encoding_format: Option<Encoding>,
    #[serde(default)]
    dimensions: Option<i64>,
    #[serde(default)]
    input_type: Option<InputType>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Input {
    One(String),
    Several(Vec<String>),
    Tokens(#[allow(dead_code, reason = "known, so that it can be refused by name")] Vec<serde_json::Value>),
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum InputType {
    Query,
    #[serde(alias = "passage")]
    Document,
}

/// A request that was understood.
#[derive(Debug, PartialEq)]
pub(super) struct Asked {
    pub(super) inputs: Vec<String>,
    pub(super) kind: InputKind,
    pub(super) encoding: Encoding,
    model: String,
    dimensions: Option<i64>,
}

impl Asked {
    pub(super) fn read(body: &[u8]) -> Result<Self, Refusal> {
        // Its place and not its text: the sentence may quote an input.
        let body: Body = serde_json::from_slice(body).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            let message = format!(
                "the body is not a request for embeddings (line {line}, column {column}): it has `model`, and `input`, \
                 which is a text or a list of texts"
            );
            Refusal::invalid(None, message)
        })?;
        let inputs = match body.input {
            Input::One(text) => vec![text],
            Input::Several(texts) => texts,
            Input::Tokens(_) => {
                let message = "tokens are not taken, since nobody can tell of which vocabulary they are: give texts";
                return Err(Refusal::invalid(Some("input"), message));
            }
        };
        if !(1..=MAX_INPUTS).contains(&inputs.len()) {
            let message = format!("1 to {MAX_INPUTS} inputs a call, these are {}", inputs.len());
            return Err(Refusal::invalid(Some("input"), message));
        }
        Ok(Self {
            inputs,
            kind: match body.input_type {
                None => InputKind::Raw,
                Some(InputType::Query) => InputKind::Query,
                Some(InputType::Document) => InputKind::Document,
            },
            encoding: body.encoding_format.unwrap_or_default(),
            model: body.model,
            dimensions: body.dimensions,
        })
    }

    /// Whether the model that is loaded can do it.
    pub(super) fn check(&self, info: &ModelInfo) -> Result<(), Refusal> {
        if self.model != info.model.id {
            return Err(Refusal::no_such_model(&info.model.id));
        }
        let has = i64::from(info.model.dimensions);
        match self.dimensions {
            Some(asked) if asked != has => {
                let message = format!("{} gives vectors of {has} values and no others", info.model.id);
                Err(Refusal::invalid(Some("dimensions"), message))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::fake;

    #[test]
    fn what_is_asked_is_understood() {
        let one = Asked::read(br#"{"model": "fake", "input": "a text"}"#).unwrap();
        assert_eq!(
            (one.inputs, one.kind, one.encoding),
            (vec!["a text".into()], InputKind::Raw, Encoding::Float)
        );
        let several = br#"{"model": "fake", "input": ["a", "b"], "encoding_format": "base64", "input_type": "passage",
            "user": "somebody", "dimensions": 2}"#;
        let several = Asked::read(several).unwrap();
        assert_eq!(
            (several.inputs.len(), several.kind, several.encoding),
            (2, InputKind::Document, Encoding::Base64)
        );
        several.check(&fake::info()).unwrap();
    }

    /// A row for each thing that is refused: the parameter that is told, and a word of the sentence.
    #[test]
    fn what_cannot_be_is_refused_by_name() {
        let many = format!(r#"{{"model": "fake", "input": {:?}}}"#, vec!["a"; MAX_INPUTS + 1]);
        for (body, parameter, word) in [
            ("", None, "body"),
            (r#"{"input": "SECRET"}"#, None, "model"),
            (r#"{"model": "fake", "input": []}"#, Some("input"), "1 to"),
            (r#"{"model": "fake", "input": [1, 2]}"#, Some("input"), "tokens"),
            (r#"{"model": "fake", "input": [["a"]]}"#, Some("input"), "tokens"),
            (
                r#"{"model": "fake", "input": "SECRET", "encoding_format": "hex"}"#,
                None,
                "body",
            ),
            (&many, Some("input"), "2049"),
            (r#"{"model": "other", "input": "a"}"#, Some("model"), "fake"),
            (
                r#"{"model": "fake", "input": "a", "dimensions": 3}"#,
                Some("dimensions"),
                "2 values",
            ),
        ] {
            let refused = Asked::read(body.as_bytes())
                .and_then(|asked| asked.check(&fake::info()))
                .unwrap_err();
            assert_eq!(refused.parameter, parameter, "{body}");
            assert!(
                refused.message.contains(word) && !refused.message.contains("SECRET"),
                "{}",
                refused.message
            );
        }
    }
}
