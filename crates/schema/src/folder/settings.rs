//! `schemas.toml`: how a folder is governed. All of it is optional.
//!
//! ```toml
//! mode = "FULL_TRANSITIVE"          # of every subject that says nothing else; this is the default
//! golden = "required"               # or "optional": a version without golden records is no finding
//!
//! [topics."orders.created"]
//! mode = "BACKWARD"
//! subject = "orders.created-value"  # in the registry; this is the default
//! supported = [2, 3]                # versions that readers still use; default: all
//!
//! [[allow]]                         # an exception from one rule of the stricter ones, with its reason
//! rule = "TIMESTAMP_UNIT"
//! topic = "orders.created"          # default: every topic
//! reason = "all consumers were changed in March, see OPS-12"
//! ```

use std::collections::BTreeMap;

use serde::Deserialize;

use super::finding::{Finding, Rule};
use crate::compat::Mode;

/// Its name in the folder.
pub const FILE: &str = "schemas.toml";

/// How a folder is governed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Mode of every topic that says nothing else.
    #[serde(deserialize_with = "mode")]
    pub mode: Mode,
    /// Whether each version must have golden records.
    pub golden: Golden,
    /// What single topics say.
    pub topics: BTreeMap<String, TopicSettings>,
    /// Exceptions from the stricter rules.
    pub allow: Vec<Allow>,
}

/// Whether each version must have golden records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Golden {
    /// A version without is a finding.
    Required,
    /// What is there is checked.
    Optional,
}

/// How one topic is governed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TopicSettings {
    /// Its mode.
    #[serde(deserialize_with = "some_mode")]
    pub mode: Option<Mode>,
    /// Its subject in the registry.
    pub subject: Option<String>,
    /// Versions that readers still use.
    pub supported: Option<Vec<u32>>,
}

/// An exception from one of the stricter rules.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Allow {
    /// The rule's code.
    pub rule: String,
    /// The topic; none for all of them.
    pub topic: Option<String>,
    /// Why, for the next reader.
    pub reason: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            mode: Mode::FullTransitive,
            golden: Golden::Required,
            topics: BTreeMap::new(),
            allow: Vec::new(),
        }
    }
}

impl Settings {
    /// Reads `schemas.toml`.
    pub fn parse(text: &str) -> Result<Self, Finding> {
        const REMEDY: &str = "correct it; docs/schemas.md tells what may stand in it";
        let parsed: Result<Self, _> = toml::from_str(text);
        let settings = parsed.map_err(|e| {
            let line = e.span().map_or(0, |span| text[..span.start].lines().count().max(1));
            Rule::Settings.at(FILE, e.message().to_owned(), REMEDY).on_line(line)
        })?;
        match settings.allow.iter().find(|allow| allow.reason.trim().is_empty()) {
            Some(allow) => {
                let message = format!("the exception from {} has no reason", allow.rule);
                Err(Rule::Settings.at(FILE, message, REMEDY))
            }
            None => Ok(settings),
        }
    }

    /// A topic's mode.
    pub fn mode_of(&self, topic: &str) -> Mode {
        self.topics.get(topic).and_then(|t| t.mode).unwrap_or(self.mode)
    }

    /// A topic's subject in the registry.
    pub fn subject_of(&self, topic: &str) -> String {
        let given = self.topics.get(topic).and_then(|t| t.subject.clone());
        given.unwrap_or_else(|| format!("{topic}-value"))
    }

    /// Whether readers still use a version.
    pub fn supports(&self, topic: &str, version: u32) -> bool {
        let supported = self.topics.get(topic).and_then(|t| t.supported.as_ref());
        supported.is_none_or(|versions| versions.contains(&version))
    }
}

impl Allow {
    /// Whether it is for this rule in this topic.
    pub fn excepts(&self, topic: &str, rule: &str) -> bool {
        self.rule == rule && self.topic.as_deref().is_none_or(|t| t == topic)
    }
}

fn mode<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Mode, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(serde::de::Error::custom)
}

fn some_mode<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Mode>, D::Error> {
    mode(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_is_the_default() {
        let settings = Settings::parse("").unwrap();
        assert_eq!(settings, Settings::default());
        assert_eq!(
            (settings.mode_of("a"), settings.subject_of("a")),
            (Mode::FullTransitive, "a-value".into())
        );
        assert!(settings.supports("a", 1));
    }

    #[test]
    fn a_topic_may_differ() {
        let text = "mode = \"FULL\"\n[topics.\"a.b\"]\nmode = \"BACKWARD\"\nsubject = \"x\"\nsupported = [2]\n\
                    [[allow]]\nrule = \"R\"\nreason = \"because\"\n[[allow]]\nrule = \"Q\"\ntopic = \"t\"\nreason = \"so\"";
        let settings = Settings::parse(text).unwrap();
        assert_eq!(
            (settings.mode_of("a.b"), settings.mode_of("c")),
            (Mode::Backward, Mode::Full)
        );
        assert_eq!(settings.subject_of("a.b"), "x");
        assert_eq!([1, 2].map(|v| settings.supports("a.b", v)), [false, true]);
        let excepts = |topic, rule| settings.allow.iter().any(|a| a.excepts(topic, rule));
        assert!(excepts("any", "R") && excepts("t", "Q") && !excepts("u", "Q"));
    }

    #[test]
    fn what_is_not_understood_is_a_finding_with_its_line() {
        for (text, line, expected) in [
            ("mod = \"FULL\"", Some(1), "unknown field `mod`"),
            ("golden = \"required\"\nmode = \"SIDEWAYS\"", Some(2), "SIDEWAYS"),
            ("[[allow]]\nrule = \"R\"", Some(1), "missing field `reason`"),
            (
                "[[allow]]\nrule = \"R\"\nreason = \" \"",
                None,
                "the exception from R has no reason",
            ),
            ("[", Some(1), ""),
        ] {
            let finding = Settings::parse(text).unwrap_err();
            assert!(finding.message.contains(expected), "{finding}");
            assert_eq!(finding.line, line, "{finding}");
        }
    }
}
