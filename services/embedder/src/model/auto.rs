//! Which backend is the fastest here: measured, not guessed from names and flags.

use std::time::{Duration, Instant};

use super::failover::Candidate;
use super::pooling::{Gate, Vector};
use super::tokenizer::{Tokenizer, Tokens};
use super::{Backend, ModelError, canary};

/// A batch about as the pipeline cuts them: texts of about 128 tokens.
const TEXTS: usize = 32;
const WORDS: usize = 100;
/// The best of so many runs counts: others on the machine only slow one down.
const RUNS: usize = 3;
/// Backends whose vectors are less alike than this are not two backends of one model.
const ALIKE: f32 = 0.9999;

struct Measured {
    candidate: Candidate,
    took: Duration,
}

/// Those that work, the fastest first, and says what it measured. The last of those given is the reference: whoever's vectors
/// are not like its own is left out.
pub(super) fn fastest_first(
    candidates: Vec<Candidate>,
    tokenizer: &Tokenizer,
    gate: Gate,
) -> Result<Vec<Candidate>, ModelError> {
    let texts = calibration();
    let tokens = texts
        .iter()
        .filter_map(|text| tokenizer.tokenize(text).ok())
        .collect::<Vec<_>>();
    let mut found: Vec<Measured> = Vec::new();
    let mut reference: Option<Vec<Vector>> = None;
    let mut last_error = None;
    for candidate in candidates.into_iter().rev() {
        let measured = (candidate.make)()
            .map_err(|e| e.to_string())
            .and_then(|mut backend| measure(&mut *backend, &tokens, tokenizer, gate));
        let (took, vectors) = match measured {
            Ok(measured) => measured,
            Err(why) => {
                tracing::info!(backend = candidate.name, %why, "a backend does not work here");
                last_error = Some(why);
                continue;
            }
        };
        let alike = reference
            .as_ref()
            .map_or(1.0, |reference| least_alike(reference, &vectors));
        let texts_per_second = tokens.len() as f64 / took.as_secs_f64().max(f64::EPSILON);
        tracing::info!(
            backend = candidate.name,
            texts_per_second,
            cosine = alike,
            "a backend was measured"
        );
        if alike < ALIKE {
            let backend = candidate.name;
            tracing::warn!(
                backend,
                cosine = alike,
                "a backend gives other vectors than the reference and is left out"
            );
            continue;
        }
        reference.get_or_insert(vectors);
        found.push(Measured { candidate, took });
    }
    if found.is_empty() {
        return Err(ModelError::Session {
            what: last_error.unwrap_or_else(|| "no backend works here".into()),
        });
    }
    found.sort_by_key(|measured| measured.took);
    let order: Vec<&str> = found.iter().map(|measured| measured.candidate.name).collect();
    tracing::info!(?order, "backends in the order of their speed");
    Ok(found.into_iter().map(|measured| measured.candidate).collect())
}

fn measure(
    backend: &mut dyn Backend,
    tokens: &[Tokens],
    tokenizer: &Tokenizer,
    gate: Gate,
) -> Result<(Duration, Vec<Vector>), String> {
    canary::sing(tokenizer, gate, |inputs| backend.embed(inputs)).map_err(|e| e.to_string())?;
    let inputs: Vec<&Tokens> = tokens.iter().collect();
    let (mut best, mut vectors) = (Duration::MAX, Vec::new());
    for _ in 0..RUNS {
        let began = Instant::now();
        vectors = backend.embed(&inputs).map_err(|e| e.to_string())?;
        best = best.min(began.elapsed());
    }
    let vectors = vectors
        .into_iter()
        .map(|vector| gate.pass(vector))
        .collect::<Result<_, _>>();
    Ok((best, vectors.map_err(|e| e.to_string())?))
}

fn least_alike(reference: &[Vector], vectors: &[Vector]) -> f32 {
    let pairs = reference.iter().zip(vectors);
    pairs.map(|(one, other)| one.cosine(other)).fold(1.0, f32::min)
}

/// Prose of plain words, each text another, of lengths a little apart.
fn calibration() -> Vec<String> {
    const WORD: [&str; 12] = [
        "the", "river", "turns", "wheel", "after", "wheel", "while", "millers", "measure", "what", "water", "carries",
    ];
    let text = |at: usize| {
        let words = (0..WORDS + at).map(|n| WORD[(n * (at + 1) + n / 7) % WORD.len()]);
        words.collect::<Vec<_>>().join(" ")
    };
    (0..TEXTS).map(text).collect()
}
