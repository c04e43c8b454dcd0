//! Documents in, passages out.

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use millrace_api::ingest::v1::DocumentState;
use millrace_testkit::{Client, Stack};

use crate::running;

const GUIDE: &str = "# Keys\n\nIntroduction.\n\n## Rotation\n\nRotate the signing key every ninety days. The old key stays \
valid for one day, so that tokens which are on their way can still be verified.\n\n## Storage\n\nBananas grow in bunches \
and turn yellow when they are ripe.\n";

pub async fn submitted_indexed_found(stack: &mut Option<Stack>) -> Result<()> {
    let client = Client::new(&running(stack)?.addresses, "documents")?;
    let receipt = client.submit("guides/keys.md", GUIDE).await?;
    ensure!(
        receipt.tenant == "documents" && receipt.document_id == "guides/keys.md",
        "{receipt:?}"
    );
    ensure!(
        receipt.trace_id.len() == 32 && receipt.revision >> 48 == 1,
        "{receipt:?}"
    );
    let document = client.indexed(&receipt).await?;
    ensure!(
        document.live_revision == receipt.revision && document.latest_revision == receipt.revision,
        "{document:?}"
    );
    ensure!(
        document.updated_at_ms >= document.accepted_at_ms && document.accepted_at_ms > 0,
        "{document:?}"
    );

    // INDEXED means searchable: at once, and on the first try.
    let hits = client
        .find("How often are keys for signatures changed?", 10, &[])
        .await?;
    let best = hits.first().context("nothing found")?;
    ensure!(
        best.document_id == "guides/keys.md" && best.revision == receipt.revision,
        "{best:?}"
    );
    ensure!(best.text.contains("ninety days") && best.score > 0.3, "{best:?}");
    ensure!(
        best.section.first().is_some_and(|heading| heading == "Keys"),
        "{best:?}"
    );
    for hit in hits.iter().filter(|hit| hit.document_id == "guides/keys.md") {
        let (start, end) = (usize::try_from(hit.start_byte)?, usize::try_from(hit.end_byte)?);
        ensure!(
            GUIDE.get(start..end) == Some(hit.text.as_str()),
            "the offsets are of another text: {hit:?}"
        );
    }
    Ok(())
}

pub async fn an_empty_document_is_indexed_with_no_chunks(stack: &mut Option<Stack>) -> Result<()> {
    let client = Client::new(&running(stack)?.addresses, "documents")?;
    let receipt = client.submit("empty.md", "").await?;
    let document = client.indexed(&receipt).await?;
    ensure!(document.chunk_count == 0, "{document:?}");
    ensure!(client.find("anything", 10, &["empty.md"]).await?.is_empty());
    Ok(())
}

/// A text whose every section is a chunk of its own.
pub fn sections(count: usize, word: &str) -> String {
    (0..count)
        .map(|n| format!("## Section {n}\n\nThe {word} of chapter {n} is told here.\n\n"))
        .collect()
}

pub async fn many_parts_are_one_revision(stack: &mut Option<Stack>) -> Result<()> {
    let client = Client::new(&running(stack)?.addresses, "documents")?;
    // Lists of numbers cost many tokens: far more text than one part of 32 chunks holds.
    let long: String = (0..90)
        .map(|n| {
            let numbers: Vec<_> = (0..60).map(|i| (n * 60 + i).to_string()).collect();
            format!("## Table {n}\n\n{}\n\n", numbers.join(" "))
        })
        .collect();
    let receipt = client.submit("long.md", long).await?;
    let document = client.indexed(&receipt).await?;
    ensure!(document.chunk_count > 64, "three parts at least: {document:?}");
    let hits = client.find("table", 1000, &["long.md"]).await?;
    let mut ordinals: Vec<_> = hits.iter().map(|hit| hit.ordinal).collect();
    ordinals.sort_unstable();
    ensure!(
        ordinals == (0..document.chunk_count).collect::<Vec<_>>(),
        "{ordinals:?}"
    );
    Ok(())
}

pub async fn two_hundred_at_once(stack: &mut Option<Stack>) -> Result<()> {
    let client = Client::new(&running(stack)?.addresses, "documents")?;
    let submit = |n: u32| {
        let client = client.clone();
        async move {
            client
                .submit(&format!("many/{n}.md"), format!("Entry {n} of the great catalogue."))
                .await
        }
    };
    let receipts: Vec<_> = futures::stream::iter(0..200)
        .map(submit)
        .buffer_unordered(200)
        .collect()
        .await;
    let receipts = receipts.into_iter().collect::<Result<Vec<_>>>()?;
    for receipt in &receipts {
        let document = client.indexed(receipt).await?;
        ensure!(
            document.state() == DocumentState::Indexed && document.chunk_count == 1,
            "{document:?}"
        );
    }
    for receipt in receipts.iter().step_by(20) {
        let hits = client.find("catalogue", 5, &[&receipt.document_id]).await?;
        ensure!(hits.len() == 1 && hits[0].revision == receipt.revision, "{hits:?}");
    }
    Ok(())
}

pub async fn tenants_see_only_their_own(stack: &mut Option<Stack>) -> Result<()> {
    let addresses = &running(stack)?.addresses;
    let (one, other) = (Client::new(addresses, "tenant-a")?, Client::new(addresses, "tenant-b")?);
    let receipt = one.submit("secret.md", "The treasure lies below the old oak.").await?;
    one.indexed(&receipt).await?;
    ensure!(one.find("treasure", 5, &[]).await?.len() == 1);
    ensure!(other.find("treasure", 5, &[]).await?.is_empty());
    ensure!(other.find("treasure", 5, &["secret.md"]).await?.is_empty());
    ensure!(other.get("secret.md", 0).await?.is_none());
    Ok(())
}
