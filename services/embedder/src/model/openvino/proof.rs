//! Whether bf16 is as good as f32 here: found out by computing in both, not from what the processor and the version are called.

use super::session::{Compiler, Session};
use super::{NAME, Precision};
use crate::model::calibration::{ALIKE, least_alike};
use crate::model::pooling::{Gate, Vector};
use crate::model::tokenizer::Tokens;

/// What came of it.
pub(super) enum Verdict {
    /// bf16 computes.
    Good {
        session: Session,
        /// The least.
        cosine: f32,
    },
    /// f32 has to do.
    Refused { exact: Session, why: String },
}

/// Compiles the model in bf16 and holds it against the one in f32.
pub(super) fn bf16(compiler: &mut Compiler, mut exact: Session, texts: &[Tokens], gate: Gate) -> Verdict {
    match try_bf16(compiler, &mut exact, texts, gate) {
        Ok((session, cosine)) => Verdict::Good { session, cosine },
        Err(why) => Verdict::Refused { exact, why },
    }
}

fn try_bf16(
    compiler: &mut Compiler,
    exact: &mut Session,
    texts: &[Tokens],
    gate: Gate,
) -> Result<(Session, f32), String> {
    if !compiler.has(Precision::Bf16)? {
        return Err(format!("{NAME} says that this processor does not compute in bf16"));
    }
    if texts.is_empty() {
        return Err("there is no text to hold bf16 against f32 with".into());
    }
    let reference = all(exact, texts, gate)?;
    let mut session = compiler.compile(Precision::Bf16)?;
    let vectors = all(&mut session, texts, gate).map_err(|why| format!("bf16 gives no vectors: {why}"))?;
    let cosine = least_alike(&reference, &vectors);
    match cosine >= ALIKE {
        true => Ok((session, cosine)),
        false => Err(format!(
            "in bf16 a vector's cosine to the one in f32 is {cosine}, below {ALIKE}: {NAME} of another version may do better"
        )),
    }
}

/// Vectors of the texts: of each alone, and then of all in one batch.
fn all(session: &mut Session, texts: &[Tokens], gate: Gate) -> Result<Vec<Vector>, String> {
    let together: Vec<&Tokens> = texts.iter().collect();
    let batches = together.iter().map(std::slice::from_ref).chain([&together[..]]);
    let mut vectors = Vec::with_capacity(2 * texts.len());
    for batch in batches {
        for vector in session.embed(batch)? {
            vectors.push(gate.pass(vector).map_err(|e| e.to_string())?);
        }
    }
    Ok(vectors)
}
