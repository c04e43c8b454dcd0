//! Builds before and after a change of every schema run against each other, on a stack of their own, and the registry is
//! away while they do.
//!
//! The build after it is this program with the feature `next` (`crates/events`): in the schema of each topic a field was
//! added and one dropped, in the middle, so that a body read with the wrong schema says something else. It is compiled here.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use futures::future::try_join_all;
use millrace_api::ingest::v1::{DocumentState, Receipt};
use millrace_api::pipeline::v1::GetPipelineRequest;
use millrace_api::pipeline::v1::pipeline_service_client::PipelineServiceClient;
use millrace_events::{topics, wire};
use millrace_flow::{Headers, Output};
use millrace_kafka::Producer;
use millrace_schema::Registry;
use millrace_testkit::client::{INDEXED_WITHIN, name_on};
use millrace_testkit::still::Still;
use millrace_testkit::{Client, Size, Stack, log, poll};
use rustix::process::Signal;
use serde_json::Value;
use tokio::process::Command;

use crate::check_topics;
use crate::letters::kafka;

const TENANT: &str = "evolution";
const SERVICES: [&str; 3] = ["ingest", "embedder", "indexer"];
/// One for each partition: between two instances each has some.
const DOCUMENTS: i32 = topics::PARTITIONS;
const SIZE: Size = Size {
    brokers: 1,
    replicas: 2,
};
/// A record that says for longer that its dependency is away, while others succeed, is to blame; but not for the registry.
const BLAMED_AFTER: Duration = Duration::from_secs(1);
/// How long the registry is away: many times that. `MILLRACE_TEST_REGISTRY_AWAY_SECONDS` makes it longer.
fn away_for() -> Result<Duration> {
    let seconds = match std::env::var("MILLRACE_TEST_REGISTRY_AWAY_SECONDS") {
        Ok(seconds) => seconds.parse().context("MILLRACE_TEST_REGISTRY_AWAY_SECONDS")?,
        Err(_) => 15,
    };
    Ok(Duration::from_secs(seconds))
}

pub async fn builds_of_two_versions_run_against_each_other(_: &mut Option<Stack>) -> Result<()> {
    let builds = Builds::new().await?;
    let blamed_after = BLAMED_AFTER.as_millis().to_string();
    let environment = vec![
        ("MILLRACE_UP_PROGRAMS".to_owned(), builds.programs()),
        ("MILLRACE_EMBEDDER_STAGE__BLAME_MS".to_owned(), blamed_after.clone()),
        ("MILLRACE_INGEST_STAGE__BLAME_MS".to_owned(), blamed_after),
    ];
    let stack = Stack::up_with(&builds.now, SIZE, environment, |_| ()).await?;
    if let Err(error) = on(&stack, &builds).await {
        bail!("{error:#}\n\nits stack told:\n{}", stack.told());
    }
    stack.down().await?;
    Ok(())
}

/// Both builds, and for each service a link to the one that its next start takes.
struct Builds {
    now: PathBuf,
    next: PathBuf,
    links: tempfile::TempDir,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Build {
    Now,
    Next,
}

impl Builds {
    async fn new() -> Result<Self> {
        let builds = Self {
            now: Path::new(env!("CARGO_BIN_EXE_millrace")).to_owned(),
            next: next().await?,
            links: tempfile::Builder::new().prefix("millrace-test-").tempdir()?,
        };
        SERVICES
            .iter()
            .try_for_each(|service| builds.turn(service, Build::Now))?;
        Ok(builds)
    }

    fn link(&self, service: &str) -> PathBuf {
        self.links.path().join(service)
    }

    fn programs(&self) -> String {
        SERVICES
            .map(|service| format!("{service}={}", self.link(service).display()))
            .join(",")
    }

    fn turn(&self, service: &str, build: Build) -> Result<()> {
        let (link, aside) = (self.link(service), self.links.path().join("aside"));
        let file = match build {
            Build::Now => &self.now,
            Build::Next => &self.next,
        };
        symlink(file, &aside)?;
        Ok(fs::rename(aside, link)?)
    }

