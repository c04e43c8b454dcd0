//! A case for each scripted crash. The first that runs plays them all.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use libtest_mimic::{Failed, Trial};
use millrace_oracle::crash::{self, Played};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

type Outcome = Result<Vec<Played>, String>;

pub fn trials(runtime: &Arc<Runtime>) -> Vec<Trial> {
    let played: Arc<OnceLock<Outcome>> = Arc::default();
    let scenes = crash::scenes().into_iter();
    let trial = |name: String| {
        let (runtime, played) = (runtime.clone(), played.clone());
        Trial::test(format!("crash::{name}"), move || {
            let played = played.get_or_init(|| play(&runtime)).as_ref().map_err(Failed::from)?;
            let scene = played.iter().find(|scene| scene.scene == name);
            match scene {
                Some(scene) if scene.is_well() => Ok(()),
                scene => Err(Failed::from(format!("{scene:#?}"))),
            }
        })
    };
    scenes.map(|scene| trial(scene.name())).collect()
}

fn play(runtime: &Runtime) -> Outcome {
    let millrace = Path::new(env!("CARGO_BIN_EXE_millrace"));
    let tell = |told: String| println!("{told}");
    runtime
        .block_on(crash::play(millrace, &CancellationToken::new(), &tell))
        .map_err(|error| format!("{error:#}"))
}
