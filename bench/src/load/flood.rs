//! Packets of somebody who wants to do harm, made ahead, from ever other addresses.

use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::Result;
use jumpgate_protocol::crypto::StaticSecret;
use jumpgate_protocol::entropy::{Entropy as _, SeededEntropy};
use jumpgate_protocol::handshake::{HelloRequest, Initiator};
use jumpgate_protocol::ident::{Locator, PublicKey};
use jumpgate_protocol::wire::{Body as _, HEADER_LEN, Header, MessageType, ReattachRequest, RequestedPolicy, TAG_LEN};

/// Where forged source addresses begin: in the clients' networks, beyond every client.
const FORGED_BASE: Ipv4Addr = Ipv4Addr::new(100, 127, 0, 0);
/// How many there are.
const FORGED_SPAN: u32 = 1 << 16;
/// HELLO_INITs that are made ahead; each costs four X25519 operations.
const HELLOS: usize = 64;
/// Length of a forged request: that of a genuine one, so that its proof is looked at.
const REQUEST_LEN: usize = HEADER_LEN + ReattachRequest::PADDED_LEN + TAG_LEN;
/// Port that forged packets come from.
const PORT: u16 = 4_444;

/// A flood.
pub struct Flood {
    packets: Vec<Vec<u8>>,
    /// The one address that everything comes from; else each packet has another.
    from: Option<SocketAddrV4>,
    next: usize,
    /// Packets sent.
    pub sent: u64,
}

impl Flood {
    /// REATTACH_REQUESTs to live sessions with proofs that are none.
    pub fn reattach(victims: &[Locator], seed: u64) -> Self {
        let mut entropy = SeededEntropy::new(seed);
        let packets = victims.iter().map(|victim| {
            let mut packet = vec![0; REQUEST_LEN];
            entropy.fill(&mut packet);
            let counter = u64::from_be_bytes([0, 1, packet[2], packet[3], packet[4], packet[5], packet[6], packet[7]]);
            let header = Header {
                kind: MessageType::ReattachRequest,
                flags: 0,
                key_epoch: 0,
                tag: 0,
                locator: *victim,
                counter,
            };
            header.emit(&mut packet);
            packet
        });
        Self::of(packets.collect(), None)
    }

    /// HELLO_INITs with a valid gate MAC and without cookie, from clients that nobody knows.
    ///
    /// # Errors
    /// The gateway's key is none.
    pub fn handshake(gateway: &PublicKey, seed: u64) -> Result<Self> {
        let mut entropy = SeededEntropy::new(seed);
        let request = HelloRequest {
            hello_counter: 1,
            client_time_ms: 0,
            replaces: None,
            capabilities: 0,
            requested_policy: RequestedPolicy::new(),
        };
        let packets = (0..HELLOS).map(|_| {
            let secret = StaticSecret::generate(&mut entropy);
            let hello = Initiator::new(&secret, gateway, None, &request, &mut entropy)
                .map_err(|reason| anyhow::anyhow!("no HELLO_INIT can be made: {reason}"))?;
            Ok(hello.packet().to_vec())
        });
        Ok(Self::of(packets.collect::<Result<_>>()?, None))
    }

    /// Genuine packets of one client, again and again, from where they came.
    pub fn replay(captured: Vec<Vec<u8>>, from: SocketAddrV4) -> Self {
        Self::of(captured, Some(from))
    }

    fn of(packets: Vec<Vec<u8>>, from: Option<SocketAddrV4>) -> Self {
        Self { packets, from, next: 0, sent: 0 }
    }

    /// The next packet and where it claims to come from; none if there is nothing to flood with.
    pub(super) fn next(&mut self) -> Option<(SocketAddrV4, &[u8])> {
        let number = self.next;
        self.next += 1;
        let forged = || Ipv4Addr::from(u32::from(FORGED_BASE) + number as u32 % FORGED_SPAN);
        let from = self.from.unwrap_or_else(|| SocketAddrV4::new(forged(), PORT));
        let packet = self.packets.get(number % self.packets.len().max(1))?;
        self.sent += 1;
        Some((from, packet))
    }
}
