//! What is committed for a partition: its lowest unfinished offset, and beside it, in the offset's metadata, what is
//! finished above. The text is a contract between versions of the services.
//!
//! `1;s=<starts>;o=<offset in quarantine>;a=<attempts>;b=<bitmap>`
//! `2;s=<starts>;o=<offset in quarantine>;a=<attempts>;r=<runs>`
//!
//! | field | meaning |
//! |---|---|
//! | `1`, `2` | version of the format; a reader refuses any other and replays nothing |
//! | `s` | starts without advance since the last clean drain |
//! | `o` | offset that runs alone in quarantine, empty when none |
//! | `a` | times it was started alone since something last ended |
//! | `b` | base64url without padding; bit i (least significant first) set = offset committed + 1 + i is finished; trailing zero bytes cut |
//! | `r` | from offset committed + 1 on, `<unfinished>.<finished>` counts of offsets, joined by commas; the rest is unfinished |
//!
//! Version 1 is written wherever its bitmap of 8,192 bits reaches, version 2 beyond it: few unfinished records far
//! apart, as one that waits for an hour while its partition flows. Empty metadata means that nothing above the offset
//! is finished. Offsets that are never delivered (transaction markers, aborted records) count as finished. Either text
//! stays below the 4,096 bytes a broker takes: 8,192 bits are 1,366 characters, [`MAX_RUNS`] runs at most 3,700.

use std::fmt::Write as _;
use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rangemap::RangeSet;

/// Widest bitmap that is written and read, in bits.
pub const MAX_BITS: i64 = 8192;
/// Most runs that are written and read.
pub const MAX_RUNS: usize = 300;

/// A partition's progress as it is committed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Position {
    /// Lowest unfinished offset: the one that is committed.
    pub offset: i64,
    /// Finished offsets above it.
    pub finished: RangeSet<i64>,
    /// What is known of deaths.
    pub mark: Mark,
}

/// What a position says of starts that came to nothing: see [`crate::quarantine`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mark {
    /// Starts without advance since the last clean drain.
    pub starts: u32,
    /// Offset that runs alone in quarantine.
    pub alone: Option<i64>,
    /// Times it was started alone since something last ended.
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
        let Mark {
            starts,
            alone,
            attempts,
        } = self.mark;
        if self.finished.is_empty() && self.mark == Mark::default() {
            return String::new();
        }
        let end = self.finished.last().map_or(self.offset + 1, |range| range.end);
        let alone = alone.map(|offset| offset.to_string()).unwrap_or_default();
        if end - self.offset - 1 <= MAX_BITS {
            let bitmap = URL_SAFE_NO_PAD.encode(self.bitmap());
            format!("1;s={starts};o={alone};a={attempts};b={bitmap}")
        } else {
            format!("2;s={starts};o={alone};a={attempts};r={}", self.runs())
        }
    }

    fn bitmap(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for bit in self
            .finished
            .iter()
            .flat_map(Range::clone)
            .map(|at| at - self.offset - 1)
        {
            let bit = usize::try_from(bit).unwrap_or_default();
            if bytes.len() <= bit / 8 {
                bytes.resize(bit / 8 + 1, 0u8);
            }
            bytes[bit / 8] |= 1 << (bit % 8);
        }
        bytes
    }

    fn runs(&self) -> String {
        debug_assert!(self.finished.len() <= MAX_RUNS + 1, "the window bounds its runs");
        let (mut text, mut at) = (String::new(), self.offset + 1);
        for Range { start, end } in self.finished.iter() {
            let comma = if text.is_empty() { "" } else { "," };
            let _ = write!(text, "{comma}{}.{}", start - at, end - start);
            at = *end;
        }
        text
    }

    /// Reads a committed offset with its metadata.
    pub fn parse(offset: i64, metadata: &str) -> Result<Self, MetadataError> {
        if metadata.is_empty() {
            return Ok(Self::at(offset));
        }
        let (version, rest) = metadata.split_once(';').unwrap_or((metadata, ""));
        type Read = fn(i64, &str) -> Option<RangeSet<i64>>;
        let (name, read): (_, Read) = match version {
            "1" => ("b", from_bitmap as Read),
            "2" => ("r", from_runs as Read),
            other => return Err(MetadataError::Version(other.chars().take(16).collect())),
        };
        let mut fields = rest.split(';');
        let mut field = |name: &'static str| {
            let found = fields.next().and_then(|f| f.strip_prefix(name)?.strip_prefix('='));
            found.ok_or(MetadataError::Unreadable(name))
        };
        let (starts, alone, attempts, finished) = (field("s")?, field("o")?, field("a")?, field(name)?);
        if fields.next().is_some() {
            return Err(MetadataError::Unreadable("end"));
        }
        let alone = match alone {
            "" => None,
            number => Some(number.parse().map_err(|_| MetadataError::Unreadable("o"))?),
        };
        Ok(Self {
            offset,
            finished: read(offset, finished).ok_or(MetadataError::Unreadable(name))?,
            mark: Mark {
                starts: starts.parse().map_err(|_| MetadataError::Unreadable("s"))?,
                alone,
                attempts: attempts.parse().map_err(|_| MetadataError::Unreadable("a"))?,
            },
        })
    }
}

fn from_bitmap(offset: i64, text: &str) -> Option<RangeSet<i64>> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    let mut finished = RangeSet::new();
    for bit in (0..bytes.len() * 8).filter(|bit| bytes[bit / 8] & (1 << (bit % 8)) != 0) {
        let at = offset + 1 + i64::try_from(bit).ok().filter(|bit| *bit < MAX_BITS)?;
        finished.insert(at..at + 1);
    }
    Some(finished)
}

