//! Numbers written as text: Java reads `"NaN"` or `"1.5"` as the default of a float or double.

/// What `Double.parseDouble` makes of a text.
///
/// | text | number |
/// |---|---|
/// | `1`, `-1.5`, `.5`, `5.`, `1e3` | yes |
/// | with `f`, `F`, `d` or `D` behind | yes |
/// | `NaN`, `Infinity`, with a sign | yes |
/// | `0x1.8p3`: hexadecimal, with its exponent | yes |
/// | white space around | yes |
/// | `inf`, `nan`, `1_000`, empty | no |
pub(crate) fn java_double(text: &str) -> Option<f64> {
    let text = text.trim_matches(|c: char| c <= ' ');
    let (negative, body) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let value = match body {
        "NaN" => f64::NAN,
        "Infinity" => f64::INFINITY,
        _ => {
            let digits = body.strip_suffix(['f', 'F', 'd', 'D']).unwrap_or(body);
            match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
                // `0x1f` is no number without an exponent, so that its last letter is not missed.
                Some(hex) => hexadecimal(hex)?,
                None => decimal(digits)?,
            }
        }
    };
    Some(if negative { -value } else { value })
}

fn decimal(text: &str) -> Option<f64> {
    let plain = text
        .bytes()
        .all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'));
    let begins = text.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    (plain && begins).then(|| text.parse().ok()).flatten()
}

fn hexadecimal(text: &str) -> Option<f64> {
    let (mantissa, exponent) = text.split_once(['p', 'P'])?;
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits: String = [whole, fraction].concat();
    if digits.is_empty() || !exponent.bytes().last()?.is_ascii_digit() {
        return None;
    }
    let value = digits
        .chars()
        .try_fold(0.0, |value, c| Some(value * 16.0 + f64::from(c.to_digit(16)?)))?;
    let exponent: i32 = exponent.parse().ok()?;
    let shift = i32::try_from(fraction.len()).ok()?.checked_mul(4)?;
    Some(value * 2f64.powi(exponent.saturating_sub(shift)))
}

#[cfg(test)]
mod tests {
    use super::java_double;

    #[test]
    fn numbers_are_what_java_says() {
        for (text, number) in [
            ("1", Some(1.0)),
            (" -1.5 ", Some(-1.5)),
            (".5", Some(0.5)),
            ("5.", Some(5.0)),
            ("1e3", Some(1000.0)),
            ("+2f", Some(2.0)),
            ("2D", Some(2.0)),
            ("Infinity", Some(f64::INFINITY)),
            ("-Infinity", Some(f64::NEG_INFINITY)),
            ("0x1.8p3", Some(12.0)),
            ("0x1.8p3f", Some(12.0)),
            ("0x1f", None),
            ("inf", None),
            ("nan", None),
            ("1_000", None),
            ("1e", None),
            ("--1", None),
            (".", None),
            ("", None),
            ("one", None),
        ] {
            assert_eq!(java_double(text), number, "{text}");
        }
        assert!(java_double("NaN").unwrap().is_nan());
    }
}
