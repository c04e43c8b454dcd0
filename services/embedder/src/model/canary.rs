//! A canary with a known answer: whether the model computes is asked of the model, not of its absence of errors.

use std::fmt::Display;

use super::backend::{BackendError, Outage};
use super::pooling::Gate;
use super::tokenizer::{Tokenizer, Tokens};

const QUESTION: &str = "How do I reset my password?";
const ANSWER: &str = "Steps to recover access to an account when you forgot the password";
const STRANGER: &str = "Volcanic rock cools slowly beneath the ocean floor";

/// Embeds three sentences and checks that the related pair is nearer than the unrelated one. Any model worth its
/// name passes; one whose weights, runtime or device are broken does not, nor does one that refuses these sentences.
pub fn sing(
    tokenizer: &Tokenizer,
    gate: Gate,
    embed: impl FnOnce(&[&Tokens]) -> Result<Vec<Vec<f32>>, BackendError>,
) -> Result<(), Outage> {
    let nonsense = |what: &dyn Display| Outage::Broken(what.to_string());
    let tokens = [QUESTION, ANSWER, STRANGER]
        .iter()
        .map(|text| tokenizer.tokenize(text).map_err(|e| nonsense(&e)))
        .collect::<Result<Vec<_>, _>>()?;
    let vectors = embed(&tokens.iter().collect::<Vec<_>>())
        .map_err(|error| match error {
            BackendError::Outage(outage) => outage,
            BackendError::Failed(what) | BackendError::Refused(what) | BackendError::TooLarge(what) => {
                Outage::Broken(what)
            }
        })?
        .into_iter()
        .map(|vector| gate.pass(vector).map_err(|e| nonsense(&e)))
        .collect::<Result<Vec<_>, _>>()?;
    let [question, answer, stranger] = &vectors[..] else {
        let what = format!("3 sentences gave {} vectors", vectors.len());
        return Err(Outage::Broken(what));
    };
    let (near, far) = (question.cosine(answer), question.cosine(stranger));
    if near > far + 0.1 {
        Ok(())
    } else {
        let what = format!("related sentences have cosine {near:.3}, unrelated ones {far:.3}: these are not meanings");
        Err(Outage::Broken(what))
    }
}
