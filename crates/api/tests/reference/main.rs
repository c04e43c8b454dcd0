//! `docs/api.md` is what the protos say.

mod comments;
mod render;

use std::collections::BTreeSet;
use std::path::Path;

use millrace_api::FILE_DESCRIPTOR_SET;
use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, FieldDescriptorProto, FieldOptions, FileDescriptorProto, FileDescriptorSet, MessageOptions,
};

/// Packages in the order in which a document meets them, and the processes that serve them.
const PACKAGES: [(&str, &str); 4] = [
    ("millrace.ingest.v1", "ingest"),
    ("millrace.embedder.v1", "embedder"),
    ("millrace.indexer.v1", "indexer"),
    ("millrace.pipeline.v1", "ingest, embedder, indexer"),
];

/// Set to anything, it has the file written instead of compared.
const UPDATE: &str = "UPDATE";

fn files() -> FileDescriptorSet {
    FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).expect("descriptors of our own")
}

#[test]
fn the_reference_is_what_the_protos_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/api.md");
    let wanted = render::reference(&files(), &PACKAGES);
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(&path, &wanted).expect("docs/ is ours to write");
        return;
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    if found == wanted {
        return;
    }
    let same = found.lines().zip(wanted.lines()).take_while(|(a, b)| a == b).count();
    panic!(
        "docs/api.md is not what the protos say: write it anew with `UPDATE=1 cargo test -p millrace-api`.\nline {}\n  \
         has   {:?}\n  wants {:?}",
        same + 1,
        found.lines().nth(same).unwrap_or("(its end)"),
        wanted.lines().nth(same).unwrap_or("(its end)"),
    );
}

/// A package that nobody put in the list above would be missing from the reference, and nobody would know who serves it.
#[test]
fn every_package_has_a_process_that_serves_it() {
    let files = files();
    let known: BTreeSet<_> = PACKAGES.iter().map(|(package, _)| *package).collect();
    let found: BTreeSet<_> = files.file.iter().map(|file| file.package()).collect();
    let ours: BTreeSet<_> = found.into_iter().filter(|p| p.starts_with("millrace.")).collect();
    assert_eq!(known, ours);
}

#[test]
fn a_reference_links_what_it_names() {
    let reference = render::reference(&files(), &PACKAGES);
    let targets = |open: &str, close: char| -> BTreeSet<String> {
        let behind = reference.split(open).skip(1);
        behind
            .filter_map(|rest| rest.split_once(close))
            .map(|(target, _)| target.to_owned())
            .collect()
    };
    let (anchors, links) = (targets("<a id=\"", '"'), targets("](#", ')'));
    let dangling: Vec<_> = links.difference(&anchors).collect();
    assert!(dangling.is_empty(), "{dangling:?}");
    for one in ["millrace.indexer.v1.SearchService.Search", "millrace.ingest.v1.Receipt"] {
        assert!(links.contains(one), "{one}");
    }
}

/// The kinds of field, oneof and rpc that a reader must be able to tell apart.
#[test]
fn each_kind_is_told() {
    let reference = render::reference(&files(), &PACKAGES);
    for line in [
        "| 1 | `tenant` | string |",
        "| 5 | `min_score` | optional float |",
        "| 6 | `document_ids` | repeated string |",
        "| | `query` | oneof |",
        "| 3 | `vector` | [Vector](#millrace.indexer.v1.Vector), of `query` |",
        "| 5 | `states` | repeated [DeadLetterState](#millrace.ingest.v1.DeadLetterState) |",
        "| 6 | `key` | bytes |",
        "| 5 | `DOCUMENT_STATE_FAILED` |",
        "[AuditIndexRequest](#millrace.indexer.v1.AuditIndexRequest) → stream of [AuditIndexResponse]",
    ] {
        assert!(reference.contains(line), "{line}");
    }
}

/// What no proto of ours has so far.
#[test]
fn maps_nested_messages_and_what_is_deprecated_are_told_too() {
    let text = |name: &str, number| FieldDescriptorProto {
        name: Some(name.into()),
        number: Some(number),
        r#type: Some(Type::String.into()),
        ..Default::default()
    };
    let entry = DescriptorProto {
        name: Some("LabelsEntry".into()),
        field: vec![text("key", 1), text("value", 2)],
        options: Some(MessageOptions {
            map_entry: Some(true),
            ..Default::default()
        }),
        ..Default::default()
    };
    let labels = FieldDescriptorProto {
        label: Some(Label::Repeated.into()),
        r#type: Some(Type::Message.into()),
        type_name: Some(".millrace.a.v1.Outer.LabelsEntry".into()),
        ..text("labels", 3)
    };
    let old = FieldDescriptorProto {
        options: Some(FieldOptions {
            deprecated: Some(true),
            ..Default::default()
        }),
        ..text("old", 4)
    };
    let inner = DescriptorProto {
        name: Some("Inner".into()),
        ..Default::default()
    };
    let outer = DescriptorProto {
        name: Some("Outer".into()),
        field: vec![labels, old],
        nested_type: vec![entry, inner],
        ..Default::default()
    };
    let file = FileDescriptorProto {
        package: Some("millrace.a.v1".into()),
        message_type: vec![outer],
        ..Default::default()
    };
    let told = render::reference(&FileDescriptorSet { file: vec![file] }, &[("millrace.a.v1", "a")]);
    for line in [
        "| 3 | `labels` | map of string to string |",
        "| 4 | `old` | string | **Deprecated.**",
        "<a id=\"millrace.a.v1.Outer.Inner\"></a>",
    ] {
        assert!(told.contains(line), "{line}\n{told}");
    }
    assert!(!told.contains("LabelsEntry"), "{told}");
}
