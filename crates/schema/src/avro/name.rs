//! Full names, and which texts are names.

use std::fmt;

use super::Strictness;

/// A name of a record, enum or fixed, or an alias of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Name {
    full: Box<str>,
    /// Where the short name begins.
    short_at: usize,
}

impl Name {
    /// `name` may carry its own namespace, which then counts; an empty namespace is none.
    pub(crate) fn new(name: &str, namespace: Option<&str>) -> Self {
        let (namespace, short) = match name.rsplit_once('.') {
            Some((own, short)) => (Some(own), short),
            None => (namespace, name),
        };
        match namespace {
            None | Some("") => Self {
                full: short.into(),
                short_at: 0,
            },
            Some(namespace) => Self {
                full: format!("{namespace}.{short}").into(),
                short_at: namespace.len() + 1,
            },
        }
    }

    pub(crate) fn full(&self) -> &str {
        &self.full
    }

    pub(crate) fn short(&self) -> &str {
        &self.full[self.short_at..]
    }

    pub(crate) fn namespace(&self) -> Option<&str> {
        self.short_at.checked_sub(1).map(|end| &self.full[..end])
    }

    /// What is wrong with the name, with its namespace if `whole`.
    pub(crate) fn refused(&self, strictness: Strictness, whole: bool) -> Option<String> {
        // Java splits at dots and finds no part at all.
        if whole && !self.full.is_empty() && self.full.bytes().all(|byte| byte == b'.') {
            return Some(format!("`{self}` is not a name: it has only dots"));
        }
        let parts = self
            .namespace()
            .filter(|_| whole)
            .into_iter()
            .flat_map(|n| n.split('.'));
        parts.chain([self.short()]).find_map(|part| refused(part, strictness))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.full)
    }
}

/// What is wrong with a name without dots.
///
/// | text | strict | lenient |
/// |---|---|---|
/// | ASCII letters, digits, `_`, not beginning with a digit | yes | yes |
/// | other letters and digits of the basic plane | yes, as Java does; [`is_portable`] tells | yes |
/// | empty, anything else | no | yes |
pub(crate) fn refused(text: &str, strictness: Strictness) -> Option<String> {
    if strictness == Strictness::Lenient {
        return None;
    }
    let mut characters = text.chars();
    let Some(first) = characters.next() else {
        return Some("a name is empty".to_owned());
    };
    if !(is_letter(first) || first == '_') {
        return Some(format!("`{text}` is not a name: it begins with `{first}`"));
    }
    let bad = characters.find(|c| !(is_letter(*c) || is_digit(*c) || *c == '_'))?;
    Some(format!("`{text}` is not a name: it has a `{bad}`"))
}

/// Whether all implementations take it: the specification knows ASCII only.
pub(crate) fn is_portable(text: &str) -> bool {
    text.is_ascii()
}

/// Java looks at UTF-16 units: what lies beyond the basic plane is never a letter.
fn is_letter(c: char) -> bool {
    c.is_alphabetic() && u32::from(c) <= 0xFFFF
}

fn is_digit(c: char) -> bool {
    c.is_ascii_digit() || (!c.is_ascii() && c.is_numeric() && u32::from(c) <= 0xFFFF)
}
