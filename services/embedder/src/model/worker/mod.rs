//! A backend in a process of its own: a driver that crashes takes that process down and not the service, and one that hangs
//! can be killed.
//!
//! ```text
//! embedder ── stdin: Start, then a Batch each ──▶ millrace-embedder model-worker
//!          ◀── stdout: Answer to each of them ───
//! ```
//! Frames are a little-endian u32 of bytes and a protobuf message; both ends are of one build, also when the file of the program
//! was replaced meanwhile. The process ends when its stdin does, even in the middle of a batch: whatever happens to the embedder,
//! none stays behind. It is in a process group of its own, so that Ctrl-C is the embedder's affair.
//!
//! Rejected: shared memory (unsafe, and what copying costs is hidden behind the other piece's computing); gRPC over a socket
//! (a port or a path to own, for two ends that are one program).

mod frame;
mod serve;
#[cfg(test)]
mod tests;

use std::io::{BufReader, BufWriter};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::ModelError;
use super::backend::{Backend, BackendError, Description, Interrupt, Outage};
use super::local::{Local, Opened};
use super::manifest::Manifest;
use super::onnx::Provider;
use super::openvino::Precision;
use super::tokenizer::Tokens;
use frame::{Answer, Batch, Kind, Start};

/// The argument that makes a program of ours a worker.
pub const ARGUMENT: &str = "model-worker";

/// A batch goes over in so many pieces: one is computed while the next is read, and while the answer to the one before is.
const PIECES: usize = 2;
/// To load a runtime and make a session; shorter than a backend's own limit.
const START_LIMIT: Duration = Duration::from_secs(50);

/// A backend in another process.
pub struct Worker {
    child: Arc<Mutex<Child>>,
    to: BufWriter<ChildStdin>,
    from: BufReader<ChildStdout>,
    description: Description,
}

impl Worker {
    /// Starts the process, of a program that takes [`ARGUMENT`], and waits until it has made its session.
    pub(super) fn start(program: &Path, dir: &Path, manifest: &Manifest, local: Local) -> Result<Opened, ModelError> {
        let failed = |source| ModelError::Worker {
            program: program.to_owned(),
            source,
        };
        let mut command = Command::new(program);
        command.arg(ARGUMENT).stdin(Stdio::piped()).stdout(Stdio::piped());
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command.spawn().map_err(failed)?;
        let missing = || failed(std::io::Error::other("the process has no pipes"));
        let (to, from) = (child.stdin.take(), child.stdout.take());
        let mut worker = Self {
            child: Arc::new(Mutex::new(child)),
            to: BufWriter::new(to.ok_or_else(missing)?),
            from: BufReader::new(from.ok_or_else(missing)?),
            description: Description::of_none(local.name()),
        };
        let start = start(dir, manifest, &local);
        let answer = worker.within_limit(|worker| {
            frame::write(&start, &mut worker.to)?;
            frame::read::<Answer>(&mut worker.from)
        });
        let (description, fell_back) = made(answer.map_err(failed)?, &local)?;
        worker.description = description;
        Ok(Opened {
            backend: Box::new(worker),
            fell_back,
        })
    }

    /// Kills a process that is not through with its start in time: what waits for its answer then gets an end.
    fn within_limit<T>(&mut self, work: impl FnOnce(&mut Self) -> std::io::Result<T>) -> std::io::Result<T> {
        let (through, wait) = std::sync::mpsc::channel::<()>();
        let child = self.child.clone();
        let watch = move || {
            if wait.recv_timeout(START_LIMIT) == Err(RecvTimeoutError::Timeout) {
                kill(&child);
            }
        };
        std::thread::Builder::new().name("model-start".into()).spawn(watch)?;
        let done = work(self);
        drop(through);
        done
    }

    fn lost(&self, error: &std::io::Error) -> BackendError {
        Outage::Broken(format!("{}: {error}", self.ending())).into()
    }

    /// How it ended, if it has.
    fn ending(&self) -> String {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        match child.try_wait() {
            Ok(Some(status)) => format!("the model's process ended: {status}"),
            Ok(None) => "the model's process closed its pipes".into(),
            Err(error) => format!("the model's process is lost: {error}"),
        }
    }
}

