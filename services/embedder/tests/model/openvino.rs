//! OpenVINO, of the tests' own Python environment or where `MILLRACE_TEST_OPENVINO` says: in f32 beside the reference that the
//! ONNX Runtime is held against, in bf16 beside f32 where the processor has it.

use std::path::{Path, PathBuf};

use millrace_embedder::batch::{BatchLimits, Class};
use millrace_embedder::model::openvino::{OpenVino, OpenVinoBackend, OpenVinoOptions, Precision};
use millrace_embedder::model::{Backend, Choice, Description, Loaded, Manifest, Plan, Tokenizer, Vector};

use crate::device::{NICE, assert_same, built, expected, plan, texts, with};
use crate::parity::{BGE_SMALL, E5_SMALL, Known, MINILM, of_model};
use crate::{parity, python};

/// Blocking.
fn library() -> PathBuf {
    let named = std::env::var_os("MILLRACE_TEST_OPENVINO").map(PathBuf::from);
    named.unwrap_or_else(|| python("openvino_library.py", &[], "").into())
}

fn open(dir: &Path, precision: Precision) -> Loaded {
    let library = library();
    let openvino = OpenVino {
        library,
        precision,
        streams: None,
    };
    Loaded::load_on_openvino(dir, &openvino, None).unwrap()
}

/// Why bf16 cannot be asked for, if it cannot. OpenVINO may compute in it without such instructions, slowly.
fn no_bf16() -> Option<&'static str> {
    let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let has = flags.split_whitespace().any(|flag| flag == "avx512_bf16");
    (!has).then_some("this processor has no avx512_bf16")
}

async fn in_f32(known: Known) {
    of_model(known, |dir| open(&dir, Precision::F32)).await;
}

#[tokio::test]
async fn minilm_in_f32_is_that_of_others() {
    in_f32(MINILM).await;
}

#[tokio::test]
async fn bge_small_in_f32_is_that_of_others() {
    in_f32(BGE_SMALL).await;
}

#[tokio::test]
async fn e5_small_in_f32_is_that_of_others() {
    in_f32(E5_SMALL).await;
}

/// In batches of four, so that there is padding.
fn vectors(model: &mut Loaded, texts: &[String]) -> Vec<Vector> {
    let gate = model.gate();
    let tokens: Vec<_> = texts
        .iter()
        .map(|text| model.tokenizer.tokenize(text).unwrap())
        .collect();
    let batches = tokens.chunks(4).map(|batch| batch.iter().collect::<Vec<_>>());
    let vectors = batches.flat_map(|batch| model.backend.embed(&batch).unwrap());
    vectors.map(|vector| gate.pass(vector).unwrap()).collect()
}

#[test]
fn bf16_is_as_good_as_f32() {
    if let Some(why) = no_bf16() {
        println!("SKIPPED bf16_is_as_good_as_f32: {why}");
        return;
    }
    // E5's vectors are all near each other: on texts that it is not proven with it may be a little worse.
    for (known, at_least) in [(MINILM, 0.9999), (BGE_SMALL, 0.9999), (E5_SMALL, 0.9995)] {
        let (dir, texts) = (known.dir(), parity::texts());
        let mut fast = open(&dir, Precision::Bf16);
        let says = fast.backend.describe();
        assert_eq!((says.precision, says.batch_independent), ("bf16", false), "{says:?}");
        let exact = vectors(&mut open(&dir, Precision::F32), &texts);
        let fast = vectors(&mut fast, &texts);
        let pairs = texts.iter().zip(exact.iter().zip(&fast));
        let cosines = pairs.map(|(text, (exact, fast))| (exact.cosine(fast), text));
        let (least, text) = cosines.min_by(|a, b| a.0.total_cmp(&b.0)).unwrap();
        println!("{}: {least} of {text:.40}", dir.display());
        assert!(least >= at_least, "{least}: {text}");
    }
}

/// Without a proof there is nothing to pass, whatever the processor has: f32 is at work, and right.
#[test]
fn f32_computes_where_bf16_is_refused() {
    let dir = MINILM.dir();
    let manifest = Manifest::read(&dir).unwrap();
    let tokenizer = Tokenizer::read(&dir, manifest.max_tokens).unwrap();
    let options = OpenVinoOptions {
        library: library(),
        precision: Precision::Bf16,
        threads: 1,
        streams: 1,
        pad_id: tokenizer.pad_id(),
        proof: Vec::new(),
    };
    let (backend, fell_back) = OpenVinoBackend::open(&dir, &manifest, &options).unwrap();
    println!("{fell_back:?}");
    assert!(fell_back.is_some());
    let says = backend.describe();
    assert_eq!((says.precision, says.batch_independent), ("f32", true), "{says:?}");
    let mut refused = Loaded {
        manifest,
        tokenizer,
        backend: Box::new(backend),
        proven: false,
    };
    let texts = texts(16);
    assert_same(&vectors(&mut refused, &texts), &expected(&texts));
}

