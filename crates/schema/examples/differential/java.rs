//! Java Avro, fetched by Maven and asked through a process of its own.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::Pair;

pub struct Java {
    process: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Java {
    pub fn start(version: &str) -> Result<Self> {
        let cache = cache();
        let jars = jars(&cache, version)?;
        let driver = cache.join("Driver.java");
        fs::write(&driver, include_str!("Driver.java"))?;
        let mut process = Command::new("java")
            .arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=off")
            .arg("-cp")
            .arg(jars.join("*"))
            .arg(&driver)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start java; a JDK of 17 or newer is needed")?;
        let (Some(stdin), Some(stdout)) = (process.stdin.take(), process.stdout.take()) else {
            bail!("java has no stdin or stdout");
        };
        let stdout = BufReader::new(stdout);
        Ok(Self { process, stdin, stdout })
    }

    /// What Java says of each pair, in the letters of `Driver.java`.
    pub fn ask(&mut self, pairs: &[Pair]) -> Result<Vec<String>> {
        let mut lines = String::new();
        for pair in pairs {
            lines.push_str(&STANDARD.encode(&pair.candidate));
            lines.push(' ');
            lines.push_str(&STANDARD.encode(&pair.previous));
            lines.push('\n');
        }
        lines.push('\n');
        self.stdin.write_all(lines.as_bytes()).context("java is gone")?;
        self.stdin.flush()?;
        let mut answers = Vec::with_capacity(pairs.len());
        for _ in pairs {
            let mut answer = String::new();
            if self.stdout.read_line(&mut answer)? == 0 {
                bail!("java ended: {}", self.process.wait()?);
            }
            answers.push(answer.trim_end().to_owned());
        }
        Ok(answers)
    }
}

impl Drop for Java {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn cache() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"),
        PathBuf::from,
    );
    target.join("differential")
}

fn jars(cache: &Path, version: &str) -> Result<PathBuf> {
    let jars = cache.join(format!("avro-{version}"));
    if jars.is_dir() {
        return Ok(jars);
    }
    let partial = cache.join(format!("partial-{}", std::process::id()));
    fs::create_dir_all(&partial)?;
    let pom = partial.join("pom.xml");
    fs::write(&pom, include_str!("avro.pom.xml"))?;
    let out = partial.join("out");
    let status = Command::new("mvn")
        .args(["-q", "-B", "-f"])
        .arg(&pom)
        .arg("initialize")
        .arg(format!("-Davro={version}"))
        .arg(format!("-Dout={}", out.display()))
        .stdin(Stdio::null())
        .status()
        .context("cannot start mvn")?;
    if !status.success() {
        bail!("Maven could not fetch Avro {version}: {status}");
    }
    fs::rename(&out, &jars)?;
    fs::remove_dir_all(&partial)?;
    Ok(jars)
}
