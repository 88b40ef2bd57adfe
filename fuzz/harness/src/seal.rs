//! Sealing what no honest end would seal: any plaintext of any length under the right key, or the wrong one.

use jumpgate_protocol::crypto::{Aead, DefaultAead};
use jumpgate_protocol::ident::SessionIdentity;
use jumpgate_protocol::keys::{EpochKeys, Root, Side};
use jumpgate_protocol::wire::{Body, HEADER_LEN, Header, MessageType};

/// A message with that plaintext, whatever it says. The nonce is the one of KY-5: 0 for DATA, else the type, and the
/// counter.
pub fn seal(key: &DefaultAead, header: &Header, plaintext: &[u8]) -> Vec<u8> {
    let mut nonce = [0; 12];
    if header.kind != MessageType::Data {
        nonce[3] = header.kind as u8;
    }
    nonce[4..].copy_from_slice(&header.counter.to_be_bytes());
    let mut packet = vec![0; HEADER_LEN];
    header.emit(&mut packet);
    let mut sealed = plaintext.to_vec();
    let tag = key.seal_in_place(&nonce, &packet, &mut sealed);
    packet.extend_from_slice(&sealed);
    packet.extend_from_slice(&tag);
    packet
}

/// The plaintext of an honest message, padding included.
pub fn plaintext<B: Body>(body: &B) -> Vec<u8> {
    let mut bytes = vec![0; B::PADDED_LEN];
    body.emit(&mut bytes[..B::LEN]);
    bytes
}

/// The counter of a message that nothing forbids to be out of order: mostly the next one, else the same again, one
/// below, a jump ahead, or one of the values that no counter has (AR-2).
pub fn counter(choice: u8, last: u64) -> u64 {
    match choice {
        0..=199 => last.wrapping_add(1),
        200..=214 => last,
        215..=239 => last.wrapping_sub(u64::from(choice - 214)),
        240..=249 => last.wrapping_add(1 << (u32::from(choice - 240) * 6)),
        250 => 0,
        251 => u64::MAX,
        252 => u64::MAX - 1,
        253.. => 1,
    }
}

/// The keys of a session at the end that the harness plays: the newest epoch and the one before.
pub struct Ring {
    identity: SessionIdentity,
    side: Side,
    root: Root,
    epoch: u32,
    newest: EpochKeys<DefaultAead>,
    previous: Option<EpochKeys<DefaultAead>>,
}

impl Ring {
    /// The keys of key epoch 0.
    pub fn new(root: Root, identity: SessionIdentity, side: Side) -> Self {
        let newest = EpochKeys::derive(&root, 0, &identity, side);
        Self { identity, side, root, epoch: 0, newest, previous: None }
    }

    /// The newest key epoch.
    pub const fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The root of the newest key epoch.
    pub const fn root(&self) -> &Root {
        &self.root
    }

    /// The newest keys, or those before them if there are any; and their epoch's byte on the wire.
    pub fn keys(&self, previous: bool) -> (&EpochKeys<DefaultAead>, u8) {
        match &self.previous {
            Some(keys) if previous => (keys, self.epoch.wrapping_sub(1) as u8),
            _ => (&self.newest, self.epoch as u8),
        }
    }

    /// The keys of that epoch's byte on the wire.
    pub fn named(&self, byte: u8) -> Option<&EpochKeys<DefaultAead>> {
        if byte == self.epoch as u8 {
            Some(&self.newest)
        } else {
            self.previous.as_ref().filter(|_| byte == self.epoch.wrapping_sub(1) as u8)
        }
    }

    /// A rekey was agreed on.
    pub fn turn(&mut self, next: Root) {
        self.epoch += 1;
        let keys = EpochKeys::derive(&next, self.epoch, &self.identity, self.side);
        self.root = next;
        self.previous = Some(std::mem::replace(&mut self.newest, keys));
    }
}
