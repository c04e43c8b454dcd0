//! Healing what was found: steps are taken, and their effect is looked at, until nothing is left or nothing changes.
//!
//! | a document, at a look | then |
//! |---|---|
//! | nothing is found any more | healed |
//! | its remedy is another one than the last | its steps are taken, at most so many times |
//! | its remedy is the last one | waited for: the index stage may have much to do before |
//! | its parts are lost | given up: it has to be submitted again |
//! | nothing changed at any document for as long as patience lasts | left: asked for again, it goes on |
//!
//! A newer revision that comes meanwhile changes the remedy, or leaves none.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use millrace_events::DocumentKey;
use millrace_runtime::clock::now_ms;
use tokio::time::{Instant, sleep};

use super::job::{Findings, Job, Phase};
use super::judge::{Finding, Kind, Live, Step};
use super::ledger::Ledger;
use super::log::AuditLog;
use super::parts::{Lost, Parts};
use super::{AuditError, log};
use crate::index::{Head, IndexError, VectorIndex};

const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Remedies that one document is given, one after another; the longest way of one damage is three.
const MOST: u32 = 6;

/// The part of a head that no part announces again: the log has it.
const ANNOUNCED: i32 = -1;

/// What became of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Not asked for.
    Found,
    /// It is not found any more.
    Repaired,
    /// It cannot be healed from the log.
    NotRepairable(Lost),
    /// It is found still.
    Pending,
}

/// A document under repair.
#[derive(Debug, Default)]
struct Case {
    /// Everything that was ever found.
    findings: Vec<Finding>,
    /// What was found last: see [`slot`].
    now: Vec<Kind>,
    last: Vec<Step>,
    remedies: u32,
    lost: Option<Lost>,
}

impl Case {
    fn see(&mut self, found: &[Finding]) {
        self.now = found.iter().map(|finding| slot(finding.kind)).collect();
        for finding in found {
            let about = slot(finding.kind);
            let known =
                |known: &Finding| slot(known.kind) == about && (about == Kind::Missing || known.index == finding.index);
            if !self.findings.iter().any(known) {
                self.findings.push(finding.clone());
            }
        }
    }

    /// Steps that were not taken yet.
    fn due(&mut self, found: &[Finding]) -> Vec<Step> {
        let steps: Vec<Step> = found.iter().flat_map(|finding| finding.remedy.clone()).collect();
        if steps == self.last || self.remedies >= MOST || self.lost.is_some() {
            return Vec::new();
        }
        self.remedies += 1;
        self.last.clone_from(&steps);
        steps
    }

    fn outcome(&self, finding: &Finding) -> Outcome {
        let about = slot(finding.kind);
        match self.lost {
            _ if !self.now.contains(&about) => Outcome::Repaired,
            Some(lost) if about == Kind::Missing => Outcome::NotRepairable(lost),
            _ => Outcome::Pending,
        }
    }
}

/// What a finding is about. Of what is live one thing is wrong at a time, and while it is healed it changes its kind: a stale
/// head that was dropped is missing.
fn slot(kind: Kind) -> Kind {
    match kind {
        Kind::Missing | Kind::Stale | Kind::WrongCount => Kind::Missing,
        Kind::Extra | Kind::Orphaned => kind,
    }
}

/// Heals; every finding with what became of it.
pub async fn repair<L: AuditLog>(
    job: &Job<L>,
    ledger: &mut Ledger<L>,
    found: Findings,
) -> Result<Vec<(DocumentKey, Finding, Outcome)>, AuditError> {
    let mut cases: BTreeMap<DocumentKey, Case> = BTreeMap::new();
    let (mut writer, mut left, mut changed) = (None, found, Instant::now());
    loop {
        let (mut again, mut taken) = (BTreeMap::new(), false);
        // An index that does not exist comes with the first part: until then nothing can be raised in it.
        let put_off = job.serving().is_none() && left.values().any(|findings| sends(findings));
        for (document, findings) in &left {
            let case = cases.entry(document.clone()).or_default();
            case.see(findings);
            if put_off && !sends(findings) {
                continue;
            }
            let due = case.due(findings);
            if !due.is_empty() {
                taken = true;
                again.extend(take(job, document, &due).await?.map(|live| (document.clone(), live)));
            }
        }
        if taken && let Some(serving) = job.serving() {
            serving.index.flush().await?;
        }
        if !again.is_empty() {
            for (document, why) in send(job, &mut writer, &again).await? {
                cases.entry(document).or_default().lost = Some(why);
            }
        }
        if taken {
            changed = Instant::now();
        }
        let open: Vec<DocumentKey> = left.keys().cloned().collect();
        let before = left.len();
        job.phase(Phase::Repairing);
        left = job.look(ledger, open.clone()).await?;
        if left.len() < before {
            changed = Instant::now();
        }
        // Of what is not judged any more nobody knows whether it is healed.
        let gone = |document: &&DocumentKey| !left.contains_key(*document) && ledger.of(document).is_judged();
        for document in open.iter().filter(gone) {
            cases.entry(document.clone()).or_default().now.clear();
        }
        job.healed(cases.values().filter(|case| case.now.is_empty()).count());
        let hopeless = |document| cases.get(document).is_some_and(|case| case.lost.is_some());
        if left.keys().all(hopeless) || changed.elapsed() >= job.patience() {
            break;
        }
        sleep(LOOK_EVERY).await;
    }
    let told = cases.into_iter().flat_map(|(document, case)| {
        let outcomes = case.findings.iter().map(|finding| case.outcome(finding));
        let outcomes: Vec<_> = outcomes.collect();
        let findings = case.findings.into_iter().zip(outcomes);
        findings
            .map(move |(finding, outcome)| (document.clone(), finding, outcome))
            .collect::<Vec<_>>()
    });
    Ok(told.collect())
}