    /// An instance is stopped as by a deployment, and started from a build.
    async fn deploy(&self, stack: &Stack, part: &str, build: Build) -> Result<()> {
        let service = part.split('-').next().unwrap_or(part);
        self.turn(service, build)?;
        stack.kill(part, Signal::TERM).await?;
        stack.serving(part).await?;
        Ok(())
    }
}

/// Compiles this program as it will be. The whole workspace is named, so that what it depends on is as the tests have it.
async fn next() -> Result<PathBuf> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .args(["build", "--workspace", "--example", "millrace-next"])
        .args([
            "--features",
            "millrace-cli/next",
            "--message-format",
            "json-render-diagnostics",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stderr(std::process::Stdio::inherit());
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    let output = cargo.output().await.context("cargo cannot be run")?;
    ensure!(output.status.success(), "the next build does not compile");
    let messages = String::from_utf8(output.stdout)?;
    let mut executables = messages.lines().rev().filter_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        Some(PathBuf::from(message.get("executable")?.as_str()?))
    });
    executables.next().context("cargo names no executable")
}

async fn on(stack: &Stack, builds: &Builds) -> Result<()> {
    let client = Client::new(&stack.addresses, TENANT)?;
    settled(&client, &write(&client, "in the beginning").await?).await?;

    // The schemas come first, and nobody who runs is asked.
    let registered = Command::new(&builds.next)
        .args(["topics", "apply", "--kafka", &stack.addresses.kafka])
        .args(["--registry", &stack.addresses.registry])
        .output()
        .await?;
    ensure!(registered.status.success(), "{registered:?}");
    let ids = ids(stack).await?;

    without_a_registry(stack, builds).await?;
    // Half of the parse stage is after the change. Letters by both, read by both.
    let garbage = bury(stack).await?;
    let mut written = Vec::new();
    for (part, build) in [
        ("embedder", Build::Next),
        ("indexer", Build::Next),
        ("embedder-1", Build::Next),
        ("ingest", Build::Next),
        // And back: what the newer ones wrote is in the log, and stays there.
        ("embedder", Build::Now),
        ("ingest-1", Build::Now),
        ("indexer", Build::Now),
        ("embedder-1", Build::Now),
        ("ingest", Build::Now),
    ] {
        // Under way while it is exchanged.
        let before = write(&client, &format!("before {part} is {build:?}")).await?;
        builds.deploy(stack, part, build).await?;
        let after = write(&client, &format!("{part} is {build:?}")).await?;
        let gone = client.delete(&before[0].document_id).await?;
        client.reaches(&gone, &[DocumentState::Deleted]).await?;
        settled(&client, &after[1..]).await?;
        written = after;
    }
    let found = client
        .find_through("ingest is Now", 1, &[&written[1].document_id])
        .await?;
    ensure!(
        found.first().is_some_and(|hit| hit.text.contains("ingest is Now")),
        "{found:?}"
    );

    let letters = log::records(&stack.addresses.kafka, topics::DLQ.name).await?;
    ensure!(letters.len() == garbage, "{garbage} are to be given up: {letters:?}");
    let seen = check_topics(stack).await?;
    println!("the topics hold {seen:?}, each topic records of both versions");
    for (topic, both) in ids {
        let records = log::records(&stack.addresses.kafka, topic).await?;
        let values = records.iter().filter_map(|record| record.value.as_ref());
        let used: BTreeSet<u32> = values.filter_map(|value| Some(wire::split(value).ok()?.0.0)).collect();
        ensure!(used == both, "{topic}: written with {used:?}, registered are {both:?}");
    }
    Ok(())
}

