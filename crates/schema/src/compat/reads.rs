//! Whether a reader reads all that a writer writes: Java's `SchemaCompatibility`, with the reasons.
//!
//! | reader | writer | reads |
//! |---|---|---|
//! | same primitive | | yes |
//! | long; float; double | int; int, long; int, long, float | yes |
//! | string, bytes | bytes, string | yes |
//! | array, map | the same | as their items, values |
//! | fixed | fixed | same short name or alias, same size |
//! | enum | enum | same short name or alias, and all symbols known or a default |
//! | record | record | same short name or alias, and each of the reader's fields reads the one it finds, or has a default |
//! | any | union | as every branch |
//! | union | not a union | if one branch does |
//! | else | | no |
//!
//! A field is found by its name and its aliases; one that finds two is an error which no other branch makes good. While a
//! pair is being compared it counts as readable, so that recursive types come to an end.

use crate::avro::{Field, Kind, NodeId, Record, Rule, Schema};

use super::known::ByPair;
use super::path::{Path, Step};
use super::{Mismatch, reasons, risks};

/// Deepest nesting that is followed through names.
pub(super) const MAX_DEPTH: usize = 512;
/// Most comparisons of types, fields and symbols.
pub(super) const MAX_STEPS: usize = 1_000_000;

/// Why `reader` cannot read everything that `writer` writes; empty if it can.
pub fn reads(reader: &Schema, writer: &Schema) -> Vec<Mismatch> {
    let mut pairs = Pairs::new(reader, writer);
    match pairs.reads(reader.root(), writer.root()) {
        Ok(true) => Vec::new(),
        Ok(false) => reasons::reasons(&mut pairs),
        Err(stop) => vec![*stop],
    }
}

/// Both verdicts on a pair: why it cannot be read, and what may go wrong where it can.
pub(super) fn verdicts(reader: &Schema, writer: &Schema) -> (Vec<Mismatch>, Vec<Mismatch>) {
    let mut pairs = Pairs::new(reader, writer);
    match pairs.reads(reader.root(), writer.root()) {
        Ok(true) => (Vec::new(), risks::of(pairs)),
        Ok(false) => (reasons::reasons(&mut pairs), risks::of(pairs)),
        // A comparison that was given up would be given up for every branch again.
        Err(stop) => (vec![*stop], Vec::new()),
    }
}

/// What is known of pairs of types.
pub(super) struct Pairs<'s> {
    pub(super) reader: &'s Schema,
    pub(super) writer: &'s Schema,
    known: ByPair<Answer>,
    path: Path,
    steps: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum Answer {
    Open,
    Yes,
    No,
}

/// What ends the whole comparison.
type Stop = Box<Mismatch>;

/// What a reader's field finds in the writer's record.
pub(super) enum Found<'s> {
    Nothing,
    One(&'s Field),
    Several,
}

impl<'s> Pairs<'s> {
    pub(super) fn new(reader: &'s Schema, writer: &'s Schema) -> Self {
        Self {
            reader,
            writer,
            known: ByPair::default(),
            path: Path::default(),
            steps: 0,
        }
    }

    pub(super) fn reads(&mut self, reader: NodeId, writer: NodeId) -> Result<bool, Stop> {
        let (read, written) = (self.reader.kind(reader), self.writer.kind(writer));
        self.work(1)?;
        if let (true, true) = (is_leaf(read), is_leaf(written)) {
            return Ok(reads_leaf(read, written));
        }
        match self.known.get(&(reader, writer)) {
            Some(Answer::Yes | Answer::Open) => return Ok(true),
            Some(Answer::No) => return Ok(false),
            None => {}
        }
        if self.path.depth() > MAX_DEPTH {
            return Err(self.stop(
                Rule::TooDeep,
                format!("the types are nested more than {MAX_DEPTH} levels deep"),
            ));
        }
        self.known.insert((reader, writer), Answer::Open);
        let answer = self.compare(reader, writer)?;
        let kept = if answer { Answer::Yes } else { Answer::No };
        self.known.insert((reader, writer), kept);
        Ok(answer)
    }

