//! Ten thousand letters go back, and whoever sends them is killed twice.

use std::collections::{BTreeMap, HashMap};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use millrace_api::ingest::v1::dead_letter_service_client::DeadLetterServiceClient;
use millrace_api::ingest::v1::{
    DeadLetterFilter, DeadLetterState, DocumentState, Receipt, SummarizeDeadLettersRequest,
};
use millrace_events::headers::{ORIGIN, REVISION};
use millrace_events::topics::{self, PARTITIONS};
use millrace_events::{
    ChunksEmbedded, DeadLetter, DocumentParsed, DocumentStatus, DocumentSubmitted, Epoch, Kind, LetterState, Model,
    Revision, State, VectorsIndexed,
};
use millrace_flow::{DeadLetters as _, Delivery, Headers, Origin, Output, Rejection};
use millrace_kafka::BatchWriter;
use millrace_kafka::partitioner::partition_for;
use millrace_runtime::clock::now_ms;
use millrace_runtime::codec::Codec;
use millrace_runtime::dead_letters::DocumentLetters;
use millrace_schema::Registry;
use millrace_testkit::client::{INDEXED_WITHIN, name_on};
use millrace_testkit::stack::Addresses;
use millrace_testkit::wire::Broker;
use millrace_testkit::{Client, Stack, log, poll};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tonic::Code;

use super::cli::{dlq, told};
use super::kafka;
use crate::{check_topics, running};

const TENANT: &str = "letters-redrive";
/// Transactional id of whoever redrives.
const WRITER: &str = "millrace.redrive.e1";
const DOCUMENTS: usize = 120;
/// Revisions of each document that were given up, all older than the one that is live.
const OLD: i64 = 84;
const LETTERS: usize = DOCUMENTS * OLD as usize;
/// In one transaction of this test.
const BATCH: usize = 500;
const PER_SECOND: &str = "1500";
const LOOK_EVERY: Duration = Duration::from_millis(200);
const REDRIVEN_WITHIN: Duration = Duration::from_secs(180);

/// What is live, and was accepted behind `OLD` others in each partition.
async fn live(client: &Client) -> Result<Vec<Receipt>> {
    let id_of = |partition| name_on(partition, TENANT, |n| format!("earlier-{n}")).unwrap_or_default();
    let earlier = (0..PARTITIONS).flat_map(|partition| vec![id_of(partition); OLD as usize]);
    let deleting = futures::stream::iter(earlier).map(|id| async move { client.delete(&id).await });
    deleting.buffer_unordered(64).try_collect::<Vec<_>>().await?;
    let submitting =
        (0..DOCUMENTS).map(|n| async move { client.submit(&format!("{n}.md"), format!("Note {n}.")).await });
    let receipts: Vec<_> = futures::stream::iter(submitting).buffered(16).try_collect().await?;
    for receipt in &receipts {
        client.indexed(receipt).await?;
        ensure!(Revision::from_i64(receipt.revision)?.offset() >= OLD, "{receipt:?}");
    }
    Ok(receipts)
}

/// Buries letters as the stages do.
struct Burial {
    codec: Codec,
    model: Model,
}

impl Burial {
    async fn new(addresses: &Addresses) -> Result<Self> {
        let inputs = [topics::SUBMITTED, topics::PARSED, topics::EMBEDDED];
        let writes = [&inputs[..], &DocumentLetters::WRITES].concat();
        let codec = Codec::connect(Registry::new(&addresses.registry)?, &writes, &inputs).await?;
        let embedded = log::read::<ChunksEmbedded>(addresses).await?;
        let (_, embedded) = embedded.into_iter().next().context("nothing is embedded")?;
        let model = embedded.model;
        Ok(Self { codec, model })
    }

