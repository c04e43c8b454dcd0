//! Processes die; what was accepted does not.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use millrace_api::ingest::v1::{DocumentState, Receipt};
use millrace_api::pipeline::v1::pipeline_service_client::PipelineServiceClient;
use millrace_api::pipeline::v1::{GetPipelineRequest, PartitionState, Stage};
use millrace_testkit::client::{INDEXED_WITHIN, is_for_now};
use millrace_testkit::wire::Broker;
use millrace_testkit::{Client, Stack, poll};
use rustix::process::Signal;
use tokio_util::sync::CancellationToken;

use crate::{check_topics, running};
use millrace_testkit::still::undecided;

const FINAL: [DocumentState; 2] = [DocumentState::Indexed, DocumentState::Superseded];

/// Submits with a request id until there is a receipt: what a careful client does while parts restart.
async fn insist(client: &Client, id: &str, body: String) -> Result<Receipt> {
    let mut request = client.request(id, body);
    request.request_id = uuid::Uuid::new_v4().to_string();
    poll::until(&format!("a receipt for {id}"), INDEXED_WITHIN, async || {
        match client.send(request.clone()).await {
            Ok(receipt) => Ok(Ok(receipt)),
            Err(status) if is_for_now(&status) => Ok(Err(status)),
            Err(status) => Err(status.into()),
        }
    })
    .await
}

/// Every revision has a final state, and a search finds the last one of each document, and only that.
async fn settled(client: &Client, receipts: &[Receipt]) -> Result<()> {
    let mut last: BTreeMap<&str, i64> = BTreeMap::new();
    for receipt in receipts {
        client.reaches(receipt, &FINAL).await?;
        let newest = last.entry(&receipt.document_id).or_default();
        *newest = (*newest).max(receipt.revision);
    }
    for (id, revision) in last {
        let document = client
            .get(id, revision)
            .await?
            .with_context(|| format!("nothing is known of {id}"))?;
        ensure!(
            document.state() == DocumentState::Indexed && document.live_revision == revision,
            "{document:?}"
        );
        let hits = client.find_through("note", 100, &[id]).await?;
        let expected = usize::try_from(document.chunk_count)?;
        ensure!(
            hits.len() == expected && hits.iter().all(|hit| hit.revision == revision),
            "{id}: {hits:?}"
        );
    }
    Ok(())
}

pub async fn a_broker_restart_loses_nothing(stack: &mut Option<Stack>) -> Result<()> {
    let stack = running(stack)?;
    let client = Client::new(&stack.addresses, "faults")?;
    let mut receipts = Vec::new();
    for n in 0..30 {
        receipts.push(
            client
                .submit(&format!("broker/{n}.md"), format!("Note {n} before the restart."))
                .await?,
        );
    }
    let held = [
        ("ingest", "millrace.parse.local-0"),
        ("embedder", "millrace.embed.local-0"),
        ("indexer", "millrace.index.local-0"),
    ]
    .map(|(part, transactional_id)| anyhow::Ok((stack.pid(part)?, transactional_id.to_owned())));
    let held: Vec<_> = held.into_iter().collect::<Result<_>>()?;
    let still = undecided(&Broker::new(&stack.addresses.kafka), &held, false).await?;
    stack.kill("kafka", Signal::TERM).await?;
    drop(still);
    for n in 0..30 {
        receipts.push(
            insist(
                &client,
                &format!("broker/{n}.md"),
                format!("Note {n} after the restart."),
            )
            .await?,
        );
    }
    settled(&client, &receipts).await
}

/// Writes without end, ten documents in turn, every fifth of several parts, never far ahead of the index.
async fn write_on(client: &Client, stop: &CancellationToken) -> Result<Vec<Receipt>> {
    const AHEAD: usize = 15;
    let mut receipts: Vec<Receipt> = Vec::new();
    while !stop.is_cancelled() {
        let n = receipts.len();
        let sections = if n.is_multiple_of(5) { 40 } else { 1 };
        let body: String = (0..sections)
            .map(|s| format!("# Note {s}\n\nNote of write {n}. {}\n\n", "So it goes. ".repeat(45)))
            .collect();
        receipts.push(insist(client, &format!("kills/{}.md", n % 10), body).await?);
        if let Some(earlier) = receipts.len().checked_sub(AHEAD) {
            client.reaches(&receipts[earlier], &FINAL).await?;
        }
    }
    Ok(receipts)
}

