//! What is wrong with a folder, in one line, for people, programs and GitHub.

use std::fmt;

use serde::Serialize;

/// One thing wrong with a folder of schemas, or with one pair of versions in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The file, from the folder's root.
    pub path: String,
    /// The line, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// A stable code: one of [`Rule`]'s, or one of the compatibility checker's.
    pub rule: String,
    /// What is wrong, with versions and the place in the schema.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

/// Rules of a folder. Those for what stands in a schema, and for pairs of schemas, are the compatibility checker's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// A published file is not what was published.
    Edited,
    /// A published file is gone.
    Deleted,
    /// A version or a golden record is not in the lock file.
    Unlocked,
    /// The lock file differs from the published one in what that one has.
    LockEdited,
    /// A line of the lock file is not understood.
    LockInvalid,
    /// Version numbers do not run from 1 without a gap.
    VersionHole,
    /// A folder without a version.
    NoVersion,
    /// A folder's name is no topic's.
    TopicName,
    /// A file that has no meaning where it is.
    UnexpectedFile,
    /// A file without bytes.
    EmptyFile,
    /// A file too large to be a schema or a golden record.
    TooLarge,
    /// A file that is no JSON.
    NotJson,
    /// A file that is no text, or that cannot be read.
    Unreadable,
    /// A version without golden records.
    GoldenMissing,
    /// A golden record of which one of the two files is missing.
    GoldenPair,
    /// A golden record's JSON does not follow its schema.
    GoldenInvalid,
    /// A golden record's bytes are not what its JSON says.
    GoldenDiffers,
    /// A supported version cannot read a golden record.
    GoldenUnreadable,
    /// The application's own decoder cannot read a golden record.
    GoldenDecoder,
    /// Golden records cannot be tried: the decoder does not take the schema.
    GoldenUntried,
    /// `schemas.toml` cannot be used.
    Settings,
    /// An exception in `schemas.toml` that excepts nothing.
    UnusedAllow,
}

impl Rule {
    /// Every rule, in the order of the documentation.
    pub const ALL: [Self; 22] = [
        Self::Edited,
        Self::Deleted,
        Self::Unlocked,
        Self::LockEdited,
        Self::LockInvalid,
        Self::VersionHole,
        Self::NoVersion,
        Self::TopicName,
        Self::UnexpectedFile,
        Self::EmptyFile,
        Self::TooLarge,
        Self::NotJson,
        Self::Unreadable,
        Self::GoldenMissing,
        Self::GoldenPair,
        Self::GoldenInvalid,
        Self::GoldenDiffers,
        Self::GoldenUnreadable,
        Self::GoldenDecoder,
        Self::GoldenUntried,
        Self::Settings,
        Self::UnusedAllow,
    ];

    /// The stable code.
    pub fn code(self) -> &'static str {
        match self {
            Self::Edited => "EDITED",
            Self::Deleted => "DELETED",
            Self::Unlocked => "UNLOCKED",
            Self::LockEdited => "LOCK_EDITED",
            Self::LockInvalid => "LOCK_INVALID",
            Self::VersionHole => "VERSION_HOLE",
            Self::NoVersion => "NO_VERSION",
            Self::TopicName => "TOPIC_NAME",
            Self::UnexpectedFile => "UNEXPECTED_FILE",
            Self::EmptyFile => "EMPTY_FILE",
            Self::TooLarge => "TOO_LARGE",
            Self::NotJson => "NOT_JSON",
            Self::Unreadable => "UNREADABLE",
            Self::GoldenMissing => "GOLDEN_MISSING",
            Self::GoldenPair => "GOLDEN_PAIR",
            Self::GoldenInvalid => "GOLDEN_INVALID",
            Self::GoldenDiffers => "GOLDEN_DIFFERS",
            Self::GoldenUnreadable => "GOLDEN_UNREADABLE",
            Self::GoldenDecoder => "GOLDEN_DECODER",
            Self::GoldenUntried => "GOLDEN_UNTRIED",
            Self::Settings => "SETTINGS",
            Self::UnusedAllow => "UNUSED_ALLOW",
        }
    }

    pub(crate) fn at(self, path: &str, message: impl Into<String>, remedy: impl Into<String>) -> Finding {
        Finding {
            path: path.to_owned(),
            line: None,
            rule: self.code().to_owned(),
            message: message.into(),
            remedy: remedy.into(),
        }
    }
}

impl Finding {
    pub(crate) fn on_line(self, line: usize) -> Self {
        // serde_json and toml count from 1; 0 stands for nowhere.
        Self {
            line: (line > 0).then_some(line),
            ..self
        }
    }

    /// As a workflow command of GitHub Actions, with `root` before the path: an annotation on the file.
    pub fn github(&self, root: &str) -> String {
        let path = match root.trim_end_matches('/') {
            "" | "." => self.path.clone(),
            root => format!("{root}/{}", self.path),
        };
        format!(
            "::error file={},line={},title={}::{}",
            property(&path),
            self.line.unwrap_or(1),
            property(&self.rule),
            data(&format!("{}; {}", self.message, self.remedy))
        )
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&one_line(&self.path))?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(
            f,
            ": {}: {}; {}",
            self.rule,
            one_line(&self.message),
            one_line(&self.remedy)
        )
    }
}

/// A file's name or a decoder's words may hold anything; a finding is one line all the same.
fn one_line(text: &str) -> String {
    let shown = |c: char| {
        if c.is_control() {
            c.escape_default().collect()
        } else {
            String::from(c)
        }
    };
    text.chars().map(shown).collect()
}

/// <https://docs.github.com/actions/reference/workflow-commands-for-github-actions>, as `@actions/core` escapes.
fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_one_line_everywhere() {
        let finding = Rule::NotJson
            .at("a,b:c/v1.avsc", "100% broken\nhere", "mend it")
            .on_line(3);
        assert_eq!(
            finding.to_string(),
            "a,b:c/v1.avsc:3: NOT_JSON: 100% broken\\nhere; mend it"
        );
        assert_eq!(
            finding.github("schemas/"),
            "::error file=schemas/a%2Cb%3Ac/v1.avsc,line=3,title=NOT_JSON::100%25 broken%0Ahere; mend it"
        );
        assert!(finding.github(".").starts_with("::error file=a%2Cb"));
        let nowhere = Rule::Edited.at("x", "m", "r").on_line(0);
        assert_eq!(nowhere.to_string(), "x: EDITED: m; r");
        assert!(nowhere.github("").contains("line=1"));
    }

    #[test]
    fn codes_are_told_apart() {
        let mut codes: Vec<_> = Rule::ALL.iter().map(|r| r.code()).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), Rule::ALL.len());
    }
}
