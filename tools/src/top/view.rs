//! What is drawn: a head with the table and the totals, one list, and the keys.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Gauge, Paragraph, Row as TableRow, Table};

use super::sample::{Interval, Rate, Seen};
use crate::style::grouped;

/// A list that can be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tab {
    Interfaces,
    Reasons,
    Flows,
    Senders,
    Rules,
}

impl Tab {
    pub(super) const ALL: [Tab; 5] =
        [Tab::Interfaces, Tab::Reasons, Tab::Flows, Tab::Senders, Tab::Rules];

    const fn title(self) -> &'static str {
        match self {
            Tab::Interfaces => "Interfaces",
            Tab::Reasons => "Reasons",
            Tab::Flows => "Flows",
            Tab::Senders => "Senders",
            Tab::Rules => "Rules",
        }
    }

    /// Whether it shows sampled verdicts.
    pub(super) const fn is_sampled(self) -> bool {
        matches!(self, Tab::Flows | Tab::Senders)
    }
}

/// All that is shown.
pub(super) struct View<'a> {
    pub(super) source: &'a str,
    pub(super) interval: &'a Interval<'a>,
    pub(super) flows: &'a [Seen],
    pub(super) senders: &'a [Seen],
    pub(super) sampled: u64,
    pub(super) tab: Tab,
    /// Rows that are scrolled away.
    pub(super) scroll: usize,
    pub(super) is_paused: bool,
    /// Why there is no news.
    pub(super) trouble: Option<&'a str>,
}

const DIM: Style = Style::new().add_modifier(Modifier::DIM);
const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
const PASS: Style = Style::new().fg(Color::Green);
const DROP: Style = Style::new().fg(Color::Red);

impl View<'_> {
    pub(super) fn draw(&self, frame: &mut Frame<'_>) {
        let [title, table, totals, tabs, body, keys] = Layout::vertical([
            Constraint::Length(1),
            Constraint::Length(1),
            Constraint::Length(2),
            Constraint::Length(1),
            Constraint::Min(1),
            Constraint::Length(1),
        ])
        .areas(frame.area());
        frame.render_widget(self.title(), title);
        self.draw_table(frame, table);
        frame.render_widget(self.totals(), totals);
        frame.render_widget(self.tabs(), tabs);
        self.draw_list(frame, body);
        let keys_text = "1-5 or Tab list   Up Down PgUp PgDn scroll   Space pause   q quit";
        frame.render_widget(Paragraph::new(keys_text).style(DIM), keys);
    }

    fn title(&self) -> Paragraph<'_> {
        let now = self.interval.now;
        let s = if now.workers == 1 { "" } else { "s" };
        let mut line = vec![
            Span::styled("sgwall top", BOLD),
            Span::raw(format!(
                "  {}  policy {}, {} worker{s}, up {}",
                self.source,
                now.generation,
                now.workers,
                uptime(now.uptime)
            )),
        ];
        if self.is_paused {
            line.push(Span::styled("  paused", BOLD));
        }
        if let Some(trouble) = self.trouble {
            line = vec![Span::styled(trouble.to_owned(), DROP)];
        }
        Paragraph::new(Line::from(line))
    }

    fn draw_table(&self, frame: &mut Frame<'_>, area: Rect) {
        let now = self.interval.now;
        let fill = now.flows as f64 / now.max_flows.max(1) as f64;
        let label = format!(
            "{} of {} flows; {:.0} opened/s; {} refused",
            grouped(now.flows),
            grouped(now.max_flows),
            self.interval.opened,
            grouped(now.flows_refused)
        );
        let colour = if fill >= 0.9 { Color::Red } else { Color::Blue };
        let gauge = Gauge::default().ratio(fill.clamp(0.0, 1.0)).label(label).gauge_style(colour);
        frame.render_widget(gauge, area);
    }

    fn totals(&self) -> Paragraph<'_> {
        let line = |word: &'static str, style, rate: Rate| {
            Line::from(vec![
                Span::styled(word, style),
                Span::raw(format!(
                    "  {:>10}/s  {:>12}  {:>16} in all",
                    short(rate.packets_rate),
                    bits(rate.bytes_rate),
                    grouped(rate.packets)
                )),
            ])
        };
        Paragraph::new(vec![
            line("pass", PASS, self.interval.sum("pass", None)),
            line("drop", DROP, self.interval.sum("drop", None)),
        ])
    }

    fn tabs(&self) -> Paragraph<'_> {
        let mut line = Vec::new();
        for (n, tab) in Tab::ALL.into_iter().enumerate() {
            let style = match tab == self.tab {
                true => BOLD.add_modifier(Modifier::REVERSED),
                false => Style::new(),
            };
            line.push(Span::styled(format!(" {} {} ", n + 1, tab.title()), style));
        }
        if self.tab.is_sampled() {
            line.push(Span::styled(
                format!("  of {} verdicts looked at", grouped(self.sampled)),
                DIM,
            ));
        }
        Paragraph::new(Line::from(line))
    }

    fn draw_list(&self, frame: &mut Frame<'_>, area: Rect) {
        let (heads, widths, rows) = match self.tab {
            Tab::Interfaces => self.interfaces(),
            Tab::Reasons => self.reasons(),
            Tab::Flows => seen(self.flows, "FLOW"),
            Tab::Senders => seen(self.senders, "SENDER"),
            Tab::Rules => self.rules(),
        };
        let most = rows.len().saturating_sub(usize::from(area.height.saturating_sub(1)));
        let rows: Vec<_> = rows.into_iter().skip(self.scroll.min(most)).collect();
        let head = TableRow::new(heads.into_iter().map(|text| Cell::from(text).style(BOLD)));
        frame.render_widget(Table::new(rows, widths).header(head).column_spacing(1), area);
    }

    fn interfaces(&self) -> List {
        let rows = self.interval.interfaces().into_iter().map(|interface| {
            let pass = self.interval.sum("pass", Some(interface));
            let drop = self.interval.sum("drop", Some(interface));
            TableRow::new(vec![
                Cell::from(interface.to_owned()),
                right(format!("{}/s", short(pass.packets_rate)), 10, PASS),
                right(bits(pass.bytes_rate), 12, PASS),
                right(format!("{}/s", short(drop.packets_rate)), 10, DROP),
                right(grouped(drop.packets), 14, DROP),
            ])
        });
        let heads = vec![
            "INTERFACE".to_owned(),
            format!("{:>10}", "PASS"),
            format!("{:>12}", ""),
            format!("{:>10}", "DROP"),
            format!("{:>14}", "DROPPED"),
        ];
        (heads, widths(&[0, 10, 12, 10, 14]), rows.collect())
    }

    fn reasons(&self) -> List {
        let mut rows: Vec<_> = self.interval.rows.iter().collect();
        rows.sort_by(|a, b| {
            let by_rate = b.rate.packets_rate.total_cmp(&a.rate.packets_rate);
            by_rate.then(b.rate.packets.cmp(&a.rate.packets))
        });
        let rows = rows.into_iter().map(|row| {
            let style = if row.verdict == "pass" { PASS } else { DROP };
            TableRow::new(vec![
                Cell::from(row.verdict.clone()).style(style),
                Cell::from(row.reason.clone()),
                Cell::from(row.interface.clone()),
                right(format!("{}/s", short(row.rate.packets_rate)), 10, Style::new()),
                right(grouped(row.rate.packets), 14, Style::new()),
            ])
        });
        let heads = vec![
            "".to_owned(),
            "REASON".to_owned(),
            "INTERFACE".to_owned(),
            format!("{:>10}", "PACKETS"),
            format!("{:>14}", "IN ALL"),
        ];
        (heads, widths(&[4, 24, 0, 10, 14]), rows.collect())
    }

    fn rules(&self) -> List {
        let rows = self.interval.rules.iter().map(|(rule, rate)| {
            TableRow::new(vec![
                right(format!("{}/s", short(*rate)), 10, Style::new()),
                right(grouped(rule.packets), 12, Style::new()),
                Cell::from(rule.rule.clone()),
                Cell::from(format!("{} {}", rule.direction, rule.text)),
            ])
        });
        let heads = vec![
            format!("{:>10}", "PACKETS"),
            format!("{:>12}", "IN ALL"),
            "RULE".to_owned(),
            "WHAT IT SAYS".to_owned(),
        ];
        (heads, widths(&[10, 12, 22, 0]), rows.collect())
    }
}

