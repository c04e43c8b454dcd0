//! Pairs of schemas by a seed: one by chance, the other by some changes to it.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Map, Value, json};

use crate::Pair;
use crate::mutate;

const TYPES: [&str; 6] = ["A", "B", "C", "D", "E", "F"];
const NAMESPACES: [&str; 3] = ["n", "n.m", "o"];
const FIELDS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
const SYMBOLS: [&str; 5] = ["X", "Y", "Z", "V", "W"];
pub const PRIMITIVES: [&str; 8] = ["null", "boolean", "int", "long", "float", "double", "bytes", "string"];
const LOGICAL: [(&str, &str); 14] = [
    ("int", "date"),
    ("int", "time-millis"),
    ("long", "time-micros"),
    ("long", "timestamp-millis"),
    ("long", "timestamp-micros"),
    ("long", "local-timestamp-nanos"),
    ("string", "uuid"),
    ("bytes", "decimal"),
    ("bytes", "big-decimal"),
    ("string", "decimal"),
    ("int", "timestamp-millis"),
    ("double", "uuid"),
    ("string", "nothing-known"),
    ("fixed", "duration"),
];

/// The pair of a number, the same for the same seed.
pub fn pair(seed: u64, number: u64) -> Pair {
    let rng = StdRng::seed_from_u64(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(number));
    let mut generator = Generator {
        rng,
        defined: Vec::new(),
    };
    let first = generator.root();
    let mut second = first.clone();
    let changes = if generator.one_in(40) {
        0
    } else {
        generator.rng.random_range(1..=3)
    };
    for _ in 0..changes {
        mutate::change(&mut second, &mut generator);
    }
    if generator.one_in(25) {
        second = generator.root();
    }
    let (candidate, previous) = if generator.rng.random() {
        (first, second)
    } else {
        (second, first)
    };
    Pair {
        candidate: candidate.to_string(),
        previous: previous.to_string(),
    }
}

pub struct Generator {
    pub rng: StdRng,
    /// Full names in the order of their definition.
    defined: Vec<String>,
}

impl Generator {
    pub fn one_in(&mut self, times: u32) -> bool {
        self.rng.random_ratio(1, times)
    }

