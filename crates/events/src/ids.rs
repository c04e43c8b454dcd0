//! Identities: tenants, documents, revisions, and the keys they make.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Why a text is not an identity. The message says what would be accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not `[A-Za-z0-9._-]{1,64}`.
    #[error("a tenant is 1 to 64 characters of A-Z a-z 0-9 . _ -")]
    Tenant,
    /// Empty or longer than 512 bytes.
    #[error("a document id is 1 to 512 bytes of UTF-8, this one has {0}")]
    DocumentIdLength(usize),
    /// Contains a control character.
    #[error("a document id has no control characters, this one has one at byte {0}")]
    DocumentIdControl(usize),
    /// A key that is not `tenant/document_id`.
    #[error("a record key is tenant/document_id")]
    Key,
    /// A key that is not `tenant/document_id#revision`.
    #[error("a status key is tenant/document_id#revision")]
    StatusKey,
    /// A key that is not `topic/partition/offset`.
    #[error("a letter key is topic/partition/offset")]
    LetterKey,
    /// Not a positive 64-bit number, or one outside of what an epoch and an offset can make.
    #[error("a revision is a positive whole number")]
    Revision,
    /// Not 1 to 31.
    #[error("an epoch is 1 to 31, this one is {0}")]
    Epoch(i64),
    /// Not `[a-z][a-z0-9-]{0,30}`, or what an epoch's topics are called, or the base lane.
    #[error("a lane is a letter a-z and up to 30 characters of a-z 0-9 -, not e with digits, and not base")]
    Lane,
    /// Not a UUID.
    #[error("a request id is a UUID, for example 0b6f3f2a-4c38-4f0e-9a4b-3f1b8f7f2a11")]
    RequestId,
}

/// A tenant's name, `[A-Za-z0-9._-]{1,64}`: no slash, so that a record key splits at its first one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tenant(String);

impl Tenant {
    /// Checks and takes a name.
    pub fn new(name: impl Into<String>) -> Result<Self, IdError> {
        let name = name.into();
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if (1..=64).contains(&name.len()) && name.bytes().all(allowed) {
            Ok(Self(name))
        } else {
            Err(IdError::Tenant)
        }
    }
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A document's name within its tenant: 1 to 512 bytes of UTF-8 without control characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DocumentId(String);

impl DocumentId {
    /// Checks and takes a name.
    pub fn new(name: impl Into<String>) -> Result<Self, IdError> {
        let name = name.into();
        if !(1..=512).contains(&name.len()) {
            return Err(IdError::DocumentIdLength(name.len()));
        }
        if let Some((at, _)) = name.char_indices().find(|(_, c)| c.is_control()) {
            return Err(IdError::DocumentIdControl(at));
        }
        Ok(Self(name))
    }
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A document: what order, revisions and searches are about. As a record key it reads `tenant/document_id`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DocumentKey {
    /// Whose document.
    pub tenant: Tenant,
    /// Which document.
    pub document_id: DocumentId,
}

impl DocumentKey {
    /// Checks and joins both names.
    pub fn new(tenant: impl Into<String>, document_id: impl Into<String>) -> Result<Self, IdError> {
        Ok(Self {
            tenant: Tenant::new(tenant)?,
            document_id: DocumentId::new(document_id)?,
        })
    }
    /// Reads a record key.
    pub fn from_bytes(key: &[u8]) -> Result<Self, IdError> {
        std::str::from_utf8(key).map_err(|_| IdError::Key)?.parse()
    }
}

impl FromStr for DocumentKey {
    type Err = IdError;
    fn from_str(key: &str) -> Result<Self, IdError> {
        let (tenant, document_id) = key.split_once('/').ok_or(IdError::Key)?;
        Self::new(tenant, document_id)
    }
}

impl fmt::Display for DocumentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.tenant.0, self.document_id.0)
    }
}

/// Documents that the embedder serves by their own weight, in a topic of their own: `[a-z][a-z0-9-]{0,30}`, not `e` with
/// digits, which is an epoch's, and not `base`. The base lane, that of documents which nobody has put into one, has no name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Lane(String);

/// The base lane, for people.
const BASE_LANE: &str = "base";

