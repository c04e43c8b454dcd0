//! What a registry lets through although consumers break or data is lost.
//!
//! | risk | who is hurt |
//! |---|---|
//! | decimal with other precision or scale, other unit or kind of time | whoever takes the number for what it was |
//! | logical type added, dropped | Rust decoders refuse one of the sides |
//! | field renamed by an alias | decoders that ignore field aliases (Rust); the reader of before finds nothing |
//! | a field gone and one come, both with defaults | a rename that loses the value without a word |
//! | bytes and string exchanged | Rust and Python, when bytes are no UTF-8 |
//! | symbol hidden by an enum's default | whoever has to tell the symbols apart |
//! | same name, other namespace | all that compare full names |
//! | int or long as float, long as double | large numbers |
//! | union on one side only, number of another width | Rust decoders that take the written type as it is |
//!
//! Only pairs that can be read are looked at: the others are findings.

use std::collections::HashSet;

use crate::avro::{Field, Kind, Logical, NodeId, Record, Rule, Schema};

use super::Mismatch;
use super::known::ByPair;
use super::path::{Path, Step};
use super::reads::{Found, MAX_DEPTH, MAX_STEPS, Pairs, found};

/// More are not told.
const MOST: usize = 100;

/// What may go wrong although `reader` reads what `writer` writes.
pub fn risks(reader: &Schema, writer: &Schema) -> Vec<Mismatch> {
    super::reads::verdicts(reader, writer).1
}

/// As [`risks`], where the pairs have been compared.
pub(super) fn of(pairs: Pairs<'_>) -> Vec<Mismatch> {
    let roots = (pairs.reader.root(), pairs.writer.root());
    let mut walk = Walk {
        pairs,
        path: Path::default(),
        seen: ByPair::default(),
        risks: Vec::new(),
        steps: 0,
    };
    walk.pair(roots.0, roots.1);
    walk.risks
}

struct Walk<'s> {
    pairs: Pairs<'s>,
    path: Path,
    seen: ByPair<()>,
    risks: Vec<Mismatch>,
    steps: usize,
}

impl<'s> Walk<'s> {
    fn pair(&mut self, reader: NodeId, writer: NodeId) {
        if self.risks.len() >= MOST
            || self.path.depth() > MAX_DEPTH
            || !self.spend(1)
            || self.seen.insert((reader, writer), ()).is_some()
        {
            return;
        }
        let (read, written) = (self.pairs.reader.kind(reader), self.pairs.writer.kind(writer));
        match (read, written) {
            (Kind::Union(_), Kind::Union(branches)) => {
                for branch in branches {
                    self.branch(reader, *branch);
                }
            }
            (_, Kind::Union(branches)) => {
                self.tell_union(format!("the reader expects {read}, the writer writes a union"));
                for branch in branches {
                    self.pair(reader, *branch);
                }
            }
            (Kind::Union(_), _) => {
                self.tell_union(format!("the reader expects a union, the writer writes {written}"));
                self.branch(reader, writer);
            }
            (Kind::Array(r), Kind::Array(w)) => self.below(Step::Items, *r, *w),
            (Kind::Map(r), Kind::Map(w)) => self.below(Step::Values, *r, *w),
            (Kind::Record(r), Kind::Record(w)) => self.record(reader, r, w),
            _ => self.leaf(reader, writer),
        }
        self.namespace(read, written);
    }

    /// Whether so much work is still allowed. What is left over stays unseen, as do risks after the hundredth.
    fn spend(&mut self, steps: usize) -> bool {
        self.steps += steps;
        self.steps <= MAX_STEPS
    }

    fn tell_union(&mut self, message: String) {
        let path = self.path.of_type(self.pairs.reader);
        self.tell(Rule::UnionChanged, path, message);
    }

    /// The branch that reads it: of the same name and type first, as decoders choose.
    fn branch(&mut self, union: NodeId, writer: NodeId) {
        let Kind::Union(branches) = self.pairs.reader.kind(union) else {
            return;
        };
        if !self.spend(branches.len()) {
            return;
        }
        let written = self.pairs.writer.kind(writer);
        let named = |id: &NodeId| {
            let read = self.pairs.reader.kind(*id);
            let same = match (read.named(), written.named()) {
                (Some(r), Some(w)) => r.reads(&w.name),
                _ => true,
            };
            same && read.is_like(written)
        };
        let at = branches.iter().position(named).or_else(|| {
            let mut reading = branches.iter();
            reading.position(|branch| matches!(self.pairs.reads(*branch, writer), Ok(true)))
        });
        if let Some(at) = at {
            self.below(Step::Branch(at), branches[at], writer);
        }
    }

    fn namespace(&mut self, reader: &Kind, writer: &Kind) {
        if let (Some(r), Some(w)) = (reader.named(), writer.named())
            && reader.is_like(writer)
            && r.name.short() == w.name.short()
            && r.name != w.name
            && !r.has_alias(&w.name)
        {
            let message = format!("the reader's type is {}, the writer's {}", r.name, w.name);
            let path = self.path.part(self.pairs.reader, "namespace");
            self.tell(Rule::NamespaceMoved, path, message);
        }
    }

