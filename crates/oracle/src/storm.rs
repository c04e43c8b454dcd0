//! A run, from the start of its stack to its verdict.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures::future::{try_join_all, try_join4};
use millrace_failpoints::Mutant;
use millrace_runtime::clock::now_ms;
use millrace_testkit::Size;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio_util::sync::CancellationToken;

use crate::bed::{Bed, Wanted};
use crate::client::Client;
use crate::faults::Faults;
use crate::journal::{Act, Entry, Journal};
use crate::report::Report;
use crate::searchers::{self, Sightings};
use crate::verdict::{judge, longest_standstill_ms};
use crate::watch::{Watched, watch};
use crate::{calm, canaries, model, rare, writers};

/// What a run is asked for.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long faults go on.
    pub storm: Duration,
    /// Of acts and faults.
    pub seed: u64,
    /// How many documents there are.
    pub documents: usize,
    /// Between two canaries of a partition.
    pub canary_every: Duration,
    /// Brokers, and instances of the services.
    pub size: Size,
    /// How long everything may take to be finished once the faults have ended.
    pub calm: Duration,
    /// A rule that the services are to break.
    pub mutant: Option<Mutant>,
    /// Searches take their time between two queries.
    pub slow_search: bool,
}

/// The error of a run that was interrupted.
#[derive(Debug, thiserror::Error)]
#[error("interrupted: no verdict")]
pub struct Interrupted;

const WRITERS: usize = 3;
const SEARCHERS: usize = 2;
/// Short, so that replaced revisions are cleaned up within the run.
const LONGEST_SEARCH: Duration = Duration::from_secs(5);
/// Of two of those passes and more, when everything is finished.
const CLEAN_UP: Duration = Duration::from_secs(40);

/// Runs on a stack of its own, which is stopped in every case. `tell` is told how it goes; `interrupt` ends it without a
/// verdict.
pub async fn run(
    millrace: &Path,
    options: &Options,
    interrupt: &CancellationToken,
    tell: &dyn Fn(String),
) -> Result<Report> {
    tell("starting a stack".into());
    let wanted = Wanted {
        millrace,
        size: options.size,
        longest_search: LONGEST_SEARCH,
        mutant: options.mutant,
        slow_search: options.slow_search,
    };
    let bed = Bed::up(&wanted).await?;
    let outcome = tokio::select! {
        outcome = on(&bed, options, tell) => outcome,
        () = interrupt.cancelled() => Err(Interrupted.into()),
    };
    let told = bed.stack.told();
    // What a mutant breaks nobody looks for.
    let well = outcome.as_ref().is_ok_and(|report| report.clean);
    bed.down(!well && options.mutant.is_none(), tell).await;
    match outcome {
        Err(error) if !error.is::<Interrupted>() => Err(error.context(format!("the stack told:\n{told}"))),
        outcome => outcome,
    }
}

async fn on(bed: &Bed, options: &Options, tell: &dyn Fn(String)) -> Result<Report> {
    let stack = &bed.stack;
    let journal = Journal::create(&stack.dir().join("journal.jsonl"))?;
    let run = Run {
        bed,
        options,
        client: Client::connect(&stack.addresses, &bed.ingests(), journal).await?,
        documents: writers::documents(options.documents),
        faults: Faults::default(),
        sightings: Sightings::default(),
    };
    let (began, began_ms) = (Instant::now(), now_ms());
    let seen = run.storm(tell).await?;
    let (storm_seconds, storm_ms) = (began.elapsed().as_secs(), (began_ms, now_ms()));

    tell("calm: waiting until everything is finished".into());
    let ended = Instant::now();
    for part in stack.size.parts() {
        stack.serving(&part).await?;
    }
    let fresh = run.client.ask("fresh.md", Act::Upsert { sections: 1 }, 0).await?;
    let (passed, redriven) = calm::finished(stack, &run.client, &fresh, options.calm).await?;
    let calm_seconds = ended.elapsed().as_secs();

    tell("verdict: reading topics and index".into());
    let mut evidence = calm::evidence(stack, &run.client, &run.documents, CLEAN_UP).await?;
    evidence.stuck = passed.err().into_iter().collect();
    run.sightings.into_evidence(&mut evidence);
    evidence.outages = run.faults.outages();
    evidence.storm = storm_ms;
    evidence.canaries = canaries::documents()?.iter().map(|name| canaries::key(name)).collect();
    let verdict = judge(&evidence);
    let counts = run.faults.counts();
    let rare_paths = rare::count(&evidence, &run.faults.past(), seen.watched.quarantines, stack.dir())?;
    let peak_kib = seen.watched.peak_kib.into_iter();
    Ok(Report {
        seed: options.seed,
        brokers: options.size.brokers,
        replicas: options.size.replicas,
        storm_seconds,
        calm_seconds,
        fault_count: counts.values().sum(),
        faults: counts,
        requests: requests(&evidence.journal),
        commands: evidence.commands.len(),
        parts: evidence.embedded.len(),
        searches: run.sightings.searches(),
        unanswered: run.sightings.unanswered(),
        redriven: seen.redriven + redriven,
        rare_paths,
        brokers_away_seconds: evidence.outages.iter().map(|(from, until)| (until - from) / 1000).sum(),
        longest_standstill_ms: longest_standstill_ms(&evidence),
        peak_mib: peak_kib.map(|(instance, kib)| (instance, kib >> 10)).collect(),
        clean: verdict.is_clean(),
        verdict,
    })
}

