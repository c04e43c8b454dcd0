//! Fetching the parts that are not ours: through Maven, once, into a cache of the user's.
//!
//! An entry of the cache is complete or absent: it is put together in a folder beside it and renamed. Maven unpacks
//! too, so neither the JDK's `jar` nor an archive library is needed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, anyhow, bail};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use super::needs;
use crate::output::{Progress, Step};

/// The cache's folder and what lies where in it.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

const KAFKA: &str = "kafka-4.3.0";
const MODEL: &str = "models/all-minilm-l6-v2-1.20.0-beta30";
#[cfg(target_os = "macos")]
const ONNX_LIBRARY: &str = "libonnxruntime.dylib";
#[cfg(not(target_os = "macos"))]
const ONNX_LIBRARY: &str = "libonnxruntime.so";

struct Entry {
    name: &'static str,
    folder: &'static str,
    pom: &'static str,
    /// Given to Maven.
    properties: &'static [(&'static str, &'static str)],
    /// The local stack needs it.
    needed: bool,
    /// Downloaded, and kept by Maven in its own repository.
    download_mib: u64,
    /// Unpacked, in the cache.
    disk_mib: u64,
    /// Makes what Maven has put into the folder what the stack expects there.
    arrange: fn(&Path) -> Result<()>,
}

/// A model, as one artifact has it.
struct Model {
    /// Its files' names, before `.onnx` and `-tokenizer.json`.
    stem: &'static str,
    tokenizer_sha256: &'static str,
    /// Its `model.toml`, which has the model file's sha256.
    manifest: &'static str,
}

const MINILM: Model = Model {
    stem: "all-minilm-l6-v2",
    tokenizer_sha256: "da0e79933b9ed51798a3ae27893d3c5fa4a201126cef75586296df9b4d2c62a0",
    manifest: include_str!("../../../deploy/local/all-minilm-l6-v2.toml"),
};
const BGE: Model = Model {
    stem: "bge-small-en-v1.5",
    tokenizer_sha256: "d241a60d5e8f04cc1b2b3e9ef7a4921b27bf526d9f6050ab90f9267a1f9e5c66",
    manifest: include_str!("../../../deploy/local/bge-small-en-v1.5.toml"),
};
const E5: Model = Model {
    stem: "e5-small-v2",
    tokenizer_sha256: "d241a60d5e8f04cc1b2b3e9ef7a4921b27bf526d9f6050ab90f9267a1f9e5c66",
    manifest: include_str!("../../../deploy/local/e5-small-v2.toml"),
};

const ENTRIES: [Entry; 6] = [
    Entry {
        name: "Apache Kafka 4.3.0",
        folder: KAFKA,
        pom: include_str!("../../../deploy/local/kafka.pom.xml"),
        properties: &[],
        needed: true,
        download_mib: 44,
        disk_mib: 44,
        arrange: |folder| expect(folder, "kafka_2.13-4.3.0.jar"),
    },
    Entry {
        name: "Apicurio registry 3.0.9",
        folder: "apicurio-3.0.9",
        pom: include_str!("../../../deploy/local/apicurio.pom.xml"),
        properties: &[],
        needed: true,
        download_mib: 104,
        disk_mib: 125,
        arrange: |folder| expect(folder, REGISTRY_JAR),
    },
    Entry {
        name: "ONNX runtime 1.29.0",
        folder: "onnxruntime-1.29.0",
        pom: include_str!("../../../deploy/local/onnxruntime.pom.xml"),
        properties: &[],
        needed: true,
        download_mib: 52,
        disk_mib: 42,
        arrange: arrange_onnxruntime,
    },
    Entry {
        name: "all-MiniLM-L6-v2",
        folder: MODEL,
        pom: MODEL_POM,
        properties: &[("model", "all-minilm-l6-v2"), ("version", "1.20.0-beta30")],
        needed: true,
        download_mib: 80,
        disk_mib: 87,
        arrange: |folder| arrange_model(folder, &MINILM),
    },
    Entry {
        name: "bge-small-en-v1.5",
        folder: "models/bge-small-en-v1.5-1.20.0-beta30",
        pom: MODEL_POM,
        properties: &[("model", "bge-small-en-v15"), ("version", "1.20.0-beta30")],
        needed: false,
        download_mib: 78,
        disk_mib: 128,
        arrange: |folder| arrange_model(folder, &BGE),
    },
    Entry {
        name: "e5-small-v2",
        folder: "models/e5-small-v2-1.8.0-beta15",
        pom: MODEL_POM,
        properties: &[("model", "e5-small-v2"), ("version", "1.8.0-beta15")],
        needed: false,
        download_mib: 79,
        disk_mib: 128,
        arrange: |folder| arrange_model(folder, &E5),
    },
];

const MODEL_POM: &str = include_str!("../../../deploy/local/model.pom.xml");

const REGISTRY_JAR: &str = "apicurio-registry-app-3.0.9-runner.jar";