    /// Letter `n`, of an old revision of a document: half of them of the parse stage, a tenth with a text to embed.
    fn letter(&self, n: usize, id: &str, revision: Revision) -> Result<(&'static str, Vec<Output>)> {
        let (tenant, document_id) = (TENANT.to_owned(), id.to_owned());
        let (stage, topic, value) = match n % 10 {
            at @ 0..5 => {
                let command = DocumentSubmitted {
                    tenant,
                    document_id,
                    accepted_at_ms: now_ms(),
                    kind: if at == 0 { Kind::Upsert } else { Kind::Delete },
                    media_type: "text/plain".into(),
                    body: (at == 0).then(|| format!("Old note {n}.").into_bytes()),
                    ..DocumentSubmitted::default()
                };
                ("parse", topics::SUBMITTED, self.codec.encode(&command)?)
            }
            5..8 => {
                let part = DocumentParsed {
                    tenant,
                    document_id,
                    revision: revision.get(),
                    kind: Kind::Delete,
                    parts: 1,
                    ..DocumentParsed::default()
                };
                ("embed", topics::PARSED, self.codec.encode(&part)?)
            }
            _ => {
                let part = ChunksEmbedded {
                    tenant,
                    document_id,
                    revision: revision.get(),
                    kind: Kind::Delete,
                    parts: 1,
                    model: self.model.clone(),
                    ..ChunksEmbedded::default()
                };
                ("index", topics::EMBEDDED, self.codec.encode(&part)?)
            }
        };
        let mut headers = Headers::default();
        if stage == "parse" {
            headers.push(REVISION, revision.to_string());
        }
        let key = Bytes::from(format!("{TENANT}/{id}"));
        let rejection = Rejection {
            delivery: Delivery {
                origin: Origin {
                    topic: topic.name.into(),
                    partition: partition_for(&key, PARTITIONS),
                    // A place of its own, which no record of the run has.
                    offset: (1 << 40) + i64::try_from(n)?,
                },
                key: Some(key),
                value: Some(value),
                headers,
                timestamp_ms: now_ms(),
                attempt: 3,
                span: Default::default(),
            },
            class: "FAILED",
            reason: "MODEL_FAILED".into(),
            message: "on purpose".into(),
            attempts: 3,
            at_ms: now_ms(),
        };
        let letters = DocumentLetters::new(self.codec.clone(), stage, Epoch::FIRST);
        Ok((stage, letters.bury(&rejection).0))
    }
}

/// Where an original first stood, and its bytes.
type Originals = HashMap<String, (Bytes, Option<Bytes>)>;

async fn bury(addresses: &Addresses, receipts: &[Receipt]) -> Result<BTreeMap<&'static str, Originals>> {
    let burial = Burial::new(addresses).await?;
    let writer = BatchWriter::open(&kafka(addresses), "letters-of-a-test").await?;
    let mut originals: BTreeMap<_, Originals> = BTreeMap::new();
    let mut batch = Vec::new();
    for n in 0..LETTERS {
        let revision = Revision::new(Epoch::FIRST, i64::try_from(n / DOCUMENTS)?)?;
        let (stage, outputs) = burial.letter(n, &receipts[n % DOCUMENTS].document_id, revision)?;
        let letter = &outputs[0];
        let origin = letter.headers.get_str(ORIGIN).context("no origin")?.to_owned();
        let of_stage = originals.entry(stage).or_default();
        of_stage.insert(origin, (letter.key.clone(), letter.value.clone()));
        batch.extend(outputs);
        if batch.len() >= BATCH {
            writer.write(std::mem::take(&mut batch)).await?;
        }
    }
    writer.write(batch).await?;
    Ok(originals)
}

/// Letters by state, while ingest answers.
async fn states(addresses: &Addresses) -> Result<Option<BTreeMap<DeadLetterState, i64>>> {
    let filter = DeadLetterFilter {
        tenant: TENANT.into(),
        ..DeadLetterFilter::default()
    };
    let request = SummarizeDeadLettersRequest { filter: Some(filter) };
    let mut client = DeadLetterServiceClient::new(millrace_rpc::client::channel(&addresses.ingest)?);
    let counts = match client.summarize_dead_letters(request).await {
        Ok(answer) => answer.into_inner().counts,
        Err(status) if matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled) => return Ok(None),
        Err(status) => return Err(status.into()),
    };
    let mut states = BTreeMap::new();
    for count in counts {
        *states.entry(count.state()).or_default() += count.letters;
    }
    Ok(Some(states))
}