    fn record(&mut self, id: NodeId, reader: &'s Record, writer: &'s Record) {
        let mut taken: HashSet<&str> = HashSet::new();
        let mut alone = Vec::new();
        for (at, field) in reader.fields.iter().enumerate() {
            match found(field, writer) {
                Found::One(written) => {
                    taken.insert(&written.name);
                    self.path.push(Step::Field(id, at));
                    if written.name != field.name {
                        let message = format!("the reader's field `{}` is the writer's `{}`", field.name, written.name);
                        let path = self.path.part(self.pairs.reader, "aliases");
                        self.tell(Rule::FieldRenamedByAlias, path, message);
                    }
                    self.pair(field.schema, written.schema);
                    self.path.pop();
                }
                Found::Nothing if field.default.is_some() => alone.push((at, field)),
                Found::Nothing | Found::Several => {}
            }
        }
        let mut gone: Vec<&Field> = writer
            .fields
            .iter()
            .filter(|field| field.default.is_some() && !taken.contains(&*field.name))
            .collect();
        for (at, field) in alone {
            let same = |other: &&Field| {
                let (r, w) = (
                    self.pairs.reader.node(field.schema),
                    self.pairs.writer.node(other.schema),
                );
                let names = (r.kind.named(), w.kind.named());
                let same_name = !matches!(names, (Some(r), Some(w)) if !r.reads(&w.name));
                r.kind.is_like(&w.kind) && r.logical == w.logical && same_name
            };
            let Some(other) = gone.iter().position(same) else {
                if !self.spend(gone.len()) {
                    return;
                }
                continue;
            };
            let other = gone.remove(other);
            self.path.push(Step::Field(id, at));
            let message = format!(
                "the reader's field `{}` is not the writer's and the writer's `{}` of the same type is not the reader's: both \
                 have defaults, and if one is the other's new name its values are lost",
                field.name, other.name
            );
            let path = self.path.here(self.pairs.reader);
            self.tell(Rule::FieldReplaced, path, message);
            self.path.pop();
        }
    }

    /// Neither is a union, an array, a map or a record.
    fn leaf(&mut self, reader: NodeId, writer: NodeId) {
        if !matches!(self.pairs.reads(reader, writer), Ok(true)) {
            return;
        }
        let (r, w) = (self.pairs.reader.node(reader), self.pairs.writer.node(writer));
        let path = |walk: &Self| walk.path.of_type(walk.pairs.reader);
        if let Some(rule) = logical_risk(r.logical.as_ref(), w.logical.as_ref()) {
            let message = format!(
                "the reader takes {} as {}, the writer means {}",
                w.kind,
                shown(r.logical.as_ref()),
                shown(w.logical.as_ref())
            );
            self.tell(rule, path(self), message);
        }
        let message = || format!("the reader expects {}, the writer writes {}", r.kind, w.kind);
        match (&r.kind, &w.kind) {
            (Kind::Bytes, Kind::String) | (Kind::String, Kind::Bytes) => {
                self.tell(Rule::BytesAndString, path(self), message());
            }
            (Kind::Float, Kind::Int | Kind::Long) | (Kind::Double, Kind::Long) => {
                self.tell(Rule::PrecisionLost, path(self), message());
            }
            (Kind::Long, Kind::Int) | (Kind::Double, Kind::Int | Kind::Float) => {
                self.tell(Rule::NumberWidened, path(self), message());
            }
            (Kind::Enum(r), Kind::Enum(w)) => {
                let lost = r.lacks(w);
                if let Some(default) = r.default.as_ref().filter(|_| !lost.is_empty()) {
                    let message = format!(
                        "the reader's {} reads as `{default}`: {}",
                        r.named.name,
                        lost.join(", ")
                    );
                    let path = self.path.part(self.pairs.reader, "symbols");
                    self.tell(Rule::EnumSymbolLost, path, message);
                }
            }
            _ => {}
        }
    }

    fn below(&mut self, step: Step, reader: NodeId, writer: NodeId) {
        self.path.push(step);
        self.pair(reader, writer);
        self.path.pop();
    }

    fn tell(&mut self, rule: Rule, path: String, message: String) {
        self.risks.push(Mismatch::new(rule, path, message));
    }
}

fn shown(logical: Option<&Logical>) -> String {
    logical.map_or("the plain value".to_owned(), Logical::to_string)
}

fn logical_risk(reader: Option<&Logical>, writer: Option<&Logical>) -> Option<Rule> {
    match (reader, writer) {
        (r, w) if r == w => None,
        (Some(Logical::Decimal { .. }), Some(Logical::Decimal { .. })) => Some(Rule::DecimalChanged),
        (Some(_), Some(_)) => Some(Rule::LogicalTypeChanged),
        (Some(_), None) => Some(Rule::LogicalTypeAdded),
        (None, Some(_)) => Some(Rule::LogicalTypeDropped),
        (None, None) => None,
    }
}
