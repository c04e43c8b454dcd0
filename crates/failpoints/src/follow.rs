//! The folder, looked at again and again by a thread of its own.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};

use crate::{client, device, mutants, points};

const EVERY: Duration = Duration::from_millis(10);

pub(crate) fn begin(service: &'static str, folder: PathBuf) {
    // Before anything else runs: what is armed is armed from the first moment on.
    let mut on = turn(service, &folder, &BTreeSet::new());
    say(&folder.join("on").join(service), &on);
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(EVERY);
            let now = turn(service, &folder, &on);
            if now != on {
                say(&folder.join("on").join(service), &now);
                on = now;
            }
        }
    });
}

/// Turns on and off what the folder says, and gives back what is on.
fn turn(service: &'static str, folder: &Path, on: &BTreeSet<String>) -> BTreeSet<String> {
    // No file: nothing is on.
    let text = fs::read_to_string(folder.join(service)).unwrap_or_default();
    let now: BTreeSet<String> = text.lines().map(str::to_owned).collect();
    for name in on.difference(&now) {
        fail::remove(name.as_str());
    }
    for name in now.difference(on) {
        turn_on(service, folder, name);
    }
    now
}

fn say(file: &Path, on: &BTreeSet<String>) {
    let text: String = on.iter().map(|name| format!("{name}\n")).collect();
    let folder = file.parent().map_or(Ok(()), fs::create_dir_all);
    if let Err(error) = folder.and_then(|()| fs::write(file, text)) {
        eprintln!("failpoints: cannot write {}: {error}", file.display());
    }
}

fn turn_on(service: &'static str, folder: &Path, name: &str) {
    let mutants = mutants::ALL.iter().chain([&mutants::SLOW_SEARCH]);
    let turned = if mutants
        .chain(device::ALL)
        .chain(client::ALL)
        .any(|switch| switch.name == name)
    {
        fail::cfg(name, "return")
    } else if points::ALL.iter().any(|point| point.name == name) {
        let hit = folder.join("hit").join(format!("{service}.{name}"));
        if hit.exists() {
            return;
        }
        fail::cfg_callback(name, move || die(&hit))
    } else {
        Err(format!("no crash point, mutant or fault is named {name}"))
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
        let on = turn("ingest", folder.path(), &BTreeSet::new());
        assert!(!mutants::DROP_ORDER.is_active());
        fs::write(folder.path().join("ingest"), "drop-order\n").unwrap();
        let on = turn("ingest", folder.path(), &on);
        assert!(mutants::DROP_ORDER.is_active() && !mutants::COMMIT_EARLY.is_active());
        fs::write(folder.path().join("ingest"), "").unwrap();
        assert!(turn("ingest", folder.path(), &on).is_empty());
        assert!(!mutants::DROP_ORDER.is_active());
    }

    #[test]
    fn a_point_that_was_hit_lets_pass() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("hit")).unwrap();
        fs::write(folder.path().join("hit/ingest.transaction.begun"), "").unwrap();
        fs::write(folder.path().join("ingest"), "transaction.begun\n").unwrap();
        turn("ingest", folder.path(), &BTreeSet::new());
        points::TRANSACTION_BEGUN.reached();
    }

    #[test]
    fn a_service_says_what_is_on_from_its_start() {
        let folder = tempfile::tempdir().unwrap();
        begin("embedder", folder.path().to_owned());
        assert_eq!(fs::read_to_string(folder.path().join("on/embedder")).unwrap(), "");
    }

    #[test]
    fn names_are_given_once() {
        let names = mutants::ALL.iter().map(|mutant| mutant.name);
        let names = names.chain(device::ALL.iter().chain(client::ALL).map(|fault| fault.name));
        let names: Vec<_> = names.chain(points::ALL.iter().map(|point| point.name)).collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
    }
}
