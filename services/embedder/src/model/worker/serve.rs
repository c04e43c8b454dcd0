//! The worker's side: one session, one batch after another.

use std::io::{self, BufReader, Read};
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::PIECES;
use super::frame::{self, Answer, Batch, Kind, Start};
use crate::model::backend::{Backend, BackendError};
use crate::model::onnx::{Gpu, OnnxBackend, OnnxOptions, Provider};
use crate::model::{Manifest, ModelError, Tokens};

/// Serves until stdin ends: then the process does, whatever it computes.
pub(super) fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("model-worker: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> io::Result<()> {
    let mut from = BufReader::new(io::stdin());
    let start: Start = frame::read(&mut from)?;
    // All pieces of a batch: an embedder that writes one must not wait for a worker that waits for it to read an answer.
    let (batch, batches) = sync_channel(PIECES);
    let reader = move || read(from, &batch);
    std::thread::Builder::new().name("stdin".into()).spawn(reader)?;
    compute(&start, &batches)
}

fn read(mut from: impl Read, batch: &SyncSender<Batch>) {
    loop {
        match frame::read(&mut from) {
            Ok(read) => {
                if batch.send(read).is_err() {
                    return;
                }
            }
            Err(error) => {
                if error.kind() != io::ErrorKind::UnexpectedEof {
                    eprintln!("model-worker: {error}");
                }
                end();
            }
        }
    }
}

/// Ends the process in the middle of whatever it computes. Not by `exit`: the destructors of a driver may wait for that.
fn end() {
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
}

fn compute(start: &Start, batches: &Receiver<Batch>) -> io::Result<()> {
    let mut to = io::stdout().lock();
    let mut backend = match make(start) {
        Ok(backend) => backend,
        Err(error) => return frame::write(&Answer::told(Kind::Refused, error.to_string()), &mut to),
    };
    frame::write(&Answer::told(Kind::Made, backend.describe().version), &mut to)?;
    while let Ok(batch) = batches.recv() {
        let rows = batch.into_tokens();
        let answer = match backend.embed(&rows.iter().collect::<Vec<&Tokens>>()) {
            Ok(vectors) => Answer::vectors(&vectors),
            Err(BackendError::TooLarge(why)) => Answer::told(Kind::TooLarge, why),
            Err(error) => Answer::told(Kind::Failed, error.to_string()),
        };
        frame::write(&answer, &mut to)?;
    }
    Ok(())
}

fn make(start: &Start) -> Result<OnnxBackend, ModelError> {
    let dir = Path::new(&start.dir);
    let manifest = Manifest {
        // What the embedder means, whatever the file says by now.
        sha256: start.sha256.clone(),
        ..Manifest::read(dir)?
    };
    let provider = match start.gpu {
        None => Provider::Cpu,
        Some(gpu) => Provider::Cuda(Gpu {
            device: gpu.device,
            memory_limit: gpu.memory_limit.and_then(|bytes| usize::try_from(bytes).ok()),
        }),
    };
    let options = OnnxOptions {
        library: start.library.clone().into(),
        provider,
        threads: usize::try_from(start.threads).unwrap_or(1),
        pad_id: start.pad_id,
    };
    OnnxBackend::open(dir, &manifest, options)
}
