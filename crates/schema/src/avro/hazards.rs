//! Defaults that Java's parser lets through and that fail later.
//!
//! | default | why |
//! |---|---|
//! | of a later branch of a union | read since Java 1.12; parsers before and Rust's decoder refuse it |
//! | no symbol of the enum, a text that is not as long as the fixed, a character above U+00FF in bytes | cannot be encoded |

use super::defaults::Defaults;
use super::json::Json;
use super::{Kind, Node, NodeId, Problem, Rule};

/// What is risky about a field's default, which is a value of its type. Nothing refers to a name before its definition.
pub(super) fn of_default(
    nodes: &[Node],
    schema: NodeId,
    default: &Json,
    path: impl FnOnce() -> String,
) -> Option<Problem> {
    look(nodes, schema, default).map(|(rule, why)| {
        let message = format!("the default {} {why}", default.shown());
        Problem::new(rule, path(), message)
    })
}

/// As deep as the default's JSON.
fn look(nodes: &[Node], schema: NodeId, value: &Json) -> Option<(Rule, String)> {
    let kind = &nodes[schema as usize].kind;
    match (kind, value) {
        (Kind::Enum(symbols), Json::Text(text)) => {
            let known = symbols.symbols.iter().any(|symbol| **symbol == **text);
            (!known).then(|| (Rule::DefaultNotEncodable, format!("has `{text}`, no symbol of {kind}")))
        }
        (Kind::Fixed(fixed), Json::Text(text)) => {
            let count = text.chars().count();
            let fits = i32::try_from(count) == Ok(fixed.size) && is_bytes(text);
            let why = || format!("has a text of {count} characters for {kind} of {} bytes", fixed.size);
            (!fits).then(|| (Rule::DefaultNotEncodable, why()))
        }
        (Kind::Bytes, Json::Text(text)) => {
            let why = || "has a character above U+00FF, which is no byte".to_owned();
            (!is_bytes(text)).then(|| (Rule::DefaultNotEncodable, why()))
        }
        (Kind::Array(items), Json::Array(values)) => values.iter().find_map(|value| look(nodes, *items, value)),
        (Kind::Map(values), Json::Object(object)) => object.iter().find_map(|(_, value)| look(nodes, *values, value)),
        (Kind::Record(record), Json::Object(object)) => {
            let find = object.lookup();
            let mut given = record.fields.iter().filter_map(|f| Some((f.schema, find(&f.name)?)));
            given.find_map(|(schema, value)| look(nodes, schema, value))
        }
        (Kind::Union(branches), value) => {
            let fits = |branch: &&NodeId| Defaults::as_written(nodes).check(**branch, value).is_ok();
            let branch = branches.iter().find(fits)?;
            if Some(branch) != branches.first() {
                let kind = &nodes[*branch as usize].kind;
                return Some((
                    Rule::DefaultFromLaterBranch,
                    format!("is of {kind}, which is not the first type of its union"),
                ));
            }
            look(nodes, *branch, value)
        }
        _ => None,
    }
}

fn is_bytes(text: &str) -> bool {
    text.chars().all(|c| u32::from(c) <= 0xFF)
}
