//! `millrace top`.

use std::io::IsTerminal as _;
use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyModifiers};
use tokio::sync::mpsc;

use crate::client::Target;
use crate::exit::Usage;
use crate::output;
use crate::stack::size::http_of;
use crate::stack::state::{Layout, State};
use crate::stages;
use crate::top::draw::draw;
use crate::top::picture::{Picture, Sources};

/// How often it looks, and how long a key may take to be seen.
const EVERY: Duration = Duration::from_secs(1);
const KEYS: Duration = Duration::from_millis(100);

/// Watch the stages: lag, throughput, batch fill, failures and dead letters, renewed every second
///
/// Asks the services themselves, those of the local stack or where --ingest, --embedder and --indexer say; it needs neither
/// Kafka nor a metrics system. Eighty columns and 24 lines are enough. For programs: `millrace stage list --json`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millrace top
  millrace top --dir /tmp/three
  millrace top --once                    one picture as plain text, for a report or a pipe")]
pub struct Top {
    /// Print one picture and end
    #[arg(long)]
    once: bool,
}

/// Shows pictures until `q`, Esc or Ctrl-C.
pub async fn run(command: Top, target: &Target) -> Result<()> {
    let sources = sources(target)?;
    if command.once {
        return once(&sources).await;
    }
    if !std::io::stdout().is_terminal() {
        return Err(Usage("top draws on a terminal: give --once for a pipe or a file".into()).into());
    }
    let (quit, mut asked) = mpsc::channel(1);
    // Ends with the process, or when nobody waits for a key any more.
    std::thread::Builder::new()
        .name("keys".into())
        .spawn(move || keys(&quit))?;
    let mut terminal = ratatui::try_init().context("cannot draw on this terminal")?;
    let mut picture = Picture::default();
    let mut again = tokio::time::interval(EVERY);
    let shown = loop {
        tokio::select! {
            _ = again.tick() => {}
            _ = asked.recv() => break Ok(()),
        }
        picture = Picture::take(&sources, &picture).await;
        let title = format!("millrace top: {}", target.dir.display());
        if let Err(error) = terminal.draw(|frame| draw(frame, &picture, &title, &clock())) {
            break Err(error).context("cannot draw on this terminal");
        }
    };
    ratatui::restore();
    shown
}

/// Rates need two looks.
async fn once(sources: &Sources) -> Result<()> {
    let first = Picture::take(sources, &Picture::default()).await;
    tokio::time::sleep(EVERY).await;
    let picture = Picture::take(sources, &first).await;
    let mut terminal = ratatui::Terminal::new(ratatui::backend::TestBackend::new(80, 24))?;
    terminal.draw(|frame| draw(frame, &picture, "millrace top", &clock()))?;
    let buffer = terminal.backend().buffer();
    for row in buffer.content().chunks(usize::from(buffer.area.width)) {
        let line: String = row.iter().map(ratatui::buffer::Cell::symbol).collect();
        output::line(line.trim_end());
    }
    Ok(())
}

fn keys(quit: &mpsc::Sender<()>) {
    while !quit.is_closed() {
        // A terminal that is gone ends the loop by its error.
        match event::poll(KEYS).and_then(|any| any.then(event::read).transpose()) {
            Ok(Some(Event::Key(key))) => {
                let interrupted = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
                if interrupted || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc) {
                    // Full: it was asked for already.
                    let _ = quit.try_send(());
                    return;
                }
            }
            Ok(_) => {}
            Err(_) => {
                let _ = quit.try_send(());
                return;
            }
        }
    }
}

fn sources(target: &Target) -> Result<Sources> {
    let instances = stages::instances(target)?;
    let mut metrics = Vec::new();
    if target.embedder.is_none()
        && let Some(state) = State::load(&Layout::new(&target.dir)?)?
    {
        let embedders = instances
            .iter()
            .filter(|(instance, _)| instance.starts_with("embedder"));
        for (instance, _) in embedders {
            // A stack that was started by an earlier version has none.
            metrics.extend(
                state
                    .ports
                    .of(&http_of(instance))
                    .ok()
                    .map(|port| format!("127.0.0.1:{port}")),
            );
        }
    }
    Ok(Sources {
        instances,
        letters: target.dead_letters()?,
        metrics,
    })
}

/// The time of day in UTC, as the logs have it.
fn clock() -> String {
    let now = Timestamp::now().to_zoned(TimeZone::UTC);
    format!("{:02}:{:02}:{:02}Z", now.hour(), now.minute(), now.second())
}
