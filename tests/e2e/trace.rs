//! One trace a document, over all three services and every hop of Kafka: what a receiver of somebody else's gets of it.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use millrace_api::indexer::v1::SearchRequest;
use millrace_api::indexer::v1::search_request::Query;
use millrace_api::indexer::v1::search_service_client::SearchServiceClient;
use millrace_api::ingest::v1::ingest_service_client::IngestServiceClient;
use millrace_api::ingest::v1::{DocumentState, Receipt, SubmitDocumentRequest};
use millrace_events::{TraceContext, topics};
use millrace_flow::{Headers, Output};
use millrace_kafka::Producer;
use millrace_testkit::stack::Addresses;
use millrace_testkit::traces::{EMBEDDER, INDEXER, INGEST, OF_A_DOCUMENT, Receiver, Seen, SpanKind};
use millrace_testkit::{Client, Stack, poll};
use rustix::process::Signal;
use tonic::Request;

use crate::{letters, running};

const TENANT: &str = "trace";
/// In every text of these cases; never in a span.
const SECRET: &str = "kaleidoscopic";
/// Spans are sent every half second.
const COME_WITHIN: Duration = Duration::from_secs(20);

/// What spans of a kind have, by the conventions.
fn required(span: &Seen) -> &'static [&'static str] {
    match span.kind {
        SpanKind::Server => &["rpc.system.name", "rpc.method", "rpc.response.status_code"],
        SpanKind::Producer => &[
            "messaging.system",
            "messaging.operation.name",
            "messaging.operation.type",
            "messaging.destination.name",
            "messaging.kafka.message.key",
        ],
        SpanKind::Consumer => &[
            "messaging.system",
            "messaging.operation.name",
            "messaging.operation.type",
            "messaging.destination.name",
            "messaging.destination.partition.id",
            "messaging.consumer.group.name",
            "messaging.kafka.offset",
            "messaging.kafka.message.key",
        ],
        _ => &[],
    }
}

async fn submit(addresses: &Addresses, id: &str, body: &str, trace: &TraceContext) -> Result<Receipt> {
    let mut client = IngestServiceClient::new(millrace_rpc::client::channel(&addresses.ingest)?);
    let mut request = Request::new(SubmitDocumentRequest {
        tenant: TENANT.into(),
        document_id: id.into(),
        body: body.into(),
        media_type: "text/markdown".into(),
        request_id: String::new(),
        lane: String::new(),
    });
    millrace_rpc::trace::inject(trace, request.metadata_mut());
    let answer = client.submit_document(request).await?.into_inner();
    answer.receipt.context("no receipt")
}

/// Waits until spans of these names have come, as often as they stand here.
async fn all_of(receiver: &Receiver, trace: &TraceContext, names: &[&str]) -> Result<Vec<Seen>> {
    poll::until("the spans of a trace", COME_WITHIN, async || {
        let spans = receiver.of(trace.trace_id());
        let mut missing: Vec<&str> = names.to_vec();
        for span in &spans {
            if let Some(at) = missing.iter().position(|name| *name == span.name) {
                missing.swap_remove(at);
            }
        }
        Ok(if missing.is_empty() {
            Ok(spans)
        } else {
            Err(missing.join(", "))
        })
    })
    .await
}

fn the<'s>(spans: &'s [Seen], service: &str, name: &str) -> Result<&'s Seen> {
    let mut found = spans.iter().filter(|span| span.service == service && span.name == name);
    match (found.next(), found.next()) {
        (Some(span), None) => Ok(span),
        (None, _) => anyhow::bail!("{service} has no span {name}: {spans:#?}"),
        (Some(_), Some(_)) => anyhow::bail!("{service} has two spans {name}: {spans:#?}"),
    }
}

/// Every parent is there, but for the one that the client sent.
fn unbroken(spans: &[Seen], root: &TraceContext) -> Result<()> {
    let known: BTreeSet<&str> = spans.iter().map(|span| span.span_id.as_str()).collect();
    for span in spans {
        let parent = span.parent_id.as_str();
        ensure!(
            known.contains(parent) || parent == root.span_id(),
            "no parent: {span:#?}"
        );
        for name in required(span) {
            ensure!(span.attributes.contains_key(*name), "{name} is missing: {span:#?}");
        }
    }
    Ok(())
}

