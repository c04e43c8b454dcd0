//! A run, from the start of its stack to its verdict.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::future::{try_join_all, try_join4};
use millrace_runtime::clock::now_ms;
use millrace_testkit::size::Instance;
use millrace_testkit::{Proxy, Size, Stack, poll};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio_util::sync::CancellationToken;

use crate::client::{self, Client};
use crate::evidence::{self, Evidence};
use crate::faults::{Faults, SESSION};
use crate::journal::{Act, Entry, Journal};
use crate::report::Report;
use crate::searchers::{self, Sightings};
use crate::verdict::judge;
use crate::watch::{Watched, watch};
use crate::{canaries, writers};

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
}

/// The error of a run that was interrupted.
#[derive(Debug, thiserror::Error)]
#[error("interrupted: no verdict")]
pub struct Interrupted;

const WRITERS: usize = 3;
const SEARCHERS: usize = 2;
/// For what was accepted to be finished, once the faults have ended.
const CALM: Duration = Duration::from_secs(180);

/// Runs on a stack of its own, which is stopped in every case. `tell` is told how it goes; `interrupt` ends it without a
/// verdict.
pub async fn run(
    millrace: &Path,
    options: &Options,
    interrupt: &CancellationToken,
    tell: &dyn Fn(String),
) -> Result<Report> {
    let mut links = Vec::new();
    let mut environment = Vec::new();
    for instance in options.size.instances() {
        let link = Proxy::alone(usize::from(options.size.brokers)).await?;
        let servers = instance.variable("KAFKA__BOOTSTRAP_SERVERS");
        environment.push((servers, link.address.clone()));
        // In quotes: a property is a text.
        let session = format!("\"{}\"", SESSION.as_millis());
        environment.push((instance.variable("KAFKA__PROPERTIES__session.timeout.ms"), session));
        links.push((instance, link));
    }
    tell("starting a stack".into());
    let mut stood = Ok(());
    let stack = Stack::up_with(millrace, options.size, environment, |addresses| {
        stood = links
            .iter()
            .try_for_each(|(_, link)| link.stand_before(&addresses.kafka));
    });
    let stack = stack.await?;
    stood?;
    let outcome = tokio::select! {
        outcome = on(&stack, &links, options, tell) => outcome,
        () = interrupt.cancelled() => Err(Interrupted.into()),
    };
    let told = stack.told();
    for line in stack.forgotten() {
        tell(format!("Kafka has forgotten markers: {line}"));
    }
    let stopped = stack.down().await;
    let clean = outcome.as_ref().is_ok_and(|report| report.clean);
    match stopped {
        Ok(dir) if !clean => tell(format!("journal and logs are kept in {}", dir.keep().display())),
        Ok(_) => {}
        // A verdict, or why there is none, is worth more.
        Err(error) => tell(format!("the stack did not stop cleanly: {error:#}")),
    }
    match outcome {
        Err(error) if !error.is::<Interrupted>() => Err(error.context(format!("the stack told:\n{told}"))),
        outcome => outcome,
    }
}

/// Each instance with its link to the brokers.
type Links = [(Instance, Proxy)];

async fn on(stack: &Stack, links: &Links, options: &Options, tell: &dyn Fn(String)) -> Result<Report> {
    let journal = Journal::create(&stack.dir().join("journal.jsonl"))?;
    let instances = stack.size.instances().into_iter();
    let ingests = instances.filter(|instance| instance.service == "ingest");
    let ingests: Vec<_> = ingests.map(|instance| instance.part()).collect();
    let client = Client::connect(&stack.addresses, &ingests, journal).await?;
    let documents = writers::documents(options.documents);
    let (faults, sightings) = (Faults::default(), Sightings::default());
    let (began, began_ms) = (Instant::now(), now_ms());
    let watched = storm(
        stack,
        links,
        options,
        &Actors {
            client: &client,
            ingests: &ingests,
            documents: &documents,
            faults: &faults,
            sightings: &sightings,
        },
        tell,
    )
    .await?;
    let (storm_seconds, storm_ms) = (began.elapsed().as_secs(), (began_ms, now_ms()));

    tell("calm: waiting until everything is finished".into());
    let ended = Instant::now();
    for part in stack.size.parts() {
        stack.serving(&part).await?;
    }
    let fresh = client.ask("fresh.md", Act::Upsert { sections: 1 }, 0).await?;
    client.indexed(&fresh).await.context("a fresh document")?;
    let mut evidence = finished(stack).await?;
    let calm_seconds = ended.elapsed().as_secs();

    tell("verdict: reading the index".into());
    evidence.index = evidence::index(&client, &documents).await?;
    evidence.journal = client.journal().entries();
    evidence.wrong = sightings.wrong();
    let whole = sightings.whole().into_iter();
    evidence.whole = whole
        .map(|(id, revision, chunks, hits)| (client::key(&id), revision, chunks, hits))
        .collect();
    evidence.outages = faults.outages();
    evidence.storm = storm_ms;
    evidence.canaries = canaries::documents()?.iter().map(|name| canaries::key(name)).collect();
    evidence.deaths = deaths(stack)?;
    let verdict = judge(&evidence);
    let counts = faults.counts();
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
        searches: sightings.searches(),
        unanswered: sightings.unanswered(),
        quarantines: watched.quarantines,
        peak_mib: watched
            .peak_kib
            .into_iter()
            .map(|(service, kib)| (service, kib >> 10))
            .collect(),
        clean: verdict.is_clean(),
        verdict,
    })
}