async fn until(addresses: &Addresses, state: DeadLetterState, letters: i64) -> Result<()> {
    poll::until(&format!("{letters} to be {state:?}"), REDRIVEN_WITHIN, async || {
        let states = states(addresses).await?;
        let there = |states: &BTreeMap<_, i64>| states.get(&state).is_some_and(|n| *n >= letters);
        Ok(if states.as_ref().is_some_and(there) {
            Ok(())
        } else {
            Err(states)
        })
    })
    .await
}

/// Looks at the documents in turn: each time one is told or found, it is the newest revision.
async fn watch(client: &Client, receipts: &[Receipt], stop: &CancellationToken) -> Result<usize> {
    let mut looks = 0;
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    for receipt in receipts.iter().cycle() {
        if stop.run_until_cancelled(ticks.tick()).await.is_none() {
            break;
        }
        looks += usize::from(newest(client, receipt).await?);
    }
    Ok(looks)
}

/// Whether the services answered; fails if they told of another revision.
async fn newest(client: &Client, receipt: &Receipt) -> Result<bool> {
    let Some(document) = client.get(&receipt.document_id, 0).await? else {
        return Ok(false);
    };
    ensure!(
        document.revision == receipt.revision
            && document.live_revision == receipt.revision
            && document.state() == DocumentState::Indexed,
        "{document:?}"
    );
    let hits = client.find_through("note", 100, &[&receipt.document_id]).await?;
    ensure!(hits.len() == 1 && hits[0].revision == receipt.revision, "{hits:?}");
    Ok(true)
}

/// Another writer takes the name while a command runs: the command says so and ends.
async fn taken_over(addresses: &Addresses) -> Result<()> {
    let arguments = ["redrive", "--tenant", TENANT, "--rate", PER_SECOND];
    let command = dlq(addresses, &arguments).stderr(Stdio::piped()).spawn()?;
    let rival = async {
        until(addresses, DeadLetterState::Redriven, 1).await?;
        Broker::new(&addresses.kafka).fence(WRITER).await
    };
    let ending = async { Ok(command.wait_with_output().await?) };
    let ((), ended) = tokio::try_join!(rival, ending)?;
    let said = String::from_utf8_lossy(&ended.stderr);
    ensure!(
        ended.status.code() == Some(1) && said.contains("TAKEN_OVER"),
        "{ended:?}"
    );
    let letters = i64::try_from(LETTERS)?;
    let states = states(addresses).await?.context("ingest is away")?;
    ensure!(
        states.get(&DeadLetterState::Redriven).is_some_and(|n| *n < letters),
        "{states:?}"
    );
    Ok(())
}

/// One command, through two kills of the process that does its work.
async fn redrive(stack: &Stack) -> Result<Value> {
    let arguments = ["redrive", "--tenant", TENANT, "--rate", PER_SECOND, "--json"];
    let command = dlq(&stack.addresses, &arguments).stdout(Stdio::piped()).spawn()?;
    let kills = async {
        for redriven in [2500, 6000] {
            until(&stack.addresses, DeadLetterState::Redriven, redriven).await?;
            stack.kill("ingest", Signal::KILL).await?;
        }
        anyhow::Ok(())
    };
    let ending = async { Ok(command.wait_with_output().await?) };
    let ((), ended) = tokio::try_join!(kills, ending)?;
    ensure!(ended.status.success(), "{ended:?}");
    Ok(serde_json::from_slice(&ended.stdout)?)
}

