//! `millrace audit`: the index held against the log.

use anyhow::Result;
use clap::builder::NonEmptyStringValueParser;
use millrace_api::indexer::v1::audit_index_response::Event;
use millrace_api::indexer::v1::{
    AuditFinding, AuditFindingKind, AuditIndexRequest, AuditPhase, AuditProgress, AuditRepair, AuditSummary,
};
use serde_json::{Value, json};
use tonic::Status;

use crate::client::Target;
use crate::exit::Shown;
use crate::output::{self, Progress, Step};
use crate::retry::Retry;

/// How often an audit that had begun is begun again.
const RESUMES: u32 = 10;

/// Hold the index against the log, and repair it
///
/// Compares what documents.status tells of every document with what the index holds of it,
/// on a running pipeline: what is on its way is never a finding. Each finding is one line:
///
///   MISSING      the log tells a live revision of which the index shows nothing,
///                or a deletion that the index has lost before its time
///   STALE        the index stands at an older revision, or shows what was deleted
///   WRONG_COUNT  chunks of the live revision are too few, too many or hidden
///   EXTRA        the index holds a document or a revision that the log does not know
///   ORPHANED     points that nothing owns and no clean-up takes; no search shows them
///
/// With --repair, what nothing owns is deleted, and what is missing is sent through the index
/// stage again, as the revision that it is: what was submitted meanwhile wins. Each line says
/// how it ended:
///
///   REPAIRED     it is not found any more
///   PARTS_GONE   chunks.embedded no longer holds the revision: submit the document again
///   OTHER_MODEL  its vectors are of another model than the index: submit the document again
///   PENDING      the index stage has not come to it within a minute: repair again
///
/// Cut off at any point, by whatever, a repair goes on when it is run again.
#[derive(Debug, clap::Args)]
#[command(
    verbatim_doc_comment,
    after_help = "Examples:
  millrace audit
  millrace audit --repair
  millrace audit --tenant acme --document guides/intro.md --document README.md --json

Exit codes:
  0   nothing was found, or all of it is repaired
  1   something was found, and with --repair something is left
  2   the command line is not understood
  69  the indexer or the log does not answer"
)]
pub struct Audit {
    /// Repair what is found
    #[arg(long)]
    repair: bool,
    /// Only of this tenant [default: all]
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    tenant: Option<String>,
    /// Only this document of the tenant; may be given several times
    #[arg(long = "document", value_name = "DOCUMENT", requires = "tenant", value_parser = NonEmptyStringValueParser::new())]
    documents: Vec<String>,
    /// One JSON object a line: findings, then the summary
    #[arg(long)]
    json: bool,
}

/// What one audit told.
#[derive(Debug)]
struct Told {
    findings: Vec<AuditFinding>,
    summary: AuditSummary,
}

/// Audits, through restarts of the indexer.
pub async fn run(command: Audit, target: &Target) -> Result<()> {
    let client = target.audit()?;
    let request = AuditIndexRequest {
        tenant: command.tenant.clone().unwrap_or_default(),
        document_ids: command.documents.clone(),
        repair: command.repair,
    };
    let progress = Progress::stderr();
    let step = progress.step("audit");
    let (mut retry, mut resumes) = (Retry::new(), RESUMES);
    let told = loop {
        let mut client = client.clone();
        let (mut findings, mut worked) = (Vec::new(), false);
        let audited = async {
            let mut events = client.audit_index(request.clone()).await?.into_inner();
            while let Some(told) = events.message().await? {
                match told.event {
                    Some(Event::Progress(told)) => {
                        worked |= told.points > 0;
                        follow(&step, &told);
                    }
                    Some(Event::Finding(finding)) => findings.push(finding),
                    Some(Event::Summary(summary)) => return Ok(summary),
                    None => {}
                }
            }
            Err(Status::unavailable("the answer ended early"))
        };
        match audited.await {
            Ok(summary) => break Told { findings, summary },
            Err(status) => {
                // An audit that was cut off is no outage that lasts.
                if worked && resumes > 0 {
                    (retry, resumes) = (Retry::new(), resumes - 1);
                }
                step.tick(status.message());
                retry.after(status, &progress).await?;
            }
        }
    };
    let summary = &told.summary;
    step.done(format!(
        "{} documents in the log, {} points in the index, {}",
        summary.documents,
        summary.points,
        counted(summary)
    ));
    show(&told, command.json);
    verdict(&command, summary)
}

fn follow(step: &Step, told: &AuditProgress) {
    step.tick(match told.phase() {
        AuditPhase::ReadingLog | AuditPhase::Unspecified => format!("the log tells {} documents", told.documents),
        AuditPhase::ReadingIndex => format!("{} points of the index read", told.points),
        AuditPhase::LookingAgain => format!("{} documents looked at again", told.suspects),
        AuditPhase::SendingAgain => format!("{} parts sent again", told.parts_sent),
        AuditPhase::Repairing => format!("{} of {} documents healed", told.healed, told.suspects),
    });
}

fn counted(summary: &AuditSummary) -> String {
    match (summary.found, summary.repaired) {
        (0, _) => "nothing found".to_owned(),
        (found, 0) => format!("{found} found"),
        (found, repaired) => format!("{found} found, {repaired} repaired"),
    }
}