fn says_nothing(spans: &[Seen]) -> Result<()> {
    let told = format!("{spans:?}");
    ensure!(!told.contains(SECRET), "a span quotes a document");
    Ok(())
}

pub async fn a_document_is_one_trace_from_submit_to_searchable(stack: &mut Option<Stack>) -> Result<()> {
    let stack = running(stack)?;
    let receiver = stack.traces()?;
    receiver.listen();
    let root = TraceContext::generate();
    let receipt = submit(&stack.addresses, "one.md", &format!("A {SECRET} note."), &root).await?;
    ensure!(receipt.trace_id == root.trace_id(), "{receipt:?}");
    let client = Client::new(&stack.addresses, TENANT)?;
    client.reaches(&receipt, &[DocumentState::Indexed]).await?;

    let names: Vec<&str> = OF_A_DOCUMENT.iter().map(|row| row.1).collect();
    let spans = all_of(receiver, &root, &names).await?;
    unbroken(&spans, &root)?;
    says_nothing(&spans)?;
    for (service, name, kind, parent) in OF_A_DOCUMENT {
        let span = the(&spans, service, name)?;
        ensure!(span.kind == kind && !span.failed, "{span:#?}");
        let parent_id = match parent {
            "" => root.span_id(),
            parent => spans
                .iter()
                .find(|span| span.name == parent)
                .map(|span| span.span_id.as_str())
                .context("no parent")?,
        };
        ensure!(
            span.parent_id == parent_id,
            "{name} is no child of {parent}: {spans:#?}"
        );
        if kind == SpanKind::Consumer {
            let to_parent = (span.trace_id.clone(), span.parent_id.clone());
            ensure!(span.links.contains(&to_parent), "not linked to who wrote it: {span:#?}");
        }
    }

    // The batch of the model is a trace of its own: linked to whoever was in it, and they to it.
    let attempt = the(&spans, EMBEDDER, "embed")?;
    let batches = receiver.those(|span| attempt.links.contains(&(span.trace_id.clone(), span.span_id.clone())));
    let [batch] = &batches[..] else {
        anyhow::bail!("not one batch: {batches:#?}");
    };
    ensure!(
        batch.name.starts_with("embeddings ") && batch.kind == SpanKind::Client,
        "{batch:#?}"
    );
    ensure!(
        batch.parent_id.is_empty() && batch.trace_id != root.trace_id(),
        "{batch:#?}"
    );
    ensure!(
        batch
            .links
            .contains(&(attempt.trace_id.clone(), attempt.span_id.clone())),
        "{batch:#?}"
    );
    for name in [
        "gen_ai.operation.name",
        "gen_ai.provider.name",
        "gen_ai.request.model",
        "gen_ai.embeddings.dimension.count",
        "gen_ai.usage.input_tokens",
    ] {
        ensure!(batch.attributes.contains_key(name), "{name} is missing: {batch:#?}");
    }
    // So are commits.
    for (service, topic) in [
        (INGEST, "documents.submitted"),
        (EMBEDDER, "documents.parsed"),
        (INDEXER, "chunks.embedded"),
    ] {
        let process = the(&spans, service, &format!("process {topic}"))?;
        let link = (process.trace_id.clone(), process.span_id.clone());
        let commits = receiver.those(|span| span.name == format!("commit {topic}") && span.links.contains(&link));
        ensure!(commits.len() == 1 && !commits[0].failed, "{commits:#?}");
        let count = commits[0].attributes.get("messaging.batch.message_count");
        ensure!(count == Some(&commits[0].links.len().to_string()), "{commits:#?}");
    }
    receiver.stop_listening();
    Ok(())
}

