//! Avro schemas as Java Avro 1.12 understands them, on plain JSON.
//!
//! | | candidate ([`Schema::strict`]) | stored version ([`Schema::lenient`]) |
//! |---|---|---|
//! | names | checked | not checked |
//! | defaults | checked | not checked |
//! | `{"type": "NameOfAType"}` | refused, as by 1.12.2 | read, as by 1.12.1 and before |
//! | all else | checked | checked |
//!
//! A type may be used before its definition, and defined twice if both definitions are the same.

mod defaults;
mod equal;
mod hazards;
mod json;
mod logical;
mod name;
mod number;
mod parse;
mod problem;
mod resolve;
mod rule;

use std::collections::HashMap;
use std::fmt;

pub use problem::Problem;
pub use rule::Rule;

pub(crate) use json::Json;
pub(crate) use logical::Logical;
pub(crate) use name::{Name, is_portable};

/// A schema, its names resolved.
#[derive(Debug, Clone)]
pub struct Schema {
    nodes: Vec<Node>,
    root: NodeId,
    notes: Vec<Problem>,
}

/// How much is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strictness {
    Strict,
    Lenient,
}

/// A type's place in its schema. Two uses of one name have one id.
pub(crate) type NodeId = u32;

#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) kind: Kind,
    pub(crate) logical: Option<Logical>,
}

#[derive(Debug, Clone)]
pub(crate) enum Kind {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    String,
    Array(NodeId),
    Map(NodeId),
    Union(Vec<NodeId>),
    Fixed(Fixed),
    Enum(Enum),
    Record(Record),
    /// A name used before its definition; nothing refers to one in a finished schema.
    Forward(Box<str>),
}

#[derive(Debug, Clone)]
pub(crate) struct Named {
    pub(crate) name: Name,
    pub(crate) aliases: Vec<Name>,
}

#[derive(Debug, Clone)]
pub(crate) struct Fixed {
    pub(crate) named: Named,
    pub(crate) size: i32,
}

#[derive(Debug, Clone)]
pub(crate) struct Enum {
    pub(crate) named: Named,
    pub(crate) symbols: Vec<Box<str>>,
    pub(crate) default: Option<Box<str>>,
}

#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) named: Named,
    pub(crate) fields: Vec<Field>,
    /// Where a field is; only of records with many.
    index: Option<HashMap<Box<str>, usize>>,
}

#[derive(Debug, Clone)]
pub(crate) struct Field {
    pub(crate) name: Box<str>,
    pub(crate) aliases: Vec<Box<str>>,
    pub(crate) schema: NodeId,
    pub(crate) default: Option<Json>,
}

impl Schema {
    /// Reads a candidate. All that is wrong with it, where it is.
    pub fn strict(text: &str) -> Result<Self, Vec<Problem>> {
        Self::strict_with(text, &[])
    }

    /// As [`Self::strict`], where names may be defined in other schemas, given in the order of their dependence.
    pub fn strict_with(text: &str, references: &[&str]) -> Result<Self, Vec<Problem>> {
        parse::parse(text, references, Strictness::Strict)
    }

    /// Reads a stored version: names and defaults are as they are.
    pub fn lenient(text: &str) -> Result<Self, Problem> {
        Self::lenient_with(text, &[])
    }

    /// As [`Self::lenient`], where names may be defined in other schemas, given in the order of their dependence.
    pub fn lenient_with(text: &str, references: &[&str]) -> Result<Self, Problem> {
        parse::parse(text, references, Strictness::Lenient).map_err(|mut problems| problems.swap_remove(0))
    }

    /// The full name, where the schema is a record, an enum or a fixed.
    pub fn name(&self) -> Option<&str> {
        self.kind(self.root).named().map(|named| named.name.full())
    }

    pub(crate) fn root(&self) -> NodeId {
        self.root
    }

    pub(crate) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id as usize]
    }

    pub(crate) fn kind(&self, id: NodeId) -> &Kind {
        &self.node(id).kind
    }

    /// What was met while reading that is allowed and yet a risk.
    pub(crate) fn notes(&self) -> &[Problem] {
        &self.notes
    }
}

impl Kind {
    pub(crate) fn named(&self) -> Option<&Named> {
        match self {
            Self::Fixed(fixed) => Some(&fixed.named),
            Self::Enum(symbols) => Some(&symbols.named),
            Self::Record(record) => Some(&record.named),
            Self::Null
            | Self::Boolean
            | Self::Int
            | Self::Long
            | Self::Float
            | Self::Double
            | Self::Bytes
            | Self::String
            | Self::Array(_)
            | Self::Map(_)
            | Self::Union(_)
            | Self::Forward(_) => None,
        }
    }

    /// The type's word in a schema.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Boolean => "boolean",
            Self::Int => "int",
            Self::Long => "long",
            Self::Float => "float",
            Self::Double => "double",
            Self::Bytes => "bytes",
            Self::String => "string",
            Self::Array(_) => "array",
            Self::Map(_) => "map",
            Self::Union(_) => "union",
            Self::Fixed(_) => "fixed",
            Self::Enum(_) => "enum",
            Self::Record(_) | Self::Forward(_) => "record",
        }
    }

    /// Whether both are records, both arrays and so on.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.named() {
            Some(named) => write!(f, "{} {}", self.word(), named.name),
            None => f.write_str(self.word()),
        }
    }
}

impl Named {
    /// Whether data of this other name may be read: the same short name, or an alias.
    pub(crate) fn reads(&self, written: &Name) -> bool {
        self.name.short() == written.short() || self.has_alias(written)
    }

    /// Java never finds an alias without a namespace on a type that has one.
    pub(crate) fn has_alias(&self, written: &Name) -> bool {
        let found = |alias: &Name| alias == written && (alias.namespace().is_some() || self.name.namespace().is_none());
        self.aliases.iter().any(found)
    }
}

impl Enum {
    /// Symbols that this one lacks, in order, each once.
    pub(crate) fn lacks<'a>(&self, written: &'a Self) -> Vec<&'a str> {
        if self.symbols == written.symbols {
            return Vec::new();
        }
        let known: std::collections::HashSet<&str> = self.symbols.iter().map(|s| &**s).collect();
        let mut lacking: Vec<&str> = written
            .symbols
            .iter()
            .map(|s| &**s)
            .filter(|s| !known.contains(s))
            .collect();
        lacking.sort_unstable();
        lacking
    }
}

impl Record {
    const FEW_FIELDS: usize = 16;

    fn new(named: Named, fields: Vec<Field>) -> Self {
        let index = || fields.iter().enumerate().map(|(at, field)| (field.name.clone(), at));
        let index = (fields.len() > Self::FEW_FIELDS).then(|| index().collect());
        Self { named, fields, index }
    }

    pub(crate) fn field(&self, name: &str) -> Option<&Field> {
        match &self.index {
            Some(index) => index.get(name).and_then(|at| self.fields.get(*at)),
            None => self.fields.iter().find(|field| *field.name == *name),
        }
    }
}
