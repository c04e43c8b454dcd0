//! From JSON to types. All that is wrong is collected, so that a candidate's author sees it at once.

use std::collections::HashMap;

use super::defaults::Defaults;
use super::json::{self, Json, Object};
use super::name::{self, Name};
use super::number::java_double;
use super::{
    Enum, Field, Fixed, Kind, Named, Node, NodeId, Problem, Record, Rule, Schema, Strictness, equal, is_portable,
    logical, resolve,
};

/// More are not collected.
pub(super) const MOST_PROBLEMS: usize = 100;
/// The longest array or string of the Java machine.
const LARGEST_FIXED_BYTES: i32 = i32::MAX - 8;

/// A schema and the other schemas that it refers to, which come first.
pub(super) fn parse(text: &str, references: &[&str], strictness: Strictness) -> Result<Schema, Vec<Problem>> {
    let mut files = Vec::with_capacity(references.len() + 1);
    let mut commented = false;
    for text in references.iter().chain([&text]) {
        let (json, comments) = json::parse(text).map_err(|problem| vec![problem])?;
        commented = comments;
        files.push(json);
    }
    let mut parser = Parser::new(strictness);
    let mut root = None;
    for file in &files {
        // What was noted of another schema is not this one's.
        parser.notes.clear();
        parser.path.clear();
        root = parser.file(file);
    }
    let Parser {
        mut notes,
        nodes,
        problems,
        ..
    } = parser;
    match root {
        Some(root) if problems.is_empty() => {
            if commented {
                notes.push(Problem::new(
                    Rule::Comments,
                    "",
                    "the schema has comments, which are no JSON",
                ));
            }
            Ok(Schema { nodes, root, notes })
        }
        _ => Err(problems),
    }
}

/// A type that was read, with what else was written about it.
pub(super) struct Parser<'a> {
    pub(super) strictness: Strictness,
    pub(super) nodes: Vec<Node>,
    /// What each node was read from, for comparing definitions.
    pub(super) definitions: Vec<Option<&'a Object>>,
    /// Where each node stands; empty for those that no problem names later.
    pub(super) paths: Vec<Box<str>>,
    /// First definitions, in the order of their ends.
    pub(super) names: HashMap<Box<str>, NodeId>,
    pub(super) order: Vec<NodeId>,
    pub(super) forwards: Vec<NodeId>,
    pub(super) problems: Vec<Problem>,
    pub(super) notes: Vec<Problem>,
    path: String,
}

impl<'a> Parser<'a> {
    fn new(strictness: Strictness) -> Self {
        Self {
            strictness,
            nodes: Vec::new(),
            definitions: Vec::new(),
            paths: Vec::new(),
            names: HashMap::new(),
            order: Vec::new(),
            forwards: Vec::new(),
            problems: Vec::new(),
            notes: Vec::new(),
            path: String::new(),
        }
    }

    fn file(&mut self, json: &'a Json) -> Option<NodeId> {
        let first = self.nodes.len();
        let root = self.schema(json, None);
        resolve::resolve(self, first);
        // A root that repeats a definition is the first one.
        let root = root?;
        match self.nodes[root as usize].kind.named() {
            Some(named) => self.names.get(named.name.full()).copied(),
            None => Some(root),
        }
    }

    pub(super) fn problem(&mut self, rule: Rule, at: &str, message: impl Into<String>) {
        if self.problems.len() < MOST_PROBLEMS {
            self.problems
                .push(Problem::new(rule, format!("{}{at}", self.path), message));
        }
    }

    fn note(&mut self, rule: Rule, at: &str, message: impl Into<String>) {
        if self.notes.len() < MOST_PROBLEMS {
            self.notes
                .push(Problem::new(rule, format!("{}{at}", self.path), message));
        }
    }

    /// Whether a place stands within a definition: types are numbered as they end, and their paths tell.
    pub(super) fn encloses(&self, definition: NodeId, place: NodeId) -> bool {
        let (outer, inner) = (&self.paths[definition as usize], &self.paths[place as usize]);
        definition > place && inner.strip_prefix(&**outer).is_some_and(|rest| rest.starts_with('/'))
    }

    /// Reads something that stands below the current place.
    fn below<T>(&mut self, step: &str, read: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.path.len();
        self.path.push_str(step);
        let result = read(self);
        self.path.truncate(length);
        result
    }

