//! One change to a schema, as people make them.

use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};
use serde_json::{Value, json};

use crate::generate::{Generator, PRIMITIVES};

/// Changes one type, somewhere in the schema.
pub fn change(schema: &mut Value, generator: &mut Generator) {
    let mut count = 0;
    at_place(schema, &mut usize::MAX.clone(), &mut |_| {}, &mut count);
    let mut place = generator.rng.random_range(0..count.max(1));
    at_place(schema, &mut place, &mut |found| one(found, generator), &mut 0);
}

/// Calls for the type at a place, counting from the root on.
fn at_place(schema: &mut Value, place: &mut usize, call: &mut dyn FnMut(&mut Value), count: &mut usize) {
    *count += 1;
    if *place == 0 {
        call(schema);
        *place = usize::MAX;
        return;
    }
    *place -= 1;
    match schema {
        Value::Array(branches) => branches
            .iter_mut()
            .for_each(|branch| at_place(branch, place, call, count)),
        Value::Object(definition) => {
            for key in ["items", "values"] {
                if let Some(inner) = definition.get_mut(key) {
                    at_place(inner, place, call, count);
                }
            }
            if let Some(Value::Array(fields)) = definition.get_mut("fields") {
                for field in fields {
                    if let Some(inner) = field.get_mut("type") {
                        at_place(inner, place, call, count);
                    }
                }
            }
        }
        _ => {}
    }
}

fn one(schema: &mut Value, generator: &mut Generator) {
    if generator.one_in(12) {
        *schema = generator.schema(2, None);
        return;
    }
    let old = schema.clone();
    match schema {
        Value::Array(branches) => branch(branches, generator),
        Value::String(_) if generator.one_in(4) => *schema = json!(["null", old]),
        Value::String(_) => *schema = widened(&old, generator),
        Value::Object(_) if generator.one_in(8) => *schema = json!(["null", old]),
        Value::Object(_) if old["fields"].is_array() => record(schema, generator),
        Value::Object(_) if old["symbols"].is_array() => symbols(schema, generator),
        Value::Object(_) if old["size"].is_number() && generator.rng.random() => {
            let size = generator.rng.random_range(0..6);
            schema["size"] = json!(size);
        }
        Value::Object(_) if old["name"].is_string() => rename(schema, generator),
        Value::Object(_) if old["items"].is_string() || old["items"].is_object() => {
            *schema = json!({"type": "map", "values": old["items"]});
        }
        _ => *schema = generator.schema(1, None),
    }
}

fn widened(old: &Value, generator: &mut Generator) -> Value {
    match old.as_str() {
        Some("int") => json!(generator.pick(&["long", "float", "double"])),
        Some("long") => json!(generator.pick(&["int", "float", "double"])),
        Some("float") => json!(generator.pick(&["int", "double"])),
        Some("string") => json!("bytes"),
        Some("bytes") => json!("string"),
        _ => json!(generator.pick(&PRIMITIVES)),
    }
}

fn branch(branches: &mut Vec<Value>, generator: &mut Generator) {
    match generator.rng.random_range(0..4) {
        0 if !branches.is_empty() => {
            let at = generator.rng.random_range(0..branches.len());
            branches.remove(at);
        }
        1 => branches.shuffle(&mut generator.rng),
        _ => {
            let more = generator.schema(1, None);
            let at = generator.rng.random_range(0..=branches.len());
            branches.insert(at, more);
        }
    }
}

fn rename(schema: &mut Value, generator: &mut Generator) {
    let old = schema["name"].clone();
    match generator.rng.random_range(0..5) {
        0 => schema["namespace"] = json!(generator.pick(&["n", "o", ""])),
        1 => schema["aliases"] = generator.aliases(),
        2 => {
            schema["name"] = json!("Renamed");
            schema["aliases"] = json!([old]);
        }
        3 => schema["name"] = json!("Renamed"),
        _ => schema["doc"] = json!("other"),
    }
}

fn symbols(schema: &mut Value, generator: &mut Generator) {
    let Some(symbols) = schema["symbols"].as_array_mut() else {
        return;
    };
    match generator.rng.random_range(0..6) {
        0 | 1 => symbols.push(json!("NEW")),
        2 => {
            symbols.pop();
        }
        3 => symbols.shuffle(&mut generator.rng),
        4 => {
            let default = symbols.choose(&mut generator.rng).cloned();
            schema["default"] = default.unwrap_or(json!("X"));
        }
        _ => rename(schema, generator),
    }
}

fn record(schema: &mut Value, generator: &mut Generator) {
    let Some(fields) = schema["fields"].as_array_mut() else {
        return;
    };
    let at = generator.rng.random_range(0..fields.len().max(1));
    match generator.rng.random_range(0..9) {
        0 | 1 => {
            let name = generator.pick(&["a", "c", "g", "h"]);
            let taken = fields.iter().any(|field| field["name"] == name);
            let name = if taken { "added" } else { name };
            let mut field = generator.field(name, 1, None);
            if generator.rng.random_ratio(2, 3) && field.get("default").is_none() {
                field["default"] = generator.default(&field["type"].clone(), 3);
            }
            fields.insert(at.min(fields.len()), field);
        }
        2 if !fields.is_empty() => {
            fields.remove(at);
        }
        3 => fields.shuffle(&mut generator.rng),
        4 if !fields.is_empty() => {
            let old = fields[at]["name"].clone();
            fields[at]["name"] = json!("moved");
            if generator.rng.random_ratio(2, 3) {
                fields[at]["aliases"] = json!([old]);
            }
        }
        5 if !fields.is_empty() => {
            let schema = fields[at]["type"].clone();
            fields[at]["default"] = generator.default(&schema, 3);
        }
        6 if !fields.is_empty() => {
            if let Some(field) = fields[at].as_object_mut() {
                field.remove("default");
            }
        }
        _ => rename(schema, generator),
    }
}
