//! Scripted crashes: each process dies once in every place where an effect has happened and the next has not.
//!
//! In rounds, one place of each service at a time: the points are armed, clients work until each process has died at its
//! own, everything is started again and finished, and what is left is judged. A searcher looks on throughout.
//!
//! | driven by | how the point is reached |
//! |---|---|
//! | documents | revisions of one and of several parts, deletions |
//! | a start | the service is stopped cleanly and started again |
//! | a redrive | a record that nobody can read was given up, and is redriven |

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use millrace_failpoints::ACTIVE;
use millrace_failpoints::points::{self, CrashPoint};
use millrace_testkit::{Size, Stack, poll};
use rustix::process::Signal;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::bed::{Bed, Wanted};
use crate::calm::{self, REDRIVES};
use crate::client::Client;
use crate::journal::{Act, Journal};
use crate::report::listed;
use crate::searchers::{self, Sightings};
use crate::storm::Interrupted;
use crate::verdict::{Verdict, judge};
use crate::writers::{self, TWO_PARTS};

/// What makes a process come to its point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drive {
    /// Revisions and deletions.
    Documents,
    /// A clean stop and a start.
    Start,
    /// A redrive.
    Redrive,
}

/// A process that dies at a point.
#[derive(Debug, Clone, Copy)]
pub struct Scene {
    /// Which one.
    pub service: &'static str,
    /// Where.
    pub point: CrashPoint,
    /// How it gets there.
    pub drive: Drive,
    /// Where it dies before, if it only comes there after a death.
    pub after: Option<CrashPoint>,
}

impl Scene {
    const fn of(service: &'static str, point: CrashPoint, drive: Drive) -> Self {
        let after = None;
        Self {
            service,
            point,
            drive,
            after,
        }
    }

    /// `service::point`.
    pub fn name(&self) -> String {
        format!("{}::{}", self.service, self.point.name)
    }
}

/// Of one service, in the order in which they are played. What only a fresh stack reaches comes first.
fn of_service(service: &'static str) -> Vec<Scene> {
    let own: &[(CrashPoint, Drive)] = match service {
        "ingest" => &[
            (points::ACCEPT_PRODUCED, Drive::Documents),
            (points::ACCEPT_REMEMBERED, Drive::Documents),
            (points::REPLICA_APPLIED, Drive::Documents),
        ],
        "embedder" => &[(points::PART_EMBEDDED, Drive::Documents)],
        _ => &[
            (points::GENERATION_CREATED, Drive::Documents),
            (points::POINTS_WRITTEN, Drive::Documents),
            (points::PART_FLUSHED, Drive::Documents),
            (points::POINTS_SHOWN, Drive::Documents),
            (points::HEAD_MOVED, Drive::Documents),
            (points::HEAD_FLUSHED, Drive::Documents),
            (points::SWEEP_DELETED, Drive::Documents),
            (points::SWEEP_MARKED, Drive::Documents),
        ],
    };
    let every = [
        (points::TRANSACTION_BEGUN, Drive::Documents),
        (points::OUTPUTS_SENT, Drive::Documents),
        (points::OFFSETS_SENT, Drive::Documents),
        (points::TRANSACTION_COMMITTED, Drive::Documents),
        (points::ID_TAKEN, Drive::Start),
        (points::ASSIGNED, Drive::Start),
        (points::START_COMMITTED, Drive::Start),
        (points::DRAINED, Drive::Start),
    ];
    let scenes = own.iter().chain(&every);
    let mut scenes: Vec<_> = scenes
        .map(|(point, drive)| Scene::of(service, *point, *drive))
        .collect();
    match service {
        "indexer" => scenes.push(Scene {
            after: Some(points::HEAD_FLUSHED),
            ..Scene::of(service, points::REPLAY_FLUSHED, Drive::Documents)
        }),
        "ingest" => scenes.extend(
            [
                points::REDRIVE_CLAIMED,
                points::REDRIVE_PLANNED,
                points::REDRIVE_WRITTEN,
            ]
            .map(|point| Scene::of(service, point, Drive::Redrive)),
        ),
        _ => {}
    }
    scenes
}

/// All scenes.
pub fn scenes() -> Vec<Scene> {
    SERVICES.into_iter().flat_map(of_service).collect()
}