/// What the process is told to make.
fn start(dir: &Path, manifest: &Manifest, local: &Local) -> Start {
    let common = Start {
        dir: dir.to_string_lossy().into_owned(),
        sha256: manifest.sha256.clone(),
        library: local.library().to_string_lossy().into_owned(),
        threads: local.threads() as u64,
        pad_id: local.pad_id(),
        ..Start::default()
    };
    match local {
        Local::Onnx(options) => Start {
            gpu: match options.provider {
                Provider::Cpu => None,
                Provider::Cuda(gpu) => Some(frame::Gpu {
                    device: gpu.device,
                    memory_limit: gpu.memory_limit.map(|bytes| bytes as u64),
                }),
            },
            ..common
        },
        Local::OpenVino(options) => Start {
            openvino: Some(frame::OpenVino {
                precision: options.precision.name().into(),
                streams: options.streams as u64,
                proof: Some(Batch::of(&options.proof.iter().collect::<Vec<_>>())),
            }),
            ..common
        },
    }
}

/// What the process has made of what it was told, and why it computes in another precision, if it does.
fn made(answer: Answer, local: &Local) -> Result<(Description, Option<String>), ModelError> {
    let (Kind::Made, Some(made)) = (answer.kind(), answer.made) else {
        return Err(ModelError::InWorker { what: answer.text });
    };
    let Some(precision) = Precision::named(&made.precision) else {
        let what = format!("it computes in {:?}, which is unknown here", made.precision);
        return Err(ModelError::InWorker { what });
    };
    let description = Description {
        version: made.version,
        device: local.device(),
        precision: precision.name(),
        threads: local.threads(),
        streams: usize::try_from(made.streams).unwrap_or(1).max(1),
        batch_independent: precision.is_batch_independent(),
        ..Description::of_none(local.name())
    };
    Ok((description, made.fell_back))
}

fn vectors(answer: Answer) -> Result<Vec<Vec<f32>>, BackendError> {
    match answer.kind() {
        Kind::Vectors => Ok(answer.into_vectors()),
        Kind::TooLarge => Err(BackendError::TooLarge(answer.text)),
        Kind::Failed => Err(BackendError::Failed(answer.text)),
        Kind::Made | Kind::Refused => {
            Err(Outage::Broken("the model's process answers what it was not asked".into()).into())
        }
    }
}

impl Backend for Worker {
    fn embed(&mut self, inputs: &[&Tokens]) -> Result<Vec<Vec<f32>>, BackendError> {
        // What is computed in parts is not cut before: a piece might have fewer texts than there are streams.
        let pieces = if self.description.streams > 1 { 1 } else { PIECES };
        let pieces = inputs.chunks(inputs.len().div_ceil(pieces).max(1));
        let count = pieces.len();
        for piece in pieces {
            let sent = frame::write(&Batch::of(piece), &mut self.to);
            sent.map_err(|error| self.lost(&error))?;
        }
        // Each answer is taken, so that the next batch does not get one of this.
        let answers: Vec<Result<Vec<Vec<f32>>, BackendError>> = (0..count)
            .map(|_| match frame::read(&mut self.from) {
                Ok(answer) => vectors(answer),
                Err(error) => Err(self.lost(&error)),
            })
            .collect();
        let vectors: Vec<_> = answers.into_iter().collect::<Result<_, _>>()?;
        Ok(vectors.concat())
    }

    fn describe(&self) -> Description {
        self.description.clone()
    }

    fn interrupt(&self) -> Option<Interrupt> {
        let child = self.child.clone();
        Some(Box::new(move || kill(&child)))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        kill(&self.child);
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = child.wait() {
            tracing::warn!(%error, "the model's process was not waited for");
        }
    }
}

fn kill(child: &Mutex<Child>) {
    // Who has it kills it, or waits for the end of one that was killed.
    let Ok(mut child) = child.try_lock() else { return };
    if let Err(error) = child.kill() {
        tracing::warn!(%error, "the model's process was not killed");
    }
}

/// All of a worker's own `main`, if the arguments say that this process is one.
pub fn main() -> Option<ExitCode> {
    (std::env::args_os().nth(1)? == ARGUMENT).then(serve::main)
}