impl Lane {
    /// That of documents which nobody has put into one.
    pub const BASE: Self = Self(String::new());
    /// Checks and takes a name; an empty one is the base lane's.
    pub fn new(name: impl Into<String>) -> Result<Self, IdError> {
        let name = name.into();
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let is_name =
            name.len() <= 31 && name.starts_with(|c: char| c.is_ascii_lowercase()) && name.bytes().all(allowed);
        let epoch = name.strip_prefix('e').filter(|number| !number.is_empty());
        let is_epoch = epoch.is_some_and(|number| number.bytes().all(|b| b.is_ascii_digit()));
        match name.is_empty() || is_name && !is_epoch && name != BASE_LANE {
            true => Ok(Self(name)),
            false => Err(IdError::Lane),
        }
    }
    /// The name; empty for the base lane.
    pub fn as_str(&self) -> &str {
        &self.0
    }
    /// Whether nobody has put the document into a lane.
    pub fn is_base(&self) -> bool {
        self.0.is_empty()
    }
}

impl TryFrom<String> for Lane {
    type Error = IdError;
    fn try_from(name: String) -> Result<Self, IdError> {
        Self::new(name)
    }
}

impl From<Lane> for String {
    fn from(lane: Lane) -> Self {
        lane.0
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_base() { BASE_LANE } else { &self.0 })
    }
}

/// The life of the document topics, 1 to 31: re-creating or repartitioning them starts the next one. The bound keeps
/// every revision below 2^53, exact in JSON numbers and in the index's range filters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch(u8);

impl Epoch {
    /// The epoch of topics whose names carry none.
    pub const FIRST: Self = Self(1);
    /// Checks and takes a number.
    pub fn new(number: u8) -> Result<Self, IdError> {
        if (1..=31).contains(&number) {
            Ok(Self(number))
        } else {
            Err(IdError::Epoch(number.into()))
        }
    }
    /// The number.
    pub fn get(self) -> u8 {
        self.0
    }
}

/// `epoch << 48 | offset` of the accepted record: rises with every accepted command of a document, with no
/// coordination between those who accept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Revision(i64);

impl Revision {
    const OFFSET_BITS: u32 = 48;

    /// The revision of the record accepted at `offset`.
    pub fn new(epoch: Epoch, offset: i64) -> Result<Self, IdError> {
        if (0..1 << Self::OFFSET_BITS).contains(&offset) {
            Ok(Self((i64::from(epoch.get()) << Self::OFFSET_BITS) | offset))
        } else {
            Err(IdError::Revision)
        }
    }
    /// Checks and takes the number as it stands in records, requests and the index.
    pub fn from_i64(number: i64) -> Result<Self, IdError> {
        let epoch = number >> Self::OFFSET_BITS;
        if (1..=31).contains(&epoch) {
            Ok(Self(number))
        } else {
            Err(IdError::Revision)
        }
    }
    /// The number.
    pub fn get(self) -> i64 {
        self.0
    }
    /// The epoch in it.
    pub fn epoch(self) -> i64 {
        self.0 >> Self::OFFSET_BITS
    }
    /// The offset in it.
    pub fn offset(self) -> i64 {
        self.0 & ((1 << Self::OFFSET_BITS) - 1)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Revision {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::from_i64(text.parse().map_err(|_| IdError::Revision)?)
    }
}

/// Key of `documents.status`: `tenant/document_id#revision`, written to the document's own partition.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StatusKey {
    /// The document.
    pub document: DocumentKey,
    /// The revision that the status speaks of.
    pub revision: Revision,
}

impl StatusKey {
    /// Reads a record key.
    pub fn from_bytes(key: &[u8]) -> Result<Self, IdError> {
        let key = std::str::from_utf8(key).map_err(|_| IdError::StatusKey)?;
        let (document, revision) = key.rsplit_once('#').ok_or(IdError::StatusKey)?;
        Ok(Self {
            document: document.parse()?,
            revision: revision.parse()?,
        })
    }
}

impl fmt::Display for StatusKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.document, self.revision)
    }
}

/// Key of `documents.failed`: `topic/partition/offset` of the record that was given up, written to its document's own
/// partition.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LetterKey {
    /// Topic in which it stood when it was first given up.
    pub topic: String,
    /// Partition of the topic.
    pub partition: i32,
    /// Offset in the partition.
    pub offset: i64,
}

impl LetterKey {
    /// Kafka's own bound on names.
    const MAX_TOPIC_BYTES: usize = 249;

    /// Checks and takes a place.
    pub fn new(topic: impl Into<String>, partition: i32, offset: i64) -> Result<Self, IdError> {
        let topic = topic.into();
        let named = (1..=Self::MAX_TOPIC_BYTES).contains(&topic.len()) && !topic.contains('/');
        if named && partition >= 0 && offset >= 0 {
            Ok(Self {
                topic,
                partition,
                offset,
            })
        } else {
            Err(IdError::LetterKey)
        }
    }
    /// Reads a record key.
    pub fn from_bytes(key: &[u8]) -> Result<Self, IdError> {
        std::str::from_utf8(key).map_err(|_| IdError::LetterKey)?.parse()
    }
}