/// What became of a scene.
#[derive(Debug, Clone, Serialize)]
pub struct Played {
    /// `service::point`.
    pub scene: String,
    /// What had happened there, and what had not.
    pub between: &'static str,
    /// Whether the process died there.
    pub hit: bool,
    /// What was found after the round, which is of up to three scenes.
    pub found: BTreeMap<&'static str, usize>,
}

impl Played {
    /// It was hit, and nothing was found.
    pub fn is_well(&self) -> bool {
        self.hit && self.found.is_empty()
    }
}

impl Display for Played {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let hit = if self.hit { "died there" } else { "NOT HIT" };
        let found = match self.found.is_empty() {
            true => "nothing".to_owned(),
            false => listed(&self.found),
        };
        write!(f, "{:<34} {hit}, found {found}: {}", self.scene, self.between)
    }
}

const SERVICES: [&str; 3] = ["ingest", "embedder", "indexer"];
/// Short, so that clean-ups come soon.
const LONGEST_SEARCH: Duration = Duration::from_millis(1500);
/// For a process to come to its point.
const HIT_WITHIN: Duration = Duration::from_secs(60);
/// For everything to be finished.
const FINISHED_WITHIN: Duration = Duration::from_secs(120);
/// Between two works of a round.
const BETWEEN: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(20);
const DOCUMENTS: usize = 6;

/// Plays all scenes on a stack of its own, which is stopped in every case. `tell` is told how it goes.
pub async fn play(
    millrace: &Path,
    interrupt: &CancellationToken,
    tell: &(dyn Fn(String) + Sync),
) -> Result<Vec<Played>> {
    ensure!(ACTIVE, "this build has no failpoints: see CONTRIBUTING.md");
    tell("starting a stack".into());
    let wanted = Wanted {
        millrace,
        size: Size::default(),
        longest_search: LONGEST_SEARCH,
        mutant: None,
        slow_search: false,
    };
    let bed = Bed::up(&wanted).await?;
    let journal = Journal::create(&bed.stack.dir().join("journal.jsonl"))?;
    let playing = async {
        let stage = Stage {
            stack: &bed.stack,
            client: Client::connect(&bed.stack.addresses, &bed.ingests(), journal).await?,
            folder: bed.failpoints.path().to_owned(),
            documents: writers::documents(DOCUMENTS),
            sightings: Sightings::default(),
        };
        stage.play(tell).await
    };
    let outcome = tokio::select! {
        outcome = playing => outcome,
        () = interrupt.cancelled() => Err(Interrupted.into()),
    };
    let well = outcome.as_ref().is_ok_and(|played| played.iter().all(Played::is_well));
    bed.down(!well, &|told| tell(told)).await;
    outcome
}

struct Stage<'s> {
    stack: &'s Stack,
    client: Client,
    folder: PathBuf,
    documents: Vec<String>,
    sightings: Sightings,
}

