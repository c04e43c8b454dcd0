//! (g) Submit to searchable for a small tenant that submits one short document at a time, beside one that submits a hundred
//! times as many as fast as they are taken, and beside itself alone. With the real model.
//!
//! Two rows: in the rush, from when the other one's backlog is a quarter of all that it submits until all of them are taken in, and
//! after it, while the other one submits as many as become searchable, so that the backlog stays.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::future::ready;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use millrace_testkit::{Client, Stack};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::super::documents::{note, notes};
use super::super::latency::irregular;
use super::super::report::{Row, Target, Unit, median, percentile};
use super::super::whole::{self, AT_ONCE, INDEXED_WITHIN};
use super::Setup;
use super::searchable::Searchable;
use crate::output::Progress;

/// Of the small tenant.
const DOCUMENTS: usize = 100;
/// Of the other one, for each of those.
const TIMES: usize = 100;
/// Before the clock starts: the broker's code is compiled as it runs.
const FIRST: usize = 1000;
/// Documents of the small tenant are submitted for so long at most: who waits behind a whole backlog submits few.
const SAMPLED_AT_MOST: Duration = Duration::from_secs(30);
const SMALL: &str = "small";
const LARGE: &str = "large";

/// One run.
struct Ran {
    alone_ms: Vec<f64>,
    rush_ms: Vec<f64>,
    beside_ms: Vec<f64>,
    /// Documents of the large tenant that became searchable after its rush, for each of the small one's.
    times: f64,
    /// Least backlog that the small tenant met.
    backlog: usize,
}

/// Alone and beside, on one stack; which goes first alternates.
pub async fn run(setup: &Setup, progress: &Progress) -> Result<Vec<Row>> {
    let documents = setup.documents.unwrap_or(DOCUMENTS);
    let step = progress.step("g: two tenants");
    let mut runs = Vec::new();
    for run in 0..setup.runs {
        step.say(format!(
            "{documents} documents beside {}, run {} of {}",
            TIMES * documents,
            run + 1,
            setup.runs
        ));
        let ran = whole::on_stack(setup.environment(), false, async |stack| {
            once(stack, documents, run % 2 == 0).await
        });
        runs.push(ran.await?);
    }
    step.done("measured");
    Ok(rows(&runs, &setup.model.on()))
}

fn rows(runs: &[Ran], backend: &str) -> Vec<Row> {
    let least = |count: fn(&Ran) -> usize| runs.iter().map(count).min().unwrap_or_default();
    let (documents, backlog) = (least(|ran| ran.beside_ms.len()), least(|ran| ran.backlog));
    let times = median(&runs.iter().map(|ran| ran.times).collect::<Vec<_>>());
    let row = |percent, target| Row {
        figure: "g",
        name: format!(
            "a small tenant's p{percent} of {documents}, beside {times:.0} times as many and a backlog of {backlog} chunks \
             or more, model on {backend}"
        ),
        unit: Unit::Milliseconds,
        millrace: runs.iter().map(|ran| percentile(&ran.beside_ms, percent)).collect(),
        yardstick: "the same tenant alone",
        beside: Ok(runs.iter().map(|ran| percentile(&ran.alone_ms, percent)).collect()),
        target,
    };
    let rushes: Vec<&Ran> = runs.iter().filter(|ran| !ran.rush_ms.is_empty()).collect();
    let rush = Row {
        figure: "g",
        name: format!("its p99 while all of the other one's documents are taken in, model on {backend}"),
        unit: Unit::Milliseconds,
        millrace: rushes.iter().map(|ran| percentile(&ran.rush_ms, 99)).collect(),
        yardstick: "the same tenant alone",
        beside: Ok(rushes.iter().map(|ran| percentile(&ran.alone_ms, 99)).collect()),
        target: Target::AtMostTimes(2.0),
    };
    let mut rows = vec![row(50, Target::None), row(99, Target::AtMostTimes(2.0))];
    // It may be over before the first document of the small one.
    rows.extend((!rush.millrace.is_empty()).then_some(rush));
    rows
}

/// What has become of both tenants' documents.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    /// Searchable, of the small tenant.
    small: usize,
    /// Searchable, of the large one.
    large: usize,
    /// Accepted from the large one.
    submitted: usize,
}

impl Counts {
    /// The large tenant's chunks before the end: its documents have one each. An event may come before its receipt.
    fn backlog(self) -> usize {
        self.submitted.saturating_sub(self.large)
    }
}