fn on_openvino(backends: &[Choice], library: PathBuf) -> Plan {
    let openvino = OpenVino {
        library,
        precision: Precision::F32,
        streams: None,
    };
    Plan {
        openvino,
        own_process: Vec::new(),
        ..plan(backends, &built())
    }
}

/// What computes, and that its vectors are right.
async fn at_work(plan: Plan) -> Description {
    let (tell, told) = tokio::sync::oneshot::channel();
    with(plan, BatchLimits::default(), |embedder| async move {
        let texts = texts(64);
        let vectors = embedder.embed(texts.clone(), Class::Document).await.unwrap();
        assert_same(&vectors, &expected(&texts));
        tell.send(embedder.at_work()).unwrap();
    })
    .await;
    told.await.unwrap()
}

#[tokio::test]
async fn it_runs_in_a_process_of_its_own() {
    let library = tokio::task::spawn_blocking(library).await.unwrap();
    let at_work = at_work(Plan {
        own_process: vec![Choice::OpenVino],
        ..on_openvino(&[Choice::OpenVino], library)
    })
    .await;
    println!("{at_work:?}");
    assert_eq!(
        (at_work.name, at_work.device.as_str(), at_work.precision),
        ("openvino", "cpu", "f32")
    );
    assert!(
        at_work.version.starts_with("20") && at_work.batch_independent,
        "{at_work:?}"
    );
}

/// It says what it computes in, whether its bf16 passes here or not.
#[tokio::test]
async fn bf16_runs_in_a_process_of_its_own() {
    let library = tokio::task::spawn_blocking(library).await.unwrap();
    let mut plan = Plan {
        own_process: vec![Choice::OpenVino],
        ..on_openvino(&[Choice::OpenVino], library)
    };
    plan.openvino.precision = Precision::Bf16;
    with(plan, BatchLimits::default(), |embedder| async move {
        let texts = texts(64);
        let vectors = embedder.embed(texts.clone(), Class::Document).await.unwrap();
        let pairs = expected(&texts).into_iter().zip(&vectors);
        let least = pairs.map(|(exact, found)| exact.cosine(found)).min_by(f32::total_cmp);
        let at_work = embedder.at_work();
        println!("{at_work:?}: {least:?}");
        assert!(least.unwrap() >= 0.9999, "{least:?}");
        assert_eq!(at_work.batch_independent, at_work.precision == "f32", "{at_work:?}");
        if no_bf16().is_some() {
            assert_eq!(at_work.precision, "f32", "{at_work:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn without_its_library_the_next_backend_stands_in() {
    let missing = PathBuf::from("/nowhere/libopenvino_c.so");
    let at_work = at_work(on_openvino(&[Choice::OpenVino, Choice::Cpu], missing.clone())).await;
    assert_eq!((at_work.name, at_work.stands_in_for), ("onnxruntime", Some("openvino")));
    let alone = on_openvino(&[Choice::OpenVino], missing);
    let error = tokio::task::spawn_blocking(|| alone.open()).await.unwrap();
    let error = error.err().unwrap().to_string();
    assert!(
        error.contains("/nowhere/libopenvino_c.so") && error.contains("PyPI"),
        "{error}"
    );
}

#[tokio::test]
async fn auto_measures_it_too() {
    let library = tokio::task::spawn_blocking(library).await.unwrap();
    // Nothing else works. Were it not measured, the others would come before it, and it would stand in for the first of them.
    let at_work = at_work(Plan {
        onnxruntime: "/nowhere/libonnxruntime.so".into(),
        ..on_openvino(&[Choice::Auto], library)
    })
    .await;
    println!("{at_work:?}");
    assert_eq!((at_work.name, at_work.stands_in_for), ("openvino", None));
}

/// Name and nice value of each thread of this process.
#[cfg(target_os = "linux")]
fn threads() -> Vec<(String, i32)> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let stats = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("stat")).ok());
    let thread = |stat: String| {
        let (before, after) = stat.rsplit_once(')')?;
        let name = before.split_once('(')?.1.to_owned();
        // The 19th field of proc(5); the name is the second.
        Some((name, after.split_whitespace().nth(16)?.parse().ok()?))
    };
    stats.filter_map(thread).collect()
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn its_threads_give_way_and_others_do_not() {
    let library = tokio::task::spawn_blocking(library).await.unwrap();
    with(
        on_openvino(&[Choice::OpenVino], library),
        BatchLimits::default(),
        |embedder| async move {
            embedder.embed(texts(8), Class::Document).await.unwrap();
            let own = rustix::process::getpriority_process(None).unwrap();
            let of_model: Vec<_> = threads()
                .into_iter()
                .filter(|(name, _)| name.starts_with("model-openvino"))
                .collect();
            // The one that asks, and at least one that computes.
            assert!(of_model.len() > 1, "{of_model:?}");
            assert!(
                of_model
                    .iter()
                    .all(|(_, nice)| *nice == (own + i32::from(NICE)).min(19)),
                "{of_model:?}"
            );
            let others = threads().into_iter().filter(|(name, _)| !name.starts_with("model-"));
            let nicest = others.map(|(_, nice)| nice).max();
            assert_eq!(nicest, Some(own));
        },
    )
    .await;
}
