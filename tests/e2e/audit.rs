//! The index held against the log: damage of each kind is planted in a real index, found, and repaired.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Output as Ended, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use millrace_api::ingest::v1::{DocumentState, Receipt};
use millrace_events::{DocumentKey, Revision, headers, topics};
use millrace_flow::Delivery;
use millrace_indexer::index::embedded::OpenEmbedded;
use millrace_indexer::index::generation::{Generations, Serving};
use millrace_indexer::index::{ChunkPoint, Head, RevisionPoints};
use millrace_testkit::stack::Addresses;
use millrace_testkit::{Client, Stack, log, poll};
use rustix::process::Signal;
use serde_json::Value;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use crate::documents::sections;
use crate::{check_topics, running};

const TENANT: &str = "audit";
/// Documents of a busy pipeline.
const BUSY: usize = 12;
/// Audits of a busy pipeline, at least.
const AUDITS: usize = 20;
/// Rounds of commands that go through it meanwhile, at least.
const ROUNDS: usize = 2;
/// Documents whose repair is cut off.
const MANY: usize = 40;
const SENT_WITHIN: Duration = Duration::from_secs(60);

/// Some seventy chunks, in three parts: two sections do not fit into one.
fn story(word: &str) -> String {
    sections(70, word).replace("is told here.", &format!("is told here. {}", "And on. ".repeat(40)))
}

fn audit(addresses: &Addresses, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millrace"));
    command.args(["--indexer", &addresses.indexer, "audit", "--json"]);
    command.args(arguments).kill_on_drop(true);
    command
}

/// Exit code and findings by document, without the summary.
fn told(ended: &Ended) -> Result<(Option<i32>, Vec<Value>)> {
    let lines = std::str::from_utf8(&ended.stdout)?.lines();
    let lines: Vec<Value> = lines.map(serde_json::from_str).collect::<Result<_, _>>()?;
    let (summary, findings) = lines.split_last().with_context(|| format!("{ended:?}"))?;
    ensure!(summary["found"] == findings.len(), "{lines:?}");
    Ok((ended.status.code(), findings.to_vec()))
}

async fn audited(addresses: &Addresses, arguments: &[&str]) -> Result<(Option<i32>, Vec<Value>)> {
    told(&audit(addresses, arguments).output().await?)
}

async fn clean(addresses: &Addresses) -> Result<()> {
    let (code, findings) = audited(addresses, &[]).await?;
    ensure!(code == Some(0) && findings.is_empty(), "{code:?}: {findings:?}");
    Ok(())
}

