//! What no stage can read is buried, and the others go on.

pub mod cli;
pub mod redrive;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use millrace_api::ingest::v1::DocumentState;
use millrace_events::{DeadLetter, Epoch, LetterState, Revision, headers, topics};
use millrace_flow::{Delivery, Headers, Output};
use millrace_kafka::{KafkaConfig, Producer, Sent};
use millrace_testkit::stack::Addresses;
use millrace_testkit::{Client, Stack, log, poll};

use crate::running;

const BURIED_WITHIN: Duration = Duration::from_secs(60);
const TENANT: &str = "letters";

/// Records that somebody else wrote to `documents.submitted`, between two submissions of one document.
pub async fn what_cannot_be_read_is_buried_whole_and_once(stack: &mut Option<Stack>) -> Result<()> {
    let addresses = &running(stack)?.addresses;
    let client = Client::new(addresses, TENANT)?;
    let first = client.submit("a", "The river turns the mill.").await?;
    client.indexed(&first).await?;

    let producer = Producer::new(&kafka(addresses), "somebody-else")?;
    let (key, nobody) = (Bytes::from("letters/a"), Bytes::from_static(b"\xff\x00"));
    let garbage = Bytes::from_static(b"{\"not\": \"avro\"}");
    let mut sent = Vec::new();
    for (key, value) in [(&key, Some(&garbage)), (&key, None), (&nobody, Some(&garbage))] {
        let mut theirs = Headers::default();
        theirs.push("theirs", vec![0xff, 0x00]);
        theirs.push(headers::FAILURE_REASON, "theirs");
        let output = Output {
            topic: topics::SUBMITTED.name.to_owned(),
            partition: None,
            key: key.clone(),
            value: value.cloned(),
            headers: theirs,
        };
        sent.push((producer.send(output.clone()).await?, output));
    }

    let second = client.submit("a", "The wind turns the mill.").await?;
    client.indexed(&second).await?;

    for (at, output) in &sent {
        let letter = letter(&addresses.kafka, at).await?;
        ensure!(
            letter.key.as_ref() == Some(&output.key) && letter.value == output.value,
            "{letter:?}"
        );
        ensure!(letter.headers.0.starts_with(&output.headers.0), "{letter:?}");
        let reason = if output.value.is_some() {
            "UNREADABLE_RECORD"
        } else {
            "NO_VALUE"
        };
        for (name, value) in [
            (headers::FAILURE_REASON, reason),
            (headers::FAILURE_STAGE, "parse"),
            (headers::FAILURE_ATTEMPTS, "1"),
            (headers::connect::TOPIC, topics::SUBMITTED.name),
        ] {
            ensure!(letter.headers.get_str(name) == Some(value), "{name}: {letter:?}");
        }
    }
    let states = log::read::<DeadLetter>(addresses).await?;
    for (at, output) in &sent {
        let place = place(at);
        let of = states
            .iter()
            .filter(|(record, _)| record.key.as_deref() == Some(place.as_bytes()));
        let states: Vec<_> = of.collect();
        ensure!(states.len() == 1, "{place}: {states:?}");
        let (record, state) = states[0];
        ensure!(state.state == LetterState::Open && state.attempts == 1, "{state:?}");
        let revision = Revision::new(Epoch::FIRST, at.offset)?.get();
        if output.key == key {
            ensure!(record.origin.partition == at.partition, "{record:?}");
            ensure!(
                (state.tenant.as_str(), state.document_id.as_str()) == (TENANT, "a"),
                "{state:?}"
            );
            ensure!(state.revision == revision, "{state:?}");
            let document = client.get("a", revision).await?.context("nothing is known of it")?;
            ensure!(document.state() == DocumentState::Failed, "{document:?}");
            ensure!(document.live_revision == second.revision, "{document:?}");
        } else {
            ensure!(state.document_id.is_empty() && state.revision == 0, "{state:?}");
        }
    }
    Ok(())
}

pub(crate) fn kafka(addresses: &Addresses) -> KafkaConfig {
    KafkaConfig {
        bootstrap_servers: addresses.kafka.clone(),
        ..KafkaConfig::default()
    }
}

fn place(at: &Sent) -> String {
    format!("{}/{}/{}", topics::SUBMITTED.name, at.partition, at.offset)
}

/// The one letter of a record.
pub(crate) async fn letter(kafka: &str, at: &Sent) -> Result<Delivery> {
    let place = place(at);
    let of = |letter: &Delivery| letter.headers.get_str(headers::ORIGIN) == Some(place.as_str());
    poll::until(&format!("{place} to be buried"), BURIED_WITHIN, async || {
        let mut letters = log::records(kafka, topics::DLQ.name).await?;
        letters.retain(of);
        ensure!(letters.len() < 2, "buried twice: {letters:?}");
        Ok(letters.pop().ok_or("no letter"))
    })
    .await
}
