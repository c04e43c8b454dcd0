//! How fast the model is on this machine, by chunk length, batch size and threads.
//!
//! `cargo run --release -p millrace-embedder --example model_alone -- MODEL_DIR LIBONNXRUNTIME FILE...`
//! takes the words of the files as prose and cuts them into chunks of a few lengths.

use std::path::PathBuf;

use millrace_embedder::bench;
use millrace_embedder::model::onnx::Provider;
use millrace_embedder::model::{Loaded, ModelSource};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(dir), Some(onnxruntime)) = (args.next().map(PathBuf::from), args.next().map(PathBuf::from)) else {
        return Err("usage: model_alone MODEL_DIR LIBONNXRUNTIME FILE...".into());
    };
    let texts = args.map(std::fs::read_to_string).collect::<Result<Vec<_>, _>>()?;
    let words: Vec<&str> = texts.iter().flat_map(|text| text.split_whitespace()).collect();
    for threads in [None, Some(1)] {
        let source = ModelSource {
            dir: dir.clone(),
            onnxruntime: onnxruntime.clone(),
            threads,
            provider: Provider::Cpu,
        };
        let mut model = Loaded::load(&source)?;
        println!("{:?}", model.backend.describe());
        for words_each in [30, 60, 95] {
            let fits = |text: &String| {
                model
                    .tokenizer
                    .tokenize(text)
                    .is_ok_and(|tokens| tokens.len() < 3 * words_each)
            };
            let chunks: Vec<String> = words
                .chunks(words_each)
                .map(|words| words.join(" "))
                .filter(fits)
                .take(48)
                .collect();
            let mut line = String::new();
            for batch in [1, 2, 4, 8, 16, 32] {
                let measured = bench::measure(&mut model, &chunks, batch)?;
                line += &format!("  {batch}: {:.0}", measured.chunks_per_second());
                if batch == 1 {
                    line.insert_str(0, &format!("{} tokens:", measured.tokens / measured.chunks));
                }
            }
            println!("{line}");
        }
    }
    Ok(())
}
