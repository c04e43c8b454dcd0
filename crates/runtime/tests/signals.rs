//! Signals reach every `Tasks` of a process: one test in a process of its own.
// Clippy takes only `#[test]` functions for tests, not what they call.
#![allow(clippy::unwrap_used)]

use std::convert::Infallible;
use std::process::Command;
use std::time::Duration;

use millrace_runtime::tasks::{TaskError, Tasks};

fn send(signal: &str) {
    let pid = std::process::id().to_string();
    assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
}

#[tokio::test]
async fn a_signal_stops_the_process_while_it_starts_while_it_runs_and_a_second_one_at_once() {
    let mut tasks = Tasks::new().unwrap();
    send("-TERM");
    assert_eq!(tasks.unless_stopped(std::future::pending::<()>()).await, None);
    tasks.run_until_signal().await.unwrap();

    let mut tasks = Tasks::new().unwrap();
    let token = tasks.shutdown_token();
    tasks.spawn("stage", async move {
        token.cancelled().await;
        Ok::<_, Infallible>(())
    });
    send("-INT");
    tasks.run_until_signal().await.unwrap();

    let mut tasks = Tasks::new().unwrap().with_bound(Duration::from_secs(3600));
    let token = tasks.shutdown_token();
    tasks.spawn("stuck", async move {
        token.cancelled().await;
        send("-TERM");
        std::future::pending::<Result<(), Infallible>>().await
    });
    send("-TERM");
    let error = tasks.run_until_signal().await.unwrap_err();
    assert!(
        matches!(&error, TaskError::CutOff { tasks } if tasks == &["stuck"]),
        "{error}"
    );
}
