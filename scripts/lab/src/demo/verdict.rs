//! What the demo claims, each claim with its evidence and whether it holds.

use std::collections::BTreeSet;

use comfy_table::presets::NOTHING;
use comfy_table::{Cell, Color, Table};
use console::style;

use crate::http::{Content, Downloaded};
use crate::programs::Session;

/// What the gateway says about the session at a moment of the demo.
pub(super) struct Sighting {
    /// The uplink in use.
    pub(super) interface: String,
    /// The gateway's row.
    pub(super) session: Session,
}

/// A claim.
pub(super) struct Claim {
    name: &'static str,
    holds: bool,
    evidence: String,
}

/// All that the verdict is made of.
pub(super) struct Evidence {
    pub(super) sightings: Vec<Sighting>,
    /// The session id as the client says, at the start and at the end, and how many sessions it had.
    pub(super) client_sessions: (String, String, u64),
    pub(super) jumps_wanted: usize,
    pub(super) jumps_during_download: usize,
    pub(super) content: Content,
    pub(super) downloaded: Downloaded,
    pub(super) connections_at_server: usize,
    /// Packets per receive queue at the gateway, as the driver counts them.
    pub(super) per_queue: Vec<u64>,
}

impl Evidence {
    pub(super) fn claims(&self) -> Vec<Claim> {
        vec![self.jumps(), self.session(), self.connection(), self.checksum(), self.worker(), self.steering()]
    }

    fn jumps(&self) -> Claim {
        let epochs: Vec<String> = self.sightings.iter().map(|seen| seen.session.epoch.to_string()).collect();
        let rising = self.sightings.windows(2).all(|pair| pair[0].session.epoch < pair[1].session.epoch);
        Claim {
            name: "five jumps under the download",
            holds: self.jumps_during_download == self.jumps_wanted && rising,
            evidence: format!(
                "{} of {} before its end; binding epoch {}",
                self.jumps_during_download,
                self.jumps_wanted,
                epochs.join(", ")
            ),
        }
    }

    fn session(&self) -> Claim {
        let (first, last, count) = &self.client_sessions;
        let everywhere = self.sightings.iter().all(|seen| &seen.session.locator == first);
        Claim {
            name: "the same session",
            holds: first == last && *count == 1 && everywhere,
            evidence: format!("{first} at the start, {last} at the end; {count} handshake"),
        }
    }

    fn connection(&self) -> Claim {
        let Downloaded { local_at_start, local_at_end, connections, .. } = &self.downloaded;
        Claim {
            name: "the same TCP connection",
            holds: local_at_start == local_at_end && *connections == 1 && self.connections_at_server == 1,
            evidence: format!(
                "{local_at_start} throughout; {} connection at the server; longest stall {} ms",
                self.connections_at_server,
                self.downloaded.longest_stall.as_millis()
            ),
        }
    }

    fn checksum(&self) -> Claim {
        let wanted = self.content.checksum();
        let Downloaded { bytes, checksum, .. } = &self.downloaded;
        let short = checksum.to_hex()[..16].to_owned();
        Claim {
            name: "every byte as it was sent",
            holds: *checksum == wanted && *bytes == self.content.bytes,
            evidence: format!("{bytes} bytes, BLAKE3 {short}.."),
        }
    }

    fn worker(&self) -> Claim {
        let workers: BTreeSet<u16> = self.sightings.iter().map(|seen| seen.session.worker).collect();
        let list: Vec<String> = workers.iter().map(u16::to_string).collect();
        Claim {
            name: "one worker owns the session",
            holds: workers.len() == 1,
            evidence: format!("worker {} on every path", list.join(", ")),
        }
    }