/// Waits until a service is in the middle: it has processed something since it started, and more is under way. Not a
/// record that runs alone: kills that are aimed at one again and again are what a poison record looks like.
async fn in_the_middle(address: &str) -> Result<()> {
    let client = PipelineServiceClient::new(millrace_rpc::client::channel(address)?);
    poll::until("a service to be at work", INDEXED_WITHIN, async || {
        let answer = client.clone().get_pipeline(GetPipelineRequest {}).await;
        let stages = answer.map(|answer| answer.into_inner().stages);
        let alone = |stage: &Stage| {
            stage
                .partitions
                .iter()
                .any(|p| p.state() == PartitionState::Quarantined)
        };
        let busy = |stage: &Stage| stage.processed > 0 && stage.window_records > 0 && !alone(stage);
        Ok(if stages.as_ref().is_ok_and(|stages| stages.iter().any(busy)) {
            Ok(())
        } else {
            Err(stages)
        })
    })
    .await
}

pub async fn ten_kills_lose_and_repeat_nothing(stack: &mut Option<Stack>) -> Result<()> {
    let stack = running(stack)?;
    let client = Client::new(&stack.addresses, "faults")?;
    let stop = CancellationToken::new();
    let kills = async {
        let _stop = stop.clone().drop_guard();
        for kill in 0..10 {
            let (part, address) = match kill % 2 {
                0 => ("embedder", &stack.addresses.embedder),
                _ => ("indexer", &stack.addresses.indexer),
            };
            stack.serving(part).await?;
            in_the_middle(address).await?;
            stack.kill(part, Signal::KILL).await?;
        }
        Ok(())
    };
    let ((), receipts) = tokio::try_join!(kills, write_on(&client, &stop))?;
    settled(&client, &receipts).await?;
    let seen = check_topics(stack).await?;
    println!(
        "{} revisions through ten kills; the topics hold {seen:?}",
        receipts.len()
    );
    ensure!(
        [seen.parsed, seen.embedded].iter().all(|parts| *parts > receipts.len()) && seen.indexed > 0,
        "{seen:?}"
    );
    Ok(())
}

pub async fn a_kill_of_ingest_loses_nothing_accepted(stack: &mut Option<Stack>) -> Result<()> {
    let stack = running(stack)?;
    let client = Client::new(&stack.addresses, "faults")?;
    let mut receipts = Vec::new();
    for round in 0..3 {
        for n in 0..10 {
            receipts.push(
                insist(
                    &client,
                    &format!("ingest/{n}.md"),
                    format!("Note {n} of round {round}."),
                )
                .await?,
            );
        }
        stack.kill("ingest", Signal::KILL).await?;
    }
    settled(&client, &receipts).await
}

pub async fn a_second_up_carries_on(shared: &mut Option<Stack>) -> Result<()> {
    let receipt = {
        let client = Client::new(&running(shared)?.addresses, "faults")?;
        let receipt = client.submit("kept.md", "A note that outlives its stack.").await?;
        client.indexed(&receipt).await?;
        receipt
    };
    let stack = shared.take().context("no stack")?;
    *shared = Some(tokio::time::timeout(Duration::from_secs(300), stack.restart()).await??);
    let client = Client::new(&running(shared)?.addresses, "faults")?;
    let hits = client.find("note", 5, &["kept.md"]).await?;
    ensure!(hits.len() == 1 && hits[0].revision == receipt.revision, "{hits:?}");
    let document = client.get("kept.md", receipt.revision).await?.context("forgotten")?;
    ensure!(document.state() == DocumentState::Indexed, "{document:?}");
    client
        .indexed(&client.submit("kept.md", "A note of the second life.").await?)
        .await?;
    Ok(())
}

pub async fn the_topics_keep_the_promises(stack: &mut Option<Stack>) -> Result<()> {
    let seen = check_topics(running(stack)?).await?;
    println!("checked {seen:?}");
    Ok(())
}
