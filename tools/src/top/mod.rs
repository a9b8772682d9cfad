//! `sgwall top`: a running firewall to look at, again and again.
//!
//! [`sample`] asks for counters and looks at some of the verdicts, [`view`] draws. Nothing is asked
//! of the packet path but counters, and verdicts only while flows or senders are shown.

pub(crate) mod args;
mod replay;
mod sample;
mod view;

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};

use crate::failure::Failure;
use args::{ListArg, TopArgs};
use replay::Replay;
use sample::{Interval, Sample, Seen, Source};
use view::{Tab, View};

/// How long to wait for a key.
const WAIT: Duration = Duration::from_millis(100);
/// The screen of `--once`.
const WIDTH: u16 = 80;
const HEIGHT: u16 = 24;

/// What is seen, and how.
struct Top {
    name: String,
    before: Option<Sample>,
    now: Sample,
    flows: Vec<Seen>,
    senders: Vec<Seen>,
    sampled: u64,
    source: Source,
    tab: Tab,
    scroll: usize,
    is_paused: bool,
    trouble: Option<String>,
}

/// Runs the command.
pub(crate) fn run(args: &TopArgs) -> Result<(), Failure> {
    let (name, mut source) = match &args.capture {
        Some(path) => {
            let replay = Replay::open(path, &args.policy, &args.traffic, args.speed)?;
            (path.display().to_string(), Source::Replay(Box::new(replay)))
        }
        None => (args.control.display().to_string(), Source::running(&args.control)),
    };
    let now = source.take()?;
    let mut top = Top {
        name,
        before: None,
        now,
        flows: Vec::new(),
        senders: Vec::new(),
        sampled: 0,
        source,
        tab: args.list.into(),
        scroll: 0,
        is_paused: false,
        trouble: None,
    };
    if args.once {
        return top.print_once(args);
    }
    if !io::stdout().is_terminal() {
        return Err(Failure::Usage(
            "top draws on a terminal, and standard output is none; use --once, or `sgwall stats`"
                .into(),
        ));
    }
    let mut terminal = ratatui::try_init().map_err(Failure::Output)?;
    let shown = top.show(args, &mut terminal);
    ratatui::restore();
    shown
}

impl Top {
    fn show(
        &mut self,
        args: &TopArgs,
        terminal: &mut ratatui::DefaultTerminal,
    ) -> Result<(), Failure> {
        let every = Duration::from_secs_f64(args.interval);
        let mut next = Instant::now() + every;
        loop {
            if self.tab.is_sampled() {
                self.source.start_sampling();
            }
            self.draw(terminal).map_err(Failure::Output)?;
            let left = next.saturating_duration_since(Instant::now());
            if event::poll(left.min(WAIT)).map_err(Failure::Output)?
                && let Event::Key(key) = event::read().map_err(Failure::Output)?
                && key.kind != KeyEventKind::Release
                && !self.press(key.code, key.modifiers)
            {
                return Ok(());
            }
            if Instant::now() >= next {
                self.refresh();
                next = Instant::now() + every;
            }
        }
    }

    /// What a key does; false: it ends.
    fn press(&mut self, key: KeyCode, modifiers: KeyModifiers) -> bool {
        let tabs = Tab::ALL;
        match key {
            KeyCode::Char('q') | KeyCode::Esc => return false,
            KeyCode::Char('c') if modifiers.contains(KeyModifiers::CONTROL) => return false,
            KeyCode::Char(' ') => self.is_paused = !self.is_paused,
            KeyCode::Char(digit @ '1'..='5') => {
                self.tab = tabs[digit as usize - '1' as usize];
                self.scroll = 0;
            }
            KeyCode::Tab => {
                let at = tabs.iter().position(|tab| *tab == self.tab).unwrap_or(0);
                self.tab = tabs[(at + 1) % tabs.len()];
                self.scroll = 0;
            }
            KeyCode::Down => self.scroll += 1,
            KeyCode::Up => self.scroll = self.scroll.saturating_sub(1),
            KeyCode::PageDown => self.scroll += 15,
            KeyCode::PageUp => self.scroll = self.scroll.saturating_sub(15),
            KeyCode::Home => self.scroll = 0,
            _ => {}
        }
        true
    }

