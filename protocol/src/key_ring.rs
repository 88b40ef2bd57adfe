//! The keys of a session over its rekeys (RK-3): the set in use, and beside it, for a short while, the next one (at the
//! gateway, until the client uses it) or the previous one (until what was sent under it has come or is lost).

use crate::crypto::{DefaultAead, Lazy, OnDemand, SharedSecret};
use crate::health::Counters;
use crate::ident::{Locator, SessionIdentity};
use crate::keys::{EpochKeys, KeyLimits, Root, Side};
use crate::reason::Reason;
use crate::replay::ReplayWindow;
use crate::stored::{Damaged, Reader, Stored, Writer};
use crate::time::{Span, Time};
use crate::wire::{self, Body, ControlPacket, Header, MessageType, RekeyAck, RekeyInit};

/// How far every sending counter moves ahead when a session goes on in another run of its gateway (KY-9). More than a
/// gateway can seal between the moment it writes its sessions down and its end, and nothing beside the 2^60 packets of a
/// key.
pub(crate) const COUNTER_ADVANCE: u64 = 1 << 20;

/// A rekey that is complete: the peer has shown that it has the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rekeyed {
    pub(crate) key_epoch: u32,
    pub(crate) trigger: Reason,
}

/// The keys of one key epoch, with what belongs to them alone: DATA counter and window (AR-1, AR-3).
struct KeySet {
    epoch: u32,
    /// A context of the library is some 600 bytes: kept for DATA only, and once there is some.
    keys: EpochKeys<Lazy<DefaultAead>, OnDemand<DefaultAead>>,
    data_sent: u64,
    window: ReplayWindow,
    /// Packets that named this key epoch and did not open.
    failures: u64,
}

/// Agreed on, not yet used.
struct Next {
    set: KeySet,
    root: Root,
    trigger: Reason,
}

/// Receives only.
struct Previous {
    set: KeySet,
    /// [`Time::NEVER`] as long as the peer may still send with it.
    until: Time,
}

/// All keys of a session at one end. A key epoch is named by its low 8 bits; never more than three in a row are held.
pub(crate) struct KeyRing {
    current: KeySet,
    next: Option<Box<Next>>,
    previous: Option<Box<Previous>>,
    /// Our side uses the current set, and the peer has not been heard under it yet: the trigger of that rekey.
    unconfirmed: Option<Reason>,
    root: Root,
    identity: SessionIdentity,
    side: Side,
    window_bits: usize,
    limits: KeyLimits,
}

impl KeyRing {
    /// The keys of key epoch 0.
    pub(crate) fn new(
        root: Root,
        identity: SessionIdentity,
        side: Side,
        window_bits: usize,
        limits: KeyLimits,
    ) -> Self {
        let current = KeySet::derive(&root, 0, &identity, side, window_bits);
        Self { current, next: None, previous: None, unconfirmed: None, root, identity, side, window_bits, limits }
    }

    /// For the sealed hand-over of a gateway (KY-9). Previous keys, which only receive what is late, stay behind: their root
    /// is erased (KY-3).
    pub(crate) fn store(&self, out: &mut Writer) {
        let Self { current, next, previous: _, unconfirmed: _, root, identity, side: _, window_bits: _, limits: _ } =
            self;
        identity.store(out);
        current.store(root, out);
        next.is_some().store(out);
        if let Some(next) = next {
            next.trigger.store(out);
            next.set.store(&next.root, out);
        }
    }

    /// What [`KeyRing::store`] wrote.
    pub(crate) fn load(from: &mut Reader<'_>, limits: KeyLimits) -> Result<Self, Damaged> {
        let side = Side::Gateway;
        let identity = Stored::load(from)?;
        let (current, root) = KeySet::load(from, &identity, side)?;
        let next = bool::load(from)?.then(|| {
            let trigger = Stored::load(from)?;
            let (set, root) = KeySet::load(from, &identity, side)?;
            let follows = current.epoch.checked_add(1) == Some(set.epoch);
            if follows { Ok(Box::new(Next { set, root, trigger })) } else { Err(Damaged) }
        });
        let next = next.transpose()?;
        let window_bits = current.window.bits() as usize;
        Ok(Self { current, next, previous: None, unconfirmed: None, root, identity, side, window_bits, limits })
    }

