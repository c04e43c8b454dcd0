//! A whole stack to be measured, and what benches on one have in common.

use std::time::Duration;

use anyhow::{Context, Result};
use millrace_testkit::{Size, Stack};

/// Of a stub's vectors: those of the model whose tokenizer the stack has.
pub const DIMENSIONS: usize = 384;
/// Submitted at once.
pub const AT_ONCE: usize = 64;
/// For all to be indexed.
pub const INDEXED_WITHIN: Duration = Duration::from_secs(600);

/// Measures on a new stack of this program, which is stopped in every case. Its parts have these variables in their
/// environment; with traces, `up` receives them.
pub async fn on_stack<T>(
    mut environment: Vec<(String, String)>,
    traces: bool,
    measure: impl AsyncFnOnce(&Stack) -> Result<T>,
) -> Result<T> {
    let millrace = std::env::current_exe().context("cannot find this program's own file")?;
    // Texts repeat, and the model is to be asked each time.
    environment.push(("MILLRACE_EMBEDDER_CACHE__DIR".to_owned(), String::new()));
    environment.push(("OTEL_SDK_DISABLED".to_owned(), (!traces).to_string()));
    // Not to whom this process's own environment says.
    environment.push(("OTEL_EXPORTER_OTLP_ENDPOINT".to_owned(), String::new()));
    let stack = Stack::up_with(&millrace, Size::default(), environment, |_| ()).await?;
    let measured = measure(&stack).await;
    let stopped = stack.down().await;
    let measured = measured?;
    stopped?;
    Ok(measured)
}