fn show(told: &Told, as_json: bool) {
    for finding in &told.findings {
        match as_json {
            true => output::json(&finding_json(finding)),
            false => output::line(finding_line(finding)),
        }
    }
    let summary = &told.summary;
    if as_json {
        output::json(&json!({
            "documents": summary.documents, "points": summary.points, "suspects": summary.suspects, "found": summary.found,
            "repaired": summary.repaired, "not_repairable": summary.not_repairable, "not_judged": summary.not_judged,
        }));
    } else if told.findings.is_empty() {
        output::line("nothing found");
    }
    if summary.not_judged > 0 && !as_json {
        output::line(format!(
            "{} documents are not judged: a status of theirs cannot be read, the indexer's log says where",
            summary.not_judged
        ));
    }
}

fn verdict(command: &Audit, summary: &AuditSummary) -> Result<()> {
    let left = summary.found - summary.repaired;
    let what = match (left, command.repair) {
        (0, _) => return Ok(()),
        (left, true) => format!("{left} of {} findings are left", summary.found),
        (left, false) => format!("{left} findings; --repair repairs what can be"),
    };
    Err(Shown(what).into())
}

fn finding_json(finding: &AuditFinding) -> Value {
    json!({
        "kind": kind_name(finding.kind()), "tenant": finding.tenant, "document": finding.document_id,
        "log_revision": finding.log_revision.to_string(), "index_revision": finding.index_revision.to_string(),
        "expected_chunks": finding.expected_chunks, "found_chunks": finding.found_chunks,
        "repair": repair_name(finding.repair()), "advice": finding.advice,
    })
}

fn finding_line(finding: &AuditFinding) -> String {
    let revision = |revision: i64| match revision {
        0 => "nothing".to_owned(),
        revision => format!("revision {revision}"),
    };
    let mut line = format!(
        "{:<12} {}/{}  log: {} of {} chunks, index: {} with {}",
        kind_name(finding.kind()),
        finding.tenant,
        finding.document_id,
        revision(finding.log_revision),
        finding.expected_chunks,
        revision(finding.index_revision),
        finding.found_chunks,
    );
    if finding.repair() != AuditRepair::Unspecified {
        line.push_str(&format!("  {}", repair_name(finding.repair())));
    }
    if !finding.advice.is_empty() {
        line.push_str(&format!(": {}", finding.advice));
    }
    line
}

/// The name without its prefix.
fn kind_name(kind: AuditFindingKind) -> &'static str {
    kind.as_str_name().trim_start_matches("AUDIT_FINDING_KIND_")
}

/// The name without its prefix; where no repair was asked for, NONE.
fn repair_name(repair: AuditRepair) -> &'static str {
    match repair {
        AuditRepair::Unspecified => "NONE",
        repair => repair.as_str_name().trim_start_matches("AUDIT_REPAIR_"),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        audit: Audit,
    }

    fn line(flags: &[&str]) -> Result<Audit, clap::Error> {
        Line::try_parse_from([&["audit"], flags].concat()).map(|line| line.audit)
    }

    #[test]
    fn documents_are_named_within_a_tenant() {
        assert!(line(&["--document", "a"]).is_err());
        let audit = line(&["--tenant", "acme", "--document", "a", "--document", "b"]).unwrap();
        assert_eq!(audit.documents, ["a", "b"]);
    }

    /// An empty variable of a script would be an order to repair everything.
    #[test]
    fn an_empty_name_does_not_mean_all() {
        for flags in [
            &["--repair", "--tenant", ""][..],
            &["--tenant="],
            &["--tenant", "acme", "--document", ""],
            &["--tenant", "acme", "--document", "a", "--document="],
        ] {
            assert_eq!(line(flags).unwrap_err().exit_code(), 2, "{flags:?}");
        }
        assert_eq!(line(&["--tenant", "acme"]).unwrap().tenant.as_deref(), Some("acme"));
    }

    #[test]
    fn only_what_is_left_fails() {
        let (look, repair) = (line(&[]).unwrap(), line(&["--repair"]).unwrap());
        let summary = |found, repaired| AuditSummary {
            found,
            repaired,
            ..AuditSummary::default()
        };
        assert!(verdict(&look, &summary(0, 0)).is_ok());
        assert!(verdict(&repair, &summary(3, 3)).is_ok());
        assert!(verdict(&look, &summary(1, 0)).is_err());
        let left = verdict(&repair, &summary(3, 2)).unwrap_err().to_string();
        assert_eq!(left, "1 of 3 findings are left");
    }

    #[test]
    fn a_finding_is_one_line() {
        let finding = AuditFinding {
            kind: AuditFindingKind::WrongCount.into(),
            tenant: "acme".into(),
            document_id: "a.md".into(),
            log_revision: 1 << 48,
            index_revision: 1 << 48,
            expected_chunks: 3,
            found_chunks: 2,
            repair: AuditRepair::PartsGone.into(),
            advice: "submit the document again".into(),
        };
        let expected = "WRONG_COUNT  acme/a.md  log: revision 281474976710656 of 3 chunks, index: revision \
                        281474976710656 with 2  PARTS_GONE: submit the document again";
        assert_eq!(finding_line(&finding), expected);
        assert_eq!(finding_json(&finding)["log_revision"], "281474976710656");
    }
}