async fn once(stack: &Stack, documents: usize, alone_first: bool) -> Result<Ran> {
    let (small, large) = (
        Client::new(&stack.addresses, SMALL)?,
        Client::new(&stack.addresses, LARGE)?,
    );
    let mut searchable = Searchable::of(stack).await?;
    searchable.pass(&small, &notes("first", FIRST)).await?;
    let bench = Bench {
        small,
        large,
        documents,
        counts: watch::Sender::new(Counts::default()),
    };
    let events = async {
        loop {
            let event = searchable.next().await?;
            bench.counts.send_modify(|counts| match event.tenant.as_str() {
                SMALL => counts.small += 1,
                _ => counts.large += 1,
            });
        }
    };
    tokio::select! {
        ended = events => ended,
        ran = bench.run(alone_first) => ran,
    }
}

struct Bench {
    small: Client,
    large: Client,
    documents: usize,
    counts: watch::Sender<Counts>,
}

impl Bench {
    async fn run(&self, alone_first: bool) -> Result<Ran> {
        let mut alone_ms = Vec::new();
        if alone_first {
            (alone_ms, _) = self.samples("alone", |_| false).await?;
        }
        let stop = CancellationToken::new();
        let samples = async {
            let full = self.until("no backlog came", |counts| counts.backlog() >= self.kept());
            full.await?;
            let taken_in = |counts: &Counts| counts.submitted >= TIMES * self.documents;
            let samples = async {
                let (rush_ms, _) = self.samples("rush", taken_in).await?;
                self.until("the rush does not end", taken_in).await?;
                let before = self.counts.borrow().large;
                let (beside_ms, backlog) = self.samples("beside", |_| false).await?;
                let large = self.counts.borrow().large - before;
                anyhow::Ok((rush_ms, beside_ms, backlog, large))
            };
            let samples = samples.await;
            stop.cancel();
            samples
        };
        let ((), (rush_ms, beside_ms, backlog, large)) = tokio::try_join!(self.flood(&stop), samples)?;
        if !alone_first {
            self.until("the backlog stays", |counts| counts.backlog() == 0).await?;
            (alone_ms, _) = self.samples("alone", |_| false).await?;
        }
        Ok(Ran {
            alone_ms,
            rush_ms,
            times: large as f64 / beside_ms.len() as f64,
            beside_ms,
            backlog,
        })
    }

    /// Chunks that stay before the end.
    fn kept(&self) -> usize {
        TIMES * self.documents / 4
    }

    /// The large tenant, until it is told to stop.
    async fn flood(&self, stop: &CancellationToken) -> Result<()> {
        let numbers = stream::iter(0..).take_until(stop.cancelled());
        let submits = numbers.map(async |number| {
            if number >= TIMES * self.documents {
                self.until("the backlog stays", |counts| counts.backlog() < self.kept())
                    .await?;
            }
            let note = note("flood", number);
            self.large.submit(&note.id, note.text).await?;
            self.counts.send_modify(|counts| counts.submitted += 1);
            Ok(())
        });
        submits.buffer_unordered(AT_ONCE).try_for_each(|()| ready(Ok(()))).await
    }

    /// Milliseconds of each document of the small tenant, one after another until it is over, and the least backlog meanwhile.
    async fn samples(&self, name: &str, over: impl Fn(&Counts) -> bool) -> Result<(Vec<f64>, usize)> {
        let (mut times, mut backlog) = (Vec::new(), usize::MAX);
        let end = Instant::now() + SAMPLED_AT_MOST;
        for note in notes(name, self.documents) {
            if over(&self.counts.borrow()) || (!times.is_empty() && Instant::now() > end) {
                break;
            }
            let before = self.counts.borrow().small;
            let began = Instant::now();
            self.small.submit(&note.id, note.text).await?;
            self.until("a document of the small tenant", |counts| counts.small > before)
                .await?;
            times.push(began.elapsed().as_secs_f64() * 1e3);
            backlog = backlog.min(self.counts.borrow().backlog());
            sleep(irregular()).await;
        }
        Ok((times, backlog))
    }

    async fn until(&self, what: &'static str, reached: impl FnMut(&Counts) -> bool) -> Result<()> {
        let mut counts = self.counts.subscribe();
        let Ok(reached) = timeout(INDEXED_WITHIN, counts.wait_for(reached)).await else {
            bail!("{what}: not within {INDEXED_WITHIN:?}: {:?}", self.counts.borrow());
        };
        reached.map(drop).context("nobody counts")
    }
}
