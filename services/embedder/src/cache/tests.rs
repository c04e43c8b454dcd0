//! The batcher around a fake backend with a real cache: each session opens the folder, and closes it at its end.

use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use tempfile::TempDir;

use super::*;
use crate::batch::fake::{self, Fake};
use crate::batch::{Class, EmbedError, Embedded, Embedder, InputKind};
use crate::model::tokenizer::tests::trapped;
use crate::model::{Outage, TextError};

fn options(dir: &Path) -> CacheOptions {
    CacheOptions {
        dir: dir.to_owned(),
        max_mib: 64,
        memory_mib: 1,
    }
}

async fn open(dir: &Path, manifest: &Manifest) -> (Cache, Writer) {
    let opened = Cache::open(&options(dir), manifest, &trapped(16)).await;
    opened.unwrap().unwrap()
}

/// One life of an embedder on a folder: what the test does with it, and then its orderly end.
async fn session<T, F: Future<Output = T>>(
    dir: &Path,
    manifest: Manifest,
    fake: &Fake,
    test: impl FnOnce(Embedder) -> F,
) -> T {
    let (cache, writer) = open(dir, &manifest).await;
    let (embedder, batcher) = fake::batcher_with(fake, manifest, Some(cache));
    let (ended, written, result) = tokio::join!(batcher.run(), writer.run(), test(embedder));
    ended.unwrap();
    written.unwrap();
    result
}

async fn embed(embedder: &Embedder, texts: &[&str]) -> Result<Embedded, EmbedError> {
    let texts = texts.iter().map(|text| (*text).to_owned()).collect();
    embedder.embed_as(texts, Class::Document, InputKind::Document).await
}

