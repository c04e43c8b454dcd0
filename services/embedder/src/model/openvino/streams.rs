//! A batch in parts, one a stream, all computed at once.

use crate::model::tokenizer::Tokens;

/// What computes one part after another; the error is what OpenVINO said.
pub(super) trait Stream {
    /// Begins a part and does not wait.
    fn begin(&mut self, part: &[&Tokens]) -> Result<(), String>;

    /// Waits for the part that was begun: a vector each, in their order.
    fn end(&mut self, part: &[&Tokens]) -> Result<Vec<Vec<f32>>, String>;
}

/// One vector per input, in order. Whatever happens, no stream is at work afterwards.
pub(super) fn embed(streams: &mut [impl Stream], inputs: &[&Tokens]) -> Result<Vec<Vec<f32>>, String> {
    let parts = parts(inputs, streams.len());
    let mut begun = Vec::new();
    let mut failed = None;
    for (stream, part) in streams.iter_mut().zip(parts) {
        let texts: Vec<&Tokens> = part.iter().map(|&at| inputs[at]).collect();
        match stream.begin(&texts) {
            Ok(()) => begun.push((stream, part, texts)),
            Err(said) => {
                failed = Some(said);
                break;
            }
        }
    }
    let mut vectors = vec![Vec::new(); inputs.len()];
    for (stream, part, texts) in begun {
        match stream.end(&texts) {
            Ok(found) if found.len() != part.len() => {
                let short = format!("{} vectors for {} texts", found.len(), part.len());
                failed = failed.or(Some(short));
            }
            Ok(found) => part
                .into_iter()
                .zip(found)
                .for_each(|(at, vector)| vectors[at] = vector),
            Err(said) => failed = failed.or(Some(said)),
        }
    }
    failed.map_or(Ok(vectors), Err)
}

/// Which inputs each stream has, no more parts than inputs: dealt out from the longest on, so that parts are nearly as wide and have
/// as many rows, or one less. Texts without tokens are in none.
fn parts(inputs: &[&Tokens], streams: usize) -> Vec<Vec<usize>> {
    let mut by_length: Vec<usize> = (0..inputs.len()).filter(|&at| !inputs[at].is_empty()).collect();
    by_length.sort_by_key(|&at| std::cmp::Reverse(inputs[at].len()));
    let mut parts = vec![Vec::new(); streams.min(by_length.len())];
    for (turn, at) in by_length.into_iter().enumerate() {
        let stream = turn % parts.len();
        parts[stream].push(at);
    }
    parts
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    type Log = RefCell<Vec<(&'static str, usize, Vec<usize>)>>;

    struct Fake<'a> {
        name: usize,
        log: &'a Log,
        begins: Result<(), String>,
        ends: Result<(), String>,
        leaves_out: usize,
    }

    impl Fake<'_> {
        fn note(&self, what: &'static str, part: &[&Tokens]) {
            let lengths = part.iter().map(|tokens| tokens.len()).collect();
            self.log.borrow_mut().push((what, self.name, lengths));
        }
    }

    impl Stream for Fake<'_> {
        fn begin(&mut self, part: &[&Tokens]) -> Result<(), String> {
            self.note("begin", part);
            self.begins.clone()
        }

        fn end(&mut self, part: &[&Tokens]) -> Result<Vec<Vec<f32>>, String> {
            self.note("end", part);
            self.ends.clone()?;
            let vectors = part.iter().map(|tokens| vec![tokens.len() as f32]);
            Ok(vectors.skip(self.leaves_out).collect())
        }
    }

    fn texts(lengths: &[usize]) -> Vec<Tokens> {
        let text = |&length: &usize| Tokens {
            ids: vec![1; length].into(),
            types: vec![0; length].into(),
            text: None,
        };
        lengths.iter().map(text).collect()
    }

    fn streams(log: &Log, count: usize) -> Vec<Fake<'_>> {
        let stream = |name| Fake {
            name,
            log,
            begins: Ok(()),
            ends: Ok(()),
            leaves_out: 0,
        };
        (0..count).map(stream).collect()
    }

    fn run(streams: &mut [Fake<'_>], lengths: &[usize]) -> Result<Vec<Vec<f32>>, String> {
        let texts = texts(lengths);
        embed(streams, &texts.iter().collect::<Vec<_>>())
    }

    #[test]
    fn parts_are_alike_and_vectors_in_the_order_of_the_inputs() {
        let log = Log::default();
        let vectors = run(&mut streams(&log, 2), &[3, 9, 4, 8, 7]).unwrap();
        assert_eq!(vectors, [[3.0], [9.0], [4.0], [8.0], [7.0]]);
        let expected = [
            ("begin", 0, vec![9, 7, 3]),
            ("begin", 1, vec![8, 4]),
            ("end", 0, vec![9, 7, 3]),
            ("end", 1, vec![8, 4]),
        ];
        assert_eq!(*log.borrow(), expected, "all have begun before one is waited for");
    }

    #[test]
    fn fewer_texts_than_streams_leave_some_alone() {
        let log = Log::default();
        assert_eq!(run(&mut streams(&log, 3), &[5]).unwrap(), [[5.0]]);
        assert_eq!(log.borrow().len(), 2);
        assert_eq!(run(&mut streams(&log, 3), &[]).unwrap(), Vec::<Vec<f32>>::new());
        assert_eq!(log.borrow().len(), 2, "nothing to do");
        let with_an_empty_one = run(&mut streams(&log, 2), &[0, 4]).unwrap();
        assert_eq!(with_an_empty_one, [vec![], vec![4.0]], "which no gate lets pass");
    }

    /// A stream that was left at work would give its vectors to the next batch.
    #[test]
    fn whatever_fails_all_that_began_are_waited_for() {
        let log = Log::default();
        let mut three = streams(&log, 3);
        three[1].begins = Err("no memory".into());
        assert_eq!(run(&mut three, &[1, 2, 3]), Err("no memory".into()));
        let what: Vec<_> = log.borrow_mut().drain(..).map(|(what, name, _)| (what, name)).collect();
        assert_eq!(what, [("begin", 0), ("begin", 1), ("end", 0)]);
        three[1].begins = Ok(());
        three[0].ends = Err("first".into());
        three[1].ends = Err("second".into());
        assert_eq!(run(&mut three, &[1, 2, 3]), Err("first".into()));
        let ended = log.borrow().iter().filter(|(what, ..)| *what == "end").count();
        assert_eq!(ended, 3);
        let mut short = streams(&log, 2);
        short[1].leaves_out = 1;
        assert_eq!(run(&mut short, &[1, 2, 3]), Err("0 vectors for 1 texts".into()));
    }
}