impl Cache {
    /// `$MILLRACE_CACHE`, else `$XDG_CACHE_HOME/millrace`, else `~/.cache/millrace`.
    pub fn of_user() -> Result<Self> {
        let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let root = set("MILLRACE_CACHE")
            .or_else(|| set("XDG_CACHE_HOME").map(|base| base.join("millrace")))
            .or_else(|| set("HOME").map(|home| home.join(".cache/millrace")))
            .ok_or_else(|| anyhow!("neither MILLRACE_CACHE nor HOME is set: set MILLRACE_CACHE to a directory"))?;
        Ok(Self {
            root: std::path::absolute(root)?,
        })
    }
    /// Class path of the broker.
    pub fn kafka_class_path(&self) -> String {
        format!("{}/*", self.root.join(KAFKA).display())
    }
    /// The registry's executable jar.
    pub fn registry_jar(&self) -> PathBuf {
        self.root.join("apicurio-3.0.9").join(REGISTRY_JAR)
    }
    /// The runtime's shared library.
    pub fn onnxruntime(&self) -> PathBuf {
        self.root.join("onnxruntime-1.29.0").join(ONNX_LIBRARY)
    }
    /// Folder of the model: `model.onnx`, `tokenizer.json`, `model.toml`.
    pub fn model(&self) -> PathBuf {
        self.root.join(MODEL)
    }
    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn missing(&self, wanted: fn(&Entry) -> bool) -> Vec<&'static Entry> {
        let wanted = ENTRIES.iter().filter(|entry| wanted(entry));
        wanted.filter(|e| !self.root.join(e.folder).is_dir()).collect()
    }

    /// Fetches what the local stack needs and the cache lacks; does nothing, quickly, when it lacks nothing.
    pub async fn fill(&self, progress: &Progress) -> Result<()> {
        self.fill_with(|entry| entry.needed, progress).await
    }

    /// As [`Self::fill`], and the other models that Millrace knows how to run.
    pub async fn fill_with_all_models(&self, progress: &Progress) -> Result<()> {
        self.fill_with(|_| true, progress).await
    }

    /// As [`Self::fill`], the broker alone.
    pub async fn fill_broker(&self, progress: &Progress) -> Result<()> {
        self.fill_with(|entry| entry.folder == KAFKA, progress).await
    }

    async fn fill_with(&self, wanted: fn(&Entry) -> bool, progress: &Progress) -> Result<()> {
        if self.missing(wanted).is_empty() {
            return Ok(());
        }
        needs::maven().await?;
        fs::create_dir_all(&self.root)
            .with_context(|| format!("cannot make the cache directory {}", self.root.display()))?;
        let _lock = self.lock(progress).await?;
        let missing = self.missing(wanted);
        let mib = missing.iter().map(|e| e.download_mib + e.disk_mib).sum();
        needs::space(
            &self.root,
            mib,
            "the parts to fetch",
            "set MILLRACE_CACHE to a directory on another disk",
        )?;
        for entry in missing {
            let step = progress.step(entry.name);
            step.say(format!("fetching about {} MiB through Maven", entry.download_mib));
            self.fetch(entry, &step)
                .await
                .with_context(|| format!("cannot fetch {}", entry.name))?;
            step.done("fetched");
        }
        Ok(())
    }

    async fn lock(&self, progress: &Progress) -> Result<File> {
        let path = self.root.join("lock");
        let file = File::create(&path).with_context(|| format!("cannot open {}", path.display()))?;
        if file.try_lock().is_err() {
            progress.line("waiting for another millrace that is fetching into the same cache");
        }
        tokio::task::spawn_blocking(move || file.lock().map(|()| file))
            .await?
            .with_context(|| format!("cannot lock {}", path.display()))
    }

    async fn fetch(&self, entry: &'static Entry, step: &Step) -> Result<()> {
        let target = self.root.join(entry.folder);
        // Left there by one that was killed; the lock says that no millrace works in it. Its Maven may still do so:
        // hence a folder of our own, and no error when the old one cannot be removed yet.
        let partials = self.root.join("partial");
        let _ = fs::remove_dir_all(&partials);
        let partial = partials.join(std::process::id().to_string());
        let out = partial.join("out");
        fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
        let pom = partial.join("pom.xml");
        fs::write(&pom, entry.pom).with_context(|| format!("cannot write {}", pom.display()))?;
        self.maven(&pom, entry.properties, &out, step).await?;
        step.say("checking");
        let arranged = out.clone();
        tokio::task::spawn_blocking(move || {
            let _ = fs::remove_dir_all(arranged.join(".markers"));
            (entry.arrange)(&arranged)
        })
        .await??;
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::rename(&out, &target).with_context(|| format!("cannot put {} in place", target.display()))?;
        let _ = fs::remove_dir_all(&partials);
        Ok(())
    }

    async fn maven(&self, pom: &Path, properties: &[(&str, &str)], out: &Path, step: &Step) -> Result<()> {
        let log = self.root.join("maven.log");
        let mut maven = Command::new("mvn")
            .args(["-B", "-f"])
            .arg(pom)
            .arg(format!("-Dout={}", out.display()))
            .arg(format!("-Dplatform={}", platform()?))
            .args(properties.iter().map(|(name, value)| format!("-D{name}={value}")))
            .arg("initialize")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&log).with_context(|| format!("cannot write {}", log.display()))?)
            .kill_on_drop(true)
            .spawn()
            .context("cannot start mvn")?;
        let stdout = maven.stdout.take().ok_or_else(|| anyhow!("mvn has no stdout"))?;
        let mut lines = BufReader::new(stdout).lines();
        let mut said = String::new();
        let mut first_error = None;
        while let Some(line) = lines.next_line().await? {
            if let Some(file) = downloading(&line) {
                step.tick(format!("downloading {file}"));
            }
            if first_error.is_none() {
                first_error = line.strip_prefix("[ERROR] ").map(str::to_owned);
            }
            said.push_str(&line);
            said.push('\n');
        }
        let status = maven.wait().await?;
        if !status.success() {
            let stderr = fs::read_to_string(&log).unwrap_or_default();
            fs::write(&log, format!("{said}{stderr}"))?;
            let why = first_error.or_else(|| stderr.lines().next().map(str::to_owned));
            bail!(
                "Maven says: {} (all of it: {})",
                why.unwrap_or_else(|| status.to_string()),
                log.display()
            );
        }
        Ok(())
    }
}