    fn refresh(&mut self) {
        if self.is_paused {
            return;
        }
        match self.source.take() {
            Ok(sample) => {
                self.before = Some(std::mem::replace(&mut self.now, sample));
                self.trouble = None;
            }
            Err(failure) => {
                let text = anstream::adapter::strip_str(&failure.to_string()).to_string();
                self.trouble = Some(text);
            }
        }
        (self.flows, self.senders, self.sampled) = self.source.seen();
    }

    fn draw<B: ratatui::backend::Backend>(
        &self,
        terminal: &mut Terminal<B>,
    ) -> Result<(), B::Error> {
        let interval = Interval::between(self.before.as_ref(), &self.now);
        let view = View {
            source: &self.name,
            interval: &interval,
            flows: &self.flows,
            senders: &self.senders,
            sampled: self.sampled,
            tab: self.tab,
            scroll: self.scroll,
            is_paused: self.is_paused,
            trouble: self.trouble.as_deref(),
        };
        terminal.draw(|frame| view.draw(frame)).map(drop)
    }

    /// One screen as text, after one interval.
    fn print_once(&mut self, args: &TopArgs) -> Result<(), Failure> {
        if self.tab.is_sampled() {
            self.source.start_sampling();
        }
        std::thread::sleep(Duration::from_secs_f64(args.interval));
        self.refresh();
        if let Some(trouble) = &self.trouble {
            return Err(Failure::Io(trouble.clone()));
        }
        let Ok(mut terminal) = Terminal::new(TestBackend::new(WIDTH, HEIGHT));
        let Ok(()) = self.draw(&mut terminal);
        let buffer = terminal.backend().buffer();
        let mut out = io::stdout().lock();
        let rows = buffer.content().chunks(WIDTH.into());
        for row in rows {
            let text: String = row.iter().map(|cell| cell.symbol()).collect();
            writeln!(out, "{}", text.trim_end()).map_err(Failure::Output)?;
        }
        out.flush().map_err(Failure::Output)
    }
}

impl From<ListArg> for Tab {
    fn from(list: ListArg) -> Self {
        match list {
            ListArg::Interfaces => Tab::Interfaces,
            ListArg::Reasons => Tab::Reasons,
            ListArg::Flows => Tab::Flows,
            ListArg::Senders => Tab::Senders,
            ListArg::Rules => Tab::Rules,
        }
    }
}

#[cfg(test)]
mod tests {
    use sgwall_live::engine::{ReasonStats, RuleStats, Stats};

    use super::*;

    fn stats(uptime: u64, generation: u32, passed: u64, dropped: u64) -> Stats {
        let reason = |verdict: &str, reason: &str, packets: u64| ReasonStats {
            interface: Some("eni-web".into()),
            verdict: verdict.into(),
            stage: "conntrack".into(),
            reason: reason.into(),
            packets,
            bytes: packets * 1000,
        };
        let rule = |rule: &str, packets| RuleStats {
            rule: rule.into(),
            direction: "ingress".into(),
            text: "tcp 443 from 0.0.0.0/0".into(),
            packets,
        };
        let mut stats: Stats = serde_json::from_value(serde_json::json!({
            "generation": generation, "uptime": uptime, "workers": 2, "flows": 950, "max_flows": 1000,
            "flows_created": 10 * uptime, "flows_refused": 3, "flows_evicted": 0,
            "full_table": "drop-new", "interfaces": [], "flow_log_skipped": null,
            "reasons": [], "rules": [], "ports": [],
        }))
        .expect("counters");
        stats.reasons =
            vec![reason("pass", "established", passed), reason("drop", "no-rule", dropped)];
        stats.rules = vec![rule("sg-web/ingress-1", passed), rule("sg-web/ingress-2", dropped)];
        stats
    }

    fn top(before: Stats, now: Stats) -> Top {
        let at = Instant::now();
        Top {
            name: "/run/sgwall.sock".into(),
            before: Some(Sample { at, stats: before }),
            now: Sample { at: at + Duration::from_secs(2), stats: now },
            flows: vec![Seen {
                what: "tcp 1.2.3.4:5 -> 10.0.1.10:443".into(),
                passed: 7,
                dropped: 0,
                bytes: 700,
            }],
            senders: vec![Seen { what: "1.2.3.4".into(), passed: 7, dropped: 2, bytes: 900 }],
            sampled: 9,
            source: Source::running("gone".as_ref()),
            tab: Tab::Interfaces,
            scroll: 0,
            is_paused: false,
            trouble: None,
        }
    }

