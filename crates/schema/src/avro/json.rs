//! JSON as Avro's reference implementation reads it: `//` and `/* */` comments pass, the last of two equal keys counts,
//! nothing may follow the value. Unlike `serde_json::Value` it keeps the order of keys, and its depth is bounded by us.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::problem::{Problem, Rule};

/// Deepest nesting of objects and arrays. An inline record takes four levels: 64 records in one another.
pub(crate) const MAX_DEPTH: usize = 256;
/// Largest schema, in bytes.
pub(crate) const MAX_BYTES: usize = 4 << 20;
/// Objects with more keys are looked up by hash.
const FEW_KEYS: usize = 16;

/// Words that stand in every schema are not copied.
pub(crate) type Text = Cow<'static, str>;

const WORDS: [&str; 22] = [
    "name",
    "type",
    "doc",
    "default",
    "fields",
    "string",
    "long",
    "int",
    "record",
    "null",
    "symbols",
    "items",
    "array",
    "bytes",
    "enum",
    "namespace",
    "boolean",
    "double",
    "float",
    "map",
    "values",
    "aliases",
];

fn text(value: &str) -> Text {
    match WORDS.iter().find(|word| **word == value) {
        Some(word) => Cow::Borrowed(word),
        None => Cow::Owned(value.to_owned()),
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Json {
    Null,
    Bool(bool),
    /// Fits a Java `long`.
    Integer(i64),
    /// Has a fraction or an exponent, or does not fit a `long`.
    Float(f64),
    Text(Text),
    Array(Vec<Json>),
    Object(Object),
}

/// Keys in the order of the text, each once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Object(Vec<(Text, Json)>);

impl Object {
    pub(crate) fn get(&self, key: &str) -> Option<&Json> {
        self.0.iter().find(|(k, _)| *k == key).map(|(_, value)| value)
    }

    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Json::as_text)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Json)> {
        self.0.iter().map(|(key, value)| (key.as_ref(), value))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Looks many keys up without a scan for each.
    pub(crate) fn lookup<'s>(&'s self) -> impl Fn(&str) -> Option<&'s Json> {
        let index: Option<HashMap<&str, &Json>> = (self.0.len() > FEW_KEYS).then(|| self.iter().collect());
        move |key| match &index {
            Some(index) => index.get(key).copied(),
            None => self.get(key),
        }
    }

    /// What is left without some keys.
    pub(crate) fn without(&self, keys: &[&str]) -> Self {
        let kept = self.0.iter().filter(|(key, _)| !keys.contains(&key.as_ref()));
        Self(kept.cloned().collect())
    }

    fn collected(pairs: Vec<(Text, Json)>) -> Self {
        let hashed = pairs.len() > FEW_KEYS;
        let again = |at: usize| pairs[..at].iter().any(|(key, _)| *key == pairs[at].0);
        if !hashed && !(1..pairs.len()).any(again) {
            return Self(pairs);
        }
        let mut kept: Vec<(Text, Json)> = Vec::with_capacity(pairs.len());
        let mut index: HashMap<Text, usize> = HashMap::new();
        for (key, value) in pairs {
            let seen = if hashed {
                index.get(&key).copied()
            } else {
                kept.iter().position(|(k, _)| *k == key)
            };
            match seen {
                Some(at) => kept[at].1 = value,
                None => {
                    if hashed {
                        index.insert(key.clone(), kept.len());
                    }
                    kept.push((key, value));
                }
            }
        }
        Self(kept)
    }
}

impl PartialEq for Object {
    fn eq(&self, other: &Self) -> bool {
        let find = other.lookup();
        self.0.len() == other.0.len() && self.iter().all(|(key, value)| find(key) == Some(value))
    }
}

impl Json {
    pub(crate) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A whole number that fits a Java `int`.
    pub(crate) fn as_int(&self) -> Option<i32> {
        match self {
            Self::Integer(number) => i32::try_from(*number).ok(),
            _ => None,
        }
    }

    /// The value as text, cut where it is long.
    pub(crate) fn shown(&self) -> String {
        const LONGEST: usize = 80;
        let mut text = String::new();
        self.write(&mut text, LONGEST);
        match text.char_indices().nth(LONGEST) {
            Some((cut, _)) => format!("{}…", &text[..cut]),
            None => text,
        }
    }

