//! The flags that select letters.

use millrace_api::ingest::v1::{DeadLetterFilter, DeadLetterState};

use super::time;

/// Which letters
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Which letters")]
pub struct Filter {
    /// Given up for this reason, for example CHUNK_TOO_LONG; may be given several times
    #[arg(long = "reason", value_name = "REASON")]
    reasons: Vec<String>,
    /// Given up by this stage; may be given several times
    #[arg(long = "stage", value_name = "STAGE", value_parser = ["parse", "embed", "index"])]
    stages: Vec<String>,
    /// Of this tenant
    #[arg(long)]
    tenant: Option<String>,
    /// Of this document
    #[arg(long)]
    document: Option<String>,
    /// First given up at or after this time: 90s, 30m, 2h, 7d ago, or 2026-01-31T13:40:05Z
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    since: Option<i64>,
    /// First given up before this time
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    until: Option<i64>,
}

impl Filter {
    /// Whether it selects all letters.
    pub fn is_empty(&self) -> bool {
        self.reasons.is_empty()
            && self.stages.is_empty()
            && self.tenant.is_none()
            && self.document.is_none()
            && self.since.is_none()
            && self.until.is_none()
    }

    /// As the service takes it.
    pub fn request(&self, states: &[DeadLetterState], keys: &[String]) -> DeadLetterFilter {
        DeadLetterFilter {
            tenant: self.tenant.clone().unwrap_or_default(),
            document_id: self.document.clone().unwrap_or_default(),
            stages: self.stages.clone(),
            reasons: self.reasons.clone(),
            states: states.iter().map(|state| (*state).into()).collect(),
            since_ms: self.since.unwrap_or_default(),
            until_ms: self.until.unwrap_or_default(),
            keys: keys.to_vec(),
        }
    }
}
