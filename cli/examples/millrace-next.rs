//! `millrace` as it will be after the next change of every schema, with the feature `next`: `tests/e2e/evolution.rs`.

use std::process::ExitCode;

fn main() -> ExitCode {
    millrace_cli::main()
}
