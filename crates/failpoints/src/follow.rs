//! The folder, looked at again and again by a thread of its own.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};

use crate::{mutants, points};

const EVERY: Duration = Duration::from_millis(10);

pub(crate) fn begin(service: &'static str, folder: PathBuf) {
    // Before anything else runs: what is armed is armed from the first moment on.
    let mut on = BTreeSet::new();
    look(service, &folder, &mut on);
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(EVERY);
            look(service, &folder, &mut on);
        }
    });
}

fn look(service: &'static str, folder: &Path, on: &mut BTreeSet<String>) {
    // No file: nothing is on.
    let text = fs::read_to_string(folder.join(service)).unwrap_or_default();
    let now: BTreeSet<String> = text.lines().map(str::to_owned).collect();
    for name in on.difference(&now) {
        fail::remove(name.as_str());
    }
    for name in now.difference(on) {
        turn_on(service, folder, name);
    }
    *on = now;
}

fn turn_on(service: &'static str, folder: &Path, name: &str) {
    let turned = if mutants::ALL.iter().any(|mutant| mutant.name == name) {
        fail::cfg(name, "return")
    } else if points::ALL.iter().any(|point| point.name == name) {
        let hit = folder.join("hit").join(format!("{service}.{name}"));
        if hit.exists() {
            return;
        }
        fail::cfg_callback(name, move || die(&hit))
    } else {
        Err(format!("no crash point and no mutant is named {name}"))
    };
    if let Err(why) = turned {
        eprintln!("failpoints: {why}");
    }
}

/// Ends this process as nothing inside it could notice.
fn die(hit: &Path) {
    let marked = hit
        .parent()
        .map_or(Ok(()), fs::create_dir_all)
        .and_then(|()| fs::write(hit, ""));
    if let Err(error) = marked {
        // Alive, so that the test sees a point that was not hit.
        eprintln!("failpoints: cannot write {}: {error}", hit.display());
        return;
    }
    if kill_process(getpid(), Signal::KILL).is_ok() {
        // The signal comes before the next effect, whatever thread it reaches first.
        std::thread::park();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mutant_is_active_while_its_name_stands_there() {
        let folder = tempfile::tempdir().unwrap();
        let mut on = BTreeSet::new();
        look("ingest", folder.path(), &mut on);
        assert!(!mutants::DROP_ORDER.is_active());
        fs::write(folder.path().join("ingest"), "drop-order\n").unwrap();
        look("ingest", folder.path(), &mut on);
        assert!(mutants::DROP_ORDER.is_active() && !mutants::COMMIT_EARLY.is_active());
        fs::write(folder.path().join("ingest"), "").unwrap();
        look("ingest", folder.path(), &mut on);
        assert!(!mutants::DROP_ORDER.is_active());
    }

    #[test]
    fn a_point_that_was_hit_lets_pass() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("hit")).unwrap();
        fs::write(folder.path().join("hit/ingest.transaction.begun"), "").unwrap();
        fs::write(folder.path().join("ingest"), "transaction.begun\n").unwrap();
        look("ingest", folder.path(), &mut BTreeSet::new());
        points::TRANSACTION_BEGUN.reached();
    }

    #[test]
    fn names_are_given_once() {
        let names = mutants::ALL.iter().map(|mutant| mutant.name);
        let names: Vec<_> = names.chain(points::ALL.iter().map(|point| point.name)).collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
    }
}
