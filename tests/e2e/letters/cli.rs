//! Dead letters as an operator's command line has them.

use std::process::Output as Ended;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use millrace_events::headers::{ORIGIN, REDRIVE};
use millrace_events::topics;
use millrace_flow::{Headers, Output};
use millrace_kafka::{Producer, Sent};
use millrace_testkit::stack::Addresses;
use millrace_testkit::{Stack, log, poll};
use serde_json::Value;
use tokio::process::Command;

use super::{BURIED_WITHIN, kafka, place};
use crate::running;

const TENANT: &str = "letters-cli";
const VALUE: &[u8] = b"{\"not\": \"avro\"}\x00\xff";

/// `millrace dlq` against a stack's ingest.
pub fn dlq(addresses: &Addresses, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millrace"));
    command.args(["--ingest", &addresses.ingest, "dlq"]).args(arguments);
    command.kill_on_drop(true);
    command
}

async fn ended(addresses: &Addresses, arguments: &[&str]) -> Result<Ended> {
    Ok(dlq(addresses, arguments).output().await?)
}

/// What a command that succeeds prints, one JSON object a line.
pub async fn told(addresses: &Addresses, arguments: &[&str]) -> Result<Vec<Value>> {
    let ended = ended(addresses, &[arguments, &["--json"]].concat()).await?;
    ensure!(ended.status.success(), "{arguments:?}: {ended:?}");
    let lines = String::from_utf8(ended.stdout)?;
    lines.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

/// Waits until so many letters are open.
async fn open(addresses: &Addresses, selected: &[&str], letters: usize) -> Result<Vec<Value>> {
    let list = [&["list"], selected].concat();
    poll::until(
        &format!("{letters} letters of {selected:?}"),
        BURIED_WITHIN,
        async || {
            let listed = told(addresses, &list).await?;
            Ok(if listed.len() == letters {
                Ok(listed)
            } else {
                Err(listed)
            })
        },
    )
    .await
}

fn theirs() -> Headers {
    let mut headers = Headers(vec![("absent".into(), None)]);
    headers.push("theirs", vec![0xff, 0x00]);
    headers.push("theirs", "again");
    headers
}

async fn written(addresses: &Addresses) -> Result<Vec<Sent>> {
    let producer = Producer::new(&kafka(addresses), "somebody-else")?;
    let mut sent = Vec::new();
    for (id, value) in [("a", Some(VALUE)), ("b", Some(VALUE)), ("a", None)] {
        let output = Output {
            topic: topics::SUBMITTED.name.to_owned(),
            partition: None,
            key: Bytes::from(format!("{TENANT}/{id}")),
            value: value.map(Bytes::from_static),
            headers: theirs(),
        };
        sent.push(producer.send(output).await?);
    }
    Ok(sent)
}

pub async fn a_letter_is_listed_shown_redriven_and_discarded(stack: &mut Option<Stack>) -> Result<()> {
    let addresses = &running(stack)?.addresses;
    let sent = written(addresses).await?;
    let mine = ["--tenant", TENANT];
    let listed = open(addresses, &mine, 3).await?;
    for at in &sent {
        let letter = listed.iter().find(|letter| letter["key"] == place(at));
        let letter = letter.with_context(|| format!("{} is not in {listed:?}", place(at)))?;
        ensure!(letter["stage"] == "parse" && letter["redrives"] == 0, "{letter}");
    }

    for (filter, letters) in [
        (&["--reason", "NO_VALUE"][..], 1),
        (&["--reason", "NO_VALUE", "--reason", "UNREADABLE_RECORD"], 3),
        (&["--stage", "embed"], 0),
        (&["--stage", "parse", "--document", "a"], 2),
        (&["--since", "1h"], 3),
        (&["--until", "1h"], 0),
        (&["--state", "all"], 3),
        (&["--state", "redriven"], 0),
        (&["--limit", "2"], 2),
    ] {
        let listed = told(addresses, &[&["list"], &mine[..], filter].concat()).await?;
        ensure!(listed.len() == letters, "{filter:?}: {listed:?}");
    }
    let counts = told(addresses, &[&["list", "--histogram"], &mine[..]].concat()).await?;
    let counts: Vec<_> = counts
        .iter()
        .map(|c| (c["reason"].clone(), c["letters"].clone()))
        .collect();
    ensure!(
        counts == [("UNREADABLE_RECORD".into(), 2.into()), ("NO_VALUE".into(), 1.into())],
        "{counts:?}"
    );

    let key = place(&sent[0]);
    shown(addresses, &key).await?;
    let unknown = ended(addresses, &["show", "documents.submitted/0/999999999"]).await?;
    let said = String::from_utf8_lossy(&unknown.stderr);
    ensure!(
        unknown.status.code() == Some(1) && said.contains("LETTER_UNKNOWN"),
        "{unknown:?}"
    );

    let counted = told(addresses, &[&["redrive", "--dry-run"], &mine[..]].concat()).await?;
    ensure!(
        counted[0]["redriven"] == 3 && counted[0]["dry_run"] == true,
        "{counted:?}"
    );
    open(addresses, &mine, 3).await?;
    let everything = ended(addresses, &["discard"]).await?;
    let said = String::from_utf8_lossy(&everything.stderr);
    ensure!(
        everything.status.code() == Some(1) && said.contains("--yes"),
        "{everything:?}"
    );
    let discarded = told(addresses, &[&["discard", "--reason", "NO_VALUE"], &mine[..]].concat()).await?;
    ensure!(discarded[0]["discarded"] == 1, "{discarded:?}");
    open(addresses, &mine, 2).await?;

    comes_back_three_times(addresses, &key).await
}

async fn shown(addresses: &Addresses, key: &str) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("value");
    let file = file.to_str().context("a path")?;
    let shown = told(addresses, &["show", key, "--value", file]).await?;
    ensure!(std::fs::read(file)? == VALUE);
    let original = &shown[0]["original"];
    let names = |headers: &Value| -> Vec<String> {
        let headers = headers.as_array().into_iter().flatten();
        headers.filter_map(|h| Some(h["name"].as_str()?.to_owned())).collect()
    };
    ensure!(
        names(&original["headers"]) == ["absent", "theirs", "theirs"],
        "{shown:?}"
    );
    ensure!(original["headers"][0]["value"].is_null(), "{shown:?}");
    ensure!(
        names(&original["error_headers"]).contains(&ORIGIN.to_owned()),
        "{shown:?}"
    );
    Ok(())
}