struct Actors<'r> {
    client: &'r Client,
    /// Instances of ingest, by part.
    ingests: &'r [String],
    documents: &'r [String],
    faults: &'r Faults,
    sightings: &'r Sightings,
}

/// Everything at once, until the time is over; the clients end when the last fault has.
async fn storm(
    stack: &Stack,
    links: &Links,
    options: &Options,
    actors: &Actors<'_>,
    tell: &dyn Fn(String),
) -> Result<Watched> {
    let Actors {
        client,
        ingests,
        documents,
        faults,
        sightings,
    } = *actors;
    // Of each actor, from the run's: more of one do not change another's.
    let mut seeds = StdRng::seed_from_u64(options.seed);
    let (over, quiet) = (CancellationToken::new(), CancellationToken::new());
    let parts: Vec<_> = links.iter().map(|(instance, link)| (instance.part(), link)).collect();
    let lanes = parts
        .iter()
        .map(|(part, link)| faults.of_instance(stack, part, link, seeds.random(), &over));
    let lanes: Vec<_> = lanes.collect();
    let rest = faults.of_the_rest(stack, seeds.random(), &over);
    let clock = async {
        let _over = over.clone().drop_guard();
        let mut left = options.storm;
        while !left.is_zero() {
            let step = left.min(Duration::from_secs(15));
            if quiet.run_until_cancelled(tokio::time::sleep(step)).await.is_none() {
                break;
            }
            left = left.saturating_sub(step);
            let count: u64 = faults.counts().values().sum();
            let (seconds, searches) = (left.as_secs(), sightings.searches());
            tell(format!("storm: {seconds} s to go, {count} faults, {searches} searches"));
        }
        anyhow::Ok(())
    };
    // Spread over the instances, where there are several.
    let clients: Vec<_> = (0..ingests.len()).map(|number| client.of_instance(number)).collect();
    let share = documents.len().div_ceil(WRITERS).max(1);
    let writing = documents
        .chunks(share)
        .zip(clients.iter().cycle())
        .map(|(own, client)| writers::write_on(client, own, seeds.random(), &quiet));
    let writing: Vec<_> = writing.collect();
    let searching = clients.iter().cycle().take(SEARCHERS);
    let searching = searching.map(|client| searchers::search_on(client, documents, sightings, seeds.random(), &quiet));
    let searching: Vec<_> = searching.collect();
    let names = canaries::documents()?;
    let mut singing = Vec::new();
    for (name, ingest) in names.iter().zip(ingests.iter().cycle()) {
        let client = millrace_testkit::Client::through(ingest, &stack.addresses, canaries::TENANT)?;
        singing.push(canaries::sing(client, name, options.canary_every, &quiet));
    }
    // Drawn last: with one broker the others have the seeds that they always had.
    let seed = seeds.random();
    let brokers = async {
        match stack.size.brokers {
            1 => Ok(()),
            _ => faults.of_brokers(stack, seed, &over).await,
        }
    };
    let faults_end = async {
        let _quiet = quiet.clone().drop_guard();
        tokio::try_join!(try_join_all(lanes), rest, brokers)?;
        anyhow::Ok(())
    };
    let acting = try_join4(
        try_join_all(writing),
        try_join_all(searching),
        try_join_all(singing),
        watch(stack, &quiet),
    );
    let (acted, (), ()) = tokio::try_join!(acting, faults_end, clock)?;
    ensure!(sightings.searches() > 0, "no search was answered: nothing was seen");
    Ok(acted.3)
}

/// The topics, once every command has a final status and the last markers are written; or as they are when patience ends:
/// the verdict names what is missing.
async fn finished(stack: &Stack) -> Result<Evidence> {
    let mut last = None;
    let waited = poll::until("every command to be finished", CALM, async || {
        let evidence = evidence::topics(&stack.addresses).await?;
        let open = judge(&evidence);
        let waits_for = ["never_finished", "unannounced", "lost"];
        let open: Vec<_> = waits_for
            .iter()
            .flat_map(|kind| open.0.get(kind).map(|f| &f.examples))
            .flatten()
            .collect();
        let done = open.is_empty();
        let state = format!("{open:?}");
        last = Some(evidence);
        Ok(if done { Ok(()) } else { Err(state) })
    })
    .await;
    match (waited, last) {
        (_, Some(evidence)) => Ok(evidence),
        (Err(error), None) => Err(error),
        (Ok(()), None) => Err(anyhow::anyhow!("the topics were not read")),
    }
}

/// Ends of services that `up` told of and no fault causes: those are by SIGKILL, or clean.
fn deaths(stack: &Stack) -> Result<Vec<String>> {
    let told = std::fs::read_to_string(stack.dir().join("up.log"))?;
    let instances = stack.size.instances();
    let of_service = |line: &&str| {
        instances
            .iter()
            .any(|instance| line.starts_with(&format!("{} died", instance.part())))
    };
    let by_fault = |line: &&str| line.contains("(killed by signal 9)") || line.contains("(exit code 0)");
    let deaths = told.lines().filter(of_service).filter(|line| !by_fault(line));
    Ok(deaths.map(str::to_owned).collect())
}

fn requests(journal: &[Entry]) -> BTreeMap<&'static str, usize> {
    let mut requests = BTreeMap::new();
    for entry in journal {
        let name = match entry {
            Entry::Asked { act, .. } => match act {
                Act::Upsert { sections: 1 } => "revisions of one part",
                Act::Upsert { .. } => "revisions of several parts",
                Act::Delete => "deletions",
                Act::Poison => "poison records",
            },
            Entry::Receipt { .. } => "receipts",
        };
        *requests.entry(name).or_default() += 1;
    }
    requests
}
