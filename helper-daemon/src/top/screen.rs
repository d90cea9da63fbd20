//! The screen of `copper top`.
#![forbid(unsafe_code)]

use super::sample::{History, Rates, Sample};
use crate::calls::Ends;
use crate::size::show;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Cell, Gauge, Paragraph, Row, Sparkline, Table};
use std::cmp::Reverse;

/// Draws all of it.
pub(super) fn draw(frame: &mut Frame<'_>, history: &History) {
    let sample = &history.last;
    let slow = if sample.slowest.is_empty() {
        0
    } else {
        sample.slowest.len().min(6) as u16 + 3
    };
    let [head, gauges, lines, calls, slowest, foot] = Layout::vertical([
        Constraint::Length(3),
        Constraint::Length(3),
        Constraint::Length(6),
        Constraint::Min(4),
        Constraint::Length(slow),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    draw_head(frame, head, sample);
    draw_gauges(frame, gauges, sample);
    draw_rates(frame, lines, history);
    draw_calls(frame, calls, sample);
    if slow > 0 {
        draw_slowest(frame, slowest, sample);
    }
    draw_foot(frame, foot, history);
}

fn draw_head(frame: &mut Frame<'_>, area: Rect, sample: &Sample) {
    let state = if sample.ready == sample.nodes {
        Span::styled("all ready", Style::new().fg(Color::Green))
    } else {
        let missing = sample.missing.join(", ");
        let text = format!(
            "{} of {} ready; missing: {missing}",
            sample.ready, sample.nodes
        );
        Span::styled(text, Style::new().fg(Color::Red))
    };
    let title = Span::styled(
        sample.title.clone(),
        Style::new().add_modifier(Modifier::BOLD),
    );
    let origin = &sample.origin;
    let served = &sample.served;
    let text = vec![
        Line::from(vec![title, Span::raw("  "), state]),
        Line::from(format!(
            "origin    {} stats, {} listings, {} opens, {} read",
            origin.stats,
            origin.listings,
            origin.opens,
            show(origin.bytes_read)
        )),
        Line::from(format!(
            "helpers   {} questions, {} left to the origin; {} between nodes, {} evicted",
            sample.questions,
            sample.passed_through,
            show(served.bytes_from_tree),
            served.evictions
        )),
    ];
    frame.render_widget(Paragraph::new(text), area);
}

fn draw_gauges(frame: &mut Frame<'_>, area: Rect, sample: &Sample) {
    let [left, right] =
        Layout::horizontal([Constraint::Percentage(50), Constraint::Percentage(50)]).areas(area);
    let rate = Ends::of_all(&sample.calls).hit_rate();
    let hits = Gauge::default()
        .block(Block::bordered().title("answered at once"))
        .gauge_style(Style::new().fg(Color::Green))
        .ratio((rate.unwrap_or(0.0) / 100.0).clamp(0.0, 1.0))
        .label(rate.map_or_else(|| "no calls".to_owned(), |rate| format!("{rate:.1} %")));
    frame.render_widget(hits, left);
    let part = sample.store_bytes as f64 / sample.budget_bytes.max(1) as f64;
    let memory = Gauge::default()
        .block(Block::bordered().title("memory of the store"))
        .gauge_style(Style::new().fg(if part > 0.9 { Color::Red } else { Color::Blue }))
        .ratio(part.clamp(0.0, 1.0))
        .label(format!(
            "{} of {}, {} files",
            show(sample.store_bytes),
            show(sample.budget_bytes),
            sample.files
        ));
    frame.render_widget(memory, right);
}

fn draw_rates(frame: &mut Frame<'_>, area: Rect, history: &History) {
    type Of = fn(&Rates) -> f64;
    let shown: [(&str, Of, bool); 4] = [
        ("calls", |rates| rates.calls, false),
        ("questions", |rates| rates.questions, false),
        ("origin", |rates| rates.origin, false),
        ("from origin", |rates| rates.origin_bytes, true),
    ];
    let areas = Layout::horizontal([Constraint::Percentage(25); 4]).areas::<4>(area);
    for ((name, of, is_bytes), area) in shown.into_iter().zip(areas) {
        let wide = usize::from(area.width.saturating_sub(2));
        let skipped = history.rates.len().saturating_sub(wide);
        let values: Vec<u64> = history
            .rates
            .iter()
            .skip(skipped)
            .map(|rates| of(rates).round() as u64)
            .collect();
        let now = values.last().copied().unwrap_or(0);
        let now = if is_bytes { show(now) } else { now.to_string() };
        let line = Sparkline::default()
            .block(Block::bordered().title(format!("{name} {now}/s")))
            .style(Style::new().fg(Color::Cyan))
            .data(values);
        frame.render_widget(line, area);
    }
}

fn draw_calls(frame: &mut Frame<'_>, area: Rect, sample: &Sample) {
    let mut families: Vec<(&String, Ends)> = sample
        .calls
        .families
        .iter()
        .map(|(name, family)| (name, Ends::of(family)))
        .filter(|(_, ends)| ends.covered() > 0)
        .collect();
    families.sort_by_key(|(name, ends)| (Reverse(ends.covered()), *name));
    let rows = families.into_iter().map(|(name, ends)| {
        let rate = ends.hit_rate().unwrap_or(0.0);
        Row::new(vec![
            name.clone(),
            ends.covered().to_string(),
            ends.hit.to_string(),
            ends.absent.to_string(),
            ends.asked.to_string(),
            ends.escaped.to_string(),
            format!("{rate:.1} %"),
        ])
    });
    let columns = [
        "calls",
        "all",
        "hit",
        "absent",
        "asked",
        "to origin",
        "at once",
    ];
    let title = format!(
        "programs: {} counted, {} running",
        sample.calls.processes, sample.calls.running
    );
    frame.render_widget(table(&columns, rows, title), area);
}

fn draw_slowest(frame: &mut Frame<'_>, area: Rect, sample: &Sample) {
    let rows = sample.slowest.iter().map(|node| {
        Row::new(vec![
            node.host.clone(),
            node.rank.to_string(),
            node.waits.to_string(),
            format!("{} us", node.mean_microseconds),
            format!("{} us", node.longest_microseconds),
        ])
    });
    let columns = ["node", "rank", "waits", "mean", "longest"];
    let title = "nodes that wait longest for their helper".to_owned();
    frame.render_widget(table(&columns, rows, title), area);
}

fn table<'a>(columns: &[&'a str], rows: impl Iterator<Item = Row<'a>>, title: String) -> Table<'a> {
    let head = columns.iter().map(|name| Cell::from(*name));
    let head = Row::new(head).style(Style::new().add_modifier(Modifier::BOLD));
    let widths = vec![Constraint::Fill(1); columns.len()];
    Table::new(rows, widths)
        .header(head)
        .block(Block::bordered().title(title))
}

fn draw_foot(frame: &mut Frame<'_>, area: Rect, history: &History) {
    let line = match (&history.trouble, history.paused) {
        (Some(trouble), _) => Line::styled(trouble.clone(), Style::new().fg(Color::Red)),
        (None, true) => Line::from("paused   p goes on   q ends"),
        (None, false) => Line::from("p pauses   q ends"),
    };
    frame.render_widget(Paragraph::new(line), area);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{FamilyCalls, SlowNode, Survey};
    use anyhow::anyhow;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn drawn(history: &History, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, history)).unwrap();
        let buffer = terminal.backend().buffer();
        let rows = buffer.content.chunks(width.into());
        rows.map(|row| row.iter().map(|cell| cell.symbol()).collect::<String>() + "\n")
            .collect()
    }

    fn history() -> History {
        let mut survey = Survey {
            nodes: 4,
            ready: 3,
            slowest: vec![SlowNode {
                host: "node2".to_owned(),
                waits: 7,
                ..SlowNode::default()
            }],
            ..Survey::default()
        };
        let stat = FamilyCalls {
            hit: 1900,
            asked: 100,
            ..FamilyCalls::default()
        };
        survey.calls.families.insert("stat".to_owned(), stat);
        History::new(Sample::of_all(survey, vec!["node3".to_owned()]))
    }

    #[test]
    fn it_shows_missing_nodes_rates_and_the_slowest() {
        let mut history = history();
        let said = drawn(&history, 100, 30);
        for wanted in [
            "copper on 4 nodes",
            "3 of 4 ready; missing: node3",
            "95.0 %",
            "stat",
            "node2",
            "q ends",
        ] {
            assert!(said.contains(wanted), "no {wanted} in\n{said}");
        }
        history.take(Err(anyhow!("the helper has ended")));
        assert!(drawn(&history, 100, 30).contains("the helper has ended"));
    }

    #[test]
    fn a_small_terminal_is_no_error() {
        for (width, height) in [(1, 1), (20, 5), (80, 10), (400, 3)] {
            drawn(&history(), width, height);
        }
    }
}
