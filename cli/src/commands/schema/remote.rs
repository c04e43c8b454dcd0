//! `millrace schema diff`, `apply` and `list`: a registry.

use std::path::{Path, PathBuf};

use anyhow::Result;
use millrace_schema::Registry;
use millrace_schema::publish::{self, Applied, Difference, Place, PublishError, Step, Wanted};
use serde_json::json;

use super::offline;
use crate::exit::Shown;
use crate::{output, topics};

/// Show what a registry has otherwise than a folder of schemas, or than this build of Millrace
///
/// SAME: registered as it is here. MISSING: `millrace schema apply` registers it. DIFFERENT: another schema stands in its
/// place. EXTRA: registered, and not here.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millrace schema diff                                                  Millrace's own, in the local stack's registry
  millrace schema diff schemas --registry https://registry.example.com

Exit codes:
  0   the registry has what is here
  1   it differs
  2   the command line is not understood, or names what is not there
  69  the registry does not answer")]
pub struct Diff {
    /// The folder [default: the schemas that this build has]
    #[arg(value_name = "DIR")]
    folder: Option<PathBuf>,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// Register what a registry lacks, after our check and its own
///
/// Nothing is changed before all subjects were compared and checked; then each subject's compatibility level is set and its
/// versions are registered in order. Where our check and the registry's differ it stops. Applied twice, it does nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millrace schema apply --dry-run
  millrace schema apply schemas --registry https://registry.example.com --registry-user ci --registry-password-file pw

Exit codes:
  0   done, or nothing to do
  1   findings, or a registry that says no or has other versions
  2   the command line is not understood, or names what is not there
  69  the registry does not answer")]
pub struct Apply {
    /// The folder [default: the schemas that this build has]
    #[arg(value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Check, and say what would be done
    #[arg(long)]
    dry_run: bool,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// List a registry's subjects with versions, ids and compatibility level
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millrace schema list
  millrace schema list --registry https://registry.example.com --json")]
pub struct List {
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// Compares.
pub async fn diff(command: &Diff, registry: &Registry) -> Result<()> {
    // Differences of a folder in the making are of interest too: it is not checked here.
    let wanted = match &command.folder {
        Some(dir) => offline::read(dir)?.wanted(),
        None => topics::subjects(),
    };
    let differences = publish::diff_all(registry, &wanted).await?;
    for difference in &differences {
        if command.json {
            output::json(difference);
        } else {
            show_difference(difference);
        }
    }
    match differences.iter().filter(|d| !d.is_none()).count() {
        0 => Ok(()),
        n => Err(Shown(format!("{n} of {} subjects differ", differences.len())).into()),
    }
}

fn show_difference(difference: &Difference) {
    let level = difference.level.as_deref().unwrap_or("none of its own");
    let level = match difference.same_level() {
        true => level.to_owned(),
        false => format!("{level}, wanted {}", difference.wanted_level),
    };
    output::line(format_args!("{:<32} level {level}", difference.subject));
    for place in &difference.versions {
        output::line(match place {
            Place::Same {
                version,
                registered,
                id,
            } => format!("  v{version} SAME       version {registered}, id {id}"),
            Place::Missing { version } => format!("  v{version} MISSING"),
            Place::Different {
                version,
                registered,
                id,
            } => {
                format!("  v{version} DIFFERENT  from version {registered}, id {id}")
            }
            Place::Extra { registered, id } => format!("  -- EXTRA      version {registered}, id {id}"),
        });
    }
}

/// Registers.
pub async fn apply(command: &Apply, registry: &Registry) -> Result<()> {
    let wanted = wanted(command.folder.as_deref())?;
    let applied = match publish::apply(registry, &wanted, command.dry_run).await {
        Ok(applied) => applied,
        // As itself, so that an outage has its own exit code.
        Err(PublishError::Registry(e)) => return Err(e.into()),
        Err(e) => return Err(e.into()),
    };
    for subject in &applied {
        if command.json {
            output::json(&json!({
                "subject": subject.subject, "steps": subject.steps, "ahead": subject.ahead, "dry_run": command.dry_run,
            }));
        } else {
            show_applied(subject, command.dry_run);
        }
    }
    if !command.json && applied.iter().all(|subject| subject.steps.is_empty()) {
        output::line("nothing to do");
    }
    Ok(())
}

/// Of a folder only what its check finds nothing wrong with.
fn wanted(dir: Option<&Path>) -> Result<Vec<Wanted>> {
    match dir {
        Some(dir) => Ok(offline::clean(dir)?.wanted()),
        None => Ok(topics::subjects()),
    }
}

fn show_applied(applied: &Applied, dry_run: bool) {
    let would = if dry_run { "would be " } else { "" };
    for step in &applied.steps {
        output::line(match step {
            Step::Level { from, to } => {
                let from = from.as_deref().unwrap_or("none of its own");
                format!("{:<32} level {would}set to {to}, was {from}", applied.subject)
            }
            Step::Register { version, id: Some(id) } => {
                format!("{:<32} v{version} registered, id {id}", applied.subject)
            }
            Step::Register { version, id: None } => format!("{:<32} v{version} {would}registered", applied.subject),
        });
    }
    if applied.ahead > 0 {
        let (subject, ahead) = (&applied.subject, applied.ahead);
        output::line(format_args!("{subject:<32} the registry has {ahead} newer than these"));
    }
}

/// Lists.
pub async fn list(command: &List, registry: &Registry) -> Result<()> {
    let mut subjects = registry.subjects().await?;
    subjects.sort();
    for subject in subjects {
        let level = registry.compatibility(&subject).await?;
        let versions = registry.registered(&subject).await?;
        if command.json {
            let versions: Vec<_> = versions
                .iter()
                .map(|v| json!({"version": v.version, "id": v.id}))
                .collect();
            output::json(&json!({"subject": subject, "level": level, "versions": versions}));
        } else {
            let versions: Vec<_> = versions.iter().map(|v| format!("{}=id {}", v.version, v.id)).collect();
            let level = level.as_deref().unwrap_or("none of its own");
            output::line(format_args!("{subject:<32} {level:<20} {}", versions.join(", ")));
        }
    }
    Ok(())
}