/// It cannot be read the next time either: it is given up again, under the same key, until it is passed over.
async fn comes_back_three_times(addresses: &Addresses, key: &str) -> Result<()> {
    let revision = told(addresses, &["show", key]).await?[0]["revision"].clone();
    for redrives in 1..=3 {
        let redriven = told(addresses, &["redrive", key]).await?;
        ensure!(redriven[0]["redriven"] == 1, "{redriven:?}");
        poll::until(&format!("{key} to come back"), BURIED_WITHIN, async || {
            let shown = told(addresses, &["show", key]).await?.swap_remove(0);
            let back = shown["state"] == "OPEN" && shown["redrives"] == redrives;
            ensure!(shown["revision"] == revision, "{shown}");
            Ok(if back { Ok(()) } else { Err(shown) })
        })
        .await?;
    }
    let passed = told(addresses, &["redrive", key]).await?;
    ensure!(
        passed[0]["redriven"] == 0 && passed[0]["skipped"]["REDRIVEN_TOO_OFTEN"] == 1,
        "{passed:?}"
    );
    let letters = log::records(&addresses.kafka, topics::DLQ.name).await?;
    let letters = letters.iter().filter(|l| l.headers.get_str(ORIGIN) == Some(key));
    let mut redrives = Vec::new();
    for letter in letters {
        ensure!(letter.value.as_deref() == Some(VALUE), "{letter:?}");
        ensure!(letter.headers.0.starts_with(&theirs().0), "{letter:?}");
        redrives.push(letter.headers.get_str(REDRIVE).map(str::to_owned));
    }
    redrives.sort();
    let expected = [None, Some("1"), Some("2"), Some("3")].map(|n| n.map(str::to_owned));
    ensure!(redrives == expected, "{redrives:?}");
    Ok(())
}