/// The file that a line of Maven's says it downloads.
fn downloading(line: &str) -> Option<&str> {
    let line = line.strip_prefix("[INFO] ").unwrap_or(line);
    line.strip_prefix("Downloading from ")?.rsplit('/').next()
}

fn platform() -> Result<&'static str> {
    match (std::env::consts::OS, std::env::consts::ARCH) {
        ("linux", "x86_64") => Ok("linux-x64"),
        ("linux", "aarch64") => Ok("linux-aarch64"),
        ("macos", "aarch64") => Ok("osx-aarch64"),
        (os, arch) => bail!("the ONNX runtime is not published for {os} on {arch}: the local stack cannot run here"),
    }
}

fn expect(folder: &Path, file: &str) -> Result<()> {
    if folder.join(file).is_file() {
        Ok(())
    } else {
        bail!("Maven put no {file} into {}", folder.display())
    }
}

fn arrange_onnxruntime(folder: &Path) -> Result<()> {
    let native = format!("ai/onnxruntime/native/{}/{ONNX_LIBRARY}", platform()?);
    expect(folder, &native)?;
    fs::rename(folder.join(native), folder.join(ONNX_LIBRARY))?;
    fs::remove_dir_all(folder.join("ai"))?;
    Ok(())
}

fn arrange_model(folder: &Path, model: &Model) -> Result<()> {
    let manifest: toml::Table = model.manifest.parse()?;
    let sha256 = manifest.get("sha256").and_then(|value| value.as_str());
    let sha256 = sha256.with_context(|| format!("the manifest of {} has no sha256", model.stem))?;
    for (from, to, sha256) in [
        (format!("{}.onnx", model.stem), "model.onnx", sha256),
        (
            format!("{}-tokenizer.json", model.stem),
            "tokenizer.json",
            model.tokenizer_sha256,
        ),
    ] {
        expect(folder, &from)?;
        verify(&folder.join(&from), sha256)?;
        fs::rename(folder.join(from), folder.join(to))?;
    }
    fs::write(folder.join("model.toml"), model.manifest)?;
    Ok(())
}

fn verify(file: &Path, expected: &str) -> Result<()> {
    let mut hash = Sha256::new();
    std::io::copy(&mut File::open(file)?, &mut hash)?;
    let found = format!("{:x}", hash.finalize());
    if found != expected {
        bail!(
            "{} has the sha256 {found}, expected {expected}: what was downloaded is damaged or not what it should be; \
             delete the artifact from Maven's repository (~/.m2) and try again",
            file.file_name().unwrap_or_default().display()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_checksum_is_refused_with_both_sums() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("all-minilm-l6-v2.onnx"), "abc").unwrap();
        let refused = arrange_model(dir.path(), &MINILM).unwrap_err().to_string();
        assert!(
            refused.contains("759c3cd2") && refused.contains("ba7816bf"),
            "{refused}"
        );
        assert!(!dir.path().join("model.onnx").exists());
    }

    #[test]
    fn manifests_are_those_of_models() {
        for model in [&MINILM, &BGE, &E5] {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join("model.toml"), model.manifest).unwrap();
            let manifest = millrace_embedder::model::Manifest::read(dir.path()).unwrap();
            assert_eq!((manifest.id.as_str(), manifest.dimensions), (model.stem, 384));
        }
    }

    #[test]
    fn downloads_are_seen_in_both_of_mavens_dialects() {
        let url = "https://repo.maven.apache.org/maven2/a/b-1.jar";
        assert_eq!(
            downloading(&format!("[INFO] Downloading from central: {url}")),
            Some("b-1.jar")
        );
        assert_eq!(
            downloading(&format!("Downloading from central: {url}")),
            Some("b-1.jar")
        );
        assert_eq!(downloading("[INFO] Building kafka 1"), None);
    }
}
