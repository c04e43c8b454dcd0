use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

/// W3C trace context: trace, span and flags.
pub const TRACEPARENT: &str = "traceparent";
/// W3C vendor state that travels with [`TRACEPARENT`].
pub const TRACESTATE: &str = "tracestate";

/// A W3C `traceparent` (version 00) with the `tracestate` that came with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    traceparent: String,
    tracestate: Option<String>,
}

/// A text that is not a `traceparent` of version 00.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a traceparent is 00-<32 hex digits, not all 0>-<16 hex digits, not all 0>-<2 hex digits>")]
pub struct InvalidTraceparent;

impl TraceContext {
    /// Starts a trace, sampled.
    pub fn generate() -> Self {
        let trace = Uuid::new_v4().simple();
        let span = &Uuid::new_v4().simple().to_string()[..16];
        Self {
            traceparent: format!("00-{trace}-{span}-01"),
            tracestate: None,
        }
    }
    /// Adds the vendor state that came with the traceparent.
    #[must_use]
    pub fn with_tracestate(mut self, tracestate: Option<String>) -> Self {
        self.tracestate = tracestate.filter(|s| !s.is_empty() && s.len() <= 512);
        self
    }
    /// The trace id: 32 hexadecimal digits.
    pub fn trace_id(&self) -> &str {
        &self.traceparent[3..35]
    }
    /// The parent span's id: 16 hexadecimal digits.
    pub fn span_id(&self) -> &str {
        &self.traceparent[36..52]
    }
    /// The flags.
    pub fn flags(&self) -> u8 {
        u8::from_str_radix(&self.traceparent[53..55], 16).unwrap_or_default()
    }
    /// The whole `traceparent`.
    pub fn traceparent(&self) -> &str {
        &self.traceparent
    }
    /// The `tracestate`, if one came.
    pub fn tracestate(&self) -> Option<&str> {
        self.tracestate.as_deref()
    }
}

impl FromStr for TraceContext {
    type Err = InvalidTraceparent;
    fn from_str(text: &str) -> Result<Self, InvalidTraceparent> {
        let fields: Vec<&str> = text.split('-').collect();
        let [version, trace, span, flags] = fields[..] else {
            return Err(InvalidTraceparent);
        };
        let hex = |s: &str, len: usize| s.len() == len && s.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let set = |s: &str| s.bytes().any(|b| b != b'0');
        if version == "00" && hex(trace, 32) && set(trace) && hex(span, 16) && set(span) && hex(flags, 2) {
            Ok(Self {
                traceparent: text.to_owned(),
                tracestate: None,
            })
        } else {
            Err(InvalidTraceparent)
        }
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.traceparent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_context_reads_back() {
        let made = TraceContext::generate();
        assert_eq!(made.traceparent().parse::<TraceContext>().unwrap(), made);
        assert_eq!(made.trace_id().len(), 32);
    }

    #[test]
    fn what_is_not_version_00_is_refused() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert!(good.parse::<TraceContext>().is_ok());
        for bad in [
            "",
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
        ] {
            assert_eq!(bad.parse::<TraceContext>(), Err(InvalidTraceparent), "{bad}");
        }
    }
}
