//! `millrace demo`: the real thing on real prose, measured, and checked by searching.
//!
//! The demo passes only if it shows what Millrace is for: every document indexed ([`flow`]), each question answered,
//! and sentences drawn from the corpus found where they stand ([`ask`]). What it reports beside that is measured in the
//! same run ([`measure`]). [`corpus`] gathers the prose, [`sentences`] draws from it.

mod ask;
pub mod corpus;
mod flow;
mod measure;
mod sentences;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::client::Target;
use crate::commands::search::hit_text;
use crate::exit::Shown;
use crate::output::{self, Progress};
use crate::stack::fetch::Cache;
use crate::stack::size::Asked;
use crate::stack::state::Addresses;
use crate::stack::{Interrupted, Options, Stack};
use ask::Answers;
use corpus::Corpus;
use flow::Flow;
use measure::Figures;

/// Whose documents the demo submits.
pub const TENANT: &str = "default";
/// Of ten drawn sentences, those that must find their document among the first three hits.
const MUST_FIND_OF_TEN: usize = 8;

/// Run the whole pipeline on real prose, then search it
///
/// Brings the local stack up, submits Markdown files of the crates in your own cargo registry, waits until every one
/// is searchable, and searches. The stack stops at the end; its data stays under --dir.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millrace demo                                  300 documents
  millrace demo --documents 40                   a quick look
  millrace demo --corpus docs/                   your own .md, .markdown and .txt files
  millrace demo --json                           one object on stdout:
    {\"documents\":300,\"chunks\":…,\"indexed\":300,\"failed\":0,\"seconds\":…,\"chunks_per_second\":…,\"searches\":[…],…}

Exit code 0 only if every document was indexed, each search has a hit with score 0.3 or more, and of ten sentences
drawn from the corpus at least eight find their document among the first three hits.")]
pub struct Demo {
    /// Documents at most
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    documents: u32,
    /// Take documents from this directory [default: the crates of your cargo registry]
    #[arg(long, value_name = "DIR")]
    corpus: Option<PathBuf>,
    /// Draws the sentences
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Stop when nothing has moved for this many seconds
    #[arg(long, default_value_t = 120, value_name = "SECONDS")]
    stall: u64,
    /// One JSON object on stdout
    #[arg(long)]
    json: bool,
}

/// Everything the demo found out.
struct Report {
    flow: Flow,
    answers: Answers,
    figures: Figures,
}

/// Runs the demo; the stack is stopped before it returns, however it ends.
pub async fn run(demo: Demo, target: &Target) -> Result<()> {
    let interrupt = crate::commands::up::on_signal()?;
    let progress = Progress::stderr();
    let corpus = gather(&demo, &progress)?;
    let options = Options {
        dir: target.dir.clone(),
        lanes: BTreeMap::new(),
        // The model is measured, and not what it did before.
        remembers: false,
        asked: Asked::default(),
        supervise: true,
        programs: BTreeMap::new(),
        services: true,
        progress: progress.clone(),
    };
    let mut stack = match Stack::start(options, &interrupt).await {
        Ok(stack) => stack,
        Err(e) if e.is::<Interrupted>() => return Err(Shown("interrupted".into()).into()),
        Err(e) => return Err(e),
    };
    let addresses = stack.addresses.clone();
    let outcome = tokio::select! {
        outcome = show(&demo, &corpus, &addresses, &interrupt, &progress) => outcome,
        () = interrupt.cancelled() => Err(Shown("interrupted".into()).into()),
        failure = stack.failure() => Err(failure),
    };
    let stopped = stack.stop().await;
    let report = outcome?;
    stopped?;
    if demo.json {
        output::json(&report.json());
    } else {
        report.print(target);
    }
    report.verdict()
}

fn gather(demo: &Demo, progress: &Progress) -> Result<Corpus> {
    let step = progress.step("corpus");
    let corpus = Corpus::gather(demo.corpus.as_deref(), demo.documents as usize)?;
    step.done(format!(
        "{} documents, {} KiB, from {}",
        corpus.documents.len(),
        corpus.bytes() / 1024,
        corpus.source
    ));
    Ok(corpus)
}

async fn show(
    demo: &Demo,
    corpus: &Corpus,
    addresses: &Addresses,
    interrupt: &CancellationToken,
    progress: &Progress,
) -> Result<Report> {
    let stall = Duration::from_secs(demo.stall);
    let flow = flow::run(corpus, addresses, stall, progress).await?;
    let answers = ask::run(corpus, demo.corpus.is_some(), demo.seed, addresses, progress).await?;
    let cache = Cache::of_user()?;
    let figures = measure::run(&flow, demo.seed, addresses, &cache, progress).await?;
    if interrupt.is_cancelled() {
        bail!(Interrupted);
    }
    Ok(Report { flow, answers, figures })
}

impl Report {
    fn json(&self) -> serde_json::Value {
        let (flow, figures) = (&self.flow, &self.figures);
        json!({
            "documents": flow.documents, "chunks": flow.chunks, "indexed": flow.indexed, "failed": flow.failed,
            "seconds": round(flow.seconds()), "chunks_per_second": round(flow.chunks_per_second()),
            "model_alone_chunks_per_second": round(figures.model_alone), "model_alone_chunks": figures.sample,
            "searchable_ms": {"documents": figures.latencies, "p50": figures.p50_ms, "p99": figures.p99_ms},
            "searches": self.answers.json(), "self_search_top3": self.answers.found,
            "self_search_sentences": self.answers.drawn,
        })
    }

    fn print(&self, target: &Target) {
        let (flow, figures) = (&self.flow, &self.figures);
        for (query, hits) in &self.answers.searches {
            output::line(format_args!("\n“{query}”"));
            for (rank, hit) in hits.iter().take(3).enumerate() {
                output::line(hit_text(rank + 1, hit));
            }
        }
        output::line(format_args!(
            "\n{} of {} documents indexed, {} failed: {} chunks in {:.1} s, {:.0} chunks/s\n\
             the model alone on {} of the same chunks: {:.0} chunks/s\n\
             one document on the idle stack, accepted to searchable: p50 {} ms, p99 {} ms\n\
             {} of {} sentences drawn from the corpus find their document among the first three hits",
            flow.indexed,
            flow.documents,
            flow.failed,
            flow.chunks,
            flow.seconds(),
            flow.chunks_per_second(),
            figures.sample,
            figures.model_alone,
            figures.p50_ms,
            figures.p99_ms,
            self.answers.found,
            self.answers.drawn,
        ));
        let dir = target.dir.display();
        let dir = if target.dir == std::path::Path::new(".millrace") {
            String::new()
        } else {
            format!(" --dir {dir}")
        };
        output::line(format_args!(
            "\nGo on: `./millrace up{dir}` starts the stack again with these documents; then, in another terminal,\n  \
             ./millrace search{dir} \"your question\"\n  ./millrace submit{dir} README.md --wait"
        ));
    }

    /// The error that says what the demo did not show.
    fn verdict(&self) -> Result<()> {
        let mut missing = Vec::new();
        if self.flow.indexed < self.flow.documents {
            missing.push(format!(
                "{} documents are not indexed",
                self.flow.documents - self.flow.indexed
            ));
        }
        missing.extend(
            self.answers
                .unanswered()
                .map(|query| format!("no hit with score 0.3 or more for “{query}”")),
        );
        let Answers { found, drawn, .. } = &self.answers;
        if *drawn == 0 {
            missing.push("no sentence of eight words stands in exactly one document".to_owned());
        } else if found * 10 < drawn * MUST_FIND_OF_TEN {
            missing.push(format!("only {found} of {drawn} sentences found their document"));
        }
        if missing.is_empty() {
            Ok(())
        } else {
            Err(Shown(missing.join("; ")).into())
        }
    }
}

/// Two digits behind the point are all that a measurement is worth.
fn round(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}