impl FromStr for LetterKey {
    type Err = IdError;
    fn from_str(key: &str) -> Result<Self, IdError> {
        let fields: Vec<&str> = key.split('/').collect();
        let [topic, partition, offset] = fields[..] else {
            return Err(IdError::LetterKey);
        };
        let partition: i32 = partition.parse().map_err(|_| IdError::LetterKey)?;
        let offset: i64 = offset.parse().map_err(|_| IdError::LetterKey)?;
        Self::new(topic, partition, offset)
    }
}

impl fmt::Display for LetterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.topic, self.partition, self.offset)
    }
}

/// The caller's own id of a request: the same id has one effect within 24 hours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId(Uuid);

impl FromStr for RequestId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        Uuid::try_parse(text).map(Self).map_err(|_| IdError::RequestId)
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_splits_at_its_first_slash() {
        let key = DocumentKey::new("acme", "guides/intro.md").unwrap();
        assert_eq!(key.to_string(), "acme/guides/intro.md");
        assert_eq!(DocumentKey::from_bytes(b"acme/guides/intro.md").unwrap(), key);
        assert_eq!(DocumentKey::from_bytes(b"acme").unwrap_err(), IdError::Key);
        assert_eq!(DocumentKey::from_bytes(b"acme/\xff").unwrap_err(), IdError::Key);
    }

    #[test]
    fn a_status_key_splits_at_its_last_hash() {
        let key = StatusKey {
            document: DocumentKey::new("t", "a#b#1").unwrap(),
            revision: Revision::new(Epoch::FIRST, 7).unwrap(),
        };
        assert_eq!(key.to_string(), "t/a#b#1#281474976710663");
        assert_eq!(StatusKey::from_bytes(key.to_string().as_bytes()).unwrap(), key);
        assert_eq!(StatusKey::from_bytes(b"t/a").unwrap_err(), IdError::StatusKey);
        assert_eq!(StatusKey::from_bytes(b"t/a#7").unwrap_err(), IdError::Revision);
    }

    #[test]
    fn a_letter_key_is_a_place_in_a_topic() {
        let key = LetterKey {
            topic: "documents.parsed.bulk".into(),
            partition: 11,
            offset: 1 << 40,
        };
        assert_eq!(key.to_string(), "documents.parsed.bulk/11/1099511627776");
        assert_eq!(key.to_string().parse(), Ok(key.clone()));
        assert_eq!(LetterKey::from_bytes(key.to_string().as_bytes()), Ok(key));
        assert_eq!(LetterKey::from_bytes(b"t/1/\xff"), Err(IdError::LetterKey));
        for bad in [
            "",
            "t",
            "t/1",
            "/1/2",
            "t/1/2/3",
            "t/-1/2",
            "t/1/-2",
            "t/x/2",
            "t/1/9223372036854775808",
        ] {
            assert_eq!(bad.parse::<LetterKey>(), Err(IdError::LetterKey), "{bad:?}");
        }
    }

    #[test]
    fn names_are_refused_not_repaired() {
        for bad in ["", "a/b", "ü", "a b", &"x".repeat(65)] {
            assert_eq!(Tenant::new(bad), Err(IdError::Tenant), "{bad:?}");
        }
        assert_eq!(DocumentId::new(""), Err(IdError::DocumentIdLength(0)));
        assert_eq!(DocumentId::new("x".repeat(513)), Err(IdError::DocumentIdLength(513)));
        assert_eq!(DocumentId::new("a\nb"), Err(IdError::DocumentIdControl(1)));
        assert!(DocumentId::new("ü/#/日本").is_ok());
    }

    #[test]
    fn every_revision_is_exact_as_a_double() {
        let last = Revision::new(Epoch::new(31).unwrap(), (1 << 48) - 1).unwrap();
        assert!(last.get() < 1 << 53);
        assert_eq!((last.epoch(), last.offset()), (31, (1 << 48) - 1));
        assert!(Revision::new(Epoch::FIRST, 1 << 48).is_err());
        assert!(Revision::new(Epoch::FIRST, -1).is_err());
        for bad in [0, -1, 5, 1 << 53] {
            assert!(Revision::from_i64(bad).is_err(), "{bad}");
        }
        assert!(Epoch::new(0).is_err() && Epoch::new(32).is_err());
    }
}