pub async fn a_batch_of_many_has_as_many_links(stack: &mut Option<Stack>) -> Result<()> {
    const MANY: usize = 60;
    let stack = running(stack)?;
    let receiver = stack.traces()?;
    receiver.listen();
    let client = Client::new(&stack.addresses, TENANT)?;
    let submits = (0..MANY).map(|n| {
        let (client, body) = (client.clone(), format!("A {SECRET} note of number {n}."));
        async move { client.submit(&format!("many/{n}.md"), body).await }
    });
    let receipts = futures::future::try_join_all(submits).await?;
    for receipt in &receipts {
        client.reaches(receipt, &[DocumentState::Indexed]).await?;
    }
    let of_them: BTreeSet<&str> = receipts.iter().map(|receipt| receipt.trace_id.as_str()).collect();
    let linked = poll::until("a batch for each document", COME_WITHIN, async || {
        let batches = receiver.those(|span| span.name.starts_with("embeddings "));
        let ours = |batch: &Seen| batch.links.iter().any(|(trace, _)| of_them.contains(trace.as_str()));
        let batches: Vec<Seen> = batches.into_iter().filter(ours).collect();
        let links: BTreeSet<String> = batches
            .iter()
            .flat_map(|batch| &batch.links)
            .map(|(trace, _)| trace.clone())
            .collect();
        let missing = of_them.iter().filter(|trace| !links.contains(**trace)).count();
        Ok(if missing == 0 { Ok(batches) } else { Err(missing) })
    });
    let batches = linked.await?;
    for batch in &batches {
        let requests = batch.attributes.get("millrace.batch.requests");
        ensure!(
            batch.dropped_links == 0 && requests == Some(&batch.links.len().to_string()),
            "{batch:#?}"
        );
    }
    ensure!(
        batches.len() < MANY,
        "{MANY} documents, and each was a batch of its own"
    );
    says_nothing(&receiver.those(|_| true))?;
    receiver.stop_listening();
    Ok(())
}

pub async fn a_search_is_one_trace_through_the_embedder(stack: &mut Option<Stack>) -> Result<()> {
    const SEARCH: &str = "millrace.indexer.v1.SearchService/Search";
    const EMBED: &str = "millrace.embedder.v1.EmbedderService/Embed";
    let stack = running(stack)?;
    let receiver = stack.traces()?;
    receiver.listen();
    let root = TraceContext::generate();
    let mut client = SearchServiceClient::new(millrace_rpc::client::channel(&stack.addresses.indexer)?);
    let mut request = Request::new(SearchRequest {
        tenant: TENANT.into(),
        query: Some(Query::Text(format!("a {SECRET} question"))),
        k: 3,
        ..SearchRequest::default()
    });
    millrace_rpc::trace::inject(&root, request.metadata_mut());
    client.search(request).await?;
    let spans = all_of(receiver, &root, &[SEARCH, EMBED, EMBED, "index search"]).await?;
    unbroken(&spans, &root)?;
    says_nothing(&spans)?;
    let (server, asked) = (the(&spans, INDEXER, SEARCH)?, the(&spans, INDEXER, EMBED)?);
    let answered = the(&spans, EMBEDDER, EMBED)?;
    ensure!(
        server.kind == SpanKind::Server && server.parent_id == root.span_id(),
        "{server:#?}"
    );
    ensure!(
        asked.attributes.contains_key("server.address") && asked.attributes.contains_key("server.port"),
        "{asked:#?}"
    );
    ensure!(
        asked.kind == SpanKind::Client && asked.parent_id == server.span_id,
        "{asked:#?}"
    );
    ensure!(
        answered.kind == SpanKind::Server && answered.parent_id == asked.span_id,
        "{answered:#?}"
    );
    // One for each round: a document that changed just now is asked for again.
    let mut rounds = spans.iter().filter(|span| span.name == "index search");
    ensure!(rounds.all(|round| round.parent_id == server.span_id), "{spans:#?}");
    ensure!(
        answered.links.len() == 1,
        "linked to the batch of its text: {answered:#?}"
    );
    receiver.stop_listening();
    Ok(())
}

