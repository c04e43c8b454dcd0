//! Logical types. One that does not fit its type is ignored, as every implementation does.

use std::fmt;

use super::Kind;
use super::json::Object;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Logical {
    Decimal {
        precision: i32,
        scale: i32,
    },
    BigDecimal,
    Uuid,
    Duration,
    Date,
    /// Times and timestamps, by their name.
    Time(&'static str),
}

const LONG_TIMES: [&str; 7] = [
    "time-micros",
    "timestamp-millis",
    "timestamp-micros",
    "timestamp-nanos",
    "local-timestamp-millis",
    "local-timestamp-micros",
    "local-timestamp-nanos",
];

/// The logical type of a definition.
///
/// | logical type | on |
/// |---|---|
/// | decimal | bytes; fixed that can hold so many digits. 1 <= precision, 0 <= scale <= precision |
/// | big-decimal | bytes |
/// | uuid | string, fixed(16) |
/// | duration | fixed(12) |
/// | date, time-millis | int |
/// | time-micros, all timestamps | long |
///
/// `Err` carries the name of one that is known but does not fit; a name that is not known is no logical type.
pub(crate) fn of<'a>(kind: &Kind, definition: &'a Object) -> Result<Option<Logical>, &'a str> {
    let Some(name) = definition.text("logicalType") else {
        return Ok(None);
    };
    let fits = |fits: bool, logical: Logical| if fits { Ok(Some(logical)) } else { Err(name) };
    match name {
        "decimal" => decimal(kind, definition).map(Some).ok_or(name),
        "big-decimal" => fits(matches!(kind, Kind::Bytes), Logical::BigDecimal),
        "uuid" => {
            let on = matches!(kind, Kind::String) || matches!(kind, Kind::Fixed(fixed) if fixed.size == 16);
            fits(on, Logical::Uuid)
        }
        "duration" => fits(matches!(kind, Kind::Fixed(f) if f.size == 12), Logical::Duration),
        "date" => fits(matches!(kind, Kind::Int), Logical::Date),
        "time-millis" => fits(matches!(kind, Kind::Int), Logical::Time("time-millis")),
        _ => match LONG_TIMES.iter().find(|known| **known == name) {
            Some(known) => fits(matches!(kind, Kind::Long), Logical::Time(known)),
            None => Ok(None),
        },
    }
}

fn decimal(kind: &Kind, definition: &Object) -> Option<Logical> {
    let precision = definition.get("precision")?.as_int()?;
    let scale = match definition.get("scale") {
        Some(scale) => scale.as_int()?,
        None => 0,
    };
    let most = match kind {
        Kind::Bytes => f64::from(i32::MAX),
        Kind::Fixed(fixed) => (2f64.log10() * (8.0 * f64::from(fixed.size) - 1.0)).floor(),
        _ => return None,
    };
    let fits = precision > 0 && f64::from(precision) <= most && (0..=precision).contains(&scale);
    fits.then_some(Logical::Decimal { precision, scale })
}

impl fmt::Display for Logical {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Decimal { precision, scale } => write!(f, "decimal({precision},{scale})"),
            Self::BigDecimal => f.write_str("big-decimal"),
            Self::Uuid => f.write_str("uuid"),
            Self::Duration => f.write_str("duration"),
            Self::Date => f.write_str("date"),
            Self::Time(name) => f.write_str(name),
        }
    }
}