    fn compare(&mut self, reader: NodeId, writer: NodeId) -> Result<bool, Stop> {
        Ok(match (self.reader.kind(reader), self.writer.kind(writer)) {
            (Kind::Array(r), Kind::Array(w)) => self.below(Step::Items, *r, *w)?,
            (Kind::Map(r), Kind::Map(w)) => self.below(Step::Values, *r, *w)?,
            (Kind::Fixed(r), Kind::Fixed(w)) => r.named.reads(&w.named.name) && r.size == w.size,
            (Kind::Enum(r), Kind::Enum(w)) => {
                self.work(r.symbols.len() + w.symbols.len())?;
                r.named.reads(&w.named.name) && (r.default.is_some() || r.lacks(w).is_empty())
            }
            (Kind::Record(r), Kind::Record(w)) => {
                let fits = r.named.reads(&w.named.name);
                // All fields, even after one that does not fit: what follows may end the comparison.
                self.reads_fields(reader, r, w)? && fits
            }
            // Every branch is compared, as Java does: what a later one meets may end the comparison.
            (_, Kind::Union(branches)) => {
                let mut all = true;
                for branch in branches {
                    all &= self.within(reader, *branch)?;
                }
                all
            }
            (Kind::Union(branches), _) => {
                for (at, branch) in branches.iter().enumerate() {
                    if self.below(Step::Branch(at), *branch, writer)? {
                        return Ok(true);
                    }
                }
                false
            }
            (r, w) => reads_leaf(r, w),
        })
    }

    fn reads_fields(&mut self, id: NodeId, reader: &'s Record, writer: &'s Record) -> Result<bool, Stop> {
        let mut all = true;
        for (at, field) in reader.fields.iter().enumerate() {
            self.work(1 + field.aliases.len())?;
            all &= match found(field, writer) {
                Found::One(written) => self.below(Step::Field(id, at), field.schema, written.schema)?,
                Found::Nothing => field.default.is_some(),
                Found::Several => {
                    self.path.push(Step::Field(id, at));
                    let message = format!(
                        "the reader's field `{}` finds more than one field in the writer's {}, by its name and aliases",
                        field.name, writer.named.name
                    );
                    return Err(self.stop(Rule::AmbiguousField, message));
                }
            };
        }
        Ok(all)
    }

    fn below(&mut self, step: Step, reader: NodeId, writer: NodeId) -> Result<bool, Stop> {
        self.path.push(step);
        let answer = self.reads(reader, writer)?;
        self.path.pop();
        Ok(answer)
    }

    /// Down in the writer only. The same depth is counted: it is a level of the comparison.
    fn within(&mut self, reader: NodeId, writer: NodeId) -> Result<bool, Stop> {
        self.reads(reader, writer)
    }

    fn work(&mut self, steps: usize) -> Result<(), Stop> {
        self.steps += steps;
        if self.steps <= MAX_STEPS {
            return Ok(());
        }
        let message = format!("comparing the schemas takes more than {MAX_STEPS} steps");
        Err(self.stop(Rule::TooLarge, message))
    }

    fn stop(&self, rule: Rule, message: String) -> Stop {
        Box::new(Mismatch::new(rule, self.path.here(self.reader), message))
    }
}

/// The writer's field for one of the reader's: by its name and by every alias. An alias that repeats the name counts.
pub(super) fn found<'s>(field: &Field, writer: &'s Record) -> Found<'s> {
    let names = std::iter::once(&field.name).chain(&field.aliases);
    let mut matching = names.filter_map(|name| writer.field(name));
    match (matching.next(), matching.next()) {
        (None, _) => Found::Nothing,
        (Some(one), None) => Found::One(one),
        (Some(_), Some(_)) => Found::Several,
    }
}

fn is_leaf(kind: &Kind) -> bool {
    match kind {
        Kind::Null
        | Kind::Boolean
        | Kind::Int
        | Kind::Long
        | Kind::Float
        | Kind::Double
        | Kind::Bytes
        | Kind::String => true,
        Kind::Array(_)
        | Kind::Map(_)
        | Kind::Union(_)
        | Kind::Fixed(_)
        | Kind::Enum(_)
        | Kind::Record(_)
        | Kind::Forward(_) => false,
    }
}

fn reads_leaf(reader: &Kind, writer: &Kind) -> bool {
    match (reader, writer) {
        (Kind::Long, Kind::Int)
        | (Kind::Float, Kind::Int | Kind::Long)
        | (Kind::Double, Kind::Int | Kind::Long | Kind::Float)
        | (Kind::Bytes, Kind::String)
        | (Kind::String, Kind::Bytes) => true,
        (r, w) => is_leaf(r) && r.is_like(w),
    }
}