    /// Another run of the gateway goes on with these keys: no counter that the one before can have used is used again,
    /// whatever it sealed after it wrote them down (KY-9, INV-36).
    pub(crate) fn advance(&mut self) {
        let next = self.next.as_mut().map(|next| &mut next.set);
        for set in [&mut self.current].into_iter().chain(next) {
            set.data_sent = set.data_sent.saturating_add(COUNTER_ADVANCE);
        }
    }

    /// The key epoch that is sent with.
    pub(crate) const fn epoch(&self) -> u32 {
        self.current.epoch
    }

    /// Bytes of the replay window of one key epoch.
    pub(crate) const fn window_bytes(&self) -> usize {
        self.current.window.bytes()
    }

    /// What the present keys counted, for [`crate::health`].
    pub(crate) const fn counters(&self) -> Counters<'_> {
        let KeySet { epoch, data_sent, window, .. } = &self.current;
        Counters { window, key_epoch: *epoch, own_sent: *data_sent }
    }

    /// DATA packets under the present keys, in the direction that has more of them (RK-1, KY-6).
    pub(crate) fn volume(&self) -> u64 {
        self.current.data_sent.max(self.current.window.highest())
    }

    /// Whether the present keys may seal no more: the session ends (KY-6, T25).
    pub(crate) const fn is_used_up(&self) -> bool {
        self.current.data_sent >= self.limits.packets
    }

    /// Whether so much failed to open under the present keys that fresh ones are wanted (RK-5).
    pub(crate) const fn is_under_attack(&self) -> bool {
        self.current.failures >= self.limits.forgeries
    }

    /// The session that the keys belong to.
    pub(crate) const fn identity(&self) -> SessionIdentity {
        self.identity
    }

    /// Whether next keys wait for their first packet.
    pub(crate) const fn is_pending(&self) -> bool {
        self.next.is_some()
    }

    /// Whether there is but one set of keys.
    pub(crate) const fn is_settled(&self) -> bool {
        self.next.is_none() && self.previous.is_none()
    }

    /// When the previous keys are to be erased.
    pub(crate) fn erase_at(&self) -> Time {
        self.previous.as_ref().map_or(Time::NEVER, |previous| previous.until)
    }

    /// Erases the previous keys, if their time is over (RK-3).
    pub(crate) fn expire(&mut self, now: Time) {
        self.previous.take_if(|previous| now >= previous.until);
    }

    /// Derives the keys of the next epoch (KY-3) and holds them as pending; they replace others that wait (RK-4).
    pub(crate) fn prepare(&mut self, shared: &SharedSecret, init: &RekeyInit, ack: &RekeyAck) {
        let root = self.root.next(shared, init, ack);
        let set = KeySet::derive(&root, init.next_epoch, &self.identity, self.side, self.window_bits);
        self.next = Some(Box::new(Next { set, root, trigger: init.trigger }));
    }

    /// Sends with the pending keys from now on, before the peer did (RK-3: the client, from REKEY_ACK on).
    pub(crate) fn adopt(&mut self) {
        if let Some(trigger) = self.promote(Time::NEVER) {
            self.unconfirmed = Some(trigger);
        }
    }

    /// An authentic packet came with that byte. Gives the rekey that it completes, if it does: from now on the previous
    /// keys live for `overlap`.
    #[inline]
    pub(crate) fn heard(&mut self, byte: u8, overlap: Span, now: Time) -> Option<Rekeyed> {
        if self.next.is_none() && self.unconfirmed.is_none() {
            return None;
        }
        self.settle(byte, now + overlap)
    }

    #[cold]
    fn settle(&mut self, byte: u8, until: Time) -> Option<Rekeyed> {
        let trigger = if byte == self.current.byte() {
            let trigger = self.unconfirmed.take()?;
            if let Some(previous) = &mut self.previous {
                previous.until = until;
            }
            trigger
        } else {
            self.next.as_ref().filter(|next| next.set.byte() == byte)?;
            self.promote(until)?
        };
        Some(Rekeyed { key_epoch: self.current.epoch, trigger })
    }

    /// The pending keys become the present ones, the present ones the previous. The old root is erased (KY-3).
    fn promote(&mut self, until: Time) -> Option<Reason> {
        let Next { set, root, trigger } = *self.next.take()?;
        let old = std::mem::replace(&mut self.current, set);
        self.previous = Some(Box::new(Previous { set: old, until }));
        self.root = root;
        Some(trigger)
    }

    /// Seals a DATA packet in place under the next counter of the present key epoch.
    #[inline]
    pub(crate) fn seal_data(&mut self, locator: Locator, tag: u8, packet: &mut [u8]) -> Result<(), Reason> {
        if self.is_used_up() {
            return Err(Reason::CounterLimitReached);
        }
        let set = &mut self.current;
        set.data_sent += 1;
        let kind = MessageType::Data;
        let header = Header { kind, flags: 0, key_epoch: set.byte(), tag, locator, counter: set.data_sent };
        wire::seal_data(&set.keys.data_seal, &header, packet);
        Ok(())
    }

    /// Opens a DATA packet in place: key epoch, early look at the window, AEAD, mark (BD-1, AR-3). The early look makes a
    /// flood of replays cost no decryption; the window moves only after the AEAD.
    #[inline]
    pub(crate) fn open_data<'a>(
        &mut self,
        header: &Header,
        packet: &'a mut [u8],
        now: Time,
    ) -> Result<&'a mut [u8], Reason> {
        let set = if header.key_epoch == self.current.byte() {
            &mut self.current
        } else {
            self.other(header.key_epoch, now).ok_or(Reason::KeyEpochUnknown)?
        };
        set.window.check(header.counter)?;
        match wire::open_data(&set.keys.data_open, header, packet) {
            Ok(inner) => {
                set.window.mark(header.counter);
                Ok(inner)
            }
            Err(reason) => {
                set.failures += 1;
                Err(reason)
            }
        }
    }

    /// Opens a control message, but REATTACH_REQUEST.
    pub(crate) fn open_control<B: Body>(&mut self, header: &Header, packet: &mut [u8], now: Time) -> Result<B, Reason> {
        let set = self.receiving(header.key_epoch, now)?;
        let opened = wire::open(&set.keys.control_open, header, packet).inspect_err(|_| set.failures += 1)?;
        B::parse(opened).map_err(|error| error.reason())
    }

    /// Opens a REATTACH_REQUEST.
    pub(crate) fn open_proof<B: Body>(&mut self, header: &Header, packet: &mut [u8], now: Time) -> Result<B, Reason> {
        let set = self.receiving(header.key_epoch, now).map_err(|_| Reason::AuthFail)?;
        let opened = wire::open(&set.keys.proof, header, packet).inspect_err(|_| set.failures += 1)?;
        B::parse(opened).map_err(|error| error.reason())
    }

    /// Seals a control message under that counter; REATTACH_REQUEST under the proof key (KY-2).
    pub(crate) fn seal_control<B: Body>(&self, locator: Locator, counter: u64, body: &B) -> ControlPacket {
        let key = match B::KIND {
            MessageType::ReattachRequest => &self.current.keys.proof,
            _ => &self.current.keys.control_seal,
        };
        let header = Header { kind: B::KIND, flags: 0, key_epoch: self.current.byte(), tag: 0, locator, counter };
        wire::seal(key, header, body)
    }

    fn receiving(&mut self, byte: u8, now: Time) -> Result<&mut KeySet, Reason> {
        if byte == self.current.byte() {
            return Ok(&mut self.current);
        }
        self.other(byte, now).ok_or(Reason::KeyEpochUnknown)
    }

    /// The set of that byte besides the present one; the previous one only within its overlap.
    #[cold]
    fn other(&mut self, byte: u8, now: Time) -> Option<&mut KeySet> {
        let next = self.next.as_mut().map(|next| &mut next.set);
        let previous = self.previous.as_mut().filter(|previous| now < previous.until).map(|previous| &mut previous.set);
        next.into_iter().chain(previous).find(|set| set.byte() == byte)
    }
}

