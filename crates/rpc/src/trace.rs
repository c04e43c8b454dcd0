//! W3C trace context in gRPC metadata.

use millrace_telemetry::{Span, TRACEPARENT, TRACESTATE, TraceContext};
use tonic::metadata::{MetadataMap, MetadataValue};

/// The context of the call that is answered: its span's, else the caller's, or a new one where none came or what came is
/// not valid.
///
/// As W3C has it: a second `traceparent` makes both invalid, a later version is read as version 00, several
/// `tracestate` lines are one list.
pub fn from_request(metadata: &MetadataMap) -> TraceContext {
    let own = Span::current().trace_context();
    own.or_else(|| of_caller(metadata))
        .unwrap_or_else(TraceContext::generate)
}

/// Puts a trace context into outgoing metadata, instead of one that is there.
pub fn inject(context: &TraceContext, metadata: &mut MetadataMap) {
    metadata.remove(TRACEPARENT);
    metadata.remove(TRACESTATE);
    if let Ok(value) = MetadataValue::try_from(context.traceparent()) {
        metadata.insert(TRACEPARENT, value);
    }
    if let Some(Ok(value)) = context.tracestate().map(MetadataValue::try_from) {
        metadata.insert(TRACESTATE, value);
    }
}

/// The caller's, if one came.
pub(crate) fn of_caller(metadata: &MetadataMap) -> Option<TraceContext> {
    let mut parents = metadata.get_all(TRACEPARENT).iter();
    let (Some(parent), None) = (parents.next(), parents.next()) else {
        return None;
    };
    let states: Option<Vec<&str>> = metadata.get_all(TRACESTATE).iter().map(|v| v.to_str().ok()).collect();
    let context = parse(parent.to_str().ok()?.trim())?;
    Some(context.with_tracestate(states.map(|s| s.join(","))))
}

fn parse(text: &str) -> Option<TraceContext> {
    if let Ok(context) = text.parse() {
        return Some(context);
    }
    // A later version keeps the first four fields: 55 characters, then the end or a dash.
    let (version, _) = text.split_once('-')?;
    let later = version.len() == 2
        && version.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        && !matches!(version, "00" | "ff");
    let fields = text.get(2..55)?;
    (later && matches!(text.as_bytes().get(55), None | Some(b'-'))).then(|| format!("00{fields}").parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn metadata(lines: &[(&'static str, &str)]) -> MetadataMap {
        let mut metadata = MetadataMap::new();
        for (name, value) in lines {
            metadata.append(*name, value.parse().unwrap());
        }
        metadata
    }

    #[test]
    fn a_context_that_comes_is_taken() {
        let context = from_request(&metadata(&[
            ("traceparent", PARENT),
            ("tracestate", "a=1"),
            ("tracestate", "b=2"),
        ]));
        assert_eq!((context.traceparent(), context.tracestate()), (PARENT, Some("a=1,b=2")));
    }

    #[test]
    fn a_later_version_is_read_as_the_first() {
        for later in [
            PARENT.replacen("00", "cc", 1),
            format!("{}-more", PARENT.replacen("00", "01", 1)),
        ] {
            assert_eq!(
                from_request(&metadata(&[("traceparent", &later)])).traceparent(),
                PARENT,
                "{later}"
            );
        }
    }

    #[test]
    fn otherwise_a_new_one_is_made() {
        let long = format!("{PARENT}x");
        let forbidden = PARENT.replacen("00", "ff", 1);
        for lines in [
            vec![],
            vec![("traceparent", "nonsense")],
            vec![("traceparent", long.as_str())],
            vec![("traceparent", forbidden.as_str())],
            vec![("traceparent", PARENT), ("traceparent", PARENT)],
        ] {
            let (one, two) = (from_request(&metadata(&lines)), from_request(&metadata(&lines)));
            assert_ne!(one.trace_id(), two.trace_id(), "{lines:?}");
            assert_ne!(one.traceparent(), PARENT, "{lines:?}");
        }
    }

    #[test]
    fn what_is_injected_is_taken_on_the_other_side() {
        let context = TraceContext::generate().with_tracestate(Some("vendor=1".into()));
        let mut outgoing = metadata(&[("traceparent", PARENT), ("tracestate", "old=1")]);
        inject(&context, &mut outgoing);
        assert_eq!(from_request(&outgoing), context);
    }
}
