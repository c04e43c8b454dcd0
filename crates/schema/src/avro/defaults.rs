//! Whether a default is a value of its field's type, as Java sees it.
//!
//! | type | default |
//! |---|---|
//! | null | `null` |
//! | boolean | `true`, `false` |
//! | int, long | a whole number within the type's range, written without fraction or exponent |
//! | float, double | any number; as the field's own type also a number as text |
//! | string, bytes, enum, fixed | any text (what cannot be encoded is a risk, see `compat::risks`) |
//! | array, map | an array, an object, of values of the type within |
//! | union | a value of any branch |
//! | record | an object with a value for each field, or the field's own default |
//!
//! A default is looked at twice. First as it is read: a type that is not yet defined is then a record without fields. And
//! again when all names are known; there a record that is not finished, because the default stands within it, has no fields
//! to look at, and Java refuses the schema.

use std::collections::{HashMap, HashSet};
use std::fmt;

use super::json::Json;
use super::{Kind, Node, NodeId};

/// Deepest chain of values in values, where fields that are left out have defaults of their own.
const MAX_DEPTH: usize = 512;

pub(super) struct Defaults<'s> {
    nodes: &'s [Node],
    /// None while the schema is being read.
    resolved: Option<Resolved<'s>>,
    /// A value is one place in the JSON: told from another by its address.
    known: HashMap<(NodeId, *const Json), bool>,
}

/// What a second look needs.
#[derive(Clone, Copy)]
pub(super) struct Resolved<'s> {
    pub(super) targets: &'s HashMap<NodeId, NodeId>,
    pub(super) finished: &'s HashSet<NodeId>,
}

/// Why a default is refused.
pub(super) enum Refused {
    NotOfType(String),
    Unfinished(String),
    TooDeep,
}

enum Stop {
    Unfinished(NodeId),
    TooDeep,
}

impl<'s> Defaults<'s> {
    pub(super) fn as_written(nodes: &'s [Node]) -> Self {
        Self {
            nodes,
            resolved: None,
            known: HashMap::new(),
        }
    }

    pub(super) fn resolved(nodes: &'s [Node], resolved: Resolved<'s>) -> Self {
        Self {
            nodes,
            resolved: Some(resolved),
            known: HashMap::new(),
        }
    }

    pub(super) fn check(mut self, schema: NodeId, value: &Json) -> Result<(), Refused> {
        let shown = |id: NodeId| self.nodes[id as usize].kind.to_string();
        match self.is_valid(schema, value, 0) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Refused::NotOfType(shown(schema))),
            Err(Stop::Unfinished(record)) => Err(Refused::Unfinished(shown(record))),
            Err(Stop::TooDeep) => Err(Refused::TooDeep),
        }
    }

    fn is_valid(&mut self, id: NodeId, value: &Json, depth: usize) -> Result<bool, Stop> {
        if depth > MAX_DEPTH {
            return Err(Stop::TooDeep);
        }
        let nodes = self.nodes;
        Ok(match &nodes[id as usize].kind {
            Kind::Null => matches!(value, Json::Null),
            Kind::Boolean => matches!(value, Json::Bool(_)),
            Kind::Int => value.as_int().is_some(),
            Kind::Long => matches!(value, Json::Integer(_)),
            Kind::Float | Kind::Double => matches!(value, Json::Integer(_) | Json::Float(_)),
            Kind::String | Kind::Bytes | Kind::Enum(_) | Kind::Fixed(_) => matches!(value, Json::Text(_)),
            Kind::Array(items) => match value {
                Json::Array(values) => {
                    for value in values {
                        if !self.is_valid(*items, value, depth + 1)? {
                            return Ok(false);
                        }
                    }
                    true
                }
                _ => false,
            },
            Kind::Map(values) => match value {
                Json::Object(object) => {
                    for (_, value) in object.iter() {
                        if !self.is_valid(*values, value, depth + 1)? {
                            return Ok(false);
                        }
                    }
                    true
                }
                _ => false,
            },
            Kind::Union(branches) => {
                for branch in branches {
                    if self.is_valid(*branch, value, depth + 1)? {
                        return Ok(true);
                    }
                }
                false
            }
            Kind::Forward(_) => match self.resolved.and_then(|resolved| resolved.targets.get(&id)) {
                Some(target) => self.is_valid(*target, value, depth)?,
                None => matches!(value, Json::Object(_)),
            },
            Kind::Record(_) => match self.known.get(&(id, std::ptr::from_ref(value))) {
                Some(known) => *known,
                None => {
                    let valid = self.is_valid_record(id, value, depth)?;
                    self.known.insert((id, std::ptr::from_ref(value)), valid);
                    valid
                }
            },
        })
    }

    fn is_valid_record(&mut self, id: NodeId, value: &Json, depth: usize) -> Result<bool, Stop> {
        let nodes = self.nodes;
        let (Kind::Record(record), Json::Object(object)) = (&nodes[id as usize].kind, value) else {
            return Ok(false);
        };
        if self.resolved.is_some_and(|resolved| !resolved.finished.contains(&id)) {
            return Err(Stop::Unfinished(id));
        }
        let find = object.lookup();
        for field in &record.fields {
            let Some(value) = find(&field.name).or(field.default.as_ref()) else {
                return Ok(false);
            };
            if !self.is_valid(field.schema, value, depth + 1)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotOfType(kind) => write!(f, "is not a value of its type, {kind}"),
            Self::Unfinished(kind) => write!(f, "needs the fields of {kind}, in whose definition it stands"),
            Self::TooDeep => write!(f, "takes more than {MAX_DEPTH} values in one another"),
        }
    }
}
