//! When a second definition of a name is the same as the first.
//!
//! | part | counts |
//! |---|---|
//! | names, types, sizes, symbols, fields in their order | yes |
//! | defaults and order of fields, unknown attributes, logical types | yes |
//! | doc, aliases, an enum's default | no |
//! | a name in it that was not yet defined | makes it another |

use super::json::{Json, Object};
use super::parse::Parser;
use super::{Kind, NodeId};

const OF_A_SCHEMA: &[&str] = &[
    "doc",
    "fields",
    "items",
    "name",
    "namespace",
    "size",
    "symbols",
    "values",
    "type",
    "aliases",
];
const OF_AN_ENUM: &[&str] = &[
    "doc",
    "fields",
    "items",
    "name",
    "namespace",
    "size",
    "symbols",
    "values",
    "type",
    "aliases",
    "default",
];
const OF_A_FIELD: &[&str] = &["default", "doc", "name", "order", "type", "aliases"];

/// As deep as definitions are nested in JSON: a type used by name is the same one.
pub(super) fn is_same(parser: &Parser<'_>, a: NodeId, b: NodeId) -> bool {
    if a == b {
        return true;
    }
    let (first, second) = (&parser.nodes[a as usize].kind, &parser.nodes[b as usize].kind);
    let definitions = (parser.definitions[a as usize], parser.definitions[b as usize]);
    let same = |a: NodeId, b: NodeId| is_same(parser, a, b);
    match (first, second) {
        (Kind::Array(a), Kind::Array(b)) | (Kind::Map(a), Kind::Map(b)) => {
            same(*a, *b) && same_attributes(definitions, OF_A_SCHEMA)
        }
        (Kind::Union(a), Kind::Union(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(*a, *b)),
        (Kind::Fixed(a), Kind::Fixed(b)) => {
            a.named.name == b.named.name && a.size == b.size && same_attributes(definitions, OF_A_SCHEMA)
        }
        (Kind::Enum(a), Kind::Enum(b)) => {
            a.named.name == b.named.name && a.symbols == b.symbols && same_attributes(definitions, OF_AN_ENUM)
        }
        (Kind::Record(a), Kind::Record(b)) => {
            a.named.name == b.named.name
                && same_attributes(definitions, OF_A_SCHEMA)
                && a.fields.len() == b.fields.len()
                && a.fields.iter().zip(&b.fields).enumerate().all(|(at, (a, b))| {
                    let of = |definition: Option<&'_ Object>| field_of(definition, at).cloned();
                    a.name == b.name
                        && same(a.schema, b.schema)
                        && same_default(a.default.as_ref(), b.default.as_ref())
                        && same_field(of(definitions.0), of(definitions.1))
                })
        }
        (Kind::Forward(_), _) | (_, Kind::Forward(_)) => false,
        (a, b) => a.is_like(b) && same_attributes(definitions, OF_A_SCHEMA),
    }
}

fn same_attributes((a, b): (Option<&Object>, Option<&Object>), but: &[&str]) -> bool {
    match (a.map(|o| o.without(but)), b.map(|o| o.without(but))) {
        (Some(a), Some(b)) => a == b,
        (Some(one), None) | (None, Some(one)) => one.is_empty(),
        (None, None) => true,
    }
}

fn same_default(a: Option<&Json>, b: Option<&Json>) -> bool {
    match (a, b) {
        (Some(Json::Float(a)), Some(Json::Float(b))) => a == b || (a.is_nan() && b.is_nan()),
        (a, b) => a == b,
    }
}

fn field_of(definition: Option<&Object>, at: usize) -> Option<&Object> {
    match definition?.get("fields")? {
        Json::Array(items) => match items.get(at)? {
            Json::Object(field) => Some(field),
            _ => None,
        },
        _ => None,
    }
}

fn same_field(a: Option<Object>, b: Option<Object>) -> bool {
    let order = |field: &Option<Object>| {
        let text = field.as_ref().and_then(|field| field.text("order"));
        text.unwrap_or("ascending").to_uppercase()
    };
    order(&a) == order(&b) && same_attributes((a.as_ref(), b.as_ref()), OF_A_FIELD)
}