impl Stage<'_> {
    async fn play(&self, tell: &(dyn Fn(String) + Sync)) -> Result<Vec<Played>> {
        let over = CancellationToken::new();
        let rounds = async {
            let _over = over.clone().drop_guard();
            self.rounds(tell).await
        };
        let searcher = searchers::search_on(&self.client, &self.documents, &self.sightings, 1, &over);
        let (played, ()) = tokio::try_join!(rounds, searcher)?;
        Ok(played)
    }

    async fn rounds(&self, tell: &(dyn Fn(String) + Sync)) -> Result<Vec<Played>> {
        let mut lists = SERVICES.map(|service| of_service(service).into_iter().peekable());
        let (mut played, mut known) = (Vec::new(), BTreeMap::new());
        loop {
            // While something is redriven nothing else happens: its transactions are the ones to be hit.
            let redrives = lists
                .iter_mut()
                .all(|list| list.peek().is_none_or(|next| next.drive == Drive::Redrive));
            let mut round = Vec::new();
            for list in &mut lists {
                round.extend(list.next_if(|next| redrives || next.drive != Drive::Redrive));
            }
            if round.is_empty() {
                return Ok(played);
            }
            let names: Vec<_> = round.iter().map(Scene::name).collect();
            tell(format!("dying at {}", names.join(", ")));
            let hit = self.round(&round).await.with_context(|| names.join(", "))?;
            let now = self.judge().await?;
            let mut found = now.counts();
            found.retain(|kind, count| *count > known.insert(*kind, *count).unwrap_or(0));
            if !found.is_empty() {
                tell(format!("found: {now:?}"));
            }
            played.extend(round.iter().zip(hit).map(|(scene, hit)| Played {
                scene: scene.name(),
                between: scene.point.between,
                hit,
                found: found.clone(),
            }));
        }
    }

    /// Which of the scenes were hit.
    async fn round(&self, scenes: &[Scene]) -> Result<Vec<bool>> {
        let mut receipts = Vec::new();
        if scenes.iter().any(|scene| scene.drive == Drive::Redrive) {
            let revision = self.client.poison(&self.documents[0]).await?;
            let revision = revision.context("the log did not take a record")?;
            self.client
                .settled(&self.documents[0], revision, &CancellationToken::new())
                .await?;
        }
        for scene in scenes {
            if let Some(after) = scene.after {
                let hit = Scene::of(scene.service, after, scene.drive);
                // It has been a scene of its own, or it is armed still.
                if self.is_hit(&hit) {
                    fs::remove_file(self.hit(&hit))?;
                }
            }
            let points = scene
                .after
                .iter()
                .chain([&scene.point])
                .map(|point| format!("{}\n", point.name));
            self.arm(scene.service, points.collect()).await?;
        }
        for scene in scenes.iter().filter(|scene| scene.drive == Drive::Start) {
            self.stack.kill(scene.service, Signal::TERM).await?;
        }
        let (began, mut number) = (Instant::now(), 0);
        let all_hit = || scenes.iter().all(|scene| self.is_hit(scene));
        while began.elapsed() < HIT_WITHIN && !all_hit() {
            match scenes[0].drive {
                Drive::Redrive => _ = self.client.redrive(REDRIVES).await?,
                _ => receipts.extend(self.work(&mut number).await?),
            }
            // One after another: what piles up is only to be waited for.
            let patience = Instant::now();
            while patience.elapsed() < BETWEEN && !all_hit() {
                tokio::time::sleep(LOOK).await;
            }
        }
        for scene in scenes {
            self.arm(scene.service, String::new()).await?;
        }
        let stop = CancellationToken::new();
        let finished = async {
            for (document, revision) in &receipts {
                self.client.settled(document, *revision, &stop).await?;
            }
            anyhow::Ok(())
        };
        // What never finishes is for the verdict to name.
        if let Ok(finished) = tokio::time::timeout(FINISHED_WITHIN, finished).await {
            finished?;
        }
        Ok(scenes.iter().map(|scene| self.is_hit(scene)).collect())
    }

    fn is_hit(&self, scene: &Scene) -> bool {
        self.hit(scene).exists()
    }

    /// The mark of a process that has died at its point.
    fn hit(&self, scene: &Scene) -> PathBuf {
        self.folder.join("hit").join(scene.name().replace("::", "."))
    }

    /// Arms points of a service, and waits until it knows.
    async fn arm(&self, service: &str, points: String) -> Result<()> {
        fs::write(self.folder.join(service), &points)?;
        let known = self.folder.join("on").join(service);
        poll::until("a service to follow its failpoints", FINISHED_WITHIN, async || {
            let known = fs::read_to_string(&known).unwrap_or_default();
            let all = known.lines().count() == points.lines().count();
            Ok(if all { Ok(()) } else { Err(known) })
        })
        .await
    }

    /// An update of one part, one of two, and a deletion of something else.
    async fn work(&self, number: &mut usize) -> Result<Vec<(String, i64)>> {
        let mut receipts = Vec::new();
        for act in [
            Act::Upsert { sections: 1 },
            Act::Upsert { sections: TWO_PARTS },
            Act::Upsert { sections: 1 },
            Act::Delete,
        ] {
            *number += 1;
            let document = &self.documents[*number % self.documents.len()];
            let receipt = self.client.ask(document, act, *number).await?;
            receipts.push((receipt.document_id, receipt.revision));
        }
        Ok(receipts)
    }

    async fn judge(&self) -> Result<Verdict> {
        for service in SERVICES {
            self.stack.serving(service).await?;
        }
        let mut evidence = calm::evidence(self.stack, &self.client, &self.documents, Duration::ZERO).await?;
        self.sightings.into_evidence(&mut evidence);
        Ok(judge(&evidence))
    }
}
