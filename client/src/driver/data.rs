//! Packets between TUN and sockets: read in place, sealed in place, sent in batches; no allocation per packet.

use std::collections::BTreeMap;
use std::io;

use jumpgate_protocol::client::{Client, Transmit};
use jumpgate_protocol::ident::TransportId;
use jumpgate_protocol::reason::Reason;
use jumpgate_protocol::wire::{DATA_OVERHEAD, HEADER_LEN};
use nix::errno::Errno;
use tracing::debug;

use crate::batch::{Batch, PACKET_MAX};
use crate::clock;
use crate::socket::{Inbox, Sent};
use crate::tun::Tun;
use crate::uplinks::Uplinks;

/// Packets that one turn reads from the TUN: one full segmented send. Then the other sources have their turn.
const TUN_BATCH: usize = 64;
/// Largest inner packet that a batch has room for.
pub(super) const INNER_MAX: usize = PACKET_MAX - DATA_OVERHEAD;

/// The data path and its buffers.
pub(super) struct DataPath {
    tun: Tun,
    batch: Batch,
    inbox: Inbox,
    /// The path whose socket is full; the batch waits for it.
    blocked: Option<TransportId>,
    /// A path on which the kernel refused to send, not yet reported.
    failure: Option<(TransportId, Errno)>,
    /// Somebody removed the tunnel's interface.
    tun_removed: bool,
    drops: BTreeMap<Reason, u64>,
}

impl DataPath {
    pub(super) fn new(tun: Tun) -> Self {
        Self {
            tun,
            batch: Batch::default(),
            inbox: Inbox::default(),
            blocked: None,
            failure: None,
            tun_removed: false,
            drops: BTreeMap::new(),
        }
    }

    /// Index of the tunnel's interface.
    pub(super) fn tun_index(&self) -> u32 {
        self.tun.index()
    }

    /// Waits until the machine has something to send. The interface is this process's own, so it can only fail when
    /// somebody deletes it; reading then says so.
    pub(super) async fn tun_readable(&self) {
        if self.tun.readable().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// The path whose socket is full.
    pub(super) fn blocked(&self) -> Option<TransportId> {
        self.blocked
    }

    /// Packets dropped here, by reason.
    pub(super) fn drops(&self) -> impl Iterator<Item = (Reason, u64)> {
        self.drops.iter().map(|(reason, count)| (*reason, *count))
    }

    /// A path on which sending failed for good.
    pub(super) fn take_failure(&mut self) -> Option<(TransportId, Errno)> {
        self.failure.take()
    }

    /// Whether the tunnel's interface is gone: then there is nothing to carry packets for any more.
    pub(super) fn tun_is_removed(&self) -> bool {
        self.tun_removed
    }

    /// Reads a batch from the TUN, seals and sends it.
    pub(super) fn send_from_tun(&mut self, client: &mut Client, uplinks: &Uplinks) {
        for _ in 0..TUN_BATCH {
            if self.batch.is_exhausted() {
                if !self.flush(uplinks) {
                    return;
                }
                self.batch.rewind();
            }
            let room = self.batch.room();
            let length = match self.tun.read(&mut room[HEADER_LEN..HEADER_LEN + INNER_MAX]) {
                Ok(Some(length)) => length,
                Ok(None) => break,
                Err(error) => {
                    debug!(%error, "cannot read from the tunnel's interface");
                    self.tun_removed = Tun::is_removed(&error);
                    break;
                }
            };
            let total = length + DATA_OVERHEAD;
            // The core counts what it refuses.
            let Ok(path) = client.data_out(&mut room[..total]) else { continue };
            if !self.batch.joins(total, path, uplinks.max_segments(path)) && !self.flush(uplinks) {
                self.count(Reason::QueueFull, 1);
                return;
            }
            self.batch.push(total, path);
        }
        if self.flush(uplinks) {
            self.batch.rewind();
        }
    }

    /// Sends the batch. Gives whether it is gone; if not, its socket is full and [`Self::blocked`].
    fn flush(&mut self, uplinks: &Uplinks) -> bool {
        let Some((path, packets, segment)) = self.batch.pending() else { return true };
        let count = self.batch.count() as u64;
        match uplinks.send(path, packets, segment) {
            Sent::Yes => {}
            Sent::Blocked => {
                self.blocked = Some(path);
                return false;
            }
            Sent::TooBig => self.count(Reason::MtuExceeded, count),
            Sent::Dropped(errno) => {
                debug!(path = path.0, %errno, "the kernel refused to send");
                self.count(Reason::InternalError, count);
            }
            Sent::Dead(errno) => {
                self.failure = Some((path, errno));
                self.count(Reason::NoActiveBinding, count);
            }
        }
        self.batch.clear();
        true
    }

    /// The full socket has room again, or is gone.
    pub(super) fn unblock(&mut self, uplinks: &Uplinks) {
        self.blocked = None;
        if self.flush(uplinks) {
            self.batch.rewind();
        }
    }

    /// Sends one datagram of the core. One that does not fit into a full socket is lost, as on the wire: the core
    /// repeats what matters.
    pub(super) fn send_control(&mut self, transmit: &Transmit, uplinks: &Uplinks) {
        match uplinks.send(transmit.path, &transmit.packet, transmit.packet.len()) {
            Sent::Yes => {}
            Sent::Dead(errno) => self.failure = Some((transmit.path, errno)),
            Sent::Blocked => self.count(Reason::QueueFull, 1),
            Sent::Dropped(_) => self.count(Reason::InternalError, 1),
            Sent::TooBig => self.count(Reason::MtuExceeded, 1),
        }
    }

    /// Receives a batch on a path, opens it and hands it to the machine. Gives whether anything of it was authentic.
    pub(super) fn receive(&mut self, path: TransportId, client: &mut Client, uplinks: &Uplinks) -> bool {
        let filled = match uplinks.receive(path, &mut self.inbox) {
            Ok(filled) => filled,
            Err(error) => {
                debug!(path = path.0, %error, "cannot receive");
                self.failure = local_fact(&error).map(|errno| (path, errno)).or(self.failure);
                return false;
            }
        };
        let now = clock::now();
        let mut authentic = false;
        let mut strangers = 0;
        for buffer in 0..filled {
            let (sender, datagrams) = self.inbox.datagrams(buffer);
            for datagram in datagrams {
                if !uplinks.is_from_gateway(path, sender) {
                    strangers += 1;
                    continue;
                }
                // The core counts what it refuses, and the kernel what the interface drops.
                match client.datagram_in(now, path, datagram) {
                    Ok(Some(inner)) => {
                        authentic = true;
                        let _ = self.tun.write(&datagram[inner]);
                    }
                    Ok(None) => authentic = true,
                    Err(_) => {}
                }
            }
        }
        self.count(Reason::WrongTransport, strangers);
        authentic
    }

    fn count(&mut self, reason: Reason, packets: u64) {
        if packets > 0 {
            *self.drops.entry(reason).or_default() += packets;
        }
    }
}

/// Whether a failed read says that interface or address are gone.
fn local_fact(error: &io::Error) -> Option<Errno> {
    let errno = Errno::from_raw(error.raw_os_error()?);
    matches!(errno, Errno::ENETDOWN | Errno::ENODEV | Errno::ENXIO).then_some(errno)
}
