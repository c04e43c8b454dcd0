//! The worker's side: one session, one batch after another.

use std::io::{self, BufReader, Read};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::PIECES;
use super::frame::{self, Answer, Batch, Kind, Made, Start};
use crate::model::backend::BackendError;
use crate::model::local::{Local, Opened};
use crate::model::onnx::{Gpu, OnnxOptions, Provider};
use crate::model::openvino::{OpenVinoOptions, Precision};
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
    compute(start, &batches)
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

fn compute(start: Start, batches: &Receiver<Batch>) -> io::Result<()> {
    let mut to = io::stdout().lock();
    let opened = make(start);
    frame::write(&answer(&opened), &mut to)?;
    let Ok(Opened { mut backend, .. }) = opened else {
        return Ok(());
    };
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

/// What the embedder is told of it.
pub(super) fn answer(opened: &Result<Opened, ModelError>) -> Answer {
    match opened {
        Ok(opened) => {
            let description = opened.backend.describe();
            Answer::made(Made {
                version: description.version,
                precision: description.precision.into(),
                fell_back: opened.fell_back.clone(),
                streams: description.streams as u64,
            })
        }
        Err(error) => Answer::told(Kind::Refused, error.to_string()),
    }
}

fn make(start: Start) -> Result<Opened, ModelError> {
    let dir = PathBuf::from(&start.dir);
    let manifest = Manifest {
        // What the embedder means, whatever the file says by now.
        sha256: start.sha256.clone(),
        ..Manifest::read(&dir)?
    };
    local(start)?.open(&dir, &manifest)
}

/// What is to be made.
pub(super) fn local(start: Start) -> Result<Local, ModelError> {
    let (library, threads) = (
        PathBuf::from(start.library),
        usize::try_from(start.threads).unwrap_or(1),
    );
    Ok(match start.openvino {
        Some(openvino) => Local::OpenVino(OpenVinoOptions {
            precision: match Precision::named(&openvino.precision) {
                Some(precision) => precision,
                None => {
                    let what = format!("it is to compute in {:?}, which is unknown here", openvino.precision);
                    return Err(ModelError::OpenVinoModel { library, what });
                }
            },
            library,
            threads,
            streams: usize::try_from(openvino.streams).unwrap_or(1),
            pad_id: start.pad_id,
            proof: openvino.proof.map(Batch::into_tokens).unwrap_or_default(),
        }),
        None => Local::Onnx(OnnxOptions {
            library,
            provider: start.gpu.map_or(Provider::Cpu, |gpu| {
                Provider::Cuda(Gpu {
                    device: gpu.device,
                    memory_limit: gpu.memory_limit.and_then(|bytes| usize::try_from(bytes).ok()),
                })
            }),
            threads,
            pad_id: start.pad_id,
        }),
    })
}