fn sends(findings: &[Finding]) -> bool {
    let mut steps = findings.iter().flat_map(|finding| &finding.remedy);
    steps.any(|step| matches!(step, Step::SendAgain(_)))
}

/// Takes the steps that need no log; gives the revision that is to be sent again.
async fn take<L: AuditLog>(job: &Job<L>, document: &DocumentKey, steps: &[Step]) -> Result<Option<Live>, AuditError> {
    let serving = job.serving();
    let mut again = None;
    for step in steps {
        match (step, &serving) {
            (Step::SendAgain(live), _) => again = Some(*live),
            (direct, Some(serving)) => here(&*serving.index, document, *direct).await?,
            // Nothing but this is missing in an index that does not exist: a part of it makes one.
            (Step::Raise(live), None) => again = Some(*live),
            // Nothing is found of an index that does not exist, but what is missing in it.
            (_, None) => {}
        }
    }
    Ok(again)
}

async fn here(index: &dyn VectorIndex, document: &DocumentKey, step: Step) -> Result<(), AuditError> {
    let document = document.clone();
    match step {
        Step::DropHead(live) => index.delete_head(document, live).await?,
        Step::Delete(revision, from_ordinal) => index.delete_chunks(document, revision, from_ordinal).await?,
        Step::Raise(live) => raise(index, document, live).await?,
        Step::SendAgain(_) => {}
    }
    Ok(())
}

/// Points first, as the stage does it: no search keeps a hit that does not equal its head.
async fn raise(index: &dyn VectorIndex, document: DocumentKey, live: Live) -> Result<(), IndexError> {
    if !live.deleted {
        index.unstage(document.clone(), live.revision).await?;
    }
    let head = Head {
        live: live.revision,
        previous: None,
        deleted: live.deleted,
        sweep: true,
        chunk_count: live.chunk_count,
        part: ANNOUNCED,
        moved_at_ms: now_ms(),
    };
    index.move_head(document, head).await
}

async fn send<L: AuditLog>(
    job: &Job<L>,
    writer: &mut Option<L::Writer>,
    again: &BTreeMap<DocumentKey, Live>,
) -> Result<HashMap<DocumentKey, Lost>, log::LogError> {
    job.phase(Phase::SendingAgain);
    let writer = match writer {
        Some(writer) => writer,
        none => none.insert(job.log().take_over().await?),
    };
    let parts = Parts {
        log: job.log(),
        codec: job.codec(),
        epoch: job.epoch(),
    };
    let serving = job.serving();
    let model = serving.as_ref().map(|serving| &serving.model);
    let sent = parts.send(again, model, writer, |parts| job.sent(parts)).await?;
    Ok(sent)
}

#[cfg(test)]
mod tests {
    use millrace_events::{Epoch, Revision};

    use super::*;

    fn finding(kind: Kind) -> Finding {
        let at = Revision::new(Epoch::FIRST, 5).ok();
        Finding {
            kind,
            log: at,
            // Another one each time, as a head comes and goes.
            index: at.filter(|_| kind == Kind::Stale),
            expected: 3,
            found: 0,
            remedy: Vec::new(),
        }
    }

    #[test]
    fn what_changes_its_kind_is_not_repaired() {
        let of_live = [Kind::Missing, Kind::Stale, Kind::WrongCount];
        for (first, then) in of_live.into_iter().flat_map(|first| of_live.map(|then| (first, then))) {
            let mut case = Case::default();
            case.see(&[finding(first)]);
            case.see(&[finding(then)]);
            assert_eq!(case.findings, [finding(first)], "{then:?}");
            assert_eq!(case.outcome(&finding(first)), Outcome::Pending, "{first:?} {then:?}");
            case.lost = Some(Lost::Parts);
            assert_eq!(case.outcome(&finding(first)), Outcome::NotRepairable(Lost::Parts));
            case.see(&[]);
            assert_eq!(case.outcome(&finding(first)), Outcome::Repaired);
        }
    }

    #[test]
    fn what_is_too_many_is_repaired_whatever_is_missing_after_it() {
        let mut case = Case::default();
        case.see(&[finding(Kind::Extra)]);
        case.see(&[finding(Kind::Missing)]);
        let outcomes: Vec<_> = case.findings.iter().map(|finding| case.outcome(finding)).collect();
        assert_eq!(outcomes, [Outcome::Repaired, Outcome::Pending]);
    }
}