/// A record that somebody else wrote and nobody can read, and its redrive: the same trace, the original's headers untouched.
pub async fn a_dead_letter_and_its_redrive_stay_in_the_trace(stack: &mut Option<Stack>) -> Result<()> {
    const PROCESS: &str = "process documents.submitted";
    let stack = running(stack)?;
    let receiver = stack.traces()?;
    receiver.listen();
    let root = TraceContext::generate();
    let mut headers = Headers::default();
    headers.push("traceparent", root.traceparent().to_owned());
    let producer = Producer::new(&letters::kafka(&stack.addresses), "somebody-else")?;
    let output = Output {
        topic: topics::SUBMITTED.name.to_owned(),
        partition: None,
        key: Bytes::from(format!("{TENANT}/unreadable")),
        value: Some(Bytes::from(SECRET)),
        headers,
    };
    let sent = producer.send(output).await?;
    let letter = letters::letter(&stack.addresses.kafka, &sent).await?;
    ensure!(
        letter.headers.get_str("traceparent") == Some(root.traceparent()),
        "{letter:?}"
    );
    let spans = all_of(
        receiver,
        &root,
        &[PROCESS, "parse", "send documents.dlq", "send documents.failed"],
    )
    .await?;
    unbroken(&spans, &root)?;
    says_nothing(&spans)?;
    let process = the(&spans, INGEST, PROCESS)?;
    ensure!(process.failed && process.parent_id == root.span_id(), "{process:#?}");
    for name in [PROCESS, "parse"] {
        let error = the(&spans, INGEST, name)?.attributes.get("error.type");
        ensure!(error.is_some_and(|error| error == "UNREADABLE_RECORD"), "{spans:#?}");
    }
    let buried = the(&spans, INGEST, "send documents.dlq")?;
    ensure!(
        buried.parent_id == process.span_id && buried.attributes.contains_key("error.type"),
        "{buried:#?}"
    );

    let redriven = letters::cli::told(&stack.addresses, &["redrive", "--tenant", TENANT]).await?;
    ensure!(redriven[0]["redriven"] == 1, "{redriven:?}");
    let listed = letters::cli::told(&stack.addresses, &["list", "--tenant", TENANT, "--state", "all"]).await?;
    ensure!(
        listed.iter().all(|letter| letter["trace_id"] == root.trace_id()),
        "{listed:?}"
    );
    let again = [
        PROCESS,
        PROCESS,
        "send documents.submitted",
        "send documents.dlq",
        "send documents.dlq",
    ];
    let spans = all_of(receiver, &root, &again).await?;
    unbroken(&spans, &root)?;
    let parents: BTreeSet<&str> = spans
        .iter()
        .filter(|span| span.name == PROCESS)
        .map(|span| span.parent_id.as_str())
        .collect();
    ensure!(
        parents == BTreeSet::from([root.span_id()]),
        "the redriven one has the original's parent: {spans:#?}"
    );
    receiver.stop_listening();
    Ok(())
}

/// A record whose process was killed is delivered again: in the same trace, under the same parent.
pub async fn a_record_delivered_again_keeps_its_trace(stack: &mut Option<Stack>) -> Result<()> {
    const PROCESS: &str = "process documents.parsed";
    let stack = running(stack)?;
    let receiver = stack.traces()?;
    receiver.listen();
    let root = TraceContext::generate();
    // Long enough that its embedder is killed at work: the model takes about 20 ms a chunk.
    let body = format!("# One\n\n{}\n", format!("A {SECRET} note on and on. ").repeat(2_000));
    let receipt = submit(&stack.addresses, "again.md", &body, &root).await?;
    let client = Client::new(&stack.addresses, TENANT)?;
    client.reaches(&receipt, &[DocumentState::Parsed]).await?;
    stack.kill("embedder", Signal::KILL).await?;
    client.reaches(&receipt, &[DocumentState::Indexed]).await?;
    let sent = |spans: &[Seen]| -> BTreeSet<String> {
        let sent = spans.iter().filter(|span| span.name == "send documents.parsed");
        sent.map(|span| span.span_id.clone()).collect()
    };
    // What a process had not sent yet when it was killed is gone with it, though not its records.
    let spans = poll::until("the document to be searchable", COME_WITHIN, async || {
        let spans = receiver.of(root.trace_id());
        let searchable = spans.iter().any(|span| span.name == "searchable");
        Ok(if searchable && sent(&spans).len() > 1 {
            Ok(spans)
        } else {
            Err(spans.len())
        })
    });
    let spans = spans.await?;
    says_nothing(&spans)?;
    let parts = sent(&spans);
    let processed = spans
        .iter()
        .filter(|span| span.name == PROCESS)
        .map(|span| span.parent_id.clone());
    let processed: BTreeSet<String> = processed.collect();
    ensure!(
        !processed.is_empty() && processed.is_subset(&parts),
        "whose child is which part: {spans:#?}"
    );
    receiver.stop_listening();
    Ok(())
}
