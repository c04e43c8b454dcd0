//! `millrace trace`.

use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::json;

use crate::client::Target;
use crate::output;
use crate::stack::state::Layout;
use crate::traces::store;
use crate::traces::tree::{Line, Share, Trace};

/// Widest a name is shown, so that a line fits 100 columns.
const NAME_COLUMNS: usize = 56;

/// Show the way of one document through the services, and where its time went
///
/// `millrace up` keeps the last traces in its directory; this reads them there, whether the stack runs or not. With
/// OTEL_EXPORTER_OTLP_ENDPOINT set for `up`, traces go to that address instead: look there for the trace id of a receipt.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millrace trace README.md                                the last trace of a document
  millrace trace guides/intro.md --tenant acme
  millrace trace 4bf92f3577b34da6a3ce929d0e0e4736         as a receipt, a dead letter or a log line names it
  millrace trace README.md --json | jq '.shares'")]
pub struct TraceOf {
    /// A document, or a trace id of 32 hexadecimal digits
    #[arg(value_name = "DOCUMENT|TRACE_ID")]
    what: String,
    /// Whose document
    #[arg(long, default_value = "default")]
    tenant: String,
    /// One JSON object: spans, linked spans, shares of the time
    #[arg(long)]
    json: bool,
}

/// Shows a trace.
pub async fn run(command: TraceOf, target: &Target) -> Result<()> {
    let folder = Layout::new(&target.dir)?.data(crate::traces::PART);
    // Up to a hundred megabytes are read.
    let found = tokio::task::spawn_blocking(move || {
        let TraceOf { what, tenant, json } = command;
        let id = match is_trace_id(&what) {
            true => Some(what.clone()),
            false => Trace::newest_of(&folder, &format!("{tenant}/{what}"))?,
        };
        let trace = match &id {
            Some(id) => Trace::read(&folder, id)?,
            None => Trace::default(),
        };
        anyhow::Ok((id.unwrap_or(what), trace, json, folder))
    });
    let (id, trace, json, folder) = found.await??;
    if trace.spans.is_empty() {
        bail!(
            "no span of {id} is kept in {}: there the last {} MiB are, of stacks that `millrace up` started without \
             OTEL_EXPORTER_OTLP_ENDPOINT; spans come up to a second late",
            folder.display(),
            store::KEPT_BYTES >> 20
        );
    }
    let shares = trace.shares();
    if json {
        let total_ns = trace.ended_ns() - trace.began_ns();
        output::json(&json!({
            "trace_id": id, "total_ns": total_ns, "shares": shares, "spans": trace.spans, "linked": trace.linked,
        }));
        return Ok(());
    }
    text(&id, &trace, &shares).into_iter().for_each(output::line);
    Ok(())
}

fn is_trace_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn text(id: &str, trace: &Trace, shares: &[Share]) -> Vec<String> {
    let (began, total) = (trace.began_ns(), trace.ended_ns() - trace.began_ns());
    let mut lines = vec![format!("trace {id}: {}", time(total)), String::new()];
    lines.push(format!("{:>9} {:>9}  span", "at", "took"));
    lines.extend(trace.lines().iter().map(|line| line_text(line, began)));
    lines.extend([String::new(), "where the time went".to_owned()]);
    for Share { what, ns } in shares {
        let percent = (ns * 100).checked_div(total).unwrap_or(0);
        lines.push(format!("{:>9} {percent:>3} %  {what}", time(*ns)));
    }
    lines
}

fn line_text(line: &Line<'_>, began: u64) -> String {
    let span = line.span;
    // What is linked may have begun before.
    let at = match span.from_ns.checked_sub(began) {
        Some(after) => time(after),
        None => format!("-{}", time(began - span.from_ns)),
    };
    let mark = if line.linked { "~ " } else { "" };
    let name = format!("{}{mark}{}", "  ".repeat(line.depth), span.name);
    let error = span
        .error
        .as_ref()
        .map(|error| format!("  FAILED {error}"))
        .unwrap_or_default();
    let took = time(span.until_ns.saturating_sub(span.from_ns));
    format!("{at:>9} {took:>9}  {name:<NAME_COLUMNS$} {}{error}", span.service)
}

/// Three digits at most, with the unit.
fn time(ns: u64) -> String {
    let time = Duration::from_nanos(ns);
    match ns {
        0..1_000_000 => format!("{} us", time.as_micros()),
        1_000_000..10_000_000 => format!("{:.1} ms", time.as_secs_f64() * 1e3),
        10_000_000..1_000_000_000 => format!("{} ms", time.as_millis()),
        _ => format!("{:.2} s", time.as_secs_f64()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_its_unit() {
        let rows = [
            (0, "0 us"),
            (999_999, "999 us"),
            (1_250_000, "1.2 ms"),
            (45_600_000, "45 ms"),
            (2_500_000_000, "2.50 s"),
        ];
        for (ns, text) in rows {
            assert_eq!(time(ns), text);
        }
    }

    #[test]
    fn a_trace_id_is_told_from_a_document() {
        assert!(is_trace_id("4bf92f3577b34da6a3ce929d0e0e4736"));
        assert!(!is_trace_id("README.md") && !is_trace_id("4BF92F3577B34DA6A3CE929D0E0E4736"));
    }
}
