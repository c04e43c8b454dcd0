//! The log's client ceases to fetch a partition and says nothing, as after some restarts of a broker: on a stack of its own.

use std::fs::read_to_string;
use std::path::Path;

use anyhow::{Result, bail};
use futures::future::try_join_all;
use millrace_failpoints::{FOLDER, client};
use millrace_testkit::client::INDEXED_WITHIN;
use millrace_testkit::{Client, Size, Stack, poll};

use crate::{check_topics, turn};

const SERVICES: [&str; 3] = ["ingest", "embedder", "indexer"];
/// Several for each partition, so that something is left to be read behind the record at which a client stalls.
const DOCUMENTS: usize = 48;

pub async fn a_client_that_ceases_to_fetch_is_replaced(_: &mut Option<Stack>) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let environment = vec![(FOLDER.to_owned(), folder.path().display().to_string())];
    let millrace = Path::new(env!("CARGO_BIN_EXE_millrace"));
    let stack = Stack::up_with(millrace, Size::default(), environment, |_| ()).await?;
    if let Err(error) = on(&stack, folder.path()).await {
        bail!("{error:#}\n\nits stack told:\n{}", stack.told());
    }
    stack.down().await?;
    Ok(())
}

async fn on(stack: &Stack, folder: &Path) -> Result<()> {
    let documents = Client::new(&stack.addresses, "stalls")?;
    for service in SERVICES {
        turn(folder, service, client::STALLS.name).await?;
    }
    let submit = async |n: usize| documents.submit(&format!("{n}.md"), format!("Note {n}.")).await;
    let receipts = try_join_all((0..DOCUMENTS).map(submit)).await?;
    // A stage by a new session, a reader of a whole topic by another client.
    let told = [
        ("ingest", "the session ended"),
        ("ingest", "another client reads on"),
        ("embedder", "the session ended"),
        ("indexer", "the session ended"),
    ];
    for (service, what) in told {
        let log = stack.dir().join(format!("logs/{service}.log"));
        poll::until(&format!("{service}: {what}"), INDEXED_WITHIN, async || {
            let log = read_to_string(&log)?;
            let told = log
                .lines()
                .any(|line| line.contains(what) && line.contains("ceased to fetch"));
            Ok(if told { Ok(()) } else { Err("not told") })
        })
        .await?;
    }
    for service in SERVICES {
        turn(folder, service, "").await?;
    }
    for receipt in &receipts {
        documents.indexed(receipt).await?;
    }
    check_topics(stack).await?;
    Ok(())
}
