//! A picture on a terminal of 80 columns and 24 lines, or more.

use millrace_api::pipeline::v1::{StageFailure, StageState};
use millrace_runtime::pipeline::Summary;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Cell, Paragraph, Row, Table};

use super::picture::{self, Picture};
use crate::stages;

/// Lines of the lower parts, their titles counted.
const LETTERS: u16 = 5;
const FAILURES: u16 = 5;

/// Draws it; `title` says of what, `clock` when.
pub fn draw(frame: &mut Frame<'_>, picture: &Picture, title: &str, clock: &str) {
    let stages = u16::try_from(picture.rows.len()).unwrap_or(u16::MAX).saturating_add(2);
    let parts = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(stages),
        Constraint::Length(1),
        Constraint::Fill(1),
        Constraint::Length(LETTERS),
        Constraint::Length(FAILURES),
    ]);
    let [head, table, model, notes, letters, failures] = parts.areas(frame.area());
    let keys = "q quits";
    let room = usize::from(head.width).saturating_sub(keys.len() + clock.len() + 3);
    let head_text = format!("{title:<room$.room$} {clock}  {keys}");
    frame.render_widget(Line::styled(head_text, Style::new().add_modifier(Modifier::BOLD)), head);
    frame.render_widget(stage_table(picture), table);
    frame.render_widget(Line::raw(model_text(picture)), model);
    frame.render_widget(listed("what is wrong", notes_of(picture), notes.height), notes);
    frame.render_widget(
        listed("dead letters that are open", letters_of(picture), letters.height),
        letters,
    );
    frame.render_widget(listed("last failures", failures_of(picture), failures.height), failures);
}

fn stage_table(picture: &Picture) -> Table<'static> {
    let head = [
        "STAGE", "INSTANCE", "STATE", "LAG", "OLDEST", "IN/S", "WINDOW", "GIVEN UP", "SUCCESS",
    ];
    let widths = [6, 11, 9, 8, 8, 7, 7, 8, 8].map(Constraint::Length);
    let rows = picture.rows.iter().map(row);
    let head = Row::new(head).style(Style::new().add_modifier(Modifier::DIM));
    Table::new(rows, widths).header(head).column_spacing(1)
}

fn row(row: &picture::Row) -> Row<'static> {
    let picture::Row {
        instance,
        stage,
        per_second,
    } = row;
    let color = match stage.state() {
        StageState::Running => Color::Green,
        StageState::Paused | StageState::Starting | StageState::Draining => Color::Yellow,
        StageState::Stopped | StageState::Unspecified => Color::Red,
    };
    let summary = Summary::of(stage);
    let cells = [
        Cell::from(stage.name.clone()),
        Cell::from(instance.clone()),
        Cell::from(summary.state).style(Style::new().fg(color)),
        Cell::from(stages::lag(&summary)),
        Cell::from(age(summary.lag_ms)),
        Cell::from(per_second.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.1}"))),
        Cell::from(stage.window_records.to_string()),
        Cell::from(stage.failed.to_string()),
        Cell::from(stages::success(stage)),
    ];
    Row::new(cells)
}

fn age(ms: i64) -> String {
    match ms {
        ..60_000 => format!("{:.1} s", ms as f64 / 1e3),
        60_000..3_600_000 => format!("{} min", ms / 60_000),
        _ => format!("{} h", ms / 3_600_000),
    }
}

fn model_text(picture: &Picture) -> String {
    match picture.model {
        Some(model) => {
            let fill = model
                .fill
                .map_or_else(|| "-".to_owned(), |fill| format!("{:.0} %", fill * 100.0));
            format!("model: {:.1} texts/s, batch fill {fill}", model.texts_per_second)
        }
        None => "model: only the local stack's is shown".to_owned(),
    }
}

fn notes_of(picture: &Picture) -> Vec<Line<'static>> {
    let red = |note: &String| Line::styled(note.clone(), Style::new().fg(Color::Red));
    picture.notes.iter().map(red).collect()
}

fn letters_of(picture: &Picture) -> Vec<Line<'static>> {
    match &picture.letters {
        Some(counts) => counts
            .iter()
            .map(|(stage, reason, count)| Line::raw(format!("{count:>8}  {stage:<6} {reason}")))
            .collect(),
        None => vec![Line::raw("ingest does not say")],
    }
}

