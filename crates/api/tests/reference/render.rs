//! Descriptors to Markdown (docs/adr/0020 says why not by a tool).

use std::fmt::Write as _;

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet,
    MethodDescriptorProto, ServiceDescriptorProto,
};

use crate::comments::{Comments, step};

const HEAD: &str = "\
# gRPC reference

Made from the protos in [proto/](../proto/README.md) by `UPDATE=1 cargo test -p millrace-api`: change those, not this. What holds
for every call (errors, deadlines, limits, traces) stands [there](../proto/README.md#every-call).
";

/// The reference of these packages, each with who serves it, in their order.
pub fn reference(files: &FileDescriptorSet, packages: &[(&str, &str)]) -> String {
    let mut page = Page(HEAD.to_owned());
    page.contents(files, packages);
    for (package, _) in packages {
        let files: Vec<_> = of(files, package).collect();
        page.package(package, &files);
    }
    page.0
}

fn of<'a>(files: &'a FileDescriptorSet, package: &'a str) -> impl Iterator<Item = &'a FileDescriptorProto> {
    files.file.iter().filter(move |file| file.package() == package)
}

struct Page(String);

impl Page {
    fn line(&mut self, line: &str) {
        self.0.push_str(line);
        self.0.push('\n');
    }

    /// With an anchor of its whole name: names of headings repeat from package to package.
    fn heading(&mut self, level: usize, full_name: &str, text: &str) {
        let gap = if self.0.ends_with("\n\n") { "" } else { "\n" };
        let _ = write!(
            self.0,
            "{gap}<a id=\"{full_name}\"></a>\n{} {text}\n\n",
            "#".repeat(level)
        );
    }

    fn paragraph(&mut self, text: &str) {
        if !text.is_empty() {
            self.line(text);
            self.line("");
        }
    }

    fn contents(&mut self, files: &FileDescriptorSet, packages: &[(&str, &str)]) {
        self.line("\n| package | service | served by | rpcs |\n|---|---|---|---|");
        for (package, served_by) in packages {
            for service in of(files, package).flat_map(|file| &file.service) {
                let name = format!("{package}.{}", service.name());
                let rpcs = service.method.iter();
                let rpcs = rpcs.map(|rpc| link(rpc.name(), &format!("{name}.{}", rpc.name())));
                let rpcs = rpcs.collect::<Vec<_>>().join(", ");
                let (package, service) = (link(package, package), link(service.name(), &name));
                self.line(&format!("| {package} | {service} | {served_by} | {rpcs} |"));
            }
        }
    }

    fn package(&mut self, package: &str, files: &[&FileDescriptorProto]) {
        self.heading(2, package, package);
        for file in files {
            let said = Comments::of(file).text(&[step::SYNTAX]);
            let name = file.name().rsplit('/').next().unwrap_or_default();
            self.line(&format!("- [{name}](../proto/{}): {said}", file.name()));
        }
        for file in files {
            let comments = Comments::of(file);
            for (at, service) in (0..).zip(&file.service) {
                self.service(package, service, &comments, at);
            }
        }
        for file in files {
            let comments = Comments::of(file);
            for (at, message) in (0..).zip(&file.message_type) {
                self.message(package, message, &comments, &[step::MESSAGE, at]);
            }
            for (at, values) in (0..).zip(&file.enum_type) {
                self.values(package, values, &comments, &[step::ENUM, at]);
            }
        }
    }

    fn service(&mut self, package: &str, service: &ServiceDescriptorProto, comments: &Comments, at: i32) {
        let name = format!("{package}.{}", service.name());
        self.heading(3, &name, &format!("service {}", service.name()));
        self.paragraph(&comments.text(&[step::SERVICE, at]));
        for (method_at, rpc) in (0..).zip(&service.method) {
            self.heading(4, &format!("{name}.{}", rpc.name()), &format!("rpc {}", rpc.name()));
            self.paragraph(&signature(rpc));
            self.paragraph(&comments.text(&[step::SERVICE, at, step::SERVICE_METHOD, method_at]));
        }
    }

    fn message(&mut self, scope: &str, message: &DescriptorProto, comments: &Comments, path: &[i32]) {
        let name = format!("{scope}.{}", message.name());
        let entry = message.options.as_ref().is_some_and(|options| options.map_entry());
        if entry {
            return;
        }
        self.heading(3, &name, &format!("message {}", message.name()));
        self.paragraph(&comments.text(path));
        if message.field.is_empty() {
            self.line("No fields.");
        } else {
            self.line("| no. | field | type | |\n|---|---|---|---|");
        }
        let mut oneof_told = None;
        for (at, field) in (0..).zip(&message.field) {
            let oneof = oneof(field);
            if let Some(index) = oneof.filter(|index| oneof_told != Some(*index)) {
                let said = comments.cell(&below(path, step::MESSAGE_ONEOF, index));
                self.line(&format!("| | `{}` | oneof | {said} |", oneof_name(message, index)));
                oneof_told = Some(index);
            }
            let said = comments.cell(&below(path, step::MESSAGE_FIELD, at));
            let deprecated = field.options.as_ref().is_some_and(|options| options.deprecated());
            let deprecated = if deprecated { "**Deprecated.** " } else { "" };
            let of = oneof.map(|index| format!(", of `{}`", oneof_name(message, index)));
            self.line(&format!(
                "| {} | `{}` | {}{} | {deprecated}{said} |",
                field.number(),
                field.name(),
                type_of(field, message),
                of.unwrap_or_default(),
            ));
        }
        for (at, nested) in (0..).zip(&message.nested_type) {
            self.message(&name, nested, comments, &below(path, step::MESSAGE_NESTED, at));
        }
        for (at, values) in (0..).zip(&message.enum_type) {
            self.values(&name, values, comments, &below(path, step::MESSAGE_ENUM, at));
        }
    }

    fn values(&mut self, scope: &str, values: &EnumDescriptorProto, comments: &Comments, path: &[i32]) {
        let name = format!("{scope}.{}", values.name());
        self.heading(3, &name, &format!("enum {}", values.name()));
        self.paragraph(&comments.text(path));
        self.line("| no. | value | |\n|---|---|---|");
        for (at, value) in (0..).zip(&values.value) {
            let said = comments.cell(&below(path, step::ENUM_VALUE, at));
            self.line(&format!("| {} | `{}` | {said} |", value.number(), value.name()));
        }
    }
}

fn below(path: &[i32], step: i32, at: i32) -> Vec<i32> {
    [path, &[step, at]].concat()
}

fn link(text: &str, full_name: &str) -> String {
    format!("[{text}](#{full_name})")
}

/// A type of ours links to its place here; any other is only named.
fn named(full_name: &str) -> String {
    let full_name = full_name.trim_start_matches('.');
    if full_name.starts_with("millrace.") {
        link(full_name.rsplit('.').next().unwrap_or_default(), full_name)
    } else {
        format!("`{full_name}`")
    }
}

fn signature(rpc: &MethodDescriptorProto) -> String {
    let kind = |streaming| if streaming { "stream of " } else { "" };
    let (asks, answers) = (kind(rpc.client_streaming()), kind(rpc.server_streaming()));
    let deprecated = rpc.options.as_ref().is_some_and(|options| options.deprecated());
    let deprecated = if deprecated { "**Deprecated.** " } else { "" };
    let (input, output) = (named(rpc.input_type()), named(rpc.output_type()));
    format!("{deprecated}{asks}{input} → {answers}{output}")
}

/// Index of the oneof that a field belongs to. `optional` makes one of its own, which nobody sees.
fn oneof(field: &FieldDescriptorProto) -> Option<i32> {
    field.oneof_index.filter(|_| !field.proto3_optional())
}

fn oneof_name(message: &DescriptorProto, index: i32) -> &str {
    let found = usize::try_from(index)
        .ok()
        .and_then(|index| message.oneof_decl.get(index));
    found.map(|oneof| oneof.name()).unwrap_or_default()
}

fn type_of(field: &FieldDescriptorProto, message: &DescriptorProto) -> String {
    let entry = message.nested_type.iter().find(|nested| {
        let is_entry = nested.options.as_ref().is_some_and(|options| options.map_entry());
        is_entry && field.type_name().rsplit('.').next() == Some(nested.name())
    });
    if let Some([key, value]) = entry.map(|entry| entry.field.as_slice()) {
        return format!("map of {} to {}", single(key), single(value));
    }
    let label = match field.label() {
        Label::Repeated => "repeated ",
        _ if field.proto3_optional() => "optional ",
        _ => "",
    };
    format!("{label}{}", single(field))
}

fn single(field: &FieldDescriptorProto) -> String {
    match field.r#type() {
        Type::Message | Type::Enum | Type::Group => named(field.type_name()),
        // Their names are those of the language: TYPE_INT64 is int64.
        scalar => scalar.as_str_name().trim_start_matches("TYPE_").to_lowercase(),
    }
}
