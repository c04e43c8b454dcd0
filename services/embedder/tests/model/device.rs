//! The device is lost, hangs or has no memory: the real runtime in a process of its own, which is killed and frozen. On a GPU
//! where `MILLRACE_TEST_CUDA_ONNXRUNTIME` names a runtime that is built for one, else on the processor.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use futures::future::join_all;
use millrace_embedder::batch::{BatchLimits, Class, Embedder, batcher};
use millrace_embedder::model::onnx::{Gpu, Provider};
use millrace_embedder::model::openvino::OpenVino;
use millrace_embedder::model::{BackendError, Choice, Loaded, ModelSource, Plan, Vector};
use millrace_testkit::children::children;

use crate::source;

/// The service's own program; at run time, since the compiler's wrapper loses variables whose names have a hyphen.
pub(crate) fn built() -> PathBuf {
    let named = ["MILLRACE_TEST_EMBEDDER", "CARGO_BIN_EXE_millrace-embedder"];
    let found = named.into_iter().find_map(std::env::var_os);
    found.expect("run by cargo, or MILLRACE_TEST_EMBEDDER is set").into()
}

fn cuda() -> Option<PathBuf> {
    std::env::var_os("MILLRACE_TEST_CUDA_ONNXRUNTIME").map(PathBuf::from)
}

/// Says what a test did not do.
fn skipped(test: &str) {
    println!("SKIPPED {test}: MILLRACE_TEST_CUDA_ONNXRUNTIME names no runtime built for a GPU");
}

fn device() -> Choice {
    if cuda().is_some() { Choice::Cuda } else { Choice::Cpu }
}

/// As it is unless configured.
pub(crate) const NICE: u8 = 10;

pub(crate) fn plan(backends: &[Choice], program: &Path) -> Plan {
    let source = source();
    Plan {
        dir: source.dir,
        backends: backends.to_vec(),
        onnxruntime: cuda().unwrap_or(source.onnxruntime),
        nice: NICE,
        threads: None,
        gpu: Gpu::default(),
        openvino: OpenVino::default(),
        own_process: vec![device()],
        program: program.to_owned(),
        endpoint: None,
        call_limit: Duration::from_secs(60),
    }
}

/// Runs a test against the batcher around what a plan opens.
pub(crate) async fn with<F: Future<Output = ()>>(plan: Plan, limits: BatchLimits, test: impl FnOnce(Embedder) -> F) {
    let loaded = tokio::task::spawn_blocking(move || plan.open()).await.unwrap().unwrap();
    let (embedder, batcher) = batcher(loaded, limits);
    let (ended, ()) = tokio::join!(batcher.run(), test(embedder));
    ended.unwrap();
}

/// Texts of some length, each another one.
pub(crate) fn texts(count: usize) -> Vec<String> {
    let text = |at: usize| format!("{at} {}", "the river turns the wheel of the mill ".repeat(1 + at % 12));
    (0..count).map(text).collect()
}

/// What the processor alone gives.
pub(crate) fn expected(texts: &[String]) -> Vec<Vector> {
    let mut model = Loaded::load(&ModelSource {
        onnxruntime: cuda().unwrap_or_else(|| source().onnxruntime),
        ..source()
    })
    .unwrap();
    let gate = model.gate();
    let embed = |text: &String| {
        let tokens = model.tokenizer.tokenize(text).unwrap();
        let vector = model.backend.embed(&[&tokens]).unwrap().remove(0);
        gate.pass(vector).unwrap()
    };
    texts.iter().map(embed).collect()
}

pub(crate) fn assert_same(found: &[Vector], expected: &[Vector]) {
    assert_eq!(found.len(), expected.len());
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        let pairs = found.values().iter().zip(expected.values());
        let apart = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(apart <= 1e-5, "text {at}: {apart} apart");
    }
}

/// The processes that have the sessions of this embedder: children of ours that are workers.
fn workers(of: &Path) -> Vec<i32> {
    let is_worker = |command: &str| command.contains("model-worker") && command.starts_with(&*of.to_string_lossy());
    children(std::process::id().cast_signed(), is_worker).unwrap()
}

fn signal(name: &str, pid: i32) {
    assert!(
        Command::new("kill")
            .arg(format!("-{name}"))
            .arg(pid.to_string())
            .status()
            .unwrap()
            .success()
    );
}

/// A name of its own for the program: tests tell their workers from those of others by it.
fn program(dir: &tempfile::TempDir) -> PathBuf {
    let link = dir.path().join("millrace-embedder");
    std::os::unix::fs::symlink(built(), &link).unwrap();
    link
}

/// Embeds many parts while `fault` befalls the one worker: every vector comes, and is the right one.
async fn through(fault: &str, call_limit: Duration) {
    let dir = tempfile::tempdir().unwrap();
    let program = program(&dir);
    let mut plan = plan(&[device()], &program);
    (plan.program, plan.call_limit) = (program.clone(), call_limit);
    with(plan, BatchLimits::default(), |embedder| async move {
        let texts = texts(192);
        let before = workers(&program);
        assert_eq!(before.len(), 1, "{before:?}");
        let parts = texts
            .chunks(16)
            .map(|part| embedder.embed(part.to_vec(), Class::Document));
        let parts = join_all(parts);
        let strike = async {
            // While a batch is at work or the next one is.
            let first = embedder.embed(vec!["the first one".into()], Class::Query).await;
            assert!(first.is_ok());
            signal(fault, before[0]);
        };
        let began = Instant::now();
        let (parts, ()) = tokio::join!(parts, strike);
        let vectors: Vec<Vector> = parts.into_iter().flat_map(Result::unwrap).collect();
        println!("{fault}: {} vectors in {:?}", vectors.len(), began.elapsed());
        assert_same(&vectors, &expected(&texts));
        let after = workers(&program);
        assert!(after.len() == 1 && after != before, "{before:?} {after:?}");
        let at_work = embedder.at_work();
        assert_eq!(at_work.stands_in_for, None, "{at_work:?}");
    })
    .await;
}

