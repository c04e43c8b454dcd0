//! Two schemas, with a zero byte between, through the checker in all modes. What may happen: an answer.

#![no_main]

use libfuzzer_sys::fuzz_target;
use millrace_schema::Schema;
use millrace_schema::compat::{Mode, Version, check, reads};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let (candidate, previous) = text.split_once('\0').unwrap_or((text, text));
    for mode in Mode::ALL {
        let report = check(
            mode,
            Version::new("candidate", candidate),
            &[Version::new("v1", candidate), Version::new("v2", previous)],
        );
        assert_eq!(report.compatible, report.findings.is_empty());
    }
    // What is read strictly is read leniently, too; and what is readable at all reads itself, unless an alias repeats a name.
    if let Ok(schema) = Schema::strict(candidate) {
        assert!(Schema::lenient(candidate).is_ok());
        let itself = reads(&schema, &schema);
        let given_up = |code: &str| matches!(code, "AMBIGUOUS_FIELD" | "TOO_DEEP" | "TOO_LARGE");
        assert!(itself.iter().all(|mismatch| given_up(mismatch.rule.code())), "{itself:?}");
    }
});