    /// The two paths arrive on different receive queues, so one of them is not the worker's own: its packets can only
    /// have come to the session because they were steered.
    fn steering(&self) -> Claim {
        let queues = |interface: &str| -> BTreeSet<u16> {
            let seen = self.sightings.iter().filter(|seen| seen.interface == interface);
            seen.map(|seen| seen.session.queue).collect()
        };
        let (wifi, lte) = (queues("wifi0"), queues("lte0"));
        let text = |queues: &BTreeSet<u16>| queues.iter().map(u16::to_string).collect::<Vec<_>>().join(" and ");
        Claim {
            name: "steered to it from both queues",
            holds: wifi.len() == 1
                && lte.len() == 1
                && wifi != lte
                && self.per_queue.iter().all(|packets| *packets > 0),
            evidence: format!(
                "wifi0 by queue {}, lte0 by queue {}; the driver counted {} packets",
                text(&wifi),
                text(&lte),
                self.per_queue.iter().map(u64::to_string).collect::<Vec<_>>().join(" and ")
            ),
        }
    }
}

/// Prints the claims; true if all hold.
pub(super) fn print(claims: &[Claim]) -> bool {
    let mut table = Table::new();
    table.load_style(NOTHING);
    for claim in claims {
        let (mark, color) = if claim.holds { ("yes", Color::Green) } else { ("NO", Color::Red) };
        table.add_row([Cell::new(claim.name), Cell::new(mark).fg(color), Cell::new(&claim.evidence)]);
    }
    let holds = claims.iter().all(|claim| claim.holds);
    let sentence =
        if holds { style("Verdict: all of it holds").green() } else { style("Verdict: NOT all of it holds").red() };
    say!("\n  {}", sentence.bold());
    for line in table.lines() {
        say!("  {}", line.trim_end());
    }
    holds
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn sighting(interface: &str, epoch: u64, queue: u16, worker: u16) -> Sighting {
        let session = Session {
            locator: "0011223344556677".into(),
            client: "alice".into(),
            state: "ATTACHED".into(),
            epoch,
            version: 1,
            peer: None,
            transport_id: Some(1),
            validated: true,
            worker,
            queue,
            inner_v4: None,
            inner_v6: None,
            rx_packets: 1,
            switches: epoch - 1,
        };
        Sighting { interface: interface.into(), session }
    }

    fn good() -> Evidence {
        let content = Content { bytes: 1_000, seed: 1, rate: 1 };
        let address = "10.66.0.5:4000".parse().unwrap();
        Evidence {
            sightings: vec![sighting("wifi0", 1, 0, 1), sighting("lte0", 2, 1, 1), sighting("wifi0", 3, 0, 1)],
            client_sessions: ("0011223344556677".into(), "0011223344556677".into(), 1),
            jumps_wanted: 2,
            jumps_during_download: 2,
            content,
            downloaded: Downloaded {
                bytes: content.bytes,
                checksum: content.checksum(),
                local_at_start: address,
                local_at_end: address,
                connections: 1,
                elapsed: Duration::from_secs(1),
                longest_stall: Duration::ZERO,
            },
            connections_at_server: 1,
            per_queue: vec![10, 10],
        }
    }

    fn failing(evidence: &Evidence) -> Vec<&'static str> {
        evidence.claims().iter().filter(|claim| !claim.holds).map(|claim| claim.name).collect()
    }

    #[test]
    fn a_good_run_satisfies_every_claim() {
        assert_eq!(failing(&good()), Vec::<&str>::new());
    }

    #[test]
    fn each_claim_can_fail_on_its_own() {
        let mut other_session = good();
        other_session.client_sessions.1 = "7766554433221100".into();
        assert_eq!(failing(&other_session), ["the same session"]);

        let mut flipped = good();
        flipped.downloaded.checksum = Content { bytes: 999, ..flipped.content }.checksum();
        assert_eq!(failing(&flipped), ["every byte as it was sent"]);

        let mut reconnected = good();
        reconnected.connections_at_server = 2;
        assert_eq!(failing(&reconnected), ["the same TCP connection"]);

        let mut late = good();
        late.jumps_during_download = 1;
        assert_eq!(failing(&late), ["five jumps under the download"]);

        let mut two_workers = good();
        two_workers.sightings[1].session.worker = 0;
        assert_eq!(failing(&two_workers), ["one worker owns the session"]);

        let mut one_queue = good();
        one_queue.sightings[1].session.queue = 0;
        assert_eq!(failing(&one_queue), ["steered to it from both queues"]);
    }
}
