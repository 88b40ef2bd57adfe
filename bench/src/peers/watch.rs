//! What the user sees while the comparison runs, and the way out by Ctrl-C.

use std::fmt::Display;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use indicatif::{ProgressBar, ProgressStyle};

/// How often the display moves while something takes its time.
const TICK: Duration = Duration::from_millis(500);

/// The display, and whether the user wants the report now.
pub(super) struct Watch {
    interrupted: Arc<AtomicBool>,
    progress: ProgressBar,
    subject: Mutex<&'static str>,
}

impl Watch {
    /// Starts to listen for signals.
    pub(super) fn new() -> Result<Self> {
        let interrupted = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&interrupted))?;
        }
        let progress = ProgressBar::new_spinner();
        progress.set_style(ProgressStyle::with_template("{spinner} {elapsed} {msg}")?);
        progress.enable_steady_tick(TICK);
        Ok(Self { interrupted, progress, subject: Mutex::new("") })
    }

    /// From now on it is about that gateway.
    pub(super) fn begin(&self, subject: &'static str) {
        *self.subject.lock().unwrap_or_else(PoisonError::into_inner) = subject;
        self.say("starts");
    }

    /// Says what is going on.
    pub(super) fn say(&self, text: &str) {
        let subject = *self.subject.lock().unwrap_or_else(PoisonError::into_inner);
        self.progress.set_message(format!("{subject}: {text}"));
    }

    /// Prints a result beside the display.
    pub(super) fn print(&self, text: &impl Display) {
        self.progress.suspend(|| println!("{text}"));
    }

    /// Whether the user wants the report now.
    pub(super) fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    /// An error if the user wants the report now: what comes next is not measured.
    pub(super) fn check(&self) -> Result<()> {
        ensure!(!self.is_interrupted(), "ended by the user");
        Ok(())
    }

    /// Ends the display.
    pub(super) fn end(&self) {
        self.progress.finish_and_clear();
    }
}
