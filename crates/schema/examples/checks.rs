//! How many checks a second: our published schemas, each against itself with a field more, in process, on one thread.
//!
//!     cargo run --release -p millrace-schema --example checks

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use millrace_schema::compat::{Mode, Version, check};
use serde_json::{Value, json};

const FOR: Duration = Duration::from_secs(3);

fn main() -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schemas");
    let mut pairs = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path().join("v1.avsc");
        if path.is_file() {
            let text = fs::read_to_string(&path)?;
            let mut next: Value = serde_json::from_str(&text)?;
            let fields = next["fields"].as_array_mut().context("no fields")?;
            fields.push(json!({"name": "added_later", "type": ["null", "string"], "default": null}));
            pairs.push((text, serde_json::to_string_pretty(&next)?));
        }
    }
    ensure!(!pairs.is_empty(), "no schemas in {}", folder.display());
    let bytes: usize = pairs.iter().map(|(old, _)| old.len()).sum();
    let begun = Instant::now();
    let mut checks = 0u64;
    while begun.elapsed() < FOR {
        for (old, new) in &pairs {
            let report = check(
                Mode::FullTransitive,
                Version::new("next", new),
                &[Version::new("v1", old)],
            );
            ensure!(report.compatible, "{:?}", report.findings);
            checks += 1;
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    // On a busy machine the processor's time says more.
    let on_cpu = fs::read_to_string("/proc/self/schedstat").ok();
    let on_cpu: Option<f64> = on_cpu.and_then(|text| text.split_whitespace().next()?.parse().ok());
    println!(
        "{:.0} checks/s, {:.0} a second of processor time: {} schemas of {} bytes on average, FULL_TRANSITIVE against one version, \
         both parsed each time",
        checks as f64 / seconds,
        on_cpu.map_or(f64::NAN, |nanoseconds| checks as f64 / nanoseconds * 1e9),
        pairs.len(),
        bytes / pairs.len()
    );
    Ok(())
}