fn failures_of(picture: &Picture) -> Vec<Line<'static>> {
    let line = |failure: &StageFailure| {
        let StageFailure {
            topic,
            partition,
            offset,
            class,
            reason,
            message,
            ..
        } = failure;
        Line::from(vec![
            Span::raw(format!("{topic}/{partition}/{offset} ")),
            Span::styled(format!("{class} {reason} "), Style::new().fg(Color::Yellow)),
            Span::raw(message.clone()),
        ])
    };
    // The newest first.
    picture.failures.iter().rev().map(line).collect()
}

fn listed(title: &'static str, mut lines: Vec<Line<'static>>, height: u16) -> Paragraph<'static> {
    let room = usize::from(height.saturating_sub(1));
    if lines.is_empty() {
        lines.push(Line::styled("nothing", Style::new().add_modifier(Modifier::DIM)));
    }
    if lines.len() > room && room > 0 {
        let more = lines.len() - (room - 1);
        lines.truncate(room - 1);
        lines.push(Line::styled(
            format!("and {more} more"),
            Style::new().add_modifier(Modifier::DIM),
        ));
    }
    let title = Span::styled(title, Style::new().add_modifier(Modifier::BOLD));
    Paragraph::new(lines).block(Block::new().title(title))
}

#[cfg(test)]
mod tests {
    use millrace_api::pipeline::v1::{PartitionProgress, Stage};
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::picture::Model;
    use super::*;

    fn shown(picture: &Picture) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        terminal
            .draw(|frame| draw(frame, picture, "millrace top", "12:00:00"))
            .unwrap();
        let buffer = terminal.backend().buffer().clone();
        let line = |y| (0..80).map(|x| buffer[(x, y)].symbol().to_owned()).collect::<String>();
        (0..24).map(|y| line(y).trim_end().to_owned()).collect()
    }

    fn stage(name: &str, state: StageState) -> Stage {
        Stage {
            name: name.into(),
            state: state.into(),
            partitions: vec![PartitionProgress {
                lag_records: 12,
                lag_ms: 90_000,
                ..PartitionProgress::default()
            }],
            processed: 5,
            failed: 2,
            success_rate: 0.975,
            ..Stage::default()
        }
    }

    #[test]
    fn everything_fits_eighty_columns() {
        let picture = Picture {
            rows: vec![
                picture::Row {
                    instance: "ingest".into(),
                    stage: stage("parse", StageState::Running),
                    per_second: Some(1234.56),
                },
                picture::Row {
                    instance: "embedder-1".into(),
                    stage: stage("embed", StageState::Paused),
                    per_second: None,
                },
            ],
            notes: (0..20).map(|n| format!("note {n}")).collect(),
            letters: Some(vec![("parse".into(), "UNREADABLE_RECORD".into(), 7)]),
            failures: vec![StageFailure {
                topic: "documents.parsed".into(),
                partition: 3,
                offset: 8,
                class: "TRANSIENT".into(),
                reason: "MODEL_UNAVAILABLE".into(),
                message: "away".into(),
                ..StageFailure::default()
            }],
            model: Some(Model {
                fill: Some(0.87),
                texts_per_second: 54.3,
            }),
            ..Picture::default()
        };
        let lines = shown(&picture);
        for words in [
            "millrace top",
            "q quits",
            "parse  ingest      RUNNING   12       1 min    1234.6",
            "embed  embedder-1  PAUSED    12       1 min    -",
            "97.5 %",
            "model: 54.3 texts/s, batch fill 87 %",
            "note 0",
            "more",
            "       7  parse  UNREADABLE_RECORD",
            "documents.parsed/3/8 TRANSIENT MODEL_UNAVAILABLE away",
        ] {
            assert!(lines.iter().any(|line| line.contains(words)), "{words}: {lines:#?}");
        }
    }

    #[test]
    fn nothing_is_said_to_be_nothing() {
        let lines = shown(&Picture::default());
        assert!(
            lines.iter().filter(|line| *line == "nothing").count() >= 2,
            "{lines:#?}"
        );
        assert!(lines.iter().any(|line| line == "ingest does not say"), "{lines:#?}");
    }
}
