//! What the demo prints: a timeline that scrolls above a progress bar, or plain lines where nobody looks at a terminal.

use std::time::{Duration, Instant};

use console::{Term, style};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Shares of the download at which a plain log gets a line.
const PLAIN_STEPS: u64 = 10;
/// Blank columns in front of everything.
const MARGIN: &str = "  ";

/// The demo's output.
pub(super) struct Screen {
    started: Instant,
    bar: Option<ProgressBar>,
    total: u64,
    plain_steps: u64,
}

/// One line of the timeline; what is empty stays blank.
#[derive(Default)]
pub(super) struct Row<'a> {
    pub(super) event: &'a str,
    pub(super) state: &'a str,
    pub(super) reason: &'a str,
    pub(super) epoch: Option<u64>,
    pub(super) path: &'a str,
    pub(super) outage: Option<Duration>,
    pub(super) lost: Option<usize>,
}

impl Screen {
    pub(super) fn new() -> Self {
        Self { started: Instant::now(), bar: None, total: 0, plain_steps: 0 }
    }

    pub(super) fn title(&self, text: &str) {
        say!("\n{MARGIN}{}\n", style(text).bold());
    }

    /// A line of the preface: what it is about, and what is to be said.
    pub(super) fn fact(&self, about: &str, text: &str) {
        say!("{MARGIN}{} {text}", style(format!("{about:<9}")).dim());
    }

    /// Begins the timeline, and the progress of `total` bytes below it.
    pub(super) fn begin(&mut self, total: u64) {
        self.total = total;
        let head = format!(
            "{MARGIN}{:>7}  {:<26} {:<22} {:<23} {:>5}  {:<14} {:>7} {:>4}",
            "time", "event", "state", "reason", "epoch", "from -> to", "outage", "lost"
        );
        say!("\n{}", style(head.trim_end()).bold());
        if Term::stdout().is_term() {
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stdout());
            let template = "  {elapsed_precise}  {bar:40.cyan} {decimal_bytes:>10} of {decimal_total_bytes}  {decimal_bytes_per_sec}";
            bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
            self.bar = Some(bar);
        }
    }

    pub(super) fn progress(&mut self, bytes: u64) {
        match &self.bar {
            Some(bar) => bar.set_position(bytes),
            None => {
                let step = bytes * PLAIN_STEPS / self.total.max(1);
                if step > self.plain_steps {
                    self.plain_steps = step;
                    let text = format!("downloaded {} MB of {}", bytes / 1_000_000, self.total / 1_000_000);
                    self.row(Instant::now(), &Row { event: &text, ..Row::default() });
                }
            }
        }
    }

    /// A line of the timeline, about something that happened at `at`.
    pub(super) fn row(&self, at: Instant, row: &Row<'_>) {
        let time = at.saturating_duration_since(self.started).as_secs_f64();
        let epoch = row.epoch.map_or(String::new(), |epoch| epoch.to_string());
        let outage = row.outage.map_or(String::new(), |outage| format!("{} ms", outage.as_millis()));
        let lost = row.lost.map_or(String::new(), |lost| lost.to_string());
        let line = format!(
            "{MARGIN}{time:>6.2}s  {:<26} {:<22} {:<23} {epoch:>5}  {:<14} {outage:>7} {lost:>4}",
            row.event, row.state, row.reason, row.path
        );
        self.line(line.trim_end());
    }

    /// The headline of a jump.
    pub(super) fn headline(&self, at: Instant, text: &str) {
        let time = at.saturating_duration_since(self.started).as_secs_f64();
        self.line(&format!("{MARGIN}{time:>6.2}s  {}", style(text).bold().cyan()));
    }

    pub(super) fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => say!("{text}"),
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.end();
    }
}
