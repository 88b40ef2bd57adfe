//! Somebody on the path who hears everything, keeps a little, and sends it again: from where it came or from elsewhere.

use std::net::SocketAddr;

use jumpgate_protocol::wire::MessageType;

/// Datagrams that are kept in each direction.
const KEPT: usize = 256;
/// Of ordinary datagrams one in so many is kept; of the rare ones every one.
const ONE_IN: u64 = 16;

/// What was overheard lately.
#[derive(Default)]
pub(crate) struct Eavesdropper {
    up: Ring<(SocketAddr, Vec<u8>)>,
    down: Ring<(usize, u16, Vec<u8>)>,
    heard: u64,
}

/// The newest of many; the oldest makes room.
struct Ring<T> {
    kept: Vec<T>,
    next: usize,
}

impl Eavesdropper {
    pub(crate) fn hears_up(&mut self, from: SocketAddr, packet: &[u8]) {
        if self.is_of_interest(packet) {
            self.up.keep((from, packet.to_vec()));
        }
    }

    pub(crate) fn hears_down(&mut self, client: usize, path: u16, packet: &[u8]) {
        if self.is_of_interest(packet) {
            self.down.keep((client, path, packet.to_vec()));
        }
    }

    pub(crate) fn of_clients(&self, choice: u64) -> Option<&(SocketAddr, Vec<u8>)> {
        self.up.choose(choice)
    }

    pub(crate) fn of_the_gateway(&self, choice: u64) -> Option<&(usize, u16, Vec<u8>)> {
        self.down.choose(choice)
    }

    fn is_of_interest(&mut self, packet: &[u8]) -> bool {
        self.heard += 1;
        let common = [MessageType::Data, MessageType::Heartbeat, MessageType::HeartbeatAck, MessageType::PathProbe];
        let is_common = common.iter().any(|kind| packet.first() == Some(&(*kind as u8)));
        !is_common || self.heard.is_multiple_of(ONE_IN)
    }
}

impl<T> Default for Ring<T> {
    fn default() -> Self {
        Self { kept: Vec::new(), next: 0 }
    }
}

impl<T> Ring<T> {
    fn keep(&mut self, item: T) {
        if self.kept.len() < KEPT {
            self.kept.push(item);
        } else {
            self.kept[self.next] = item;
        }
        self.next = (self.next + 1) % KEPT;
    }

    fn choose(&self, choice: u64) -> Option<&T> {
        if self.kept.is_empty() { None } else { self.kept.get(choice as usize % self.kept.len()) }
    }
}
