//! Packets that the clients seal ahead, and servers write ahead: what is poured costs the generator nothing any more.

use anyhow::{Context as _, Result, anyhow};
use jumpgate_protocol::wire::{DATA_OVERHEAD, HEADER_LEN, TAG_LEN};

use super::crowd::Crowd;
use super::datagram::{self, Ends, Stamp};
use super::line::Line;

impl Crowd {
    /// The socket of all clients.
    pub(super) const fn line(&self) -> &Line {
        &self.line
    }

    /// Seals packets ahead, of these inner lengths in turn, by the clients with a session in turn. They are sent by
    /// [`Crowd::pour_laid`] before any client does anything else: its counters go on where they end.
    pub(super) fn lay(&mut self, lengths: &[usize], packets: usize) -> Result<()> {
        for &bytes in lengths.iter().cycle().take(packets) {
            let number = self.next_live()?;
            let Self { line, members, ends, config, next_number, .. } = self;
            let member = &mut members[number as usize];
            let inner = member.inner.context("a session has an inner address")?;
            line.lay(|room| {
                let packet = &mut room[datagram::HEADERS..][..bytes + DATA_OVERHEAD];
                let end = packet.len() - TAG_LEN;
                let stamp = Stamp { at: 0, number: *next_number, client: number };
                *next_number += 1;
                datagram::write_inner(&mut packet[HEADER_LEN..end], inner, config.server, stamp);
                let length = packet.len();
                let path =
                    member.core.data_out(packet).map_err(|reason| anyhow!("no packet can be sealed: {reason}"))?;
                let from = member.links[usize::from(path.0) - 1].outer();
                Ok(datagram::write_headers(room, *ends, from, config.gateway, length))
            })?;
        }
        Ok(())
    }

    /// Has packets lie ready on the servers' line, to the clients with a session in turn.
    pub(super) fn lay_inside(
        &mut self,
        servers: &mut Line,
        ends: Ends,
        lengths: &[usize],
        packets: usize,
    ) -> Result<()> {
        for &bytes in lengths.iter().cycle().take(packets) {
            let number = self.next_live()?;
            let inner = self.members[number as usize].inner.context("a session has an inner address")?;
            let server = self.config.server;
            servers.lay(|room| Ok(datagram::write_inside(room, ends, server, inner, bytes)))?;
        }
        Ok(())
    }

    /// Sends the next packets of those that were sealed ahead, each once.
    pub(super) fn pour_laid(&mut self, packets: usize) -> Result<()> {
        self.frames.0 += packets as u64;
        self.line.pour(packets)
    }

    /// The next client with a session, in turn; clients arrive in the order of their numbers.
    fn next_live(&mut self) -> Result<u32> {
        let number = self.next_sealer.checked_rem(self.live as u32).context("no client has a session")?;
        self.next_sealer = number + 1;
        Ok(number)
    }
}
