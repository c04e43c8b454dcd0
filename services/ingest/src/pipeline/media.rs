//! The media types that can be parsed.

use std::fmt;
use std::str::FromStr;

/// A media type that the parse stage reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediaType {
    /// `text/plain`.
    Plain,
    /// `text/markdown`.
    Markdown,
}

/// A media type that the parse stage does not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("media type {0:?} is not supported: use text/plain or text/markdown, optionally with charset=utf-8")]
pub struct UnsupportedMediaType(pub String);

impl FromStr for MediaType {
    type Err = UnsupportedMediaType;

    /// | text | read as |
    /// |---|---|
    /// | `text/plain`, `TEXT/Plain` | `Plain` |
    /// | `text/markdown; charset=UTF-8`, `...;charset="utf-8"` | `Markdown` |
    /// | another type, another charset, another parameter, nothing | refused |
    fn from_str(text: &str) -> Result<Self, UnsupportedMediaType> {
        const SHOWN_CHARS: usize = 100;
        let unsupported = || UnsupportedMediaType(text.chars().take(SHOWN_CHARS).collect());
        let mut parts = text.split(';').map(str::trim);
        let media = match parts.next().unwrap_or_default().to_ascii_lowercase().as_str() {
            "text/plain" => Self::Plain,
            "text/markdown" => Self::Markdown,
            _ => return Err(unsupported()),
        };
        for parameter in parts {
            let (name, value) = parameter.split_once('=').ok_or_else(unsupported)?;
            let value = value
                .strip_prefix('"')
                .and_then(|v| v.strip_suffix('"'))
                .unwrap_or(value);
            if !name.eq_ignore_ascii_case("charset") || !value.eq_ignore_ascii_case("utf-8") {
                return Err(unsupported());
            }
        }
        Ok(media)
    }
}

impl fmt::Display for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "text/plain",
            Self::Markdown => "text/markdown",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_what_the_table_says() {
        for (text, media) in [
            ("text/plain", MediaType::Plain),
            ("TEXT/Plain", MediaType::Plain),
            ("text/markdown; charset=UTF-8", MediaType::Markdown),
            ("text/markdown ;charset=\"utf-8\"", MediaType::Markdown),
        ] {
            assert_eq!(text.parse(), Ok(media), "{text}");
            assert_eq!(media.to_string().parse(), Ok(media));
        }
        for text in [
            "",
            "text/html",
            "text/plain; charset=latin1",
            "text/markdown; variant=GFM",
            "text/plain;",
            "text",
            "text/plain, text/markdown",
        ] {
            assert!(text.parse::<MediaType>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_refusal_does_not_repeat_a_whole_megabyte() {
        let refused = "x".repeat(1 << 20).parse::<MediaType>().unwrap_err();
        assert!(refused.to_string().len() < 300);
    }
}
