use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

async fn until(token: CancellationToken) -> Result<(), Infallible> {
    token.cancelled().await;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn all_tasks_stop_when_asked() {
    let mut tasks = Tasks::new().unwrap();
    let token = tasks.shutdown_token();
    tasks.spawn("stage", until(token.clone()));
    tasks.spawn("server", until(token.clone()));
    tasks.spawn_once("warm-up", async { Ok::<_, Infallible>(()) });
    token.cancel();
    tasks.run_until_signal().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_first_failure_stops_the_others_and_is_the_answer() {
    let mut tasks = Tasks::new().unwrap();
    let token = tasks.shutdown_token();
    let drained = Arc::new(AtomicBool::new(false));
    let flag = drained.clone();
    tasks.spawn("stage", async move {
        token.cancelled().await;
        flag.store(true, Ordering::SeqCst);
        Err::<(), _>("a later failure")
    });
    tasks.spawn("replica", async { Err::<(), _>(io::Error::other("no space left")) });
    let error = tasks.run_until_signal().await.unwrap_err();
    assert_eq!(chain(&error), "task replica failed: no space left");
    assert_eq!(error.cause::<io::Error>().unwrap().kind(), io::ErrorKind::Other);
    assert!(drained.load(Ordering::SeqCst));
}

#[tokio::test(start_paused = true)]
async fn a_task_that_ends_too_early_or_panics_is_a_failure() {
    let mut tasks = Tasks::new().unwrap();
    tasks.spawn("stage", async { Ok::<_, Infallible>(()) });
    let error = tasks.run_until_signal().await.unwrap_err();
    assert!(matches!(error, TaskError::EndedEarly { task: "stage" }), "{error}");

    let mut tasks = Tasks::new().unwrap();
    tasks.spawn("stage", async {
        if true {
            panic!("index {}", 3)
        } else {
            Ok::<_, Infallible>(())
        }
    });
    let error = tasks.run_until_signal().await.unwrap_err();
    assert_eq!(error.to_string(), "task stage panicked: index 3");
}

#[tokio::test(start_paused = true)]
async fn what_does_not_stop_is_named_and_cut_off() {
    let mut tasks = Tasks::new().unwrap().with_bound(Duration::from_secs(3));
    let token = tasks.shutdown_token();
    tasks.spawn("server", until(token.clone()));
    tasks.spawn("stuck", std::future::pending::<Result<(), Infallible>>());
    token.cancel();
    let began = tokio::time::Instant::now();
    let error = tasks.run_until_signal().await.unwrap_err();
    assert_eq!(error.to_string(), "not stopped within 3s and cut off: stuck");
    assert_eq!(began.elapsed().as_secs(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_step_of_the_start_is_cut_short() {
    let mut tasks = Tasks::new().unwrap();
    assert_eq!(tasks.unless_stopped(async { 5 }).await, Some(5));
    let token = tasks.shutdown_token();
    let (step, ()) = tokio::join!(tasks.unless_stopped(std::future::pending::<()>()), async {
        token.cancel()
    });
    assert_eq!(step, None);
    tasks.run_until_signal().await.unwrap();
}