    fn push(&mut self, kind: Kind, definition: Option<&'a Object>) -> NodeId {
        let found = definition.map_or(Ok(None), |definition| logical::of(&kind, definition));
        let logical = found.unwrap_or_else(|name| {
            let message = format!("logical type `{name}` does not fit {kind} as written and is ignored");
            self.note(Rule::LogicalTypeIgnored, "/logicalType", message);
            None
        });
        // 4 MiB of JSON hold fewer types than 2^32.
        let id = self.nodes.len() as NodeId;
        self.nodes.push(Node { kind, logical });
        self.definitions.push(definition);
        // Only those that a problem may name later.
        let kind = &self.nodes[id as usize].kind;
        let is_told = kind.named().is_some() || matches!(kind, Kind::Union(_) | Kind::Forward(_));
        self.paths.push(if is_told {
            self.path.as_str().into()
        } else {
            Box::default()
        });
        id
    }

    fn schema(&mut self, json: &'a Json, namespace: Option<&str>) -> Option<NodeId> {
        match json {
            Json::Text(name) => Some(self.reference(name, namespace)),
            Json::Array(branches) => self.union(branches, namespace),
            Json::Object(definition) => self.definition(definition, namespace),
            Json::Null | Json::Bool(_) | Json::Integer(_) | Json::Float(_) => {
                let message = format!("{} is not a schema", json.shown());
                self.problem(Rule::InvalidSchema, "", message);
                None
            }
        }
    }

    /// A primitive, or a name:
    ///
    /// | the name | means |
    /// |---|---|
    /// | of a type defined above, in the namespace in force unless it has its own | that type |
    /// | of a type defined above without a namespace | that type |
    /// | any other | a type defined below, in the namespace in force unless it has its own |
    fn reference(&mut self, text: &str, namespace: Option<&str>) -> NodeId {
        if let Some(kind) = primitive(text) {
            return self.push(kind, None);
        }
        let full: Box<str> = match namespace {
            Some(namespace) if !text.contains('.') => format!("{namespace}.{text}").into(),
            _ => text.into(),
        };
        if let Some(known) = self.names.get(&full).or_else(|| self.names.get(text)) {
            return *known;
        }
        let id = self.push(Kind::Forward(full), None);
        self.forwards.push(id);
        id
    }

    fn union(&mut self, branches: &'a [Json], namespace: Option<&str>) -> Option<NodeId> {
        let ids: Vec<Option<NodeId>> = branches
            .iter()
            .enumerate()
            .map(|(at, branch)| self.below(&format!("/{at}"), |p| p.schema(branch, namespace)))
            .collect();
        let ids = ids.into_iter().collect::<Option<Vec<_>>>()?;
        let inner = ids
            .iter()
            .any(|id| matches!(self.nodes[*id as usize].kind, Kind::Union(_)));
        if inner {
            self.problem(Rule::InvalidUnion, "", "a union stands directly in a union");
            return None;
        }
        Some(self.push(Kind::Union(ids), None))
    }

    fn definition(&mut self, definition: &'a Object, namespace: Option<&str>) -> Option<NodeId> {
        let Some(word) = definition.text("type") else {
            let message = match definition.get("type") {
                None => "the schema has no \"type\"".to_owned(),
                Some(other) => format!("\"type\" is {}, which is not the name of a type", other.shown()),
            };
            self.problem(Rule::InvalidSchema, "/type", message);
            return None;
        };
        if let Some(kind) = primitive(word) {
            return Some(self.push(kind, Some(definition)));
        }
        match word {
            "record" | "error" => self.record(definition, namespace),
            "enum" => self.symbols(definition, namespace),
            "fixed" => self.fixed(definition, namespace),
            "array" => {
                let items = self.inner(definition, "items", namespace)?;
                Some(self.push(Kind::Array(items), Some(definition)))
            }
            "map" => {
                let values = self.inner(definition, "values", namespace)?;
                Some(self.push(Kind::Map(values), Some(definition)))
            }
            // Stored by registries on Avro 1.12.1 and before.
            _ if self.strictness == Strictness::Lenient => Some(self.reference(word, namespace)),
            _ => {
                let message =
                    format!("\"type\": \"{word}\" stands in an object but is no type of Avro; write \"{word}\" itself");
                self.problem(Rule::InvalidSchema, "/type", message);
                None
            }
        }
    }

    fn inner(&mut self, definition: &'a Object, key: &'static str, namespace: Option<&str>) -> Option<NodeId> {
        let Some(inner) = definition.get(key) else {
            self.problem(Rule::InvalidSchema, "", format!("\"{key}\" is missing"));
            return None;
        };
        self.below(&format!("/{key}"), |p| p.schema(inner, namespace))
    }

