//! The topics: names, schemas and settings. `millrace topics apply` creates them; nothing else does.

use std::time::Duration;

use crate::{Epoch, Lane};

/// Partitions of every document topic, fixed for an epoch: the record key decides the partition.
pub const PARTITIONS: i32 = 12;
/// The partitioner of every writer, equal to the Java client's default.
pub const PARTITIONER: &str = "murmur2_random";
/// Largest record of a document topic, in bytes.
pub const MAX_RECORD_BYTES: usize = 4 << 20;
/// Largest record of the dead-letter topic: an original of full size with its error headers still fits.
pub const MAX_DEAD_LETTER_BYTES: usize = 8 << 20;

/// What Kafka does with old records of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cleanup {
    /// Deleted after this time.
    Delete(Duration),
    /// The newest record of each key stays.
    Compact,
}

/// One topic of the pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Topic {
    /// Its name in epoch 1, and the stem of its subject.
    pub name: &'static str,
    /// The current schema, as JSON: the newest version; none where values are raw bytes.
    pub schema: Option<&'static str>,
    /// Every published version of the schema, as JSON, from version 1 on.
    pub versions: &'static [&'static str],
    /// What happens to old records.
    pub cleanup: Cleanup,
    /// Largest record in bytes.
    pub max_record_bytes: usize,
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

macro_rules! topic {
    ($(#[$doc:meta])* $name:ident, $topic:literal, [$($version:literal),+], $cleanup:expr) => {
        $(#[$doc])*
        pub const $name: Topic = {
            #[cfg(not(feature = "next"))]
            const VERSIONS: &[&str] =
                &[$(include_str!(concat!("../../../schemas/", $topic, "/v", $version, ".avsc"))),+];
            #[cfg(feature = "next")]
            const VERSIONS: &[&str] = &[
                $(include_str!(concat!("../../../schemas/", $topic, "/v", $version, ".avsc"))),+,
                include_str!(concat!("../next/", $topic, ".avsc")),
            ];
            Topic {
                name: $topic,
                schema: VERSIONS.last().copied(),
                versions: VERSIONS,
                cleanup: $cleanup,
                max_record_bytes: MAX_RECORD_BYTES,
            }
        };
    };
}

topic!(
    /// Accepted commands; key `tenant/document_id`.
    SUBMITTED, "documents.submitted", [1], Cleanup::Delete(DAY.saturating_mul(7))
);
topic!(
    /// Parts of parsed revisions; key `tenant/document_id`.
    PARSED, "documents.parsed", [1], Cleanup::Delete(DAY.saturating_mul(7))
);
topic!(
    /// Parts of embedded revisions; key `tenant/document_id`.
    EMBEDDED, "chunks.embedded", [1], Cleanup::Delete(DAY.saturating_mul(7))
);
topic!(
    /// Events: a revision became live or a document was deleted; key `tenant/document_id`.
    INDEXED, "vectors.indexed", [1], Cleanup::Delete(DAY.saturating_mul(7))
);
topic!(
    /// State of each revision; key `tenant/document_id#revision`, on the document's partition.
    STATUS, "documents.status", [1], Cleanup::Compact
);
topic!(
    /// State of each dead letter; key `topic/partition/offset` of the original, on the document's partition.
    FAILED, "documents.failed", [1], Cleanup::Compact
);
/// Original key, value and headers of dead letters, byte for byte.
pub const DLQ: Topic = Topic {
    name: "documents.dlq",
    schema: None,
    versions: &[],
    cleanup: Cleanup::Delete(DAY.saturating_mul(30)),
    max_record_bytes: MAX_DEAD_LETTER_BYTES,
};

/// All topics, in the order a document meets them.
pub const ALL: [Topic; 7] = [SUBMITTED, PARSED, EMBEDDED, INDEXED, STATUS, FAILED, DLQ];

impl Topic {
    /// Name in an epoch: the plain name in the first, `<name>.e<N>` after it.
    pub fn in_epoch(&self, epoch: Epoch) -> String {
        match epoch.get() {
            1 => self.name.to_owned(),
            later => format!("{}.e{later}", self.name),
        }
    }
    /// Name of a lane's topic in an epoch: `<name>.<lane>` and then as [`Self::in_epoch`]. Of [`PARSED`] only.
    pub fn in_lane(&self, lane: &Lane, epoch: Epoch) -> String {
        let plain = self.in_epoch(epoch);
        match lane.is_base() {
            true => plain,
            false => plain.replacen(self.name, &format!("{}.{}", self.name, lane.as_str()), 1),
        }
    }
    /// Registry subject of the values; epochs and lanes share it.
    pub fn subject(&self) -> String {
        format!("{}-value", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(not(feature = "next"))]
    #[test]
    fn the_versions_are_those_of_the_folder() {
        let schemas = concat!(env!("CARGO_MANIFEST_DIR"), "/../../schemas");
        for topic in ALL.iter().filter(|t| t.schema.is_some()) {
            let versions = topic.versions.len();
            for number in 1..=versions {
                let path = format!("{schemas}/{}/v{number}.avsc", topic.name);
                assert_eq!(std::fs::read_to_string(path).unwrap(), topic.versions[number - 1]);
            }
            let next = format!("{schemas}/{}/v{}.avsc", topic.name, versions + 1);
            assert!(!std::path::Path::new(&next).exists(), "{next} is not built in");
        }
    }

    #[test]
    fn names_carry_the_epoch_from_the_second_on() {
        assert_eq!(SUBMITTED.in_epoch(Epoch::FIRST), "documents.submitted");
        assert_eq!(SUBMITTED.in_epoch(Epoch::new(2).unwrap()), "documents.submitted.e2");
        assert_eq!(SUBMITTED.subject(), "documents.submitted-value");
    }

    #[test]
    fn names_carry_the_lane_before_the_epoch() {
        let bulk = Lane::new("bulk").unwrap();
        let second = Epoch::new(2).unwrap();
        assert_eq!(PARSED.in_lane(&bulk, Epoch::FIRST), "documents.parsed.bulk");
        assert_eq!(PARSED.in_lane(&bulk, second), "documents.parsed.bulk.e2");
        assert_eq!(PARSED.in_lane(&Lane::BASE, second), "documents.parsed.e2");
        for bad in ["e2", "base", "Bulk", "2nd", "a_b", "-a", &"a".repeat(32)] {
            assert!(Lane::new(bad).is_err(), "{bad}");
        }
        for good in ["", "e", "e2e", "early", &"a".repeat(31)] {
            assert_eq!(Lane::new(good).unwrap().as_str(), good);
        }
    }
}
