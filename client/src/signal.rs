//! Signals that end the program: the first politely, the second at once.
//!
//! They are received in a thread of their own, so that the second one works whatever the loop is doing.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals as Incoming};
use tokio::sync::mpsc;

/// Exit code after a second signal: 128 + SIGINT, as a shell expects of an interrupted program.
const INTERRUPTED: i32 = 130;
/// How long a second signal waits for the pinned routes to be removed, which takes milliseconds unless something hangs.
/// Everything else that the kernel holds goes with the process.
const PATIENCE: Duration = Duration::from_secs(1);

/// SIGINT, SIGTERM and, unless it is ignored as nohup has it, SIGHUP.
#[derive(Debug)]
pub struct Signals {
    names: mpsc::UnboundedReceiver<&'static str>,
    clean: Arc<AtomicBool>,
    handle: Handle,
}

impl Signals {
    /// Takes the signals over.
    pub fn install() -> std::io::Result<Self> {
        let status = fs::read_to_string("/proc/self/status")?;
        let hangup = (!ignores(&status, SIGHUP)).then_some(SIGHUP);
        let mut incoming = Incoming::new([SIGINT, SIGTERM].into_iter().chain(hangup))?;
        let (handle, clean) = (incoming.handle(), Arc::new(AtomicBool::new(false)));
        let (sender, names) = mpsc::unbounded_channel();
        let is_clean = clean.clone();
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            let mut signals = incoming.forever();
            if let Some(number) = signals.next() {
                let _ = sender.send(signal_hook::low_level::signal_name(number).unwrap_or("signal"));
            }
            if signals.next().is_some() {
                let deadline = Instant::now() + PATIENCE;
                while !is_clean.load(Ordering::Relaxed) && Instant::now() < deadline {
                    thread::sleep(Duration::from_millis(1));
                }
                std::process::exit(INTERRUPTED);
            }
        })?;
        Ok(Self { names, clean, handle })
    }

    /// The name of the first signal.
    pub async fn next(&mut self) -> &'static str {
        match self.names.recv().await {
            Some(name) => name,
            // It has come, and its sender waits for the second.
            None => std::future::pending().await,
        }
    }

    /// From now on nothing is left that would outlive the process.
    pub fn nothing_left_behind(&self) {
        self.clean.store(true, Ordering::Relaxed);
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        self.handle.close();
    }
}

/// Whether a process with that status (proc(5)) ignores a signal.
fn ignores(status: &str, signal: i32) -> bool {
    let set = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let set = set.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok()).unwrap_or(0);
    set >> (signal - 1) & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ignored_signal_is_told_from_others() {
        let status = "Name:\tjump\nSigBlk:\t0000000000000001\nSigIgn:\t0000000000001001\nSigCgt:\t0000000000004002\n";
        assert!(ignores(status, SIGHUP));
        assert!(!ignores(status, SIGINT));
        assert!(!ignores(status, SIGTERM));
        assert!(!ignores("Name:\tjump\n", SIGHUP));
    }
}
