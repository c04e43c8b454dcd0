//! A short storm on a stack of its own, and its verdict.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use millrace_oracle::Options;
use millrace_testkit::{Size, Stack};
use tokio_util::sync::CancellationToken;

/// How long a canary may stand still is not judged: a debug build on a busy machine recovers as slowly as it does anything.
const NOT_JUDGED: &str = "canary_gap";

pub async fn a_short_storm_breaks_no_promise(_: &mut Option<Stack>) -> Result<()> {
    let options = Options {
        storm: Duration::from_secs(40),
        seed: 1,
        documents: 12,
        canary_every: Duration::from_secs(5),
        calm: Duration::from_secs(180),
        mutant: None,
        slow_search: false,
        size: Size::default(),
    };
    let millrace = Path::new(env!("CARGO_BIN_EXE_millrace"));
    let report = millrace_oracle::run(millrace, &options, &CancellationToken::new(), &|_| ()).await?;
    println!("{} faults, {} searches", report.fault_count, report.searches);
    let found = report
        .verdict
        .0
        .iter()
        .filter(|(kind, finding)| **kind != NOT_JUDGED && finding.count > 0);
    ensure!(found.count() == 0, "{report}");
    ensure!(
        report.fault_count > 2 && report.searches > 50,
        "nothing happened: {report}"
    );
    Ok(())
}
