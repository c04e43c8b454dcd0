//! Which backend is the fastest here: measured, not guessed from names and flags.

use std::time::{Duration, Instant};

use super::calibration::{self, alike};
use super::canary;
use super::failover::instance::Instance;
use super::failover::{Candidate, Patience};
use super::pooling::{Gate, Vector};
use super::tokenizer::{Tokenizer, Tokens};

/// The best of so many runs counts: others on the machine only slow one down.
const RUNS: usize = 3;

struct Measured {
    candidate: Candidate,
    took: Duration,
}

/// Those that work, the fastest first, and says what it measured. The last of those given is the reference: whoever's vectors
/// are not like its own is left out. Whoever does not work now comes last: it may work later.
pub(super) fn fastest_first(candidates: Vec<Candidate>, tokenizer: &Tokenizer, gate: Gate) -> Vec<Candidate> {
    let tokens = calibration::batch(tokenizer);
    let (mut found, mut away) = (Vec::<Measured>::new(), Vec::new());
    let mut reference: Option<Vec<Vector>> = None;
    for candidate in candidates.into_iter().rev() {
        let backend = candidate.name;
        let (took, vectors) = match measure(&candidate, &tokens, tokenizer, gate) {
            Ok(measured) => measured,
            Err(why) => {
                tracing::warn!(backend, %why, "a backend does not work here");
                away.push(candidate);
                continue;
            }
        };
        let texts_per_second = tokens.len() as f64 / took.as_secs_f64().max(f64::EPSILON);
        match reference
            .as_ref()
            .map_or(Ok(1.0), |reference| alike(reference, &vectors))
        {
            Ok(cosine) => tracing::info!(backend, texts_per_second, cosine, "a backend was measured"),
            Err(why) => {
                tracing::warn!(
                    backend,
                    texts_per_second,
                    %why,
                    "a backend gives other vectors than the reference and is left out"
                );
                continue;
            }
        }
        reference.get_or_insert(vectors);
        found.push(Measured { candidate, took });
    }
    found.sort_by_key(|measured| measured.took);
    let found = found.into_iter().map(|measured| measured.candidate);
    let order: Vec<Candidate> = found.chain(away).collect();
    let names: Vec<&str> = order.iter().map(|candidate| candidate.name).collect();
    tracing::info!(order = ?names, "backends in the order of their speed");
    order
}

fn measure(
    candidate: &Candidate,
    tokens: &[Tokens],
    tokenizer: &Tokenizer,
    gate: Gate,
) -> Result<(Duration, Vec<Vector>), String> {
    let instance = Instance::make(candidate).map_err(|e| e.to_string())?;
    instance.wait_made(Patience::default().start)?;
    let embed = |inputs: &[&Tokens]| instance.answer(inputs, candidate.call_limit);
    canary::sing(tokenizer, gate, embed).map_err(|e| e.to_string())?;
    let inputs: Vec<&Tokens> = tokens.iter().collect();
    let (mut best, mut vectors) = (Duration::MAX, Vec::new());
    for _ in 0..RUNS {
        let began = Instant::now();
        vectors = embed(&inputs).map_err(|e| e.to_string())?;
        best = best.min(began.elapsed());
    }
    if vectors.len() != tokens.len() || tokens.is_empty() {
        return Err(format!("it gave {} vectors for {} texts", vectors.len(), tokens.len()));
    }
    let vectors = vectors
        .into_iter()
        .map(|vector| gate.pass(vector))
        .collect::<Result<_, _>>();
    Ok((best, vectors.map_err(|e| e.to_string())?))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::tokenizer::tests::trapped;
    use crate::model::{Backend, BackendError, Description, ModelError};

    const GATE: Gate = Gate {
        dimensions: 2,
        normalized: false,
    };

    /// For every processor more than nothing.
    const MUCH: u64 = 10_000_000;

    /// Does so much for a batch, and turns its vectors by so much.
    struct Turned(u64, f32);

    impl Backend for Turned {
        fn embed(&mut self, inputs: &[&Tokens]) -> Result<Vec<Vec<f32>>, BackendError> {
            if inputs.len() == 3 {
                return Ok(vec![vec![1.0, 0.0], vec![1.0, 0.1], vec![0.0, 1.0]]);
            }
            (0..self.0).for_each(|n| _ = std::hint::black_box(n));
            Ok(vec![vec![1.0, self.1]; inputs.len()])
        }
        fn describe(&self) -> Description {
            Description::of_none("turned")
        }
    }

    fn candidate(name: &'static str, of: Option<(u64, f32)>) -> Candidate {
        Candidate {
            name,
            make: Arc::new(move || match of {
                Some((work, turned)) => Ok(Box::new(Turned(work, turned))),
                None => Err(ModelError::NoEndpoint),
            }),
            remote: false,
            call_limit: Duration::from_secs(10),
        }
    }

    /// A row for each thing that becomes of a candidate.
    #[test]
    fn the_fastest_alike_come_first_and_whoever_is_away_last() {
        for (candidates, expected) in [
            (
                vec![candidate("slow", Some((MUCH, 0.0))), candidate("quick", Some((1, 0.0)))],
                vec!["quick", "slow"],
            ),
            (
                vec![candidate("quick", Some((1, 0.0))), candidate("slow", Some((MUCH, 0.0)))],
                vec!["quick", "slow"],
            ),
            (
                vec![
                    candidate("other", Some((1, 0.5))),
                    candidate("reference", Some((1, 0.0))),
                ],
                vec!["reference"],
            ),
            (
                vec![candidate("away", None), candidate("here", Some((1, 0.0)))],
                vec!["here", "away"],
            ),
            (vec![candidate("away", None)], vec!["away"]),
        ] {
            let order = fastest_first(candidates, &trapped(16), GATE);
            assert_eq!(
                order.iter().map(|candidate| candidate.name).collect::<Vec<_>>(),
                expected
            );
        }
    }
}
