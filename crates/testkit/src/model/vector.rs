//! Vectors without a model: a bag of words, each word's weight in the place that its hash names.

/// A vector of unit length. The same text always gives the same one; texts with long words in common are near.
pub fn vector(text: &str, dimensions: usize) -> Vec<f32> {
    let mut values = vec![0f32; dimensions];
    let text = text.to_lowercase();
    let words = text
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty());
    for word in words {
        if let Some(place) = place(word, dimensions) {
            // Short words are everybody's.
            values[place] += word.chars().count() as f32;
        }
    }
    if values.iter().all(|value| *value == 0.0)
        && let Some(place) = place(&text, dimensions)
    {
        values[place] = 1.0;
    }
    let length = values.iter().map(|value| value * value).sum::<f32>().sqrt();
    values.iter_mut().for_each(|value| *value /= length);
    values
}

/// FNV-1a: the same in every process and build.
fn place(word: &str, dimensions: usize) -> Option<usize> {
    let hash = word.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    // Its low bits alone would keep words apart badly.
    let place = (hash >> 16).checked_rem(dimensions as u64)?;
    usize::try_from(place).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cosine(a: &str, b: &str) -> f32 {
        let (a, b) = (vector(a, 384), vector(b, 384));
        a.iter().zip(&b).map(|(a, b)| a * b).sum()
    }

    #[test]
    fn texts_with_words_in_common_are_near() {
        let text = "Steps to recover access to an account when you forgot the password";
        assert!((cosine(text, text) - 1.0).abs() < 1e-6);
        let (near, far) = (
            cosine(text, "How do I reset my password?"),
            cosine(text, "Volcanic rock cools slowly beneath the ocean floor"),
        );
        assert!(near > far + 0.2, "{near} {far}");
    }

    #[test]
    fn every_text_has_a_direction_in_any_dimension() {
        for dimensions in [1, 2, 384, 1024] {
            for text in ["a", "", "…", "The mill turns. The mill stands."] {
                let vector = vector(text, dimensions);
                let length: f32 = vector.iter().map(|value| value * value).sum();
                assert!(vector.len() == dimensions && (length - 1.0).abs() < 1e-5, "{text:?}");
            }
        }
        assert!(vector("a", 0).is_empty());
    }
}
