//! Registering what lacks.

use serde::Serialize;

use super::Wanted;
use super::diff::{Difference, Place, compare, diff};
use crate::compat::{self, Finding, Mode, Version};
use crate::{Registered, Registry, RegistryError};

/// What one subject's application did, or would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Applied {
    /// The subject.
    pub subject: String,
    /// In order; empty: nothing to do.
    pub steps: Vec<Step>,
    /// How many versions the registry has beyond those wanted.
    pub ahead: usize,
}

/// One change in the registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "step", rename_all = "UPPERCASE")]
pub enum Step {
    /// The subject's compatibility level is set.
    Level {
        /// What it was; none: the subject had none of its own.
        from: Option<String>,
        /// What it becomes.
        to: String,
    },
    /// A version is registered.
    Register {
        /// Its number in the folder.
        version: usize,
        /// Its id; none where it is only told what would be done.
        id: Option<u32>,
    },
}

/// Why a subject cannot be brought in line.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The registry failed or refused.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// Other schemas stand where ours would have to.
    #[error("{subject}: the registry has other versions than these: {}; `millrace schema diff` shows them. A registered version \
             is never replaced: add the change as a new version", .places.join(", "))]
    Diverged {
        /// The subject.
        subject: String,
        /// What stands there.
        places: Vec<String>,
    },
    /// Our checker says no.
    #[error("{subject}: version {version} does not fit the versions before it ({mode}): {}", told(.findings))]
    Incompatible {
        /// The subject.
        subject: String,
        /// The version, by its number in the folder.
        version: usize,
        /// The mode.
        mode: Mode,
        /// What is found.
        findings: Vec<Finding>,
    },
    /// Our checker says yes, the registry no.
    #[error("{subject}: the registry says that version {version} does not fit the versions before it ({mode}), our check says \
             that it does; nothing was registered of it, and neither is believed before that is explained. The registry: {}",
            if .messages.is_empty() { "no reason given".to_owned() } else { .messages.join("; ") })]
    Disagree {
        /// The subject.
        subject: String,
        /// The version, by its number in the folder.
        version: usize,
        /// The mode.
        mode: Mode,
        /// The registry's reasons.
        messages: Vec<String>,
    },
    /// The registry took a version and shows another.
    #[error("{subject}: version {version} was registered, and the registry does not show it in its place")]
    NotShown {
        /// The subject.
        subject: String,
        /// The version, by its number in the folder.
        version: usize,
    },
}

fn told(findings: &[Finding]) -> String {
    let told = |f: &Finding| format!("{} against {} at {}: {}", f.rule, f.against, f.path, f.message);
    findings.iter().map(told).collect::<Vec<_>>().join("; ")
}

/// Brings the registry in line. With `dry_run` nothing is changed there, and all is checked that can be without a change.
pub async fn apply(registry: &Registry, wanted: &[Wanted], dry_run: bool) -> Result<Vec<Applied>, PublishError> {
    let mut plans = Vec::new();
    for subject in wanted {
        let before = registry.registered(&subject.subject).await?;
        let difference = compare(registry, subject, &before).await?;
        check(registry, subject, &difference, &before).await?;
        plans.push((subject, difference));
    }
    let mut applied = Vec::new();
    for (subject, difference) in plans {
        let steps = if dry_run {
            steps(&difference)
        } else {
            carry_out(registry, subject, &difference).await?
        };
        let extra = |place: &&Place| matches!(place, Place::Extra { .. });
        applied.push(Applied {
            subject: subject.subject.clone(),
            steps,
            ahead: difference.versions.iter().filter(extra).count(),
        });
    }
    Ok(applied)
}

fn missing(difference: &Difference) -> impl Iterator<Item = usize> {
    difference.versions.iter().filter_map(|place| match place {
        Place::Missing { version } => Some(*version),
        Place::Same { .. } | Place::Different { .. } | Place::Extra { .. } => None,
    })
}

fn steps(difference: &Difference) -> Vec<Step> {
    let level = (!difference.same_level()).then(|| Step::Level {
        from: difference.level.clone(),
        to: difference.wanted_level.clone(),
    });
    let registered = missing(difference).map(|version| Step::Register { version, id: None });
    level.into_iter().chain(registered).collect()
}

/// All that can be told before the first change.
async fn check(
    registry: &Registry,
    wanted: &Wanted,
    difference: &Difference,
    before: &[Registered],
) -> Result<(), PublishError> {
    if !difference.can_be_applied() {
        let place = |place: &Place| match place {
            Place::Different {
                version,
                registered,
                id,
            } => Some(format!("version {registered} (id {id}) is not our version {version}")),
            Place::Extra { registered, id } => Some(format!("version {registered} (id {id}) is not ours")),
            Place::Same { .. } | Place::Missing { .. } => None,
        };
        return Err(PublishError::Diverged {
            subject: wanted.subject.clone(),
            places: difference.versions.iter().filter_map(place).collect(),
        });
    }
    let names: Vec<String> = (1..=wanted.versions.len())
        .map(|number| format!("version {number}"))
        .collect();
    for version in missing(difference) {
        // What is registered as the registry has it, and of ours what would be registered before this one.
        let stored = before.iter().map(|r| r.schema.as_str());
        let ours = wanted.versions[..version - 1]
            .iter()
            .skip(before.len())
            .map(String::as_str);
        let previous: Vec<Version<'_>> = names
            .iter()
            .zip(stored.chain(ours))
            .map(|(n, s)| Version::new(n, s))
            .collect();
        let candidate = Version::new(&names[version - 1], &wanted.versions[version - 1]);
        let report = compat::check(wanted.mode, candidate, &previous);
        if !report.compatible {
            return Err(PublishError::Incompatible {
                subject: wanted.subject.clone(),
                version,
                mode: wanted.mode,
                findings: report.findings,
            });
        }
        // Asked again before each version is registered; here only where the answer is of the same level and versions.
        if difference.same_level() && version == before.len() + 1 {
            agree(registry, wanted, version).await?;
        }
    }
    Ok(())
}

async fn carry_out(registry: &Registry, wanted: &Wanted, difference: &Difference) -> Result<Vec<Step>, PublishError> {
    let mut done = Vec::new();
    for step in steps(difference) {
        done.push(match step {
            Step::Level { from, to } => {
                registry.set_compatibility(&wanted.subject, &to).await?;
                Step::Level { from, to }
            }
            Step::Register { version, .. } => {
                agree(registry, wanted, version).await?;
                let id = registry
                    .register(&wanted.subject, &wanted.versions[version - 1])
                    .await?;
                Step::Register { version, id: Some(id) }
            }
        });
    }
    if done.iter().any(|step| matches!(step, Step::Register { .. })) {
        let after = diff(registry, wanted).await?;
        let hidden = after.versions.iter().find_map(|place| match place {
            Place::Missing { version } | Place::Different { version, .. } => Some(*version),
            Place::Same { .. } | Place::Extra { .. } => None,
        });
        if let Some(version) = hidden {
            return Err(PublishError::NotShown {
                subject: wanted.subject.clone(),
                version,
            });
        }
    }
    Ok(done)
}

/// The registry's own check. Ours has said yes.
async fn agree(registry: &Registry, wanted: &Wanted, version: usize) -> Result<(), PublishError> {
    let verdict = registry.check(&wanted.subject, &wanted.versions[version - 1]).await?;
    if verdict.is_compatible {
        return Ok(());
    }
    Err(PublishError::Disagree {
        subject: wanted.subject.clone(),
        version,
        mode: wanted.mode,
        messages: verdict.messages,
    })
}