/// One of two ingests is exchanged and the registry goes away: what the embedders know goes on, what they do not know waits.
async fn without_a_registry(stack: &Stack, builds: &Builds) -> Result<()> {
    builds.deploy(stack, "ingest-1", Build::Next).await?;
    // The other one accepts, in the version that all know. This one knows both, and can tell.
    let accepting = Client::new(&stack.addresses, TENANT)?;
    let client = Client::through("ingest-1", &stack.addresses, TENANT)?;
    let long_enough = away_for()?;
    let away = Still::hold(stack.serving("registry").await?)?;
    let began = tokio::time::Instant::now();
    let written = write(&accepting, "while the registry is away").await?;
    let (mut live, mut waiting) = (0, 0);
    poll::until(
        "some to be searchable and some to wait, for long",
        INDEXED_WITHIN + long_enough,
        async || {
            (live, waiting) = (0, 0);
            for receipt in &written {
                match client.get(&receipt.document_id, receipt.revision).await? {
                    Some(document) if document.state() == DocumentState::Indexed => live += 1,
                    Some(document) if document.state() == DocumentState::Failed => bail!("given up: {document:?}"),
                    _ => waiting += 1,
                }
            }
            let told = last_failures(stack).await?;
            let long = began.elapsed() >= long_enough && told.contains("REGISTRY_UNAVAILABLE");
            Ok(if live > 0 && waiting > 0 && long {
                Ok(())
            } else {
                Err((live, waiting, told))
            })
        },
    )
    .await?;
    drop(away);
    settled(&client, &written).await?;
    println!("without a registry {live} became searchable and {waiting} waited for it");
    let letters = log::records(&stack.addresses.kafka, topics::DLQ.name).await?;
    ensure!(letters.is_empty(), "given up: {letters:?}");
    Ok(())
}

/// Reasons of the embedders' last failures.
async fn last_failures(stack: &Stack) -> Result<BTreeSet<String>> {
    let mut reasons = BTreeSet::new();
    for part in ["embedder", "embedder-1"] {
        let channel = millrace_rpc::client::channel(stack.addresses.of(part)?)?;
        let answer = PipelineServiceClient::new(channel)
            .get_pipeline(GetPipelineRequest {})
            .await?;
        for stage in answer.into_inner().stages {
            reasons.extend(stage.last_failures.into_iter().map(|failure| failure.reason));
        }
    }
    Ok(reasons)
}

/// A document on each partition, of one part or of two, again or for the first time.
async fn write(client: &Client, why: &str) -> Result<Vec<Receipt>> {
    let one = async |partition: i32| {
        let id = name_on(partition, TENANT, |n| format!("{partition}/{n}.md")).context("no name")?;
        let sections = if partition % 4 == 1 { 40 } else { 1 };
        let body: String = (0..sections)
            .map(|n| format!("# Section {n}\n\nWritten {why}.\n\n"))
            .collect();
        let accepted = poll::until("a command to be accepted", INDEXED_WITHIN, async || {
            Ok(client.send(client.request(&id, body.as_str())).await)
        });
        accepted.await
    };
    try_join_all((0..DOCUMENTS).map(one)).await
}

/// Each is INDEXED, or a later one has taken its place.
async fn settled(client: &Client, receipts: &[Receipt]) -> Result<()> {
    let states = [DocumentState::Indexed, DocumentState::Superseded];
    let all = receipts.iter().map(|receipt| client.reaches(receipt, &states));
    try_join_all(all).await.map(|_| ())
}

/// What no version is, on each partition. How many.
async fn bury(stack: &Stack) -> Result<usize> {
    let producer = Producer::new(&kafka(&stack.addresses), "somebody-else")?;
    for partition in 0..DOCUMENTS {
        let id = name_on(partition, TENANT, |n| format!("garbage/{partition}/{n}")).context("no name")?;
        let output = Output {
            topic: topics::SUBMITTED.name.to_owned(),
            partition: None,
            key: Bytes::from(format!("{TENANT}/{id}")),
            value: Some(Bytes::from_static(b"no wire format")),
            headers: Headers::default(),
        };
        producer.send(output).await?;
    }
    Ok(usize::try_from(DOCUMENTS)?)
}

/// The ids of both versions of each topic's schema.
async fn ids(stack: &Stack) -> Result<BTreeMap<&'static str, BTreeSet<u32>>> {
    let registry = Registry::new(&stack.addresses.registry)?;
    let mut ids = BTreeMap::new();
    for topic in topics::ALL.iter().filter(|topic| topic.schema.is_some()) {
        let subject = topic.subject();
        let registered = registry.registered(&subject).await?;
        let versions: Vec<_> = registered.iter().map(|of| of.version).collect();
        ensure!(versions == [1, 2], "{subject} has versions {versions:?}");
        let both = registered.iter().map(|of| of.id).collect();
        ids.insert(topic.name, both);
    }
    Ok(ids)
}