    /// The name and aliases of a definition.
    fn named(&mut self, definition: &'a Object, namespace: Option<&str>) -> Option<Named> {
        let Some(text) = definition.text("name") else {
            self.problem(Rule::InvalidName, "/name", "the type has no name");
            return None;
        };
        let name = Name::new(text, definition.text("namespace").or(namespace));
        if let Some(why) = name.refused(self.strictness, true) {
            self.problem(Rule::InvalidName, "/name", why);
            return None;
        }
        if primitive(name.full()).is_some() {
            self.problem(
                Rule::InvalidName,
                "/name",
                format!("`{name}` is the name of a primitive type"),
            );
            return None;
        }
        self.check_portable(name.full(), "/name");
        let mut aliases = Vec::new();
        for alias in self.aliases(definition)? {
            let alias = Name::new(alias, name.namespace());
            if let Some(why) = alias.refused(self.strictness, false) {
                self.problem(Rule::InvalidName, "/aliases", why);
                return None;
            }
            aliases.push(alias);
        }
        Some(Named { name, aliases })
    }

    fn check_portable(&mut self, name: &str, at: &str) {
        if !is_portable(name) {
            self.note(Rule::NameNotPortable, at, format!("`{name}` has letters beyond ASCII"));
        }
    }

    /// Each once.
    fn aliases(&mut self, definition: &'a Object) -> Option<Vec<&'a str>> {
        let texts = match definition.get("aliases") {
            None => return Some(Vec::new()),
            Some(Json::Array(items)) => items.iter().map(Json::as_text).collect::<Option<Vec<_>>>(),
            Some(_) => None,
        };
        let Some(texts) = texts else {
            self.problem(Rule::InvalidSchema, "/aliases", "\"aliases\" is not an array of names");
            return None;
        };
        let mut seen = std::collections::HashSet::new();
        Some(texts.into_iter().filter(|text| seen.insert(*text)).collect())
    }

    /// Gives a name to its definition, or finds that it has one.
    fn define(&mut self, id: NodeId) {
        let Some(named) = self.nodes[id as usize].kind.named() else {
            return;
        };
        let full = named.name.full();
        match self.names.get(full) {
            Some(first) if equal::is_same(self, *first, id) => {}
            Some(first) => {
                let message = format!(
                    "`{full}` is defined twice, and differently: it stands at `{}` already",
                    self.paths[*first as usize]
                );
                self.problem(Rule::RedefinedName, "", message);
            }
            None => {
                self.names.insert(full.into(), id);
                self.order.push(id);
            }
        }
    }

    fn fixed(&mut self, definition: &'a Object, namespace: Option<&str>) -> Option<NodeId> {
        let named = self.named(definition, namespace)?;
        let size = definition.get("size").and_then(Json::as_int);
        let Some(size) = size.filter(|size| (0..=LARGEST_FIXED_BYTES).contains(size)) else {
            self.problem(Rule::InvalidSchema, "/size", "the fixed has no \"size\" in bytes");
            return None;
        };
        let id = self.push(Kind::Fixed(Fixed { named, size }), Some(definition));
        self.define(id);
        Some(id)
    }

    fn symbols(&mut self, definition: &'a Object, namespace: Option<&str>) -> Option<NodeId> {
        let named = self.named(definition, namespace)?;
        let symbols = match definition.get("symbols") {
            Some(Json::Array(items)) => items.iter().map(|item| item.as_text().map(Box::from)).collect(),
            _ => None,
        };
        let Some(symbols): Option<Vec<Box<str>>> = symbols else {
            self.problem(Rule::InvalidEnum, "/symbols", "\"symbols\" is not an array of names");
            return None;
        };
        let mut seen = std::collections::HashSet::new();
        for symbol in &symbols {
            if let Some(why) = name::refused(symbol, self.strictness) {
                self.problem(Rule::InvalidName, "/symbols", why);
                return None;
            }
            if !seen.insert(symbol) {
                self.problem(
                    Rule::InvalidEnum,
                    "/symbols",
                    format!("the symbol `{symbol}` stands twice"),
                );
                return None;
            }
        }
        let default: Option<Box<str>> = definition.text("default").map(Box::from);
        if let Some(default) = &default
            && !seen.contains(default)
        {
            let message = format!("the default `{default}` is not one of the symbols");
            self.problem(Rule::InvalidEnum, "/default", message);
            return None;
        }
        let id = self.push(
            Kind::Enum(Enum {
                named,
                symbols,
                default,
            }),
            Some(definition),
        );
        self.define(id);
        Some(id)
    }

    fn record(&mut self, definition: &'a Object, namespace: Option<&str>) -> Option<NodeId> {
        let named = self.named(definition, namespace)?;
        let Some(Json::Array(items)) = definition.get("fields") else {
            self.problem(Rule::InvalidSchema, "/fields", "\"fields\" is not an array");
            return None;
        };
        let namespace: Option<Box<str>> = named.name.namespace().map(Box::from);
        let mut seen = std::collections::HashSet::new();
        let mut fields = Vec::with_capacity(items.len());
        // All fields are looked at, even where one is wrong.
        for (at, item) in items.iter().enumerate() {
            let Some((item, name)) = object(item).and_then(|item| Some((item, item.text("name")?))) else {
                self.problem(Rule::InvalidSchema, &format!("/fields/{at}"), "the field has no name");
                continue;
            };
            let step = format!("/fields/{}", name.replace('~', "~0").replace('/', "~1"));
            let field = self.below(&step, |p| p.field(item, name, namespace.as_deref()));
            if !seen.insert(name) {
                self.problem(Rule::DuplicateField, &step, format!("two fields are named `{name}`"));
            } else if let Some(field) = field {
                fields.push(field);
            }
        }
        if fields.len() < items.len() {
            return None;
        }
        self.note_alias_clashes(&fields);
        let id = self.push(Kind::Record(Record::new(named, fields)), Some(definition));
        self.define(id);
        Some(id)
    }

    /// Only called for a field that has its name.
    fn field(&mut self, item: &'a Object, name: &str, namespace: Option<&str>) -> Option<Field> {
        let Some(schema) = item.get("type") else {
            self.problem(Rule::InvalidSchema, "", format!("the field `{name}` has no \"type\""));
            return None;
        };
        let schema = self.schema(schema, namespace);
        if let Some(why) = name::refused(name, self.strictness) {
            self.problem(Rule::InvalidName, "/name", why);
            return None;
        }
        self.check_portable(name, "/name");
        if let Some(order) = item.get("order") {
            let known = |text: &str| matches!(&*text.to_uppercase(), "ASCENDING" | "DESCENDING" | "IGNORE");
            if !order.as_text().is_some_and(known) {
                let message = format!("\"order\" is {}, not ascending, descending or ignore", order.shown());
                self.problem(Rule::InvalidSchema, "/order", message);
                return None;
            }
        }
        let schema = schema?;
        let aliases = self.aliases(item)?.into_iter().map(Box::from).collect();
        let default = match item.get("default") {
            Some(default) => Some(self.default(default, name, schema)?),
            None => None,
        };
        Some(Field {
            name: name.into(),
            aliases,
            schema,
            default,
        })
    }

    fn default(&mut self, default: &Json, name: &str, schema: NodeId) -> Option<Json> {
        let kind = &self.nodes[schema as usize].kind;
        let default = match (kind, default) {
            (Kind::Float | Kind::Double, Json::Text(text)) => match java_double(text) {
                Some(number) => Json::Float(number),
                None => {
                    let message = format!("the default \"{text}\" of field `{name}` is not a number");
                    self.problem(Rule::InvalidDefault, "/default", message);
                    return None;
                }
            },
            _ => default.clone(),
        };
        if self.strictness == Strictness::Strict
            && let Err(why) = Defaults::as_written(&self.nodes).check(schema, &default)
        {
            let message = format!("the default {} of field `{name}` {why}", default.shown());
            self.problem(Rule::InvalidDefault, "/default", message);
            return None;
        }
        Some(default)
    }

    fn note_alias_clashes(&mut self, fields: &[Field]) {
        if fields.iter().all(|field| field.aliases.is_empty()) {
            return;
        }
        let mut taken: HashMap<&str, &str> = fields.iter().map(|field| (&*field.name, &*field.name)).collect();
        let mut clashes = Vec::new();
        for field in fields {
            for alias in &field.aliases {
                if let Some(other) = taken.insert(alias, &field.name) {
                    let message = format!(
                        "the alias `{alias}` of field `{}` also stands for field `{other}`",
                        field.name
                    );
                    clashes.push((format!("/fields/{}/aliases", field.name), message));
                }
            }
        }
        for (at, message) in clashes {
            self.note(Rule::AliasClash, &at, message);
        }
    }
}

fn object(json: &Json) -> Option<&Object> {
    match json {
        Json::Object(object) => Some(object),
        _ => None,
    }
}

pub(super) fn primitive(word: &str) -> Option<Kind> {
    Some(match word {
        "null" => Kind::Null,
        "boolean" => Kind::Boolean,
        "int" => Kind::Int,
        "long" => Kind::Long,
        "float" => Kind::Float,
        "double" => Kind::Double,
        "bytes" => Kind::Bytes,
        "string" => Kind::String,
        _ => return None,
    })
}