impl KeySet {
    fn derive(root: &Root, epoch: u32, identity: &SessionIdentity, side: Side, window_bits: usize) -> Self {
        let keys = EpochKeys::derive(root, epoch, identity, side);
        Self { epoch, keys, data_sent: 0, window: ReplayWindow::new(window_bits), failures: 0 }
    }

    fn store(&self, root: &Root, out: &mut Writer) {
        let Self { epoch, keys: _, data_sent, window, failures } = self;
        (*epoch, *data_sent).store(out);
        root.store(out);
        window.store(out);
        failures.store(out);
    }

    fn load(from: &mut Reader<'_>, identity: &SessionIdentity, side: Side) -> Result<(Self, Root), Damaged> {
        let (epoch, data_sent) = Stored::load(from)?;
        let root = Root::load(from)?;
        let keys = EpochKeys::derive(&root, epoch, identity, side);
        let set = Self { epoch, keys, data_sent, window: Stored::load(from)?, failures: Stored::load(from)? };
        Ok((set, root))
    }

    #[inline]
    const fn byte(&self) -> u8 {
        self.epoch as u8
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::entropy::SeededEntropy;
    use crate::keys::EphemeralSecret;
    use crate::wire::DATA_OVERHEAD;

    const LIMITS: KeyLimits = KeyLimits { packets: 1_000, forgeries: 3 };

    fn ring(seed: u8, side: Side) -> KeyRing {
        let identity = SessionIdentity([seed; 16]);
        let root = Root::from_handshake((&[seed; 32], &[seed ^ 0xff; 32]), &[seed; 32], &identity);
        KeyRing::new(root, identity, side, 8_192, LIMITS)
    }

    /// Both ends derive and take the next keys.
    fn rekey(client: &mut KeyRing, gateway: &mut KeyRing, entropy: &mut SeededEntropy) {
        let (ours, theirs) = (EphemeralSecret::generate(entropy), EphemeralSecret::generate(entropy));
        let next_epoch = client.epoch() + 1;
        let init = RekeyInit { next_epoch, ephemeral: ours.public(), trigger: Reason::RekeyTimeElapsed };
        let ack = RekeyAck { echo: 1, next_epoch, ephemeral: theirs.public(), status: None };
        gateway.prepare(&theirs.agree(&init.ephemeral).unwrap(), &init, &ack);
        client.prepare(&ours.agree(&ack.ephemeral).unwrap(), &init, &ack);
        client.adopt();
        let byte = next_epoch as u8;
        assert!(gateway.heard(byte, Span::ZERO, Time::ZERO).is_some());
        assert!(client.heard(byte, Span::ZERO, Time::ZERO).is_some());
        client.expire(Time::ZERO);
        gateway.expire(Time::ZERO);
    }

    /// A packet of zeros becomes the keystream itself: the same one twice is a nonce used twice under one key.
    fn keystream(ring: &mut KeyRing) -> Result<Vec<u8>, Reason> {
        let mut packet = [0; 64 + DATA_OVERHEAD];
        ring.seal_data(Locator(7), 0, &mut packet)?;
        Ok(packet[crate::wire::HEADER_LEN..][..64].to_vec())
    }

    #[test]
    fn a36_no_nonce_is_used_twice_under_one_key_over_rekeys_in_either_direction_or_by_a_later_session() {
        let mut seen = HashSet::new();
        let mut entropy = SeededEntropy::new(36);
        // A restart keeps no key: what comes after it is another session with another root.
        for session in 1..=3 {
            let (mut client, mut gateway) = (ring(session, Side::Client), ring(session, Side::Gateway));
            // More rekeys than the byte on the wire counts.
            for _ in 0..300 {
                for _ in 0..3 {
                    for ring in [&mut client, &mut gateway] {
                        assert!(seen.insert(keystream(ring).unwrap()), "INV-36");
                    }
                }
                rekey(&mut client, &mut gateway, &mut entropy);
            }
        }
        assert_eq!(seen.len(), 3 * 300 * 3 * 2);
    }

    #[test]
    fn ky9_rk3_a_ring_that_was_written_down_goes_on_with_other_nonces_and_with_the_keys_that_wait() {
        let (mut client, mut gateway) = (ring(1, Side::Client), ring(1, Side::Gateway));
        let mut seen: HashSet<_> = (0..5).map(|_| keystream(&mut gateway).unwrap()).collect();
        let mut entropy = SeededEntropy::new(9);
        let (ours, theirs) = (EphemeralSecret::generate(&mut entropy), EphemeralSecret::generate(&mut entropy));
        let init = RekeyInit { next_epoch: 1, ephemeral: ours.public(), trigger: Reason::RekeyTimeElapsed };
        let ack = RekeyAck { echo: 1, next_epoch: 1, ephemeral: theirs.public(), status: None };
        gateway.prepare(&theirs.agree(&init.ephemeral).unwrap(), &init, &ack);
        client.prepare(&ours.agree(&ack.ephemeral).unwrap(), &init, &ack);
        client.adopt();
        let mut out = Writer::default();
        gateway.store(&mut out);
        let bytes = out.finish();
        let mut from = Reader::new(&bytes).unwrap();
        let mut next = KeyRing::load(&mut from, KeyLimits::SUITE_1).unwrap();
        from.end().unwrap();
        next.advance();
        // The old run may seal on for a while; nothing that the new one seals is the same (INV-36).
        seen.extend((0..500).map(|_| keystream(&mut gateway).unwrap()));
        assert!((0..500).all(|_| seen.insert(keystream(&mut next).unwrap())));
        let mut packet = [0; 64 + DATA_OVERHEAD];
        client.seal_data(Locator(7), 0, &mut packet).unwrap();
        let header = Header::parse(&packet).unwrap();
        assert!(next.open_data(&header, &mut packet, Time::ZERO).is_ok(), "under the keys that waited");
        assert!(next.heard(1, Span::ZERO, Time::ZERO).is_some_and(|rekeyed| rekeyed.key_epoch == 1));
    }

    #[test]
    fn ky6_a_key_seals_as_many_packets_as_it_may_and_a_rekey_begins_the_count_anew() {
        let (mut client, mut gateway) = (ring(1, Side::Client), ring(1, Side::Gateway));
        for _ in 0..LIMITS.packets {
            keystream(&mut client).unwrap();
        }
        assert!(client.is_used_up());
        assert_eq!(keystream(&mut client), Err(Reason::CounterLimitReached));
        assert!(!gateway.is_used_up(), "each direction by itself");
        rekey(&mut client, &mut gateway, &mut SeededEntropy::new(6));
        assert!(keystream(&mut client).is_ok());
    }

    #[test]
    fn rk5_what_does_not_open_is_counted_for_each_key() {
        let (mut client, mut gateway) = (ring(1, Side::Client), ring(1, Side::Gateway));
        let header =
            |counter| Header { kind: MessageType::Data, flags: 0, key_epoch: 0, tag: 0, locator: Locator(7), counter };
        for counter in 1..=LIMITS.forgeries {
            assert!(!gateway.is_under_attack());
            let mut forged = [0; 20 + DATA_OVERHEAD];
            let header = header(counter);
            header.emit(&mut forged);
            assert_eq!(gateway.open_data(&header, &mut forged, Time::ZERO).err(), Some(Reason::DataAuthFail));
        }
        assert!(gateway.is_under_attack());
        rekey(&mut client, &mut gateway, &mut SeededEntropy::new(5));
        assert!(!gateway.is_under_attack(), "fresh keys");
    }
}
