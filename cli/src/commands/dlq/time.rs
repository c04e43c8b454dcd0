//! Times on the command line, in UTC: a date, a date with a time, or how long ago.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// Milliseconds since 1970 UTC of `2026-01-31`, `2026-01-31T13:40`, `2026-01-31T13:40:05Z`, or of `90s`, `30m`, `2h`, `7d`
/// before now.
pub fn parse(text: &str) -> Result<i64, String> {
    let read = ago_ms(text).map(|ago_ms| Timestamp::now().as_millisecond() - ago_ms);
    let read = read.or_else(|| moment(text).map(Timestamp::as_millisecond));
    read.ok_or_else(|| {
        "a time is 90s, 30m, 2h or 7d ago, or a date in UTC: 2026-01-31 or 2026-01-31T13:40:05Z".to_owned()
    })
}

fn ago_ms(text: &str) -> Option<i64> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        _ => return None,
    };
    number.parse::<u32>().ok().map(|n| i64::from(n) * seconds * 1000)
}

fn moment(text: &str) -> Option<Timestamp> {
    let in_utc = || text.parse::<DateTime>().ok()?.to_zoned(TimeZone::UTC).ok();
    text.parse().ok().or_else(|| in_utc().map(|zoned| zoned.timestamp()))
}

/// `2026-01-31T13:40:05Z`; `-` where no time is known.
pub fn show(at_ms: i64) -> String {
    match Timestamp::from_second(at_ms.div_euclid(1000)) {
        Ok(at) if at_ms > 0 => at.to_string(),
        _ => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_is_shown_reads_back() {
        let (text, at_ms) = ("2026-11-22T12:31:14Z", 1_795_350_674_000);
        assert_eq!(parse(text), Ok(at_ms));
        assert_eq!(show(at_ms + 999), text);
        assert_eq!(show(0), "-");
        assert_eq!(parse("2026-11-22"), parse("2026-11-22T00:00:00Z"));
        assert_eq!(parse("2026-11-22T00:01"), parse("2026-11-22T00:01:00Z"));
    }

    #[test]
    fn how_long_ago_counts_from_now() {
        let hours = Timestamp::now().as_millisecond() - parse("2h").unwrap();
        assert!((7_200_000..7_260_000).contains(&hours), "{hours}");
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for bad in ["", "h", "-2h", "2w", "2026-02-29", "2026-1", "yesterday"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
