//! The planned restart (OW-7, OW-8): workers freeze, write their sessions down, and the process ends without a word to any
//! client; or nothing of it happened.
//!
//! Two steps, so that slow path and workers agree. When every worker has said that it is frozen, all that their sessions did
//! is known here, and what follows from it is ordered; then each is asked for its part. While this lasts no datagram is
//! read: what clients send meanwhile is lost, and they send it again. To answer it would use up nonces of theirs that the
//! next run does not know of.

use std::collections::HashSet;

use jumpgate_protocol::gateway::Part;
use tokio::sync::oneshot;
use tokio::time::{Duration, Instant};

use super::SlowPath;
use crate::admin::Answer;
use crate::clock;
use crate::handover::Command;
use crate::restart::HandoverFile;

/// How long the workers have for both steps (OW-7): as much as clients bear without looking for another path.
const PATIENCE: Duration = Duration::from_secs(1);

/// A restart that is being prepared.
pub(super) struct Restart {
    answer: oneshot::Sender<Answer>,
    /// Workers that have not answered in this step.
    missing: HashSet<usize>,
    /// What they wrote down; nothing in the first step.
    parts: Option<Vec<Part>>,
    pub(super) until: Instant,
}

impl SlowPath {
    /// The operator wants the gateway to be restarted without loss of sessions.
    pub(super) fn begin_restart(&mut self, answer: oneshot::Sender<Answer>) {
        if self.restart.is_some() {
            // Whoever asked may have gone.
            let _ = answer.send(Answer::Error("the sessions are being handed over already".to_owned()));
            return;
        }
        if self.transfers.is_busy() {
            // A slot between two workers would be in nobody's part.
            let problem = "slots are being moved between workers".to_owned();
            let cure = "try again when `jumpgate slots` shows none that leaves".to_owned();
            let _ = answer.send(Answer::Refused { problem, cure });
            return;
        }
        let missing = (0..self.owners.count()).collect();
        self.restart = Some(Restart { answer, missing, parts: None, until: Instant::now() + PATIENCE });
        self.owners.tell_all(|| Command::Freeze);
    }

    /// A worker is frozen: nothing happens to its sessions but what is ordered here.
    pub(super) fn frozen(&mut self, worker: usize) {
        let Some(restart) = self.restart.as_mut().filter(|restart| restart.parts.is_none()) else { return };
        restart.missing.remove(&worker);
        if restart.missing.is_empty() {
            restart.missing = (0..self.owners.count()).collect();
            restart.parts = Some(Vec::new());
            self.owners.tell_all(|| Command::HandOver);
        }
    }

    /// A worker has written its sessions down.
    pub(super) fn written(&mut self, worker: usize, part: Part) {
        let Some(restart) = &mut self.restart else { return };
        let Some(parts) = &mut restart.parts else { return };
        if restart.missing.remove(&worker) {
            parts.push(part);
        }
        if restart.missing.is_empty() {
            self.finish_restart();
        }
    }

    /// Gives up waiting for workers that do not answer.
    pub(super) fn expire_restart(&mut self, now: Instant) {
        if let Some(restart) = self.restart.take_if(|restart| now >= restart.until) {
            self.abort_restart(restart.answer, 0, "not every worker answered in time: the gateway is overloaded");
        }
    }

    /// Sessions go on here, if they are frozen.
    pub(super) fn thaw(&mut self) {
        if self.restart.take().is_some() {
            self.owners.tell_all(|| Command::Thaw);
        }
    }

    fn finish_restart(&mut self) {
        let Some(Restart { answer, parts: Some(parts), .. }) = self.restart.take() else { return };
        let sessions = parts.iter().map(Part::sessions).sum();
        let desk = &mut self.parts.desk;
        let file = HandoverFile::beside(&self.parts.config.admin_socket);
        match file.write(|circumstances| desk.hand_over(circumstances, &parts)) {
            Ok(()) => {
                desk.record_hand_over(clock::now(), true, sessions);
                tracing::info!(sessions, file = %file.path().display(), "handed over; the next run goes on with them");
                self.handed_over = true;
                let _ = answer.send(Answer::HandedOver { sessions, process: std::process::id() });
            }
            Err(error) => {
                let problem = format!("{}: {error}", file.path().display());
                self.abort_restart(answer, sessions, &problem);
            }
        }
    }

    fn abort_restart(&mut self, answer: oneshot::Sender<Answer>, sessions: usize, problem: &str) {
        tracing::error!(problem, "not handed over: the sessions go on here");
        self.parts.desk.record_hand_over(clock::now(), false, sessions);
        self.owners.tell_all(|| Command::Thaw);
        let cure = "cure that and try again; the gateway runs on as before".to_owned();
        let _ = answer.send(Answer::Refused { problem: problem.to_owned(), cure });
    }
}