    fn write(&self, out: &mut String, longest: usize) {
        if out.len() > longest {
            return;
        }
        match self {
            Self::Null => out.push_str("null"),
            Self::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Self::Integer(number) => out.push_str(&number.to_string()),
            Self::Float(number) => out.push_str(&format!("{number:?}")),
            Self::Text(text) => out.push_str(&format!("\"{text}\"")),
            Self::Array(items) => {
                out.push('[');
                for (at, item) in items.iter().enumerate() {
                    out.push_str(if at == 0 { "" } else { "," });
                    item.write(out, longest);
                    if out.len() > longest {
                        return;
                    }
                }
                out.push(']');
            }
            Self::Object(object) => {
                out.push('{');
                for (at, (key, value)) in object.iter().enumerate() {
                    out.push_str(if at == 0 { "\"" } else { ",\"" });
                    out.push_str(key);
                    out.push_str("\":");
                    value.write(out, longest);
                    if out.len() > longest {
                        return;
                    }
                }
                out.push('}');
            }
        }
    }
}

/// Reads one value. The second says whether there were comments.
pub(crate) fn parse(text: &str) -> Result<(Json, bool), Problem> {
    let refused = |why: String| Problem::new(Rule::InvalidJson, "", why);
    if text.len() > MAX_BYTES {
        return Err(Problem::new(
            Rule::TooLarge,
            "",
            format!("the schema has {} bytes; at most {MAX_BYTES} are read", text.len()),
        ));
    }
    let bare = without_comments(text);
    let mut deserializer = serde_json::Deserializer::from_str(&bare);
    // Bounded by `Depth` instead: the default of 128 is less than real schemas need.
    deserializer.disable_recursion_limit();
    let value = match Depth(MAX_DEPTH).deserialize(&mut deserializer) {
        Ok(value) => value,
        Err(e) if e.to_string().starts_with(TOO_DEEP) => {
            let why = format!("the schema's JSON is nested more than {MAX_DEPTH} levels deep");
            return Err(Problem::new(Rule::TooDeep, "", why));
        }
        Err(e) => return Err(refused(format!("the schema is not JSON: {e}"))),
    };
    deserializer
        .end()
        .map_err(|e| refused(format!("something follows the schema: {e}")))?;
    Ok((value, matches!(bare, Cow::Owned(_))))
}

/// Comments become spaces, so that lines and columns in errors stay right.
fn without_comments(text: &str) -> Cow<'_, str> {
    let mut bare: Option<Vec<u8>> = None;
    let bytes = text.as_bytes();
    let mut at = 0;
    let mut in_text = false;
    while at < bytes.len() {
        match (in_text, bytes[at], bytes.get(at + 1)) {
            (true, b'\\', _) => at += 1,
            (_, b'"', _) => in_text = !in_text,
            (false, b'/', Some(kind @ (b'/' | b'*'))) => {
                let rest = &text[at + 2..];
                let length = match kind {
                    b'/' => rest.find(['\n', '\r']).unwrap_or(rest.len()),
                    // One that is never closed is left for the JSON reader to refuse.
                    _ => match rest.find("*/") {
                        Some(end) => end + 2,
                        None => break,
                    },
                };
                let end = at + 2 + length;
                for byte in &mut bare.get_or_insert_with(|| bytes.to_vec())[at..end] {
                    if *byte != b'\n' {
                        *byte = b' ';
                    }
                }
                at = end;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    // Only whole comments were blanked, so that it is still UTF-8.
    match bare.map(String::from_utf8) {
        Some(Ok(bare)) => Cow::Owned(bare),
        Some(Err(_)) | None => Cow::Borrowed(text),
    }
}

const TOO_DEEP: &str = "nested too deep";

/// Reads a value that may hold so many levels.
#[derive(Clone, Copy)]
struct Depth(usize);

impl Depth {
    fn below<E: Error>(self) -> Result<Self, E> {
        self.0.checked_sub(1).map(Depth).ok_or_else(|| E::custom(TOO_DEEP))
    }
}

impl<'de> DeserializeSeed<'de> for Depth {
    type Value = Json;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// Reads a key.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Text;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Text, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key {
    type Value = Text;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, value: &str) -> Result<Text, E> {
        Ok(text(value))
    }
}

impl<'de> Visitor<'de> for Depth {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Integer(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(i64::try_from(value).map_or(Json::Float(value as f64), Json::Integer))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(Json::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Text(text(value)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Json, A::Error> {
        let below = self.below()?;
        let mut items = Vec::new();
        while let Some(item) = access.next_element_seed(below)? {
            items.push(item);
        }
        Ok(Json::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Json, A::Error> {
        let below = self.below()?;
        let mut pairs = Vec::new();
        while let Some(key) = access.next_key_seed(Key)? {
            pairs.push((key, access.next_value_seed(below)?));
        }
        Ok(Json::Object(Object::collected(pairs)))
    }
}
