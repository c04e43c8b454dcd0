use super::*;
use crate::batch::fake::manifest;
use crate::model::openvino::OpenVinoOptions;

/// As it arrives at the other end.
fn sent<M: prost::Message + Default>(message: &M) -> M {
    let mut wire = Vec::new();
    frame::write(message, &mut wire).unwrap();
    frame::read(&mut &wire[..]).unwrap()
}

fn on_openvino(precision: Precision) -> OpenVinoOptions {
    let text = |ids: &[u32]| Tokens {
        ids: ids.into(),
        types: vec![0; ids.len()].into(),
        text: None,
    };
    OpenVinoOptions {
        library: "/lib/libopenvino_c.so".into(),
        precision,
        threads: 3,
        streams: 2,
        pad_id: 7,
        proof: match precision {
            Precision::F32 => Vec::new(),
            Precision::Bf16 => vec![text(&[1, 2, 3]), text(&[9])],
        },
    }
}

struct Made(Precision);

impl Backend for Made {
    fn embed(&mut self, _: &[&Tokens]) -> Result<Vec<Vec<f32>>, BackendError> {
        Ok(Vec::new())
    }
    fn describe(&self) -> Description {
        Description {
            version: "2026.4.1".into(),
            precision: self.0.name(),
            streams: 2,
            ..Description::of_none("openvino")
        }
    }
}

#[test]
fn a_worker_is_told_what_to_compute_in_and_what_to_prove_it_with() {
    for precision in [Precision::F32, Precision::Bf16] {
        let options = on_openvino(precision);
        let start = start(Path::new("/model"), &manifest(), &Local::OpenVino(options.clone()));
        let start = sent(&start);
        assert_eq!((&*start.dir, &start.sha256), ("/model", &manifest().sha256));
        let local = serve::local(start).unwrap();
        assert!(matches!(&local, Local::OpenVino(told) if *told == options), "{local:?}");
    }
}

#[test]
fn a_worker_tells_what_it_computes_in_and_why() {
    let local = Local::OpenVino(on_openvino(Precision::Bf16));
    let refused = "bf16 is not as good as f32";
    for (precision, fell_back) in [(Precision::Bf16, None), (Precision::F32, Some(refused.to_owned()))] {
        let opened = Opened {
            backend: Box::new(Made(precision)),
            fell_back: fell_back.clone(),
        };
        let answer = sent(&serve::answer(&Ok(opened)));
        let expected = Description {
            name: "openvino",
            version: "2026.4.1".into(),
            device: "cpu".into(),
            precision: precision.name(),
            threads: 3,
            streams: 2,
            batch_independent: precision == Precision::F32,
            stands_in_for: None,
        };
        assert_eq!(made(answer, &local).unwrap(), (expected, fell_back));
    }
    let answer = sent(&serve::answer(&Err(ModelError::NoEndpoint)));
    let error = made(answer, &local).unwrap_err().to_string();
    assert!(error.contains(&ModelError::NoEndpoint.to_string()), "{error}");
}

#[test]
fn a_precision_that_is_unknown_is_refused_at_both_ends() {
    let local = Local::OpenVino(on_openvino(Precision::Bf16));
    for unknown in ["int8", ""] {
        let mut start = start(Path::new("/model"), &manifest(), &local);
        start.openvino.as_mut().unwrap().precision = unknown.into();
        let told = serve::local(sent(&start)).unwrap_err();
        let answer = Answer::made(frame::Made {
            precision: unknown.into(),
            ..frame::Made::default()
        });
        for error in [told, made(sent(&answer), &local).unwrap_err()] {
            let error = error.to_string();
            assert!(error.contains(&format!("{unknown:?}, which is unknown")), "{error}");
        }
    }
}
