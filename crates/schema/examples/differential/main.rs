//! Our checker beside Java Avro's, on pairs of schemas by a seed.
//!
//!     cargo run --release -p millrace-schema --example differential -- --pairs 5000 --seed 1 [--json]
//!
//! Compared are: whether the candidate is valid, whether candidate and previous version can be read leniently, and whether
//! each reads the other. A difference is made small, printed, and the exit code is 1. So it is when Java contradicts a row
//! of the table in `tests/schema/cases`.

mod generate;
mod java;
mod minimise;
mod mutate;
mod table;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use millrace_schema::Schema;
use millrace_schema::compat::reads;
use serde_json::json;

use java::Java;

const BATCH: u64 = 250;

#[derive(Parser)]
struct Arguments {
    /// How many pairs.
    #[arg(long, default_value_t = 5000)]
    pairs: u64,
    /// Which pairs.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Version of Java Avro.
    #[arg(long, default_value = "1.12.2")]
    avro: String,
    /// One JSON object at the end, and nothing else.
    #[arg(long)]
    json: bool,
}

/// Two schemas, as text.
#[derive(Debug, Clone)]
struct Pair {
    candidate: String,
    previous: String,
}

#[derive(Default)]
struct Counts {
    pairs: u64,
    compatible: u64,
    incompatible: u64,
    invalid: u64,
}

impl Counts {
    fn add(&mut self, verdict: &str) {
        self.pairs += 1;
        match verdict.as_bytes() {
            [b'y', _, b'y', b'y', _] => self.compatible += 1,
            [b'y', _, b'y', _, _] => self.incompatible += 1,
            _ => self.invalid += 1,
        }
    }
}

/// Our answer, in the letters of `Driver.java`.
fn ours(pair: &Pair) -> String {
    let strict = Schema::strict(&pair.candidate).ok();
    let lenient = Schema::lenient(&pair.candidate).ok();
    let stored = Schema::lenient(&pair.previous).ok();
    let letter = |yes: bool| if yes { 'y' } else { 'n' };
    let compared = strict.as_ref().or(lenient.as_ref());
    let reads = |reader: Option<&Schema>, writer: Option<&Schema>| match (reader, writer) {
        (Some(reader), Some(writer)) => letter(reads(reader, writer).is_empty()),
        _ => '-',
    };
    [
        letter(strict.is_some()),
        letter(lenient.is_some()),
        letter(stored.is_some()),
        reads(compared, stored.as_ref()),
        reads(stored.as_ref(), compared),
    ]
    .iter()
    .collect()
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let mut java = Java::start(&arguments.avro)?;
    let table = table::ask(&mut java)?;
    let mut counts = Counts::default();
    let mut differences = Vec::new();
    let mut number = 0;
    while number < arguments.pairs {
        let end = (number + BATCH).min(arguments.pairs);
        let pairs: Vec<Pair> = (number..end).map(|n| generate::pair(arguments.seed, n)).collect();
        for (pair, theirs) in pairs.iter().zip(java.ask(&pairs)?) {
            counts.add(&theirs);
            if ours(pair) != theirs {
                differences.push(pair.clone());
            }
        }
        number = end;
    }
    let shown: Vec<_> = differences.iter().take(10).collect();
    let mut small = Vec::new();
    for pair in shown {
        let pair = minimise::minimise(pair, &mut java)?;
        let theirs = java.ask(std::slice::from_ref(&pair))?.remove(0);
        small.push((ours(&pair), theirs, pair));
    }
    if arguments.json {
        let listed: Vec<_> = small
            .iter()
            .map(|(ours, theirs, pair)| json!({"ours": ours, "java": theirs, "candidate": pair.candidate, "previous": pair.previous}))
            .collect();
        let report = json!({
            "avro": arguments.avro, "seed": arguments.seed, "pairs": counts.pairs, "compatible": counts.compatible,
            "incompatible": counts.incompatible, "invalid": counts.invalid, "differences": differences.len(),
            "rows_asked": table.asked, "rows_contradicted": table.wrong,
            "smallest": listed,
        });
        println!("{report}");
    } else {
        for wrong in &table.wrong {
            println!("row contradicted: {wrong}");
        }
        println!(
            "{} rows of the table asked, {} contradicted",
            table.asked,
            table.wrong.len()
        );
        for (ours, theirs, pair) in &small {
            println!("difference: ours {ours}, Java {theirs}");
            println!("  candidate {}\n  previous  {}", pair.candidate, pair.previous);
        }
        println!(
            "seed {}: {} pairs, Java Avro {}: {} compatible, {} incompatible, {} invalid; {} differences",
            arguments.seed,
            counts.pairs,
            arguments.avro,
            counts.compatible,
            counts.incompatible,
            counts.invalid,
            differences.len()
        );
    }
    Ok(if differences.is_empty() && table.wrong.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
