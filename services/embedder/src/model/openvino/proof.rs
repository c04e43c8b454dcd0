//! Whether bf16 is as good as f32 here: found out by computing in both, not from what the processor and the version are called.

use super::{NAME, Precision};
use crate::model::calibration::alike;
use crate::model::pooling::{Gate, Vector};
use crate::model::tokenizer::Tokens;

/// Makes sessions of one model: [`super::session::Compiler`], or in tests something without a library.
pub(super) trait Compile {
    type Session: Embed;

    /// Whether the processor computes in it, as OpenVINO says.
    fn has(&self, precision: Precision) -> Result<bool, String>;

    /// Compiles it: work of a second or so.
    fn compile(&mut self, precision: Precision) -> Result<Self::Session, String>;
}

/// A session at work.
pub(super) trait Embed {
    /// As [`crate::model::Backend::embed`]; the error is what OpenVINO said.
    fn embed(&mut self, inputs: &[&Tokens]) -> Result<Vec<Vec<f32>>, String>;
}

/// A session in this precision. Where that is bf16 and does not pass, the one in f32, and why.
pub(super) fn session<C: Compile>(
    compiler: &mut C,
    precision: Precision,
    texts: &[Tokens],
    gate: Gate,
) -> Result<(C::Session, Option<String>), String> {
    let mut exact = compiler.compile(Precision::F32)?;
    if precision == Precision::F32 {
        return Ok((exact, None));
    }
    match bf16(compiler, &mut exact, texts, gate) {
        Ok((session, cosine)) => {
            tracing::info!(backend = NAME, cosine, "bf16 is as good as f32");
            Ok((session, None))
        }
        Err(why) => Ok((exact, Some(why))),
    }
}

/// Compiles the model in bf16 and holds it against the one in f32; gives the least cosine too.
fn bf16<C: Compile>(
    compiler: &mut C,
    exact: &mut C::Session,
    texts: &[Tokens],
    gate: Gate,
) -> Result<(C::Session, f32), String> {
    if !compiler.has(Precision::Bf16)? {
        return Err(format!("{NAME} says that this processor does not compute in bf16"));
    }
    if texts.is_empty() {
        return Err("there is no text to hold bf16 against f32 with".into());
    }
    let reference = all(exact, texts, gate).map_err(|why| format!("f32 gives no vectors: {why}"))?;
    let session = compiler.compile(Precision::Bf16);
    let mut session = session.map_err(|why| format!("the model does not compile in bf16: {why}"))?;
    let vectors = all(&mut session, texts, gate).map_err(|why| format!("bf16 gives no vectors: {why}"))?;
    match alike(&reference, &vectors) {
        Ok(cosine) => Ok((session, cosine)),
        Err(why) => Err(format!(
            "bf16 is not as good as f32: {why}; {NAME} of another version may do better"
        )),
    }
}

