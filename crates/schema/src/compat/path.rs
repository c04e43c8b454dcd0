//! The way from a schema's root to a type in it.

use crate::avro::{Kind, NodeId, Schema};

/// One step down in the reader's schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// The field of a record at a position.
    Field(NodeId, usize),
    Items,
    Values,
    /// A branch of a union.
    Branch(usize),
}

/// The steps from the root. Names used stand for their definitions: the path goes on as if they stood there.
#[derive(Debug, Clone, Default)]
pub(super) struct Path(Vec<Step>);

impl Path {
    pub(super) fn push(&mut self, step: Step) {
        self.0.push(step);
    }

    pub(super) fn pop(&mut self) {
        self.0.pop();
    }

    pub(super) fn depth(&self) -> usize {
        self.0.len()
    }

    /// The path of a part of the type here, for example `symbols`.
    pub(super) fn part(&self, schema: &Schema, part: &str) -> String {
        format!("{}/{part}", self.here(schema))
    }

    /// The path of the type here, which is a field's "type" if it is a field's.
    pub(super) fn of_type(&self, schema: &Schema) -> String {
        match self.0.last() {
            Some(Step::Field(..)) => self.part(schema, "type"),
            Some(Step::Items | Step::Values | Step::Branch(_)) | None => self.here(schema),
        }
    }

    pub(super) fn here(&self, schema: &Schema) -> String {
        let mut text = String::new();
        for step in &self.0 {
            match step {
                Step::Items => text.push_str("/items"),
                Step::Values => text.push_str("/values"),
                Step::Branch(at) => text.push_str(&format!("/{at}")),
                Step::Field(record, at) => {
                    if let Kind::Record(record) = schema.kind(*record)
                        && let Some(field) = record.fields.get(*at)
                    {
                        text.push_str("/fields/");
                        text.push_str(&field.name.replace('~', "~0").replace('/', "~1"));
                    }
                }
            }
        }
        text
    }
}
