//! Sealed packets of one path, back to back in one buffer, so that one system call sends them all (UDP_SEGMENT).
//!
//! A packet is read from the TUN and sealed in the place from which it is sent; nothing is copied. The kernel cuts the
//! buffer into datagrams of one size, of which only the last may be shorter: a packet that does not fit this pattern,
//! or that leaves by another path, begins a new batch.

use jumpgate_protocol::ident::TransportId;

use crate::socket::SEND_MAX;

/// Largest packet on the wire: what the largest inner MTU and the data overhead add up to.
pub const PACKET_MAX: usize = 1 << 14;
/// Buffer: the largest send, and room for the packet that is read before it is known whether it still belongs to it.
const BUFFER: usize = SEND_MAX + 2 * PACKET_MAX;

/// Packets collected for one send.
#[derive(Debug)]
pub struct Batch {
    buffer: Box<[u8]>,
    /// The collected packets are `buffer[start..end]`.
    start: usize,
    end: usize,
    /// Length of each of them but the last.
    segment: usize,
    count: usize,
    /// Whether the last one is shorter, so that nothing may follow.
    closed: bool,
    path: TransportId,
}

impl Default for Batch {
    fn default() -> Self {
        Self {
            buffer: vec![0; BUFFER].into(),
            start: 0,
            end: 0,
            segment: 0,
            count: 0,
            closed: false,
            path: TransportId(0),
        }
    }
}

impl Batch {
    /// Room for the next packet, right behind the last one.
    pub fn room(&mut self) -> &mut [u8] {
        &mut self.buffer[self.end..self.end + PACKET_MAX]
    }

    /// Whether a packet of `length` bytes for `path`, just written into the room, can join those before it.
    pub fn joins(&self, length: usize, path: TransportId, max_segments: usize) -> bool {
        self.count == 0
            || (path == self.path
                && !self.closed
                && length <= self.segment
                && self.count < max_segments
                && self.end - self.start + length <= SEND_MAX)
    }

    /// Takes the packet in the room into the batch. Only for one that [joins](Self::joins).
    pub fn push(&mut self, length: usize, path: TransportId) {
        if self.count == 0 {
            (self.segment, self.path) = (length, path);
        }
        self.closed = length < self.segment;
        self.end += length;
        self.count += 1;
    }

    /// What is to be sent, if anything: path, packets, length of each.
    pub fn pending(&self) -> Option<(TransportId, &[u8], usize)> {
        (self.count > 0).then(|| (self.path, &self.buffer[self.start..self.end], self.segment))
    }

    /// Number of packets collected.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Forgets what was sent or given up. A packet in the room keeps its place.
    pub fn clear(&mut self) {
        (self.start, self.count, self.closed) = (self.end, 0, false);
    }

    /// Begins at the front of the buffer again. Only while nothing is pending and the room holds no packet.
    pub fn rewind(&mut self) {
        debug_assert_eq!(self.count, 0, "packets would be lost");
        (self.start, self.end) = (0, 0);
    }

    /// Whether a further packet in the room could run over the end of the buffer.
    pub fn is_exhausted(&self) -> bool {
        self.end + 2 * PACKET_MAX > self.buffer.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIFI: TransportId = TransportId(1);
    const LTE: TransportId = TransportId(2);
    const MANY: usize = 64;

    fn add(batch: &mut Batch, length: usize, path: TransportId, fill: u8) -> bool {
        batch.room()[..length].fill(fill);
        let joins = batch.joins(length, path, MANY);
        if joins {
            batch.push(length, path);
        }
        joins
    }

    #[test]
    fn equal_packets_of_one_path_form_one_send() {
        let mut batch = Batch::default();
        assert!((0..3).all(|n| add(&mut batch, 100, WIFI, n)));
        let (path, packets, segment) = batch.pending().unwrap();
        assert_eq!((path, packets.len(), segment), (WIFI, 300, 100));
        assert_eq!((packets[0], packets[100], packets[200]), (0, 1, 2));
    }

    #[test]
    fn a_shorter_packet_ends_the_batch_and_a_longer_one_or_another_path_begins_a_new_one() {
        let mut batch = Batch::default();
        assert!(add(&mut batch, 100, WIFI, 0));
        assert!(!add(&mut batch, 101, WIFI, 1));
        assert!(!add(&mut batch, 100, LTE, 1));
        assert!(add(&mut batch, 60, WIFI, 1));
        assert!(!add(&mut batch, 60, WIFI, 2));
    }

    #[test]
    fn a_packet_that_did_not_join_keeps_its_place_over_the_send() {
        let mut batch = Batch::default();
        add(&mut batch, 100, WIFI, 7);
        batch.room()[..200].fill(9);
        assert!(!batch.joins(200, WIFI, MANY));
        batch.clear();
        assert!(batch.pending().is_none());
        batch.push(200, WIFI);
        let (_, packets, segment) = batch.pending().unwrap();
        assert_eq!((packets.len(), packets[0], segment), (200, 9, 200));
    }

    #[test]
    fn a_send_never_exceeds_what_a_datagram_may_hold() {
        let mut batch = Batch::default();
        let mut joined = 0;
        while add(&mut batch, 1400, WIFI, 0) {
            joined += 1;
        }
        assert_eq!(joined, SEND_MAX / 1400);
        let mut batch = Batch::default();
        assert!((0..MANY).all(|_| add(&mut batch, 64, WIFI, 0)));
        assert!(!add(&mut batch, 64, WIFI, 0));
    }

    #[test]
    fn the_room_never_runs_over_the_end() {
        let mut batch = Batch::default();
        for _ in 0..1000 {
            if batch.is_exhausted() {
                batch.clear();
                batch.rewind();
            }
            let length = batch.room().len();
            batch.clear();
            batch.push(length, WIFI);
        }
    }
}