/// Vectors of the texts: of each alone, and then of all in one batch.
fn all(session: &mut impl Embed, texts: &[Tokens], gate: Gate) -> Result<Vec<Vector>, String> {
    let together: Vec<&Tokens> = texts.iter().collect();
    let batches = together.iter().map(std::slice::from_ref).chain([&together[..]]);
    let mut vectors = Vec::with_capacity(2 * texts.len());
    for batch in batches {
        let found = session.embed(batch)?;
        if found.len() != batch.len() {
            return Err(format!("{} for {} texts", found.len(), batch.len()));
        }
        for vector in found {
            vectors.push(gate.pass(vector).map_err(|e| e.to_string())?);
        }
    }
    Ok(vectors)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GATE: Gate = Gate {
        dimensions: 2,
        normalized: false,
    };

    /// What bf16 gives; f32 gives [`EXACT`] for each text.
    type Gives = fn(&[&Tokens]) -> Result<Vec<Vec<f32>>, String>;

    const EXACT: [f32; 2] = [3.0, 4.0];

    struct Fake {
        has: Result<bool, String>,
        /// None: it does not compile.
        bf16: Option<Gives>,
        compiled: Vec<Precision>,
    }

    struct Session(Precision, Gives);

    impl Compile for Fake {
        type Session = Session;

        fn has(&self, _: Precision) -> Result<bool, String> {
            self.has.clone()
        }
        fn compile(&mut self, precision: Precision) -> Result<Session, String> {
            self.compiled.push(precision);
            match precision {
                Precision::F32 => Ok(Session(precision, exact)),
                Precision::Bf16 => {
                    let gives = self.bf16.ok_or("no kernel")?;
                    Ok(Session(precision, gives))
                }
            }
        }
    }

    impl Embed for Session {
        fn embed(&mut self, inputs: &[&Tokens]) -> Result<Vec<Vec<f32>>, String> {
            self.1(inputs)
        }
    }

    fn exact(inputs: &[&Tokens]) -> Result<Vec<Vec<f32>>, String> {
        each(inputs, EXACT)
    }

    fn each(inputs: &[&Tokens], vector: [f32; 2]) -> Result<Vec<Vec<f32>>, String> {
        Ok(vec![vector.to_vec(); inputs.len()])
    }

    fn fake(bf16: Gives) -> Fake {
        Fake {
            has: Ok(true),
            bf16: Some(bf16),
            compiled: Vec::new(),
        }
    }

    fn texts() -> Vec<Tokens> {
        let text = |length| Tokens {
            ids: vec![1; length].into(),
            types: vec![0; length].into(),
            text: None,
        };
        [1, 2, 4].map(text).into()
    }

    /// The precision at work, that it gives what it should, and why it is not bf16.
    fn proven(mut fake: Fake, texts: &[Tokens]) -> (Precision, Option<String>) {
        let (mut session, why) = session(&mut fake, Precision::Bf16, texts, GATE).unwrap();
        if session.0 == Precision::F32 {
            assert_eq!(session.embed(&[&texts[0]]).unwrap(), [EXACT]);
        }
        (session.0, why)
    }

    #[test]
    fn bf16_that_is_good_computes() {
        let nearly = |inputs: &[&Tokens]| each(inputs, [3.001, 4.0]);
        assert_eq!(proven(fake(nearly), &texts()), (Precision::Bf16, None));
    }

    /// A row for each way to fail.
    #[test]
    fn bf16_that_is_not_is_refused_and_f32_computes() {
        let refused: [(Gives, &str); 7] = [
            (|inputs| each(inputs, [4.0, 3.0]), "0.96, below 0.9999"),
            (
                |inputs| each(inputs, if inputs.len() == 1 { EXACT } else { [4.0, 3.0] }),
                "0.96, below 0.9999",
            ),
            (
                |inputs| each(inputs, if inputs[0].len() == 4 { [4.0, 3.0] } else { EXACT }),
                "0.96, below 0.9999",
            ),
            (|inputs| each(inputs, [3.0, f32::NAN]), "not finite, at position 1"),
            (|inputs| exact(&inputs[1..]), "0 for 1 texts"),
            (|inputs| exact(&inputs[inputs.len() / 3..]), "2 for 3 texts"),
            (|_| Err("bad_alloc".into()), "bad_alloc"),
        ];
        let refused = refused.map(|(gives, why)| (fake(gives), why));
        let others = [
            (
                Fake {
                    bf16: None,
                    ..fake(exact)
                },
                "does not compile in bf16: no kernel",
            ),
            (
                Fake {
                    has: Ok(false),
                    ..fake(exact)
                },
                "does not compute in bf16",
            ),
            (
                Fake {
                    has: Err("no property".into()),
                    ..fake(exact)
                },
                "no property",
            ),
        ];
        for (fake, expected) in refused.into_iter().chain(others) {
            let (precision, why) = proven(fake, &texts());
            assert_eq!(precision, Precision::F32, "{expected}");
            let why = why.unwrap();
            assert!(why.contains(expected), "{why} instead of {expected}");
        }
    }

    #[test]
    fn without_a_text_nothing_is_proven() {
        let mut fake = fake(exact);
        let (session, why) = session(&mut fake, Precision::Bf16, &[], GATE).unwrap();
        assert_eq!(session.0, Precision::F32);
        assert!(why.unwrap().contains("no text"));
    }

    #[test]
    fn f32_is_not_proven() {
        let mut fake = fake(exact);
        let (session, why) = session(&mut fake, Precision::F32, &texts(), GATE).unwrap();
        assert_eq!((session.0, why), (Precision::F32, None));
        assert_eq!(fake.compiled, [Precision::F32]);
    }
}