    fn screen(top: &Top, width: u16, height: u16) -> String {
        let Ok(mut terminal) = Terminal::new(TestBackend::new(width, height));
        let Ok(()) = top.draw(&mut terminal);
        let rows = terminal.backend().buffer().content().chunks(width.into());
        rows.map(|row| row.iter().map(|cell| cell.symbol()).collect::<String>() + "\n").collect()
    }

    #[test]
    fn rates_are_of_what_lies_between_and_begin_anew_with_the_firewall() {
        let top = top(stats(10, 1, 1000, 50), stats(12, 1, 3000, 60));
        let interval = Interval::between(top.before.as_ref(), &top.now);
        let (pass, drop) = (interval.sum("pass", None), interval.sum("drop", Some("eni-web")));
        assert_eq!((pass.packets, pass.packets_rate, pass.bytes_rate), (3000, 1000.0, 1_000_000.0));
        assert_eq!((drop.packets, drop.packets_rate), (60, 5.0));
        assert_eq!(interval.opened, 10.0);
        assert_eq!(interval.rules[0].1, 1000.0);
        // Of another policy rules have other counters.
        let reloaded = super::tests::top(stats(10, 1, 1000, 50), stats(12, 2, 3000, 60));
        let interval = Interval::between(reloaded.before.as_ref(), &reloaded.now);
        assert_eq!(interval.rules[0].1, 0.0);
        // A firewall that was started again counts from zero.
        let restarted = super::tests::top(stats(10, 1, 1000, 50), stats(1, 1, 20, 0));
        let interval = Interval::between(restarted.before.as_ref(), &restarted.now);
        assert_eq!(interval.sum("pass", None).packets_rate, 0.0);
    }

    #[test]
    fn every_list_fits_on_a_small_terminal() {
        let mut top = top(stats(10, 1, 1000, 50), stats(12, 1, 3000, 60));
        for (tab, expected) in Tab::ALL.into_iter().zip([
            "eni-web                           1.0 k/s",
            "1.0 k/s          3,000",
            "7        0          700 tcp 1.2.3.4:5 -> 10.0.1.10:443",
            "7        2          900 1.2.3.4",
            "1.0 k/s        3,000 sg-web/ingress-1       ingress tcp 443 from 0.0.0.0/0",
        ]) {
            top.tab = tab;
            let screen = screen(&top, WIDTH, HEIGHT);
            assert!(screen.contains(expected), "{expected}\n{screen}");
            for always in
                ["950 of 1,000 flows; 10 opened/s; 3 refused", "policy 1, 2 workers", "q quit"]
            {
                assert!(screen.contains(always), "{always}\n{screen}");
            }
        }
        // Nor does a terminal of a few characters upset it.
        screen(&top, 3, 2);
    }

    #[test]
    fn keys_do_what_the_last_line_says() {
        let mut top = top(stats(10, 1, 0, 0), stats(12, 1, 0, 0));
        let none = KeyModifiers::NONE;
        assert!(top.press(KeyCode::Char('5'), none) && top.tab == Tab::Rules);
        assert!(top.press(KeyCode::Tab, none) && top.tab == Tab::Interfaces);
        assert!(top.press(KeyCode::PageDown, none) && top.press(KeyCode::Up, none));
        assert_eq!(top.scroll, 14);
        assert!(top.press(KeyCode::Char(' '), none) && top.is_paused);
        assert!(screen(&top, WIDTH, HEIGHT).contains("paused"));
        assert!(!top.press(KeyCode::Char('q'), none));
        assert!(!top.press(KeyCode::Char('c'), KeyModifiers::CONTROL));
    }

    #[test]
    fn trouble_is_told_and_the_last_figures_stay() {
        let mut top = top(stats(10, 1, 1000, 50), stats(12, 1, 3000, 60));
        top.trouble = Some("error: cannot reach the firewall".into());
        let screen = screen(&top, WIDTH, HEIGHT);
        assert!(screen.contains("cannot reach the firewall") && screen.contains("1.0 k/s"));
    }
}
