//! Why a pair cannot be read: a walk over those pairs that were found unreadable.

use std::collections::HashSet;

use crate::avro::{Enum, Fixed, Kind, Named, NodeId, Record, Rule};

use super::Mismatch;
use super::path::{Path, Step};
use super::reads::{Found, Pairs, found};

/// More are not told.
const MOST: usize = 100;

pub(super) fn reasons(pairs: &mut Pairs<'_>) -> Vec<Mismatch> {
    let roots = (pairs.reader.root(), pairs.writer.root());
    let mut walk = Walk {
        pairs,
        path: Path::default(),
        told: HashSet::new(),
        mismatches: Vec::new(),
    };
    walk.explain(roots.0, roots.1);
    walk.mismatches
}

struct Walk<'w, 's> {
    pairs: &'w mut Pairs<'s>,
    path: Path,
    /// Each pair once: it may stand in many places.
    told: HashSet<(NodeId, NodeId)>,
    mismatches: Vec<Mismatch>,
}

impl<'s> Walk<'_, 's> {
    fn explain(&mut self, reader: NodeId, writer: NodeId) {
        let unreadable = matches!(self.pairs.reads(reader, writer), Ok(false));
        if !unreadable || self.mismatches.len() >= MOST {
            return;
        }
        let (schemas, read, written) = (
            (self.pairs.reader, self.pairs.writer),
            self.pairs.reader.kind(reader),
            self.pairs.writer.kind(writer),
        );
        // Plain types are different ones in every place.
        let is_plain = read.named().is_none() && written.named().is_none();
        if !is_plain && !self.told.insert((reader, writer)) {
            return;
        }
        match (read, written) {
            (Kind::Array(r), Kind::Array(w)) => self.below(Step::Items, *r, *w),
            (Kind::Map(r), Kind::Map(w)) => self.below(Step::Values, *r, *w),
            (Kind::Fixed(r), Kind::Fixed(w)) => self.fixed(r, w),
            (Kind::Enum(r), Kind::Enum(w)) => self.symbols(r, w),
            (Kind::Record(r), Kind::Record(w)) => self.record(reader, r, w),
            (Kind::Union(_), Kind::Union(branches)) => {
                for branch in branches {
                    self.branch(reader, *branch);
                }
            }
            (_, Kind::Union(branches)) => {
                for branch in branches {
                    self.explain(reader, *branch);
                }
            }
            (Kind::Union(_), _) => self.branch(reader, writer),
            (r, w) => {
                let path = self.path.of_type(schemas.0);
                let message = format!("the reader expects {r}, the writer writes {w}");
                self.tell(Rule::TypeMismatch, path, message);
            }
        }
    }

    /// A branch that the reader's union lacks; where one of its branches has the name, what is wrong with that.
    fn branch(&mut self, union: NodeId, writer: NodeId) {
        let Kind::Union(branches) = self.pairs.reader.kind(union) else {
            return;
        };
        if !matches!(self.pairs.reads(union, writer), Ok(false)) {
            return;
        }
        let written = self.pairs.writer.kind(writer);
        let closest = branches.iter().position(|branch| {
            let read = self.pairs.reader.kind(*branch);
            match (read.named(), written.named()) {
                (Some(r), Some(w)) => read.is_like(written) && r.reads(&w.name),
                _ => read.is_like(written),
            }
        });
        let listed: Vec<String> = branches
            .iter()
            .take(10)
            .map(|b| self.pairs.reader.kind(*b).to_string())
            .collect();
        let but = match closest {
            Some(at) => format!("its branch {at} cannot read it"),
            None => "none of its branches reads it".to_owned(),
        };
        let message = format!(
            "the writer may write {written}, the reader's union is [{}]: {but}",
            listed.join(", ")
        );
        self.tell(Rule::MissingUnionBranch, self.path.of_type(self.pairs.reader), message);
        if let Some(at) = closest {
            self.below(Step::Branch(at), branches[at], writer);
        }
    }

    fn names(&mut self, reader: &Named, writer: &Named) {
        if !reader.reads(&writer.name) {
            let message = format!(
                "the reader expects a type named {}, the writer's is {}",
                reader.name, writer.name
            );
            self.tell(Rule::NameMismatch, self.path.part(self.pairs.reader, "name"), message);
        }
    }

    fn fixed(&mut self, reader: &Fixed, writer: &Fixed) {
        self.names(&reader.named, &writer.named);
        if reader.size != writer.size {
            let message = format!(
                "the reader's {} has {} bytes, the writer's {}",
                reader.named.name, reader.size, writer.size
            );
            self.tell(
                Rule::FixedSizeMismatch,
                self.path.part(self.pairs.reader, "size"),
                message,
            );
        }
    }

    fn symbols(&mut self, reader: &Enum, writer: &Enum) {
        self.names(&reader.named, &writer.named);
        let lacking = reader.lacks(writer);
        if reader.default.is_none() && !lacking.is_empty() {
            let message = format!(
                "the writer's {} has symbols that the reader's has not, and the reader's has no default: {}",
                writer.named.name,
                lacking.join(", ")
            );
            let path = self.path.part(self.pairs.reader, "symbols");
            self.tell(Rule::MissingEnumSymbols, path, message);
        }
    }

    fn record(&mut self, id: NodeId, reader: &'s Record, writer: &'s Record) {
        self.names(&reader.named, &writer.named);
        for (at, field) in reader.fields.iter().enumerate() {
            match found(field, writer) {
                Found::One(written) => self.below(Step::Field(id, at), field.schema, written.schema),
                Found::Nothing if field.default.is_none() => {
                    self.path.push(Step::Field(id, at));
                    let message = format!(
                        "the reader's field `{}` has no default, and the writer's {} has no such field",
                        field.name, writer.named.name
                    );
                    let path = self.path.here(self.pairs.reader);
                    self.tell(Rule::ReaderFieldMissingDefaultValue, path, message);
                    self.path.pop();
                }
                Found::Nothing | Found::Several => {}
            }
        }
    }

    fn below(&mut self, step: Step, reader: NodeId, writer: NodeId) {
        self.path.push(step);
        self.explain(reader, writer);
        self.path.pop();
    }

    fn tell(&mut self, rule: Rule, path: String, message: String) {
        self.mismatches.push(Mismatch::new(rule, path, message));
    }
}