/// Submits, updates and deletes in rounds, as fast as the pipeline can, and counts those that are through.
async fn busy(client: &Client, through: &AtomicUsize, stop: &CancellationToken) -> Result<()> {
    while !stop.is_cancelled() {
        let rounds = through.load(Ordering::Relaxed);
        let mut receipts = Vec::new();
        for n in 0..BUSY {
            let id = format!("busy/{n}.md");
            receipts.push(match (rounds + n) % BUSY {
                0 => client.delete(&id).await?,
                1 if rounds.is_multiple_of(4) => client.submit(&id, story("ending")).await?,
                _ => client.submit(&id, format!("Note {n} of round {rounds}.")).await?,
            });
        }
        for receipt in &receipts {
            let done = [DocumentState::Indexed, DocumentState::Deleted];
            client.reaches(receipt, &done).await?;
        }
        through.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

pub async fn a_busy_pipeline_yields_no_findings(stack: &mut Option<Stack>) -> Result<()> {
    let addresses = &running(stack)?.addresses;
    let client = Client::new(addresses, TENANT)?;
    let (through, stop) = (AtomicUsize::new(0), CancellationToken::new());
    let audits = async {
        // The writer ends with the audits, however those end.
        let _stop = stop.clone().drop_guard();
        let mut audits = 0;
        // Beside a pipeline at work: it may still be on its way back from the case before.
        while audits < AUDITS || through.load(Ordering::Relaxed) < ROUNDS {
            clean(addresses).await?;
            audits += 1;
        }
        Ok(())
    };
    tokio::try_join!(audits, busy(&client, &through, &stop))?;
    clean(addresses).await
}

/// An index whose indexer is away.
struct Damage(Serving);

impl Damage {
    fn open(dir: &Path) -> Result<(Self, Generations)> {
        let generations = Generations::open(&dir.join("indexer"), OpenEmbedded::default())?;
        let serving = generations.serving().context("nothing is served")?;
        Ok((Self(serving), generations))
    }

    fn of(receipt: &Receipt) -> Result<(DocumentKey, Revision)> {
        let document = DocumentKey::new(TENANT, receipt.document_id.as_str())?;
        Ok((document, Revision::from_i64(receipt.revision)?))
    }

    async fn plant(&self, receipt: &Receipt, ordinals: std::ops::Range<i32>) -> Result<()> {
        let (document, revision) = Self::of(receipt)?;
        let mut vector = vec![0.0; usize::try_from(self.0.model.dimensions)?];
        vector[0] = 1.0;
        let point = |ordinal| ChunkPoint {
            ordinal,
            vector: vector.clone(),
            text: "planted".into(),
            section: Vec::new(),
            start_byte: 0,
            end_byte: 7,
        };
        let points = RevisionPoints {
            document,
            revision,
            staged: false,
            points: ordinals.map(point).collect(),
        };
        Ok(self.0.index.write(points).await?)
    }

    async fn lose_head(&self, receipt: &Receipt) -> Result<()> {
        let (document, revision) = Self::of(receipt)?;
        Ok(self.0.index.delete_head(document, revision).await?)
    }

    async fn lose_points(&self, receipt: &Receipt, from: i32) -> Result<()> {
        let (document, revision) = Self::of(receipt)?;
        Ok(self.0.index.delete_chunks(document, revision, from).await?)
    }

    async fn plant_head(&self, receipt: &Receipt) -> Result<()> {
        let (document, live) = Self::of(receipt)?;
        let head = Head {
            live,
            previous: None,
            deleted: false,
            sweep: false,
            chunk_count: 1,
            part: 0,
            moved_at_ms: 0,
        };
        Ok(self.0.index.move_head(document, head).await?)
    }

    /// As if no clean-up were to come.
    async fn forget_sweep(&self, receipt: &Receipt) -> Result<()> {
        let (document, live) = Self::of(receipt)?;
        Ok(self.0.index.mark_sweep(document, live, false).await?)
    }
}

/// Revisions of one document each, the first and the last.
struct Corpus {
    headless: Receipt,
    pointless: Receipt,
    halved: Receipt,
    crowded: Receipt,
    stale: [Receipt; 2],
    gone: [Receipt; 2],
    swept: [Receipt; 2],
    many: Vec<Receipt>,
}

impl Corpus {
    async fn submit(client: &Client) -> Result<Self> {
        let twice = async |id: &str| {
            let first = client.submit(id, format!("The first text of {id}.")).await?;
            client.indexed(&first).await?;
            let second = client.submit(id, format!("The second text of {id}.")).await?;
            anyhow::Ok([first, second])
        };
        let gone = client.submit("gone.md", "What is gone.").await?;
        client.indexed(&gone).await?;
        let mut many = Vec::new();
        for n in 0..MANY {
            many.push(
                client
                    .submit(&format!("many/{n}.md"), format!("One of many: {n}."))
                    .await?,
            );
        }
        let corpus = Self {
            headless: client.submit("headless.md", story("beginning")).await?,
            pointless: client.submit("pointless.md", "What has lost its points.").await?,
            halved: client.submit("halved.md", story("turning")).await?,
            crowded: client.submit("crowded.md", "What has too many points.").await?,
            stale: twice("stale.md").await?,
            swept: twice("swept.md").await?,
            gone: [gone, client.delete("gone.md").await?],
            many,
        };
        for receipt in corpus.live() {
            client.indexed(receipt).await?;
        }
        client.reaches(&corpus.gone[1], &[DocumentState::Deleted]).await?;
        Ok(corpus)
    }

    fn live(&self) -> impl Iterator<Item = &Receipt> {
        let one = [
            &self.headless,
            &self.pointless,
            &self.halved,
            &self.crowded,
            &self.stale[1],
            &self.swept[1],
        ];
        one.into_iter().chain(&self.many)
    }

    async fn damage(&self, dir: &Path) -> Result<()> {
        let (damage, generations) = Damage::open(dir)?;
        damage.lose_head(&self.headless).await?;
        damage.lose_points(&self.headless, 40).await?;
        damage.lose_points(&self.pointless, 0).await?;
        damage.lose_points(&self.halved, 20).await?;
        damage.plant(&self.crowded, 1..4).await?;
        for [old, new] in [&self.stale, &self.gone] {
            damage.lose_head(new).await?;
            damage.plant_head(old).await?;
            damage.plant(old, 0..1).await?;
        }
        damage.forget_sweep(&self.swept[1]).await?;
        damage.plant(&self.swept[0], 0..3).await?;
        let nobody = Receipt {
            document_id: "nobody.md".into(),
            ..self.stale[0].clone()
        };
        damage.plant(&nobody, 0..2).await?;
        damage.plant_head(&nobody).await?;
        for receipt in &self.many {
            damage.lose_head(receipt).await?;
            damage.lose_points(receipt, 0).await?;
        }
        damage.0.index.flush().await?;
        drop((damage, generations));
        Ok(())
    }

    /// Searches see each document as the log tells it, and GetDocument says what it always said.
    async fn is_right(&self, client: &Client) -> Result<()> {
        for receipt in self.live() {
            let id = receipt.document_id.as_str();
            let document = client.get(id, receipt.revision).await?.with_context(|| id.to_owned())?;
            let is_live = document.live_revision == receipt.revision && document.state() == DocumentState::Indexed;
            ensure!(is_live, "{document:?}");
            let hits = client.find_through("what is told", 1000, &[id]).await?;
            let all = hits.len() == usize::try_from(document.chunk_count)?;
            let right = hits
                .iter()
                .all(|hit| hit.revision == receipt.revision && hit.text != "planted");
            ensure!(all && right, "{id}: {} hits of {document:?}", hits.len());
        }
        let hits = client.find_through("planted", 1000, &["gone.md", "nobody.md"]).await?;
        ensure!(hits.is_empty(), "{hits:?}");
        Ok(())
    }
}

/// Every kind, and the document it was planted in.
const PLANTED: [(&str, &str); 8] = [
    ("crowded.md", "WRONG_COUNT"),
    ("gone.md", "STALE"),
    ("halved.md", "WRONG_COUNT"),
    ("headless.md", "MISSING"),
    ("nobody.md", "EXTRA"),
    ("pointless.md", "MISSING"),
    ("stale.md", "STALE"),
    ("swept.md", "ORPHANED"),
];

fn by_document(findings: &[Value]) -> BTreeMap<String, (String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let one = |finding: &Value| {
        (
            text(&finding["document"]),
            (text(&finding["kind"]), text(&finding["repair"])),
        )
    };
    findings.iter().map(one).collect()
}

/// Returns once parts of such documents stand in the log a second time.
async fn sent_again(addresses: &Addresses, name: &str) -> Result<()> {
    let prefix = format!("{TENANT}/{name}");
    poll::until("parts to be sent again", SENT_WITHIN, async || {
        let parts = log::records(&addresses.kafka, topics::EMBEDDED.name).await?;
        let restores = |part: &&Delivery| part.headers.get(headers::RESTORE).is_some();
        let again = parts
            .iter()
            .filter(restores)
            .filter(|part| log::key_of(part).starts_with(&prefix));
        Ok(match again.count() {
            0 => Err("none"),
            _ => Ok(()),
        })
    })
    .await
}

pub async fn damage_of_each_kind_is_found_and_repaired(stack: &mut Option<Stack>) -> Result<()> {
    let client = Client::new(&running(stack)?.addresses, TENANT)?;
    let corpus = Corpus::submit(&client).await?;
    corpus.is_right(&client).await?;
    let taken = stack.take().context("an earlier case lost the stack")?;
    *stack = Some(taken.restart_after(async |dir| corpus.damage(dir).await).await?);
    let stack = running(stack)?;
    let addresses = &stack.addresses;
    let client = Client::new(addresses, TENANT)?;

    let (code, findings) = audited(addresses, &[]).await?;
    let mut expected: BTreeMap<String, String> = PLANTED
        .iter()
        .map(|(document, kind)| ((*document).to_owned(), (*kind).to_owned()))
        .collect();
    let many = (0..MANY).map(|n| (format!("many/{n}.md"), "MISSING".to_owned()));
    expected.extend(many);
    let found: BTreeMap<_, _> = by_document(&findings)
        .into_iter()
        .map(|(document, (kind, _))| (document, kind))
        .collect();
    ensure!(code == Some(1) && found == expected, "{code:?}: {findings:?}");

    let named: Vec<&str> = PLANTED
        .iter()
        .flat_map(|(document, _)| ["--document", document])
        .collect();
    let (code, findings) = audited(addresses, &[&["--repair", "--tenant", TENANT], &named[..]].concat()).await?;
    let repaired = by_document(&findings);
    ensure!(
        code == Some(0) && repaired.len() == PLANTED.len(),
        "{code:?}: {findings:?}"
    );
    for (document, kind) in PLANTED {
        let told = repaired.get(document);
        ensure!(
            told == Some(&(kind.to_owned(), "REPAIRED".to_owned())),
            "{document}: {told:?}"
        );
    }

    // The indexer dies when it has sent the rest again: the command goes on by itself.
    let repairing = audit(addresses, &["--repair"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    sent_again(addresses, "many/").await?;
    stack.kill("indexer", Signal::KILL).await?;
    let ended = repairing.wait_with_output().await?;
    ensure!(ended.status.success(), "{ended:?}");
    clean(addresses).await?;
    corpus.is_right(&client).await?;
    check_topics(stack).await?;
    Ok(())
}
