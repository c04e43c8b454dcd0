//! What is committed for a partition: its lowest unfinished offset, and beside it, in the offset's metadata, what is
//! finished above. The text is a contract between versions of the services.
//!
//! `1;s=<starts>;o=<offset in quarantine>;a=<attempts>;b=<bitmap>`
//!
//! | field | meaning |
//! |---|---|
//! | `1` | version of the format; a reader refuses any other and replays nothing |
//! | `s` | starts without advance since the last clean drain |
//! | `o` | offset that runs alone in quarantine, empty when none |
//! | `a` | attempts of that record |
//! | `b` | base64url without padding; bit i (least significant first) set = offset committed + 1 + i is finished; trailing zero bytes cut |
//!
//! Empty metadata means that nothing above the offset is finished. Offsets that are never delivered (transaction
//! markers, aborted records) count as finished. 8,192 bits are 1,366 characters: far below the 4,096 bytes a broker
//! takes.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Widest bitmap that is written and read, in bits.
pub const MAX_BITS: i64 = 8192;

/// A partition's progress as it is committed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Position {
    /// Lowest unfinished offset: the one that is committed.
    pub offset: i64,
    /// Finished offsets above it, within [`MAX_BITS`].
    pub finished: BTreeSet<i64>,
    /// Starts without advance since the last clean drain.
    pub starts: u32,
    /// Offset that runs alone in quarantine.
    pub quarantine: Option<i64>,
    /// Attempts of the record in quarantine.
    pub attempts: u32,
}

/// Why metadata cannot be used. The partition stops: guessing would repeat or skip records.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    /// Written by a version that this one does not know.
    #[error(
        "offset metadata of version {0:?} is not known here: run the version of Millrace that wrote it, or a newer one"
    )]
    Version(String),
    /// Not in the format.
    #[error("offset metadata is not readable at {0}: it was not written by Millrace, or was cut")]
    Unreadable(&'static str),
}

impl Position {
    /// Nothing is finished from `offset` on.
    pub fn at(offset: i64) -> Self {
        Self {
            offset,
            ..Self::default()
        }
    }

    /// The metadata to commit beside [`Self::offset`]; empty when there is nothing to say.
    pub fn metadata(&self) -> String {
        if self.finished.is_empty() && self.starts == 0 && self.quarantine.is_none() && self.attempts == 0 {
            return String::new();
        }
        let mut bytes = Vec::new();
        for bit in self.finished.iter().map(|offset| offset - self.offset - 1) {
            debug_assert!((0..MAX_BITS).contains(&bit), "finished offsets lie within the window");
            let Ok(bit) = usize::try_from(bit) else { continue };
            if bytes.len() <= bit / 8 {
                bytes.resize(bit / 8 + 1, 0u8);
            }
            bytes[bit / 8] |= 1 << (bit % 8);
        }
        let mut text = format!("1;s={};o=", self.starts);
        if let Some(offset) = self.quarantine {
            let _ = write!(text, "{offset}");
        }
        let _ = write!(text, ";a={};b={}", self.attempts, URL_SAFE_NO_PAD.encode(bytes));
        text
    }

    /// Reads a committed offset with its metadata.
    pub fn parse(offset: i64, metadata: &str) -> Result<Self, MetadataError> {
        if metadata.is_empty() {
            return Ok(Self::at(offset));
        }
        let (version, rest) = metadata.split_once(';').unwrap_or((metadata, ""));
        if version != "1" {
            return Err(MetadataError::Version(version.chars().take(16).collect()));
        }
        let mut fields = rest.split(';');
        let mut field = |name: &'static str| {
            let found = fields.next().and_then(|f| f.strip_prefix(name)?.strip_prefix('='));
            found.ok_or(MetadataError::Unreadable(name))
        };
        let (starts, quarantine, attempts, bitmap) = (field("s")?, field("o")?, field("a")?, field("b")?);
        if fields.next().is_some() {
            return Err(MetadataError::Unreadable("end"));
        }
        let quarantine = match quarantine {
            "" => None,
            number => Some(number.parse().map_err(|_| MetadataError::Unreadable("o"))?),
        };
        Ok(Self {
            offset,
            finished: bits(offset, bitmap)?,
            starts: starts.parse().map_err(|_| MetadataError::Unreadable("s"))?,
            quarantine,
            attempts: attempts.parse().map_err(|_| MetadataError::Unreadable("a"))?,
        })
    }
}

fn bits(offset: i64, bitmap: &str) -> Result<BTreeSet<i64>, MetadataError> {
    let bytes = URL_SAFE_NO_PAD
        .decode(bitmap)
        .map_err(|_| MetadataError::Unreadable("b"))?;
    if bytes.len() as i64 > MAX_BITS / 8 {
        return Err(MetadataError::Unreadable("b"));
    }
    let set = |(index, byte): (usize, &u8)| {
        let byte = *byte;
        (0..8)
            .filter(move |bit| byte & (1 << bit) != 0)
            .map(move |bit| index * 8 + bit)
    };
    Ok(bytes
        .iter()
        .enumerate()
        .flat_map(set)
        .map(|bit| offset + 1 + bit as i64)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_text_is_frozen() {
        let mut position = Position::at(100);
        assert_eq!(position.metadata(), "");
        position.finished = [101, 103, 109].into();
        assert_eq!(position.metadata(), "1;s=0;o=;a=0;b=BQE");
        position.quarantine = Some(100);
        (position.starts, position.attempts) = (2, 3);
        assert_eq!(position.metadata(), "1;s=2;o=100;a=3;b=BQE");
        assert_eq!(Position::parse(100, "1;s=2;o=100;a=3;b=BQE"), Ok(position));
        assert_eq!(Position::parse(7, ""), Ok(Position::at(7)));
    }

    #[test]
    fn what_it_cannot_read_it_refuses() {
        assert_eq!(Position::parse(0, "2;x=1"), Err(MetadataError::Version("2".into())));
        for (text, at) in [
            ("1", "s"),
            ("1;s=x;o=;a=0;b=", "s"),
            ("1;s=0;a=0;b=", "o"),
            ("1;s=0;o=y;a=0;b=", "o"),
            ("1;s=0;o=;a=-1;b=", "a"),
            ("1;s=0;o=;a=0;b=*", "b"),
            ("1;s=0;o=;a=0;b=BQE;c=1", "end"),
        ] {
            assert_eq!(Position::parse(0, text), Err(MetadataError::Unreadable(at)), "{text}");
        }
        let wide = URL_SAFE_NO_PAD.encode(vec![255u8; 1025]);
        assert!(Position::parse(0, &format!("1;s=0;o=;a=0;b={wide}")).is_err());
    }

    #[test]
    fn a_full_window_fits_what_a_broker_takes() {
        let mut position = Position::at(i64::from(u32::MAX));
        position.finished = (1..=MAX_BITS).map(|i| position.offset + i).collect();
        assert!(position.metadata().len() < 1400);
    }

    proptest! {
        #[test]
        fn it_reads_what_it_wrote(
            offset in 0i64..1 << 47,
            bits in proptest::collection::btree_set(0..MAX_BITS, 0..200),
            starts in 0u32..9, quarantine in proptest::option::of(0i64..99), attempts in 0u32..9,
        ) {
            let position = Position {
                offset, finished: bits.into_iter().map(|b| offset + 1 + b).collect(), starts, quarantine, attempts,
            };
            prop_assert_eq!(Position::parse(offset, &position.metadata()), Ok(position));
        }
    }
}