#[tokio::test]
async fn a_device_that_dies_is_made_anew_and_nobody_notices() {
    through("KILL", Duration::from_secs(60)).await;
}

#[tokio::test]
async fn a_device_that_hangs_is_given_up_and_made_anew() {
    // Long for a batch beside all the other tests.
    through("STOP", Duration::from_secs(8)).await;
}

/// The device is gone for a while: the processor stands in, and leaves when it is back.
#[tokio::test]
async fn a_device_that_is_gone_is_stood_in_for_until_it_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let (real, gone) = (program(&dir), dir.path().join("gone"));
    let script = dir.path().join("worker.sh");
    let text = format!(
        "#!/bin/sh\n[ -e {} ] && exit 1\nexec {} \"$@\"\n",
        gone.display(),
        real.display()
    );
    std::fs::write(&script, text).unwrap();
    assert!(Command::new("chmod").arg("+x").arg(&script).status().unwrap().success());
    // Where there is no GPU both are the processor, told apart by their processes.
    let other = if device() == Choice::Cuda {
        Choice::Cpu
    } else {
        Choice::Cuda
    };
    let mut plan = plan(&[device(), other], &script);
    plan.program = script;
    if device() == Choice::Cpu {
        return skipped("a_device_that_is_gone_is_stood_in_for_until_it_is_back");
    }
    with(plan, BatchLimits::default(), |embedder| async move {
        let texts = texts(64);
        let expected = expected(&texts);
        assert_eq!(embedder.at_work().device, "cuda:0");
        std::fs::write(&gone, "").unwrap();
        workers(&real).into_iter().for_each(|pid| signal("KILL", pid));
        let vectors = embedder.embed(texts.clone(), Class::Document).await.unwrap();
        assert_same(&vectors, &expected);
        let at_work = embedder.at_work();
        assert_eq!((at_work.device.as_str(), at_work.stands_in_for), ("cpu", Some("cuda")));
        std::fs::remove_file(&gone).unwrap();
        let limit = Instant::now() + Duration::from_secs(60);
        while embedder.at_work().stands_in_for.is_some() {
            let vectors = embedder.embed(texts.clone(), Class::Document).await.unwrap();
            assert_same(&vectors, &expected);
            assert!(Instant::now() < limit, "it never took over");
        }
        println!("back on {}", embedder.at_work().device);
    })
    .await;
}

#[tokio::test]
async fn a_gpu_gives_the_vectors_that_the_processor_gives() {
    let Some(library) = cuda() else {
        return skipped("a_gpu_gives_the_vectors_that_the_processor_gives");
    };
    let texts = texts(256);
    let expected = expected(&texts);
    let mut gpu = Loaded::load(&ModelSource {
        onnxruntime: library,
        provider: Provider::Cuda(Gpu::default()),
        ..source()
    })
    .unwrap();
    assert_eq!(gpu.backend.describe().device, "cuda:0");
    let gate = gpu.gate();
    let tokens: Vec<_> = texts.iter().map(|text| gpu.tokenizer.tokenize(text).unwrap()).collect();
    let vectors = gpu.backend.embed(&tokens.iter().collect::<Vec<_>>()).unwrap();
    let vectors: Vec<Vector> = vectors.into_iter().map(|vector| gate.pass(vector).unwrap()).collect();
    assert_same(&vectors, &expected);
}

/// A GPU with memory for small batches only: large ones are halved until they fit, and none is lost.
#[tokio::test]
async fn a_gpu_without_memory_for_a_batch_computes_it_in_pieces() {
    if cuda().is_none() {
        return skipped("a_gpu_without_memory_for_a_batch_computes_it_in_pieces");
    }
    let mut plan = plan(&[Choice::Cuda], &built());
    plan.gpu.memory_limit = Some(600 << 20);
    // All at once there is none.
    let mut alone = Loaded::load(&ModelSource {
        onnxruntime: plan.onnxruntime.clone(),
        provider: Provider::Cuda(plan.gpu),
        ..source()
    })
    .unwrap();
    let long = alone.tokenizer.tokenize(&"river wheel ".repeat(250)).unwrap();
    let refused = alone.backend.embed(&[&long; 256]);
    assert!(matches!(refused, Err(BackendError::TooLarge(_))), "{:?}", refused.err());
    drop(alone);
    let limits = BatchLimits {
        max_batch_tokens: 131_072,
        max_batch_texts: 256,
        max_waiting_tokens: 262_144,
        ..BatchLimits::default()
    };
    with(plan, limits, |embedder| async move {
        let texts: Vec<String> = (0..256)
            .map(|at| format!("{at} {}", "river wheel ".repeat(250)))
            .collect();
        let parts = texts
            .chunks(32)
            .map(|part| embedder.embed(part.to_vec(), Class::Document));
        let parts: Vec<_> = join_all(parts).await;
        let vectors: Vec<Vector> = parts.into_iter().flat_map(Result::unwrap).collect();
        assert_same(&vectors[..8], &expected(&texts[..8]));
        assert_eq!(vectors.len(), 256);
        assert_eq!(embedder.at_work().device, "cuda:0");
    })
    .await;
}