    pub fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of.choose(&mut self.rng).copied().unwrap_or_default()
    }

    fn root(&mut self) -> Value {
        self.defined.clear();
        match self.rng.random_range(0..20) {
            0 => self.schema(3, None),
            1 => json!([self.record(3, None), self.record(2, None)]),
            2 => json!({"type": "array", "items": self.record(3, None)}),
            3 => json!({"type": "map", "values": self.record(3, None)}),
            _ => self.record(4, None),
        }
    }

    pub fn schema(&mut self, depth: u32, namespace: Option<&str>) -> Value {
        let most = if depth == 0 { 12 } else { 27 };
        match self.rng.random_range(0..most) {
            0..=6 => json!(self.pick(&PRIMITIVES[1..])),
            7 | 8 => self.annotated(),
            9..=11 => self.reference(namespace),
            12 | 13 => json!({"type": "array", "items": self.schema(depth - 1, namespace)}),
            14 | 15 => json!({"type": "map", "values": self.schema(depth - 1, namespace)}),
            16..=19 => self.union(depth - 1, namespace),
            20 | 21 => self.fixed(namespace),
            22 | 23 => self.symbols(namespace),
            _ => self.record(depth - 1, namespace),
        }
    }

    fn annotated(&mut self) -> Value {
        let (base, logical) = LOGICAL.choose(&mut self.rng).copied().unwrap_or(("int", "date"));
        let base = if base == "fixed" { "bytes" } else { base };
        let mut schema = json!({"type": base, "logicalType": logical});
        if logical.contains("decimal") {
            schema["precision"] = json!(self.rng.random_range(0..12));
            if self.rng.random() {
                schema["scale"] = json!(self.rng.random_range(0..6));
            }
        }
        schema
    }

    /// A name known, one of a type around, or one that may never be.
    fn reference(&mut self, namespace: Option<&str>) -> Value {
        if self.defined.is_empty() || self.one_in(8) {
            let name = self.pick(&TYPES);
            return json!(name);
        }
        let full = self.defined.choose(&mut self.rng).cloned().unwrap_or_default();
        let short = full.rsplit_once('.').filter(|(space, _)| Some(*space) == namespace);
        match short {
            Some((_, short)) if self.rng.random() => json!(short),
            _ => json!(full),
        }
    }

    fn union(&mut self, depth: u32, namespace: Option<&str>) -> Value {
        let mut branches: Vec<Value> = Vec::new();
        for _ in 0..self.rng.random_range(1..=3) {
            let branch = self.schema(depth, namespace);
            let again =
                |other: &Value| other == &branch || (other["type"] == branch["type"] && other["type"].is_string());
            let plain = |v: &Value| v.as_str().or(v["type"].as_str()).map(str::to_owned);
            let same = branches
                .iter()
                .any(|other| again(other) || plain(other) == plain(&branch));
            if (!branch.is_array() && !same) || self.one_in(30) {
                branches.push(branch);
            }
        }
        if self.rng.random() && !branches.contains(&json!("null")) {
            let at = if self.rng.random() { 0 } else { branches.len() };
            branches.insert(at, json!("null"));
        }
        json!(branches)
    }

    /// Name, namespace and aliases; the namespace in force within.
    fn named(&mut self, kind: &str, namespace: Option<&str>) -> (Map<String, Value>, Option<String>) {
        let mut definition = Map::new();
        definition.insert("type".into(), json!(kind));
        let mut name = self.pick(&TYPES).to_owned();
        let mut namespace = namespace.map(str::to_owned);
        match self.rng.random_range(0..10) {
            0 | 1 => {
                let own = self.pick(&NAMESPACES);
                definition.insert("namespace".into(), json!(own));
                namespace = Some(own.to_owned());
            }
            2 => {
                let own = self.pick(&NAMESPACES);
                name = format!("{own}.{name}");
                namespace = Some(own.to_owned());
            }
            3 if self.one_in(3) => {
                definition.insert("namespace".into(), json!(""));
                namespace = None;
            }
            _ => {}
        }
        let full = |name: &str| match (&namespace, name.contains('.')) {
            (Some(space), false) => format!("{space}.{name}"),
            _ => name.to_owned(),
        };
        if self.defined.contains(&full(&name)) && !self.one_in(30) {
            name = format!("{name}{}", self.defined.len());
        }
        if self.one_in(60) {
            name = self
                .pick(&["int", "1st", "a-b", "", "record", "ä", "n..x", ".A", "n.", "a b"])
                .to_owned();
        }
        self.defined.push(full(&name));
        definition.insert("name".into(), json!(name));
        if self.one_in(6) {
            definition.insert("aliases".into(), self.aliases());
        }
        if self.one_in(8) {
            definition.insert("doc".into(), json!("told"));
        }
        if self.one_in(25) {
            definition.insert("x-attribute".into(), json!(self.rng.random_range(0..3)));
        }
        (definition, namespace)
    }

    pub fn aliases(&mut self) -> Value {
        let count = self.rng.random_range(1..=2);
        let alias = |g: &mut Self| match g.rng.random_range(0..12) {
            0 => format!("{}.{}", g.pick(&NAMESPACES), g.pick(&TYPES)),
            1 => format!(".{}", g.pick(&TYPES)),
            2 if g.one_in(6) => "1-bad".to_owned(),
            _ => g.pick(&TYPES).to_owned(),
        };
        let aliases: Vec<String> = (0..count).map(|_| alias(self)).collect();
        json!(aliases)
    }

    pub fn fixed(&mut self, namespace: Option<&str>) -> Value {
        let (mut definition, _) = self.named("fixed", namespace);
        let size = *[0, 1, 4, 12, 16].choose(&mut self.rng).unwrap_or(&4);
        let size = if self.one_in(50) { json!(-1) } else { json!(size) };
        definition.insert("size".into(), size);
        if self.one_in(4) {
            let logical = self.pick(&["duration", "uuid", "decimal"]);
            definition.insert("logicalType".into(), json!(logical));
            definition.insert("precision".into(), json!(self.rng.random_range(1..12)));
        }
        Value::Object(definition)
    }

    pub fn symbols(&mut self, namespace: Option<&str>) -> Value {
        let (mut definition, _) = self.named("enum", namespace);
        let count = self.rng.random_range(0..=4);
        let mut symbols: Vec<&str> = SYMBOLS.choose_multiple(&mut self.rng, count).copied().collect();
        if self.one_in(50) {
            symbols.push("X");
        }
        if self.one_in(60) {
            symbols.push("not-a-name");
        }
        if self.one_in(3) {
            let default = symbols
                .choose(&mut self.rng)
                .copied()
                .filter(|_| self.rng.random_ratio(11, 12));
            definition.insert("default".into(), json!(default.unwrap_or("V")));
        }
        definition.insert("symbols".into(), json!(symbols));
        Value::Object(definition)
    }

    pub fn record(&mut self, depth: u32, namespace: Option<&str>) -> Value {
        let kind = if self.one_in(30) { "error" } else { "record" };
        let (mut definition, namespace) = self.named(kind, namespace);
        let mut fields: Vec<Value> = Vec::new();
        for _ in 0..self.rng.random_range(0..=4) {
            let name = self.pick(&FIELDS);
            if fields.iter().any(|field| field["name"] == name) && !self.one_in(60) {
                continue;
            }
            fields.push(self.field(name, depth, namespace.as_deref()));
        }
        definition.insert("fields".into(), json!(fields));
        Value::Object(definition)
    }

    pub fn field(&mut self, name: &str, depth: u32, namespace: Option<&str>) -> Value {
        let schema = self.schema(depth, namespace);
        let mut field = json!({"name": name, "type": schema});
        if self.rng.random_ratio(2, 5) {
            field["default"] = self.default(&schema, 4);
        }
        if self.one_in(8) {
            let alias = self.pick(&FIELDS);
            field["aliases"] = json!([alias]);
        }
        if self.one_in(25) {
            let order = self.pick(&["ascending", "IGNORE", "descending", "sideways"]);
            field["order"] = json!(order);
        }
        if self.one_in(120) {
            field["name"] = json!("no-name");
        }
        field
    }

    /// A value of the type, most of the time.
    pub fn default(&mut self, schema: &Value, depth: u32) -> Value {
        if self.one_in(25) || depth == 0 {
            return self.anything();
        }
        if let Value::Array(branches) = schema {
            let at = if self.one_in(4) {
                branches.len().saturating_sub(1)
            } else {
                0
            };
            return branches
                .get(at)
                .map_or(Value::Null, |branch| self.default(branch, depth - 1));
        }
        let word = schema.as_str().or(schema["type"].as_str()).unwrap_or_default();
        match word {
            "null" => Value::Null,
            "boolean" => json!(true),
            "int" => json!(self.rng.random_range(-3..3)),
            "long" => json!(self.rng.random_range(-3..3_000_000_000i64)),
            "float" | "double" => match self.rng.random_range(0..8) {
                0 => json!("NaN"),
                1 => json!("1.5e3"),
                2 => json!(7),
                _ => json!(1.5),
            },
            "bytes" | "string" | "fixed" => json!("text"),
            "enum" => schema["symbols"][0].clone(),
            "array" if self.rng.random() => json!([]),
            "array" => json!([self.default(&schema["items"], depth - 1)]),
            "map" if self.rng.random() => json!({}),
            "map" => json!({"k": self.default(&schema["values"], depth - 1)}),
            "record" | "error" => {
                let fields = schema["fields"].as_array().cloned().unwrap_or_default();
                let mut value = Map::new();
                for field in fields {
                    if field.get("default").is_none() || self.one_in(4) {
                        let inner = self.default(&field["type"], depth - 1);
                        value.insert(field["name"].as_str().unwrap_or_default().to_owned(), inner);
                    }
                }
                Value::Object(value)
            }
            // A name: what it stands for is not looked up.
            _ => match self.rng.random_range(0..4) {
                0 => json!("X"),
                1 => json!({"a": 1}),
                _ => json!({}),
            },
        }
    }

    fn anything(&mut self) -> Value {
        let values = [
            json!(null),
            json!(false),
            json!(0),
            json!(3_000_000_000u64),
            json!(u64::MAX),
            json!(1.0),
            json!(1e30),
            json!("X"),
            json!("NaN"),
            json!([]),
            json!([0]),
            json!({}),
            json!({"a": 0}),
        ];
        values.choose(&mut self.rng).cloned().unwrap_or_default()
    }
}
