//! One checked vector per text.

/// A vector that has passed the [`Gate`]: right size, finite, not zero, of unit length where the model says so.
#[derive(Debug, Clone, PartialEq)]
pub struct Vector(Box<[f32]>);

impl Vector {
    /// Its values.
    pub fn values(&self) -> &[f32] {
        &self.0
    }
    /// Its values, taken out.
    pub fn into_values(self) -> Vec<f32> {
        self.0.into_vec()
    }
    /// Cosine of the angle to another one.
    pub fn cosine(&self, other: &Self) -> f32 {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
        let (a, b) = (self.values(), other.values());
        (dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()) as f32
    }
}

/// Why a vector is not given out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadVector {
    /// Not the model's dimensions.
    #[error("the model gave {found} values instead of {expected}")]
    Size {
        /// Values it has.
        found: usize,
        /// Values it should have.
        expected: usize,
    },
    /// NaN or infinite.
    #[error("the model gave a value that is not finite, at position {0}")]
    NotFinite(usize),
    /// No direction at all.
    #[error("the model gave a vector of length zero")]
    Zero,
}

/// Judges every vector before anybody sees it.
#[derive(Debug, Clone, Copy)]
pub struct Gate {
    /// Values a vector has.
    pub dimensions: usize,
    /// Whether vectors are scaled to unit length.
    pub normalized: bool,
}

impl Gate {
    /// Checks a vector and scales it to unit length if the model is normalized.
    ///
    /// | vector | verdict |
    /// |---|---|
    /// | wrong number of values | [`BadVector::Size`] |
    /// | a NaN or an infinity in it | [`BadVector::NotFinite`] |
    /// | all values (nearly) zero | [`BadVector::Zero`] |
    /// | else | passes |
    pub fn pass(&self, mut vector: Vec<f32>) -> Result<Vector, BadVector> {
        let length = self.check(&vector)?;
        if self.normalized {
            vector.iter_mut().for_each(|v| *v = (f64::from(*v) / length) as f32);
        }
        Ok(Vector(vector.into()))
    }

    /// A vector that has passed before and was kept: judged as any, and left as it is to the bit.
    pub fn pass_again(&self, vector: Vec<f32>) -> Result<Vector, BadVector> {
        self.check(&vector)?;
        Ok(Vector(vector.into()))
    }

    /// Its verdict alone; gives the vector's length.
    pub(super) fn check(&self, vector: &[f32]) -> Result<f64, BadVector> {
        if vector.len() != self.dimensions {
            return Err(BadVector::Size {
                found: vector.len(),
                expected: self.dimensions,
            });
        }
        if let Some(at) = vector.iter().position(|value| !value.is_finite()) {
            return Err(BadVector::NotFinite(at));
        }
        // In f64: the squares of large values would overflow, those of small ones vanish.
        let length = vector.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>().sqrt();
        if length < 1e-12 {
            return Err(BadVector::Zero);
        }
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GATE: Gate = Gate {
        dimensions: 2,
        normalized: true,
    };

    #[test]
    fn the_gate_scales_what_passes() {
        assert_eq!(GATE.pass(vec![3.0, 4.0]).unwrap().values(), [0.6, 0.8]);
        let large = GATE.pass(vec![3e30, 4e30]).unwrap();
        assert!((large.values()[0] - 0.6).abs() < 1e-6 && (large.values()[1] - 0.8).abs() < 1e-6);
        let raw = Gate {
            normalized: false,
            ..GATE
        };
        assert_eq!(raw.pass(vec![3.0, 4.0]).unwrap().values(), [3.0, 4.0]);
    }

    #[test]
    fn what_has_passed_is_not_scaled_again() {
        assert_eq!(GATE.pass_again(vec![3.0, 4.0]).unwrap().values(), [3.0, 4.0]);
        assert_eq!(GATE.pass_again(vec![0.0, f32::NAN]), Err(BadVector::NotFinite(1)));
    }

    #[test]
    fn what_is_no_direction_does_not_pass() {
        assert_eq!(GATE.pass(vec![1.0]), Err(BadVector::Size { found: 1, expected: 2 }));
        assert_eq!(GATE.pass(vec![0.0, f32::NAN]), Err(BadVector::NotFinite(1)));
        assert_eq!(GATE.pass(vec![f32::INFINITY, 0.0]), Err(BadVector::NotFinite(0)));
        assert_eq!(GATE.pass(vec![0.0, -0.0]), Err(BadVector::Zero));
    }
}
