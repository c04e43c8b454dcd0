//! A canary with a known answer: whether the model computes is asked of the model, not of its absence of errors.

use super::backend::Backend;
use super::pooling::Gate;
use super::tokenizer::Tokenizer;

const QUESTION: &str = "How do I reset my password?";
const ANSWER: &str = "Steps to recover access to an account when you forgot the password";
const STRANGER: &str = "Volcanic rock cools slowly beneath the ocean floor";

/// Embeds three sentences and checks that the related pair is nearer than the unrelated one. Any model worth its
/// name passes; one whose weights, runtime or device are broken does not. The error says what was seen.
pub fn sing(tokenizer: &Tokenizer, backend: &mut dyn Backend, gate: Gate) -> Result<(), String> {
    let tokens = [QUESTION, ANSWER, STRANGER]
        .iter()
        .map(|text| tokenizer.tokenize(text).map_err(|e| e.to_string()))
        .collect::<Result<Vec<_>, _>>()?;
    let vectors = backend
        .embed(&tokens.iter().collect::<Vec<_>>())
        .map_err(|e| e.to_string())?
        .into_iter()
        .map(|vector| gate.pass(vector).map_err(|e| e.to_string()))
        .collect::<Result<Vec<_>, _>>()?;
    let [question, answer, stranger] = &vectors[..] else {
        return Err(format!("3 sentences gave {} vectors", vectors.len()));
    };
    let (near, far) = (question.cosine(answer), question.cosine(stranger));
    if near > far + 0.1 {
        Ok(())
    } else {
        Err(format!(
            "related sentences have cosine {near:.3}, unrelated ones {far:.3}: these are not meanings"
        ))
    }
}
