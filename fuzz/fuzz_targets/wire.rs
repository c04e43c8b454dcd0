//! A byte that chooses the topic, and a value of it, through all that reads values. What may happen: a record or an error.

#![no_main]

use std::hint::black_box;
use std::sync::LazyLock;

use apache_avro::Schema;
use libfuzzer_sys::fuzz_target;
use millrace_events::{
    ChunksEmbedded, DeadLetter, DocumentParsed, DocumentStatus, DocumentSubmitted, Record, VectorsIndexed, partial, wire,
};

fn schema<R: Record>() -> Schema {
    let published = R::TOPIC.schema.expect("the topic has a schema");
    Schema::parse_str(published).expect("a published schema is one")
}

fn read<R: Record>(value: &[u8], schema: &Schema) {
    let Ok((id, body)) = wire::split(value) else {
        return;
    };
    black_box(partial::read(body, schema));
    let _ = black_box(wire::decode::<R>(body, schema, id));
}

macro_rules! topics {
    ($choice:expr, $value:expr; $($number:literal => $record:ty),*) => {
        match $choice {
            $($number => {
                static SCHEMA: LazyLock<Schema> = LazyLock::new(schema::<$record>);
                read::<$record>($value, &SCHEMA);
            })*
            _ => {}
        }
    };
}

fuzz_target!(|data: &[u8]| {
    let Some((choice, value)) = data.split_first() else {
        return;
    };
    topics!(*choice, value;
        0 => DocumentSubmitted, 1 => DocumentParsed, 2 => ChunksEmbedded, 3 => VectorsIndexed, 4 => DocumentStatus, 5 => DeadLetter);
});