/// A session that embeds these; gives the vectors and tokens.
async fn embedded(dir: &Path, manifest: Manifest, fake: &Fake, texts: &[&str]) -> Embedded {
    session(dir, manifest, fake, |embedder| async move {
        embed(&embedder, texts).await.unwrap()
    })
    .await
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

#[tokio::test]
async fn an_update_computes_the_chunks_that_changed() {
    let (dir, fake) = (folder(), Fake::default());
    let manifest = Manifest {
        normalized: true,
        ..fake::manifest()
    };
    let first = embedded(dir.path(), manifest.clone(), &fake, &["a a b", "b", "a"]).await;
    assert_eq!(fake.texts(), 3);
    let again = embedded(dir.path(), manifest.clone(), &fake, &["a a b", "b", "a"]).await;
    assert_eq!((fake.texts(), &again), (3, &first));
    let bits = |embedded: &Embedded| -> Vec<u32> {
        let vectors = embedded.vectors.iter().flat_map(|vector| vector.values());
        vectors.map(|value| value.to_bits()).collect()
    };
    assert_eq!(bits(&again), bits(&first));
    let update = embedded(dir.path(), manifest, &fake, &["a a b", "a b b", "a"]).await;
    assert_eq!((fake.texts(), update.tokens), (4, 7));
    assert_eq!(
        [&update.vectors[0], &update.vectors[2]],
        [&first.vectors[0], &first.vectors[2]]
    );
    assert_ne!(update.vectors[1], first.vectors[1]);
}

#[tokio::test]
async fn what_the_cache_has_needs_no_model() {
    let (dir, fake) = (folder(), Fake::default());
    embedded(dir.path(), fake::manifest(), &fake, &["a", "a b"]).await;
    fake.break_down(true);
    session(dir.path(), fake::manifest(), &fake.clone(), |embedder| async move {
        let calls = fake.calls();
        assert_eq!(embed(&embedder, &["a b", "a"]).await.unwrap().tokens, 3);
        assert_eq!(fake.calls(), calls);
        let away = Outage::Broken("the device is gone".into());
        assert_eq!(embed(&embedder, &["a", "b"]).await, Err(EmbedError::Outage(away)));
    })
    .await;
}

/// A row for each thing that is another model.
#[tokio::test]
async fn another_model_meets_no_old_vector() {
    let (dir, fake) = (folder(), Fake::default());
    embedded(dir.path(), fake::manifest(), &fake, &["a"]).await;
    let revision = Manifest {
        sha256: "1".repeat(64),
        ..fake::manifest()
    };
    let prefix = Manifest {
        document_prefix: "b ".into(),
        ..fake::manifest()
    };
    for (computed, manifest) in [(2, revision), (3, prefix), (3, fake::manifest())] {
        embedded(dir.path(), manifest, &fake, &["a"]).await;
        assert_eq!(fake.texts(), computed);
    }
}

#[tokio::test]
async fn an_error_names_the_callers_place() {
    let (dir, fake) = (folder(), Fake::default());
    embedded(dir.path(), fake::manifest(), &fake, &["a", "b"]).await;
    session(dir.path(), fake::manifest(), &fake, |embedder| async move {
        let failed = embed(&embedder, &["a", "a a", "b", "b b b"]).await;
        let why = "three".into();
        assert_eq!(failed, Err(EmbedError::Failed { index: 3, why }));
        let refused = embed(&embedder, &["a", "b", "b b b b b"]).await;
        let why = "five".into();
        assert_eq!(refused, Err(EmbedError::Refused { index: 2, why }));
        let empty = embed(&embedder, &["b", " ", "a"]).await;
        let source = TextError::Empty;
        assert_eq!(empty, Err(EmbedError::Text { index: 1, source }));
    })
    .await;
}

/// A batch that fails for a text has the canary sing after it: so the first vector is proven, the second never.
#[tokio::test]
async fn nothing_is_remembered_before_a_canary() {
    let (dir, fake) = (folder(), Fake::default());
    session(dir.path(), fake::manifest(), &fake, |embedder| {
        let fake = fake.clone();
        async move {
            embed(&embedder, &["a"]).await.unwrap();
            embed(&embedder, &["b b b"]).await.unwrap_err();
            fake.lie();
            let nonsense = embed(&embedder, &["a b"]).await.unwrap();
            assert_eq!(nonsense.vectors[0].values(), [7.0, 7.0]);
        }
    })
    .await;
    let honest = Fake::default();
    let found = embedded(dir.path(), fake::manifest(), &honest, &["a", "a b"]).await;
    assert_eq!(honest.texts(), 1, "the first is remembered, the nonsense is not");
    let values: Vec<_> = found.vectors.iter().map(Vector::values).collect();
    assert_eq!(values, [[1.0, 0.0], [1.0, 1.0]]);
}

#[tokio::test]
async fn what_another_instance_computed_is_not_vouched_for() {
    let (dir, fake) = (folder(), Fake::default());
    session(dir.path(), fake::manifest(), &fake, |embedder| {
        let fake = fake.clone();
        async move {
            embed(&embedder, &["a"]).await.unwrap();
            fake.reborn();
            // It may be of either.
            embed(&embedder, &["b"]).await.unwrap();
            embed(&embedder, &["a b"]).await.unwrap();
        }
    })
    .await;
    assert_eq!(fake.texts(), 3);
    embedded(dir.path(), fake::manifest(), &fake, &["a", "b", "a b"]).await;
    assert_eq!(fake.texts(), 5);
}

fn size_of(dir: &Path) -> u64 {
    let files = |dir: &Path| std::fs::read_dir(dir).unwrap().map(|file| file.unwrap().path());
    let (folders, files): (Vec<_>, Vec<_>) = files(dir).partition(|path| path.is_dir());
    let file = |path: &PathBuf| {
        let metadata = path.metadata().unwrap();
        metadata.len().max(512 * metadata.blocks())
    };
    files.iter().map(file).sum::<u64>() + folders.iter().map(|dir| size_of(dir)).sum::<u64>()
}

fn numbered(cache: &Cache, number: usize) -> (Key, Entry) {
    let values = (0..cache.gate.dimensions).map(|at| (number + at) as f32 + 1.0);
    let vector = cache.gate.pass(values.collect()).unwrap();
    (cache.key("", &number.to_string()), Entry { vector, tokens: 1 })
}

/// Vectors of 32 KiB each.
fn large() -> Manifest {
    Manifest {
        dimensions: 8_000,
        ..fake::manifest()
    }
}

/// A session in which large ones are handed over, 64 in a lot.
async fn filled(dir: &Path, lots: Range<usize>) {
    let (cache, writer) = open(dir, &large()).await;
    let fill = async move {
        for lot in lots {
            let lot = (0..64).map(|at| numbered(&cache, 64 * lot + at)).collect();
            cache.lots.send(lot).await.unwrap();
        }
    };
    let (written, ()) = tokio::join!(writer.run(), fill);
    written.unwrap();
}

/// Which of these are found by a process that starts.
async fn found(dir: &Path, numbers: [usize; 2]) -> [bool; 2] {
    let (cache, _writer) = open(dir, &large()).await;
    let entries = numbers.map(|number| numbered(&cache, number));
    let found = cache.lookup(&entries.each_ref().map(|(key, _)| *key)).await;
    [0, 1].map(|at| found[at].as_ref().is_some_and(|found| *found == entries[at].1))
}

#[tokio::test]
async fn the_bound_on_disk_is_kept_and_the_last_is_there() {
    let dir = folder();
    // A quarter more than there is room for.
    filled(dir.path(), 0..40).await;
    let size = size_of(dir.path());
    assert!(size <= (64 << 20) + (64 << 10), "{size}");
    assert_eq!(found(dir.path(), [0, 2_559]).await, [false, true]);
}

/// From the second lot on: the files that have nothing yet take nothing.
#[tokio::test]
async fn a_disk_that_is_full_costs_nobody_anything() {
    let dir = folder();
    filled(dir.path(), 0..1).await;
    let full = full_file(1 << 20);
    let mut replaced = 0;
    for file in std::fs::read_dir(dir.path().join("blocks")).unwrap() {
        let path = file.unwrap().path();
        if path.metadata().unwrap().blocks() == 0 {
            std::fs::remove_file(&path).unwrap();
            std::os::unix::fs::symlink(format!("/proc/self/fd/{}", full.as_raw_fd()), path).unwrap();
            replaced += 1;
        }
    }
    // 31 entries of 32 KiB fit into one of a MiB, so that 64 take three.
    assert_eq!(replaced, BLOCKS - 3);
    filled(dir.path(), 1..40).await;
    assert_eq!(found(dir.path(), [0, 2_559]).await, [true, false]);
}

/// Its writes fail.
fn full_file(bytes: u64) -> std::fs::File {
    let file = memfd_create("full", MemfdFlags::ALLOW_SEALING).unwrap();
    let file = std::fs::File::from(file);
    file.set_len(bytes).unwrap();
    fcntl_add_seals(&file, SealFlags::WRITE).unwrap();
    file
}

/// The files as they are while the process runs are all that a kill leaves.
#[tokio::test]
async fn what_was_written_is_there_after_a_kill() {
    let (dir, left) = (folder(), folder());
    let (cache, writer) = open(dir.path(), &fake::manifest()).await;
    let (key, entry) = numbered(&cache, 7);
    let test = async {
        cache.lots.send(vec![(key, entry.clone())]).await.unwrap();
        while cache.lookup(&[key]).await == [None] {
            tokio::task::yield_now().await;
        }
        cache.store.storage().wait().await;
        copy(dir.path(), left.path());
        drop(cache);
    };
    let (written, ()) = tokio::join!(writer.run(), test);
    written.unwrap();
    let (cache, _writer) = open(left.path(), &fake::manifest()).await;
    assert_eq!(cache.lookup(&[key]).await, [Some(entry)]);
}

fn copy(from: &Path, to: &Path) {
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        let to = to.join(file.file_name());
        match file.path().is_dir() {
            true => {
                std::fs::create_dir(&to).unwrap();
                copy(&file.path(), &to);
            }
            false => _ = std::fs::copy(file.path(), to).unwrap(),
        }
    }
}