fn from_runs(offset: i64, text: &str) -> Option<RangeSet<i64>> {
    let (mut finished, mut at) = (RangeSet::new(), offset + 1);
    for (count, run) in text.split(',').enumerate() {
        if count > MAX_RUNS {
            return None;
        }
        let (open, done) = run.split_once('.')?;
        let (open, done): (u32, u32) = (open.parse().ok()?, done.parse().ok().filter(|done| *done > 0)?);
        let start = at + i64::from(open);
        at = start + i64::from(done);
        finished.insert(start..at);
    }
    Some(finished)
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "sets of offsets, not vectors")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn position<const N: usize>(offset: i64, finished: [Range<i64>; N]) -> Position {
        Position {
            finished: finished.into(),
            ..Position::at(offset)
        }
    }

    #[test]
    fn the_text_is_frozen() {
        assert_eq!(Position::at(100).metadata(), "");
        let mut some = position(100, [101..102, 103..104, 109..110]);
        assert_eq!(some.metadata(), "1;s=0;o=;a=0;b=BQE");
        some.mark = Mark {
            starts: 2,
            alone: Some(100),
            attempts: 3,
        };
        assert_eq!(some.metadata(), "1;s=2;o=100;a=3;b=BQE");
        assert_eq!(Position::parse(100, "1;s=2;o=100;a=3;b=BQE"), Ok(some));
        assert_eq!(Position::parse(7, ""), Ok(Position::at(7)));
        let far = position(100, [101..9000, 9001..9003]);
        assert_eq!(far.metadata(), "2;s=0;o=;a=0;r=0.8899,1.2");
        assert_eq!(Position::parse(100, "2;s=0;o=;a=0;r=0.8899,1.2"), Ok(far));
    }

    #[test]
    fn the_bitmap_is_written_as_far_as_it_reaches() {
        let widest = position(0, [MAX_BITS..MAX_BITS + 1]);
        assert!(widest.metadata().starts_with("1;"));
        assert_eq!(Position::parse(0, &widest.metadata()), Ok(widest));
        let wider = position(0, [MAX_BITS + 1..MAX_BITS + 2]);
        assert!(wider.metadata().starts_with("2;"));
        assert_eq!(Position::parse(0, &wider.metadata()), Ok(wider));
    }

    #[test]
    fn what_it_cannot_read_it_refuses() {
        assert_eq!(Position::parse(0, "3;x=1"), Err(MetadataError::Version("3".into())));
        for (text, at) in [
            ("1", "s"),
            ("1;s=x;o=;a=0;b=", "s"),
            ("1;s=0;a=0;b=", "o"),
            ("1;s=0;o=y;a=0;b=", "o"),
            ("1;s=0;o=;a=-1;b=", "a"),
            ("1;s=0;o=;a=0;b=*", "b"),
            ("1;s=0;o=;a=0;r=0.1", "b"),
            ("1;s=0;o=;a=0;b=BQE;c=1", "end"),
            ("2;s=0;o=;a=0;r=", "r"),
            ("2;s=0;o=;a=0;r=1", "r"),
            ("2;s=0;o=;a=0;r=1.0", "r"),
            ("2;s=0;o=;a=0;r=-1.5", "r"),
            ("2;s=0;o=;a=0;r=1.99999999999999999999", "r"),
        ] {
            assert_eq!(Position::parse(0, text), Err(MetadataError::Unreadable(at)), "{text}");
        }
        let wide = URL_SAFE_NO_PAD.encode(vec![255u8; 1025]);
        assert!(Position::parse(0, &format!("1;s=0;o=;a=0;b={wide}")).is_err());
    }

    #[test]
    fn the_widest_texts_fit_what_a_broker_takes() {
        let mut full = position(i64::from(u32::MAX), []);
        full.finished.insert(full.offset + 1..full.offset + 1 + MAX_BITS);
        assert!(full.metadata().len() < 1400);
        let mut many = position(1 << 40, []);
        many.mark = Mark {
            starts: u32::MAX,
            alone: Some(i64::MAX),
            attempts: u32::MAX,
        };
        // The runs of a window that has MAX_RUNS records open over its whole span.
        let step = crate::window::MAX_SPAN / MAX_RUNS as i64;
        for run in 0..MAX_RUNS as i64 {
            let start = many.offset + 2 + run * step;
            many.finished.insert(start..start + step - 1);
        }
        assert!(many.metadata().len() < 4000, "{}", many.metadata().len());
        assert!(Position::parse(0, &format!("{},1.1", many.metadata())).is_ok());
        assert!(Position::parse(0, &format!("{},1.1,1.1", many.metadata())).is_err());
        assert_eq!(Position::parse(many.offset, &many.metadata()), Ok(many));
    }

    proptest! {
        #[test]
        fn it_reads_what_it_wrote(
            offset in 0i64..1 << 47,
            runs in proptest::collection::vec((1i64..40, 1i64..4000), 0..200),
            starts in 0u32..9, alone in proptest::option::of(0i64..99), attempts in 0u32..9,
        ) {
            let mut position = Position { mark: Mark { starts, alone, attempts }, ..Position::at(offset) };
            let mut at = offset + 1;
            for (open, done) in runs {
                position.finished.insert(at + open..at + open + done);
                at += open + done;
            }
            prop_assert_eq!(Position::parse(offset, &position.metadata()), Ok(position));
        }
    }
}
