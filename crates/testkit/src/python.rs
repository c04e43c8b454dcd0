//! What other people use in Python, pinned, in a virtual environment of the tests.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sha2::{Digest, Sha256};

/// An environment with pinned packages. Blocking; the first time it takes as long as their download.
#[derive(Debug, Clone)]
pub struct Python {
    interpreter: PathBuf,
}

impl Python {
    /// The environment with these requirements, in a folder below `root`, which may be one that other tests use too:
    /// `target/tmp`, say.
    pub fn with(requirements: &str, root: &Path) -> io::Result<Self> {
        let digest = Sha256::digest(requirements);
        let name: String = digest[..4].iter().map(|byte| format!("{byte:02x}")).collect();
        let dir = root.join(format!("python-{name}"));
        let (python, ready) = (dir.join("bin/python"), dir.join("ready"));
        fs::create_dir_all(&dir)?;
        let lock = File::create(dir.join("lock"))?;
        lock.lock()?;
        if !ready.exists() {
            let file = dir.join("requirements.txt");
            fs::write(&file, requirements)?;
            run(Command::new("python3").args(["-m", "venv"]).arg(&dir))?;
            let install = [
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                "--only-binary=:all:",
                "-r",
            ];
            run(Command::new(&python).args(install).arg(&file))?;
            fs::write(ready, "")?;
        }
        Ok(Self { interpreter: python })
    }

    /// What a script writes to stdout, given this on stdin.
    pub fn run(&self, script: &Path, arguments: &[&str], stdin: &str) -> io::Result<String> {
        let mut child = Command::new(&self.interpreter)
            .arg(script)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut input = child.stdin.take().ok_or_else(|| io::Error::other("no stdin"))?;
        let text = stdin.to_owned();
        let writer = std::thread::spawn(move || input.write_all(text.as_bytes()));
        let output = child.wait_with_output()?;
        // A script that does not read its input is told by its exit code.
        let written = writer.join().map_err(|_| io::Error::other("the writer panicked"))?;
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr);
            return Err(io::Error::other(format!(
                "{}: {}\n{stderr}",
                script.display(),
                output.status
            )));
        }
        written?;
        String::from_utf8(output.stdout).map_err(io::Error::other)
    }
}

fn run(command: &mut Command) -> io::Result<()> {
    let output = command.stdin(Stdio::null()).output()?;
    match output.status.success() {
        true => Ok(()),
        false => Err(io::Error::other(format!(
            "{command:?}: {}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        ))),
    }
}