/// A row for each thing that may happen to a file.
#[tokio::test]
async fn a_damaged_file_is_survived() {
    let page = 4_096;
    let flip = |path: &Path, at: u64| {
        let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[!byte[0]], at).unwrap();
    };
    let damages: [&dyn Fn(&Path); 4] = [
        // The index of what follows, a header, and a value.
        &|path| flip(path, 20),
        &|path| flip(path, page),
        &|path| flip(path, page + 60),
        &|path| std::fs::remove_file(path).unwrap(),
    ];
    for (row, damage) in damages.into_iter().enumerate() {
        let (dir, fake) = (folder(), Fake::default());
        let first = embedded(dir.path(), fake::manifest(), &fake, &["a"]).await;
        let mut files: Vec<_> = std::fs::read_dir(dir.path().join("blocks")).unwrap().collect();
        files.sort_by_key(|file| file.as_ref().unwrap().path());
        assert_eq!(files.len(), BLOCKS);
        damage(&files[0].as_ref().unwrap().path());
        let again = embedded(dir.path(), fake::manifest(), &fake, &["a"]).await;
        assert_eq!((fake.texts(), &again), (2, &first), "row {row}");
        embedded(dir.path(), fake::manifest(), &fake, &["a"]).await;
        assert_eq!(fake.texts(), 2, "row {row}: it is remembered anew");
    }
}

#[tokio::test]
async fn a_cache_that_fails_costs_no_request() {
    let (dir, fake) = (folder(), Fake::default());
    let first = embedded(dir.path(), fake::manifest(), &fake, &["a"]).await;
    let blocks = dir.path().join("blocks");
    session(dir.path(), fake::manifest(), &fake.clone(), |embedder| async move {
        for file in std::fs::read_dir(blocks).unwrap() {
            let file = std::fs::File::options().write(true).open(file.unwrap().path());
            file.unwrap().set_len(0).unwrap();
        }
        let again = embed(&embedder, &["a"]).await.unwrap();
        assert_eq!((fake.texts(), again), (2, first));
    })
    .await;
}

#[tokio::test]
async fn a_folder_is_one_processs() {
    let dir = folder();
    let first = open(dir.path(), &fake::manifest()).await;
    let second = Cache::open(&options(dir.path()), &fake::manifest(), &trapped(16)).await;
    assert!(
        matches!(second, Ok(None)),
        "it works without, and may replace the first"
    );
    drop(first);
}

#[tokio::test]
async fn what_depends_on_its_batch_mates_is_not_remembered() {
    let dir = folder();
    let int8 = Manifest {
        dtype: "int8".into(),
        ..fake::manifest()
    };
    assert!(
        Cache::open(&options(dir.path()), &int8, &trapped(16))
            .await
            .unwrap()
            .is_none()
    );
    let off = CacheOptions::default();
    assert!(
        Cache::open(&off, &fake::manifest(), &trapped(16))
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn of_a_backend_whose_vectors_depend_on_the_batch_none_is_remembered_and_those_of_others_are_found() {
    let (dir, fake) = (folder(), Fake::default());
    embedded(dir.path(), fake::manifest(), &fake, &["a"]).await;
    fake.depend_on_the_batch();
    for computed in [2, 3] {
        embedded(dir.path(), fake::manifest(), &fake, &["a", "b"]).await;
        assert_eq!(fake.texts(), computed);
    }
}
