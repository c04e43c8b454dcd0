//! Which letters are meant.

use std::collections::BTreeSet;

use millrace_events::{DeadLetter, LetterKey, LetterState};

/// Selects the letters that fit every field given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Whose.
    pub tenant: Option<String>,
    /// Of which document.
    pub document_id: Option<String>,
    /// Any of these stages; empty is all.
    pub stages: BTreeSet<String>,
    /// Any of these reasons; empty is all.
    pub reasons: BTreeSet<String>,
    /// Any of these states; empty is all.
    pub states: Vec<LetterState>,
    /// First given up at or after this time, milliseconds since 1970 UTC.
    pub since_ms: Option<i64>,
    /// First given up before this time, milliseconds since 1970 UTC.
    pub until_ms: Option<i64>,
    /// Any of these keys; empty is all.
    pub keys: Vec<LetterKey>,
}

impl Filter {
    /// Whether a letter is meant.
    pub fn selects(&self, letter: &DeadLetter) -> bool {
        let is = |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|wanted| wanted == found);
        let among = |wanted: &BTreeSet<String>, found: &str| wanted.is_empty() || wanted.contains(found);
        let key = || letter.key().ok();
        is(&self.tenant, &letter.tenant)
            && is(&self.document_id, &letter.document_id)
            && among(&self.stages, &letter.stage)
            && among(&self.reasons, &letter.reason)
            && (self.states.is_empty() || self.states.contains(&letter.state))
            && self.since_ms.is_none_or(|since| letter.failed_at_ms >= since)
            && self.until_ms.is_none_or(|until| letter.failed_at_ms < until)
            && (self.keys.is_empty() || key().is_some_and(|key| self.keys.contains(&key)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter() -> DeadLetter {
        DeadLetter {
            topic: "documents.parsed".into(),
            partition: 3,
            offset: 7,
            tenant: "acme".into(),
            document_id: "a.md".into(),
            state: LetterState::Open,
            stage: "embed".into(),
            reason: "CHUNK_TOO_LONG".into(),
            failed_at_ms: 1000,
            ..DeadLetter::default()
        }
    }

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn every_field_given_must_fit() {
        assert!(Filter::default().selects(&letter()));
        type Change = fn(&mut Filter, bool);
        let rows: [(&str, Change); 8] = [
            ("tenant", |f, fits| {
                f.tenant = Some(if fits { "acme" } else { "other" }.into())
            }),
            ("document", |f, fits| {
                f.document_id = Some(if fits { "a.md" } else { "a" }.into())
            }),
            ("stage", |f, fits| {
                f.stages = set(if fits { &["parse", "embed"] } else { &["parse"] })
            }),
            ("reason", |f, fits| {
                f.reasons = set(if fits { &["CHUNK_TOO_LONG"] } else { &["PANIC"] })
            }),
            ("state", |f, fits| {
                f.states = vec![if fits { LetterState::Open } else { LetterState::Redriven }]
            }),
            ("since", |f, fits| f.since_ms = Some(if fits { 1000 } else { 1001 })),
            ("until", |f, fits| f.until_ms = Some(if fits { 1001 } else { 1000 })),
            ("key", |f, fits| {
                let offset = if fits { 7 } else { 8 };
                f.keys = vec![LetterKey::new("documents.parsed", 3, offset).unwrap()]
            }),
        ];
        let mut all = Filter::default();
        for (field, change) in rows {
            let mut other = Filter::default();
            change(&mut other, false);
            assert!(!other.selects(&letter()), "{field}");
            change(&mut all, true);
            assert!(all.selects(&letter()), "{field}");
        }
    }
}