/// Each original stands once in its stage's input, byte for byte, as redriven once.
async fn each_once(addresses: &Addresses, originals: &BTreeMap<&'static str, Originals>) -> Result<()> {
    for (stage, topic) in [
        ("parse", topics::SUBMITTED),
        ("embed", topics::PARSED),
        ("index", topics::EMBEDDED),
    ] {
        let mut missing = originals[stage].clone();
        for record in log::records(&addresses.kafka, topic.name).await? {
            let origin = record.headers.get_str(ORIGIN).unwrap_or_default();
            if !originals[stage].contains_key(origin) {
                continue;
            }
            let original = missing
                .remove(origin)
                .with_context(|| format!("{origin} re-entered twice"))?;
            ensure!(
                (record.key.clone(), &record.value) == (Some(original.0), &original.1),
                "{record:?}"
            );
            ensure!(log::redrive(&record) == 1, "{record:?}");
        }
        ensure!(missing.is_empty(), "{} of {stage} did not re-enter", missing.len());
    }
    let states = log::read::<DeadLetter>(addresses).await?;
    let redriven = states
        .iter()
        .filter(|(_, state)| state.tenant == TENANT && state.state == LetterState::Redriven);
    let redriven = redriven.count();
    ensure!(redriven == LETTERS, "{redriven} states say REDRIVEN");
    Ok(())
}

fn is_old(tenant: &str, revision: i64) -> bool {
    tenant == TENANT && Revision::from_i64(revision).is_ok_and(|revision| revision.offset() < OLD)
}

/// All old revisions are through, and none of them was ever live.
async fn all_are_superseded(addresses: &Addresses, documents: &[Receipt]) -> Result<()> {
    let mine = |id: &str| documents.iter().any(|receipt| receipt.document_id == id);
    poll::until("all old revisions to be superseded", INDEXED_WITHIN, async || {
        let mut last = HashMap::new();
        for (record, status) in log::read::<DocumentStatus>(addresses).await? {
            if is_old(&status.tenant, status.revision) && mine(&status.document_id) {
                last.insert(record.key, status.state);
            }
        }
        let through = last.values().filter(|state| **state == State::Superseded).count();
        Ok(if through == LETTERS {
            Ok(())
        } else {
            Err((through, last.len()))
        })
    })
    .await?;
    let events = log::read::<VectorsIndexed>(addresses).await?;
    let odd = events
        .iter()
        .find(|(_, e)| is_old(&e.tenant, e.revision) && mine(&e.document_id));
    ensure!(odd.is_none(), "an old revision became live: {odd:?}");
    Ok(())
}

pub async fn ten_thousand_are_redriven_once_each_through_two_kills(stack: &mut Option<Stack>) -> Result<()> {
    let stack = running(stack)?;
    let addresses = &stack.addresses;
    let client = Client::new(addresses, TENANT)?;
    let receipts = live(&client).await?;
    let originals = bury(addresses, &receipts).await?;
    until(addresses, DeadLetterState::Open, i64::try_from(LETTERS)?).await?;

    let stop = CancellationToken::new();
    let redriving = async {
        let _stop = stop.clone().drop_guard();
        taken_over(addresses).await?;
        let redriven = redrive(stack).await?;
        each_once(addresses, &originals).await?;
        all_are_superseded(addresses, &receipts).await?;
        Ok(redriven)
    };
    let (redriven, looks) = tokio::try_join!(redriving, watch(&client, &receipts, &stop))?;
    ensure!(
        redriven["resumed"].as_i64() >= Some(2) && redriven["skipped"] == json!({}),
        "{redriven}"
    );
    ensure!(looks > DOCUMENTS / 2, "only {looks} looks at the documents");
    let states = states(addresses).await?.context("ingest is away")?;
    ensure!(
        states == [(DeadLetterState::Redriven, i64::try_from(LETTERS)?)].into(),
        "{states:?}"
    );
    let again = told(addresses, &["redrive", "--tenant", TENANT]).await?;
    ensure!(again[0]["matched"] == 0 && again[0]["redriven"] == 0, "{again:?}");
    for receipt in &receipts {
        ensure!(newest(&client, receipt).await?, "{receipt:?} is not answered for");
    }
    let seen = check_topics(stack).await?;
    println!("{LETTERS} letters redriven, {redriven}; {looks} looks meanwhile; the topics hold {seen:?}");
    Ok(())
}
