//! `millrace schema check`, `lock` and `golden`: a folder of schemas, without a network.

use std::path::{Path, PathBuf};

use anyhow::Result;
use apache_avro::Schema;
use clap::ValueEnum;
use millrace_rpc::error::chain;
use millrace_schema::folder::{self, Finding, Folder, Written};
use serde_json::json;

use crate::exit::{Shown, Usage};
use crate::output;

/// Check a folder of schemas: published files, every pair of versions, golden records
///
/// One line a finding: path, rule, what is wrong, what to do; the last line says how much was checked. docs/schemas.md
/// has the rules.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millrace schema check
  millrace schema check avro --format github               annotations of a pull request on GitHub
  git show origin/main:schemas/schemas.lock > base.lock; millrace schema check --published base.lock

Exit codes:
  0  clean
  1  findings
  2  no folder of schemas, or the command line is not understood")]
pub struct Check {
    /// The folder
    #[arg(value_name = "DIR", default_value = "schemas")]
    folder: PathBuf,
    /// One JSON object a line: findings, then the summary
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// How findings are written
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Lock file of what is out there, as the base branch has it: what it has must stand in the folder's own
    #[arg(long, value_name = "FILE")]
    published: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    Text,
    Github,
}

/// Add what is new to schemas.lock: from then on it never changes
///
/// Refuses while the check finds anything else: what is locked can never be mended.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millrace schema golden && millrace schema lock && git add schemas")]
pub struct Lock {
    /// The folder
    #[arg(value_name = "DIR", default_value = "schemas")]
    folder: PathBuf,
}

/// Write golden records: CASE.avro beside each CASE.json, by its version's schema
///
/// A case is a file such as orders.created/golden/v2/full.json: the record as plain JSON or as Avro's JSON. What is
/// locked is never written again.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  mkdir -p schemas/orders.created/golden/v2
  echo '{\"id\": \"a-1\", \"city\": null}' > schemas/orders.created/golden/v2/minimal.json
  millrace schema golden")]
pub struct Golden {
    /// The folder
    #[arg(value_name = "DIR", default_value = "schemas")]
    folder: PathBuf,
}

/// Checks.
pub fn check(command: &Check) -> Result<()> {
    let folder = read(&command.folder)?;
    let published = command.published.as_deref().map(folder::read_lock).transpose();
    let published = published.map_err(|e| Usage(chain(&e)))?;
    if let Some(finding) = published.iter().flat_map(|(_, findings)| findings).next() {
        return Err(Usage(finding.to_string()).into());
    }
    let checked = folder.check(&decodes, published.as_ref().map(|(lock, _)| lock));
    let root = from_here(&command.folder);
    for finding in &checked.findings {
        match command.format {
            _ if command.json => output::json(finding),
            Format::Text => output::line(finding),
            Format::Github => output::line(finding.github(&root)),
        }
    }
    if command.json {
        output::json(&json!({ "summary": checked.summary }));
    } else {
        output::line(checked.summary);
    }
    outcome(&checked.findings)
}

/// Locks.
pub fn lock(command: &Lock) -> Result<()> {
    let written = read(&command.folder)?.write_lock(&decodes)?;
    show("locked", &written)
}

/// Writes.
pub fn golden(command: &Golden) -> Result<()> {
    let written = read(&command.folder)?.write_golden()?;
    show("written", &written)
}

/// A folder that is clean, or what is wrong with it.
pub fn clean(dir: &Path) -> Result<Folder> {
    let folder = read(dir)?;
    let findings = folder.check(&decodes, None).findings;
    findings.iter().for_each(output::line);
    outcome(&findings).map(|()| folder)
}

pub fn read(dir: &Path) -> Result<Folder> {
    Folder::read(dir).map_err(|e| Usage(chain(&e)).into())
}

fn show(what: &str, written: &Written) -> Result<()> {
    for path in &written.paths {
        output::line(format_args!("{what:<8} {path}"));
    }
    written.findings.iter().for_each(output::line);
    if written.paths.is_empty() && written.findings.is_empty() {
        output::line("nothing to do");
    }
    outcome(&written.findings)
}

fn outcome(findings: &[Finding]) -> Result<()> {
    match findings.len() {
        0 => Ok(()),
        1 => Err(Shown("1 finding".to_owned()).into()),
        n => Err(Shown(format!("{n} findings")).into()),
    }
}

/// Millrace's own decoder, for its own topics.
fn decodes(topic: &str, schema: &str, body: &[u8]) -> Option<Result<(), String>> {
    let schema = match Schema::parse_str(schema) {
        Ok(schema) => schema,
        // Only of our topics: another's schema is another decoder's.
        Err(e) => return millrace_events::reads(topic, &Schema::Null, &[]).map(|_| Err(e.to_string())),
    };
    millrace_events::reads(topic, &schema, body).map(|read| read.map_err(|e| chain(&e)))
}

/// The folder as GitHub wants it: from the repository's root, where a workflow runs.
fn from_here(dir: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    let dir = dir.strip_prefix(&here).unwrap_or(dir);
    let dir = dir.strip_prefix(".").unwrap_or(dir);
    dir.display().to_string()
}
