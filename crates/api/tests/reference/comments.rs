//! Comments of a proto file, found by where they stand.

use std::collections::HashMap;

use prost_types::FileDescriptorProto;

/// Numbers of the fields that a path in a descriptor goes through.
pub mod step {
    pub const SYNTAX: i32 = 12;
    pub const MESSAGE: i32 = 4;
    pub const ENUM: i32 = 5;
    pub const SERVICE: i32 = 6;
    pub const MESSAGE_FIELD: i32 = 2;
    pub const MESSAGE_NESTED: i32 = 3;
    pub const MESSAGE_ENUM: i32 = 4;
    pub const MESSAGE_ONEOF: i32 = 8;
    pub const ENUM_VALUE: i32 = 2;
    pub const SERVICE_METHOD: i32 = 2;
}

/// Comments by path.
pub struct Comments(HashMap<Vec<i32>, String>);

impl Comments {
    pub fn of(file: &FileDescriptorProto) -> Self {
        let locations = file.source_code_info.iter().flat_map(|info| &info.location);
        let comments = locations.filter_map(|place| {
            let lines = place.leading_comments.as_deref()?.lines();
            let lines: Vec<_> = lines.map(|line| line.strip_prefix(' ').unwrap_or(line)).collect();
            Some((place.path.clone(), lines.join("\n").trim().to_owned()))
        });
        Self(comments.collect())
    }

    /// As Markdown of its own; empty when there is none.
    pub fn text(&self, path: &[i32]) -> String {
        self.0.get(path).map(|text| escaped(text)).unwrap_or_default()
    }

    /// As one cell of a table.
    pub fn cell(&self, path: &[i32]) -> String {
        let paragraphs = self.text(path).replace("\n\n", "<br><br>");
        paragraphs.replace('\n', " ").replace('|', "\\|")
    }
}

/// Comments are Markdown already, but for `<` outside of code, which would begin a tag.
fn escaped(text: &str) -> String {
    let parts = text.split('`').enumerate();
    let parts = parts.map(|(at, part)| {
        if at % 2 == 0 {
            part.replace('<', "&lt;")
        } else {
            part.to_owned()
        }
    });
    parts.collect::<Vec<_>>().join("`")
}
