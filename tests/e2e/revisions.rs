//! One revision after another, and never a mixture.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use millrace_api::ingest::v1::DocumentState;
use millrace_testkit::{Client, Stack};
use tokio_util::sync::CancellationToken;

use crate::documents::sections;
use crate::running;

/// Searches until told to stop; how many searches saw which word. None seen, or two at once, is an error.
async fn watch(client: &Client, chunks: usize, stop: &CancellationToken) -> Result<(usize, BTreeSet<String>)> {
    let (mut searches, mut seen) = (0, BTreeSet::new());
    while !stop.is_cancelled() {
        let hits = client.find_through("what is told", 1000, &["story.md"]).await?;
        let words: BTreeSet<_> = hits
            .iter()
            .filter_map(|hit| hit.text.split(' ').find(|w| w.ends_with("ing")))
            .collect();
        let revisions: BTreeSet<_> = hits.iter().map(|hit| hit.revision).collect();
        ensure!(
            revisions.len() == 1 && words.len() == 1,
            "a search saw revisions {revisions:?} with {words:?}"
        );
        ensure!(
            hits.len() == chunks,
            "a search saw {} of {chunks} chunks of {revisions:?}",
            hits.len()
        );
        seen.extend(words.into_iter().map(str::to_owned));
        searches += 1;
    }
    Ok((searches, seen))
}

pub async fn an_update_appears_whole_while_searches_run(stack: &mut Option<Stack>) -> Result<()> {
    let client = Client::new(&running(stack)?.addresses, "revisions")?;
    const SECTIONS: usize = 70;
    // Every chunk must be as long as a section is: pad it so that two do not fit.
    let story = |word: &str| {
        sections(SECTIONS, word).replace("is told here.", &format!("is told here. {}", "And on. ".repeat(40)))
    };
    let first = client
        .indexed(&client.submit("story.md", story("beginning")).await?)
        .await?;
    ensure!(first.chunk_count > 64, "three parts at least: {first:?}");
    let chunks = usize::try_from(first.chunk_count)?;

    let stop = CancellationToken::new();
    let updates = async {
        // The searchers end with the updates, however those end.
        let _stop = stop.clone().drop_guard();
        for word in ["ending", "turning", "sequelling"] {
            let receipt = client.submit("story.md", story(word)).await?;
            let document = client.indexed(&receipt).await?;
            ensure!(usize::try_from(document.chunk_count)? == chunks, "{document:?}");
            let hits = client.find("what is told", 1000, &["story.md"]).await?;
            ensure!(
                hits.iter().all(|hit| hit.revision == receipt.revision),
                "INDEXED, and an older text is found"
            );
        }
        Ok(())
    };
    let ((), one, other) = tokio::try_join!(updates, watch(&client, chunks, &stop), watch(&client, chunks, &stop))?;
    for (searches, seen) in [one, other] {
        ensure!(searches > 10 && seen.len() >= 2, "{searches} searches saw {seen:?}");
    }
    Ok(())
}

pub async fn a_deleted_document_is_not_found_and_can_come_back(stack: &mut Option<Stack>) -> Result<()> {
    let client = Client::new(&running(stack)?.addresses, "revisions")?;
    client
        .indexed(&client.submit("gone.md", "A short life.").await?)
        .await?;
    let receipt = client.delete("gone.md").await?;
    let document = client.reaches(&receipt, &[DocumentState::Deleted]).await?;
    ensure!(
        document.live_revision == 0 && document.latest_revision == receipt.revision,
        "{document:?}"
    );
    ensure!(client.find("life", 5, &["gone.md"]).await?.is_empty());
    // What never was can be deleted as well.
    client
        .reaches(&client.delete("never.md").await?, &[DocumentState::Deleted])
        .await?;
    client
        .indexed(&client.submit("gone.md", "A second life.").await?)
        .await?;
    let hits = client.find("life", 5, &["gone.md"]).await?;
    ensure!(hits.len() == 1 && hits[0].text == "A second life.", "{hits:?}");
    Ok(())
}

pub async fn quick_updates_end_with_the_last(stack: &mut Option<Stack>) -> Result<()> {
    let client = Client::new(&running(stack)?.addresses, "revisions")?;
    let mut receipts = Vec::new();
    for n in 0..20 {
        receipts.push(client.submit("busy.md", format!("This is state {n}.")).await?);
    }
    ensure!(
        receipts.is_sorted_by(|one, other| one.revision < other.revision),
        "{receipts:?}"
    );
    for receipt in &receipts {
        client
            .reaches(receipt, &[DocumentState::Indexed, DocumentState::Superseded])
            .await?;
    }
    let last = receipts.last().map_or(0, |receipt| receipt.revision);
    let document = client.get("busy.md", 0).await?.unwrap_or_default();
    ensure!(
        document.revision == last && document.live_revision == last,
        "{document:?}"
    );
    let hits = client.find("state", 50, &["busy.md"]).await?;
    ensure!(hits.len() == 1 && hits[0].text == "This is state 19.", "{hits:?}");
    Ok(())
}
