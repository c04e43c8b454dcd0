//! Who says that rules are kept must find out when they are not: runs with one rule broken each, until it is found.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::path::Path;

use anyhow::{Result, ensure};
use millrace_failpoints::{ACTIVE, Mutant};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::report::listed;
use crate::storm::{Interrupted, Options, run};

/// Seeds within which a mutant must be found.
pub const SEEDS: u64 = 3;
/// How long a canary stands still depends on the machine: that alone finds no mutant.
const NOT_COUNTED: &str = "canary_gap";

/// What became of a mutant.
#[derive(Debug, Clone, Serialize)]
pub struct Hunted {
    /// Its name.
    pub mutant: &'static str,
    /// What it does.
    pub does: &'static str,
    /// The first seed with which it was found; none if it was not.
    pub found_with: Option<u64>,
    /// What was found then.
    pub found: BTreeMap<&'static str, usize>,
    /// Seeds that ended without a verdict, and why.
    pub without_verdict: Vec<String>,
}

impl Display for Hunted {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.found_with {
            Some(seed) => write!(f, "{:<20} found with seed {seed}: {}", self.mutant, listed(&self.found)),
            None => write!(f, "{:<20} NOT FOUND ({})", self.mutant, self.does),
        }?;
        self.without_verdict.iter().try_for_each(|why| write!(f, "\n    {why}"))
    }
}

/// Runs once without a mutant, which must be clean, then each mutant with one seed after another, until it is found.
pub async fn hunt(
    millrace: &Path,
    mutants: &[Mutant],
    options: &Options,
    interrupt: &CancellationToken,
    tell: &dyn Fn(String),
) -> Result<Vec<Hunted>> {
    ensure!(ACTIVE, "this build has no failpoints: see CONTRIBUTING.md");
    tell("control: no rule is broken".into());
    let control = run(millrace, options, interrupt, &|_| ()).await?;
    let mut found = control.verdict.counts();
    found.remove(NOT_COUNTED);
    ensure!(
        found.is_empty(),
        "something is found although no rule is broken:\n{control}"
    );
    let mut all = Vec::new();
    for mutant in mutants {
        let mut hunted = Hunted {
            mutant: mutant.name,
            does: mutant.does,
            found_with: None,
            found: BTreeMap::new(),
            without_verdict: Vec::new(),
        };
        for seed in options.seed..options.seed + SEEDS {
            tell(format!("{}, seed {seed}: {}", mutant.name, mutant.does));
            let options = Options {
                seed,
                mutant: Some(*mutant),
                ..options.clone()
            };
            match run(millrace, &options, interrupt, &|_| ()).await {
                Ok(report) => {
                    hunted.found = report.verdict.counts();
                    hunted.found.remove(NOT_COUNTED);
                }
                Err(error) if error.is::<Interrupted>() => return Err(error),
                Err(error) => hunted.without_verdict.push(format!("seed {seed}: {error:#}")),
            }
            if !hunted.found.is_empty() {
                hunted.found_with = Some(seed);
                break;
            }
        }
        tell(hunted.to_string());
        all.push(hunted);
    }
    Ok(all)
}
