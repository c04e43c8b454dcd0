//! What people and programs see: progress on stderr, results on stdout, one JSON object a line where asked for.

use std::cell::RefCell;
use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde::Serialize;

/// Prints one line on stdout. A reader that went away ends the program quietly, as it does other tools.
pub fn line(text: impl std::fmt::Display) {
    let mut out = std::io::stdout().lock();
    if writeln!(out, "{text}").and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

/// Prints one JSON object on a line of its own.
pub fn json(value: &impl Serialize) {
    match serde_json::to_string(value) {
        Ok(text) => line(text),
        Err(e) => tracing::error!(error = %e, "cannot write json"),
    }
}

/// Prints rows of cells, each column as wide as its widest; the first row is the head.
pub fn table<const N: usize>(rows: &[[String; N]]) {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    for row in rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        line(cells.collect::<Vec<_>>().join("  ").trim_end());
    }
}

/// Progress of things that take a while: spinners on a terminal, plain lines elsewhere; always on stderr.
#[derive(Debug, Clone)]
pub struct Progress {
    bars: Option<MultiProgress>,
    noticed: Arc<Mutex<Option<(String, Instant)>>>,
}

impl Progress {
    /// The form that fits this process's stderr.
    pub fn stderr() -> Self {
        Self {
            bars: std::io::stderr().is_terminal().then(MultiProgress::new),
            noticed: Arc::default(),
        }
    }

    /// A line that stays.
    pub fn line(&self, text: impl AsRef<str>) {
        match &self.bars {
            // indicatif's own println shows nothing while no bar is on display.
            Some(bars) => bars.suspend(|| eprintln!("{}", text.as_ref())),
            None => eprintln!("{}", text.as_ref()),
        }
    }

    /// A line that many callers may have to say at once: the same text comes at most every ten seconds.
    pub fn notice(&self, text: String) {
        let mut noticed = self.noticed.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = noticed
            .as_ref()
            .is_some_and(|(said, at)| *said == text && at.elapsed() < Duration::from_secs(10));
        if !recent {
            self.line(&text);
            *noticed = Some((text, Instant::now()));
        }
    }

    /// A result on stdout, with no spinner in its way.
    pub fn result(&self, print: impl FnOnce()) {
        match &self.bars {
            Some(bars) => bars.suspend(print),
            None => print(),
        }
    }

    /// Begins a step; what is said of it replaces what was said before.
    pub fn step(&self, name: impl Into<String>) -> Step {
        let bar = self.bars.as_ref().map(|bars| {
            let bar = bars.add(ProgressBar::new_spinner());
            if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix:<22} {wide_msg} {elapsed}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        let name = name.into();
        if let Some(bar) = &bar {
            bar.set_prefix(name.clone());
        }
        Step {
            name,
            progress: self.clone(),
            bar,
            said: RefCell::new((String::new(), None)),
            started: Instant::now(),
        }
    }
}

/// One thing in progress.
#[derive(Debug)]
pub struct Step {
    name: String,
    progress: Progress,
    bar: Option<ProgressBar>,
    said: RefCell<(String, Option<Instant>)>,
    started: Instant,
}

impl Step {
    /// What it does now.
    pub fn say(&self, text: impl Into<String>) {
        let text = text.into();
        let mut said = self.said.borrow_mut();
        if said.0 != text {
            match &self.bar {
                Some(bar) => bar.set_message(text.clone()),
                None => self.progress.line(format!("{:<22} {text}", self.name)),
            }
            *said = (text, Some(Instant::now()));
        }
    }

    /// As [`Step::say`], for what changes often: plain lines come at most every five seconds.
    pub fn tick(&self, text: impl Into<String>) {
        let recent = self
            .said
            .borrow()
            .1
            .is_some_and(|at| at.elapsed() < Duration::from_secs(5));
        if self.bar.is_some() || !recent {
            self.say(text);
        }
    }

    /// It is done; how long it took is added.
    pub fn done(self, text: impl AsRef<str>) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let seconds = self.started.elapsed().as_secs_f64();
        self.progress
            .line(format!("{:<22} {} ({seconds:.1} s)", self.name, text.as_ref()));
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
