//! `millrace schema compat`: one candidate against the versions before it.

use std::path::{Path, PathBuf};

use anyhow::Result;
use millrace_schema::compat::{self, Direction, Finding, Mode, Report, Version};

use crate::exit::{Shown, Usage};
use crate::output;

/// Hold a new schema against the versions before it
///
/// Two verdicts: the registry's, which the exit code follows, and beside it the risks, which a registry lets through
/// although consumers break or data is lost.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millrace schema compat --mode BACKWARD --candidate new.avsc --previous old.avsc
  millrace schema compat --mode FULL_TRANSITIVE --candidate v4.avsc --previous v1.avsc v2.avsc v3.avsc --json

Exit codes:
  0  compatible
  1  not compatible, or not a schema
  2  a file cannot be read, or the command line is not understood")]
pub struct Compat {
    /// NONE, BACKWARD, FORWARD, FULL, or one of the last three with _TRANSITIVE
    #[arg(long)]
    mode: Mode,
    /// The new schema
    #[arg(long, value_name = "NEW.avsc")]
    candidate: PathBuf,
    /// The versions before it, oldest first; none for a first version
    #[arg(long, value_name = "OLD.avsc", num_args = 1..)]
    previous: Vec<PathBuf>,
    /// One JSON object: mode, compatible, candidate_valid, risks, findings
    #[arg(long)]
    json: bool,
}

/// Checks.
pub fn run(command: &Compat) -> Result<()> {
    let candidate = read(&command.candidate)?;
    let previous: Vec<(String, String)> = command.previous.iter().map(|path| read(path)).collect::<Result<_>>()?;
    let previous: Vec<Version<'_>> = previous.iter().map(|(name, text)| Version::new(name, text)).collect();
    let report = compat::check(command.mode, Version::new(&candidate.0, &candidate.1), &previous);
    if command.json {
        output::json(&report);
    } else {
        for finding in &report.findings {
            output::line(line("", finding));
        }
        for risk in &report.risks {
            output::line(line("risk: ", risk));
        }
        output::line(verdict(&report));
    }
    match report.compatible {
        true => Ok(()),
        false => Err(Shown(format!("{} is not compatible", candidate.0)).into()),
    }
}

fn read(path: &Path) -> Result<(String, String)> {
    let name = path.display().to_string();
    match std::fs::read_to_string(path) {
        Ok(text) => Ok((name, text)),
        Err(e) => Err(Usage(format!("cannot read {name}: {e}")).into()),
    }
}

fn line(before: &str, finding: &Finding) -> String {
    let who = match finding.direction {
        Direction::Backward => format!("the candidate as the reader of {}", finding.against),
        Direction::Forward => format!("{} as the reader of the candidate", finding.against),
        Direction::Candidate => finding.against.clone(),
    };
    let place = if finding.path.is_empty() {
        String::new()
    } else {
        format!(" at {}", finding.path)
    };
    format!(
        "{before}{}: {who}{place}: {}. {}",
        finding.rule, finding.message, finding.remedy
    )
}

fn verdict(report: &Report) -> String {
    let risks = match report.risks.len() {
        0 => String::new(),
        1 => ", 1 risk".to_owned(),
        n => format!(", {n} risks"),
    };
    let verdict = match (report.compatible, report.candidate_valid) {
        (true, _) => "compatible",
        (false, true) => "not compatible",
        (false, false) => "not compatible: the candidate is not a valid schema",
    };
    format!("{} ({}){risks}", verdict, report.mode)
}