struct Run<'r> {
    bed: &'r Bed,
    options: &'r Options,
    client: Client,
    documents: Vec<String>,
    faults: Faults,
    sightings: Sightings,
}

/// What a storm was, beside what its actors wrote down.
struct Seen {
    watched: Watched,
    redriven: i64,
}

impl Run<'_> {
    /// Everything at once, until the time is over; the clients end when the last fault has.
    async fn storm(&self, tell: &dyn Fn(String)) -> Result<Seen> {
        let Bed {
            stack, model, links, ..
        } = self.bed;
        let Self {
            client,
            documents,
            faults,
            sightings,
            ..
        } = self;
        // Of each actor, from the run's: more of one do not change another's.
        let mut seeds = StdRng::seed_from_u64(self.options.seed);
        let (over, quiet) = (CancellationToken::new(), CancellationToken::new());
        let parts: Vec<_> = links.iter().map(|(instance, link)| (instance.part(), link)).collect();
        let lanes = parts
            .iter()
            .map(|(part, link)| faults.of_instance(stack, part, link, seeds.random(), &over));
        let lanes: Vec<_> = lanes.collect();
        let rest = faults.of_the_rest(stack, seeds.random(), &over);
        let ingests = self.bed.ingests();
        let clients: Vec<_> = (0..ingests.len()).map(|number| client.of_instance(number)).collect();
        let share = documents.len().div_ceil(WRITERS).max(1);
        let writing = documents
            .chunks(share)
            .zip(clients.iter().cycle())
            .map(|(own, client)| writers::write_on(client, own, seeds.random(), &quiet));
        let writing: Vec<_> = writing.collect();
        let searching = clients.iter().cycle().take(SEARCHERS);
        let searching =
            searching.map(|client| searchers::search_on(client, documents, sightings, seeds.random(), &quiet));
        let searching: Vec<_> = searching.collect();
        let names = canaries::documents()?;
        let mut singing = Vec::new();
        for (name, ingest) in names.iter().zip(ingests.iter().cycle()) {
            let client = millrace_testkit::Client::through(ingest, &stack.addresses, canaries::TENANT)?;
            singing.push(canaries::sing(client, name, self.options.canary_every, &quiet));
        }
        let endpoint = model::faults(stack, model, faults, seeds.random(), &over);
        let redriving = model::redrives(model, client, seeds.random(), &over);
        // Drawn last: with one broker the others have the same seeds.
        let seed = seeds.random();
        let brokers = async {
            match stack.size.brokers {
                1 => Ok(()),
                _ => faults.of_brokers(stack, seed, &over).await,
            }
        };
        let faults_end = async {
            let _quiet = quiet.clone().drop_guard();
            let ended = tokio::try_join!(try_join_all(lanes), rest, brokers, endpoint, redriving)?;
            anyhow::Ok(ended.4)
        };
        let acting = try_join4(
            try_join_all(writing),
            try_join_all(searching),
            try_join_all(singing),
            watch(stack, &quiet),
        );
        let clock = self.clock(&over, &quiet, tell);
        let (acted, redriven, ()) = tokio::try_join!(acting, faults_end, clock)?;
        ensure!(sightings.searches() > 0, "no search was answered: nothing was seen");
        let watched = acted.3;
        Ok(Seen { watched, redriven })
    }

    /// Ends the faults when the time is over.
    async fn clock(&self, over: &CancellationToken, quiet: &CancellationToken, tell: &dyn Fn(String)) -> Result<()> {
        let _over = over.clone().drop_guard();
        let mut left = self.options.storm;
        while !left.is_zero() {
            let step = left.min(Duration::from_secs(15));
            if quiet.run_until_cancelled(tokio::time::sleep(step)).await.is_none() {
                break;
            }
            left = left.saturating_sub(step);
            let (count, searches) = (self.faults.past().len(), self.sightings.searches());
            let seconds = left.as_secs();
            tell(format!("storm: {seconds} s to go, {count} faults, {searches} searches"));
        }
        Ok(())
    }
}

fn requests(journal: &[Entry]) -> BTreeMap<&'static str, usize> {
    let mut requests = BTreeMap::new();
    for entry in journal {
        let name = match entry {
            Entry::Asked { act, .. } => match act {
                Act::Upsert { sections: 1 } => "revisions of one part",
                Act::Upsert { .. } => "revisions of several parts",
                Act::Refused { .. } => "revisions with a chunk that the model refuses",
                Act::Delete => "deletions",
                Act::Poison => "poison records",
            },
            Entry::Receipt { .. } => "receipts",
        };
        *requests.entry(name).or_default() += 1;
    }
    requests
}
