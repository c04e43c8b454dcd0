//! What a run was and what it left, for people and programs.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

use serde::Serialize;

use crate::verdict::Verdict;

/// A run and its verdict.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// Brokers of the stack.
    pub brokers: u16,
    /// Instances of ingest and of the embedder.
    pub replicas: u16,
    /// How long the storm lasted, seconds.
    pub storm_seconds: u64,
    /// From the end of the storm until nothing was left to do, seconds.
    pub calm_seconds: u64,
    /// Faults, by what and of which process.
    pub faults: BTreeMap<String, u64>,
    /// Faults in all.
    pub fault_count: u64,
    /// Requests, by what they asked for, and how many had a receipt.
    pub requests: BTreeMap<&'static str, usize>,
    /// Commands in the log, canaries included.
    pub commands: usize,
    /// Parts in `chunks.embedded`.
    pub parts: usize,
    /// Searches that were answered.
    pub searches: usize,
    /// Searches that were not, because a part was away.
    pub unanswered: usize,
    /// Letters that were redriven.
    pub redriven: i64,
    /// How often each path was taken that a run may miss.
    pub rare_paths: BTreeMap<&'static str, u64>,
    /// How long a broker was away or not yet in sync again, seconds.
    pub brokers_away_seconds: i64,
    /// The longest that any canary stood still during the storm, outages of brokers and all, milliseconds.
    pub longest_standstill_ms: i64,
    /// Peak resident memory of each instance, over all its processes, MiB.
    pub peak_mib: BTreeMap<String, u64>,
    /// Every kind of finding.
    pub verdict: Verdict,
    /// Nothing was found.
    pub clean: bool,
}

impl Report {
    /// The rare paths that the run did not take: of them its verdict says nothing.
    pub fn missed(&self) -> Vec<&'static str> {
        let missed = self.rare_paths.iter().filter(|(_, count)| **count == 0);
        missed.map(|(path, _)| *path).collect()
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let list = |items: &mut dyn Iterator<Item = String>| items.collect::<Vec<_>>().join(", ");
        let (storm, calm) = (self.storm_seconds, self.calm_seconds);
        writeln!(
            f,
            "seed {}, brokers {}, replicas {}: a storm of {storm} s, then {calm} s until nothing was left to do",
            self.seed, self.brokers, self.replicas
        )?;
        let faults = list(&mut self.faults.iter().map(|(fault, count)| format!("{count} {fault}")));
        writeln!(f, "{} faults: {faults}", self.fault_count)?;
        let requests = list(&mut self.requests.iter().map(|(act, count)| format!("{count} {act}")));
        writeln!(f, "asked for: {requests}")?;
        let (commands, parts) = (self.commands, self.parts);
        let (searches, unanswered) = (self.searches, self.unanswered);
        writeln!(
            f,
            "{commands} commands in the log, {parts} parts embedded, {searches} searches answered and {unanswered} not"
        )?;
        let memory = list(
            &mut self
                .peak_mib
                .iter()
                .map(|(service, mib)| format!("{service} {mib} MiB")),
        );
        writeln!(f, "peak memory: {memory}; {} letters redriven", self.redriven)?;
        let outages = self.brokers_away_seconds;
        let standstill = self.longest_standstill_ms;
        writeln!(
            f,
            "a broker was away for {outages} s; the longest that a canary stood still, that and all: {standstill} ms"
        )?;
        let rare = list(&mut self.rare_paths.iter().map(|(path, count)| format!("{path} {count}")));
        writeln!(f, "rare paths: {rare}")?;
        if !self.missed().is_empty() {
            writeln!(f, "missed: {}", self.missed().join(", "))?;
        }
        for (kind, finding) in &self.verdict.0 {
            writeln!(f, "{kind:<24} {}", finding.count)?;
            for example in &finding.examples {
                writeln!(f, "    {example}")?;
            }
        }
        write!(f, "{}", if self.clean { "clean" } else { "NOT CLEAN" })
    }
}

/// `kind count`, of each kind that was found.
pub(crate) fn listed(found: &BTreeMap<&'static str, usize>) -> String {
    let found: Vec<_> = found.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
    found.join(", ")
}