/// Headings, widths and rows of a list.
type List = (Vec<String>, Vec<Constraint>, Vec<TableRow<'static>>);

/// Zero is whatever is left.
fn widths(widths: &[u16]) -> Vec<Constraint> {
    let constraint = |width: &u16| match width {
        0 => Constraint::Min(12),
        width => Constraint::Length(*width),
    };
    widths.iter().map(constraint).collect()
}

fn seen(seen: &[Seen], head: &str) -> List {
    let rows = seen.iter().map(|seen| {
        TableRow::new(vec![
            right(grouped(seen.passed), 8, PASS),
            right(grouped(seen.dropped), 8, DROP),
            right(grouped(seen.bytes), 12, Style::new()),
            Cell::from(seen.what.clone()),
        ])
    });
    let heads = vec![
        format!("{:>8}", "PASS"),
        format!("{:>8}", "DROP"),
        format!("{:>12}", "BYTES"),
        head.to_owned(),
    ];
    (heads, widths(&[8, 8, 12, 0]), rows.collect())
}

fn right(text: String, width: usize, style: Style) -> Cell<'static> {
    Cell::from(format!("{text:>width$}")).style(style)
}

/// `1234` as `1.2 k`.
fn short(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{:.1} M", value / 1e6),
        value if value >= 1e3 => format!("{:.1} k", value / 1e3),
        value => format!("{value:.0}"),
    }
}

/// Bytes a second as bits a second.
fn bits(bytes: f64) -> String {
    match bytes * 8.0 {
        bits if bits >= 1e9 => format!("{:.2} Gbit/s", bits / 1e9),
        bits if bits >= 1e6 => format!("{:.1} Mbit/s", bits / 1e6),
        bits => format!("{:.1} kbit/s", bits / 1e3),
    }
}

fn uptime(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let clock = format!("{}:{:02}:{:02}", rest / 3600, rest / 60 % 60, rest % 60);
    if days > 0 { format!("{days} d {clock}") } else { clock }
}
