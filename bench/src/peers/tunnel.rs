//! One WireGuard client, by boringtun's library: its handshake, and packets sealed ahead.

use std::net::Ipv4Addr;
use std::sync::Arc;

use anyhow::{Result, bail, ensure};
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519;
use jumpgate_protocol::handshake::StaticSecret;

/// What WireGuard puts around an inner packet: type, receiver, counter, and the tag behind it.
pub(super) const OVERHEAD: usize = 32;
/// Room for any packet of a handshake.
const SCRATCH: usize = 256;
/// Longest packet that is opened here: an echo, or an empty one.
const OPENED: usize = 2_048;

/// What a packet on the wire is (its first byte).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Initiation,
    Response,
    Cookie,
    Data,
}

impl Kind {
    /// Of a UDP payload; none if it is nothing of WireGuard's.
    pub(super) fn of(packet: &[u8]) -> Option<Self> {
        match (packet.first_chunk::<4>()?, packet.len()) {
            ([1, 0, 0, 0], 148) => Some(Self::Initiation),
            ([2, 0, 0, 0], 92) => Some(Self::Response),
            ([3, 0, 0, 0], 64) => Some(Self::Cookie),
            ([4, 0, 0, 0], length) if length >= OVERHEAD => Some(Self::Data),
            _ => None,
        }
    }
}

/// A client of a WireGuard gateway.
pub(super) struct Tunnel {
    core: Tunn,
    address: Ipv4Addr,
    scratch: Vec<u8>,
}

impl Tunnel {
    /// A client that has not yet spoken with its gateway. `address` is where answers come to.
    pub(super) fn new(secret: &StaticSecret, gateway: [u8; 32], number: u32, address: Ipv4Addr) -> Self {
        let own = x25519::StaticSecret::from(*secret.as_bytes());
        // The library's own limiter refuses more than ten answers in a second: what the gateway does is measured here.
        let limiter = Arc::new(RateLimiter::new(&x25519::PublicKey::from(&own), u64::MAX));
        let core = Tunn::new(own, x25519::PublicKey::from(gateway), None, None, number, Some(limiter));
        Self { core, address, scratch: vec![0; SCRATCH] }
    }

    /// A new initiation, with the cookie if there is one.
    pub(super) fn initiation(&mut self) -> Result<Vec<u8>> {
        match self.core.format_handshake_initiation(&mut self.scratch, true) {
            TunnResult::WriteToNetwork(packet) => Ok(packet.to_vec()),
            other => bail!("the WireGuard library makes no initiation: {other:?}"),
        }
    }

    /// Takes the gateway's response; gives the empty packet that confirms it. None if it answers nothing of ours.
    pub(super) fn response(&mut self, packet: &[u8]) -> Option<Vec<u8>> {
        match self.core.decapsulate(Some(self.address.into()), packet, &mut self.scratch) {
            TunnResult::WriteToNetwork(packet) => Some(packet.to_vec()),
            _ => None,
        }
    }

    /// Takes a cookie; whether it was one for our last initiation.
    pub(super) fn cookie(&mut self, packet: &[u8]) -> bool {
        matches!(self.core.decapsulate(Some(self.address.into()), packet, &mut self.scratch), TunnResult::Done)
    }

    /// Seals an inner packet into `sealed`, which is as long as it plus [`OVERHEAD`].
    pub(super) fn seal(&mut self, inner: &[u8], sealed: &mut [u8]) -> Result<()> {
        ensure!(sealed.len() == inner.len() + OVERHEAD, "a sealed packet of another length");
        // The library wants room for a handshake in any case; a packet of a session never needs it.
        let mut room = [0; OPENED];
        let Some(room) = room.get_mut(..sealed.len().max(SCRATCH)) else { bail!("too long an inner packet") };
        match self.core.encapsulate(inner, room) {
            TunnResult::WriteToNetwork(packet) if packet.len() == sealed.len() => sealed.copy_from_slice(packet),
            _ => bail!("this client has no session"),
        }
        Ok(())
    }

    /// Whether a packet from the gateway opens and holds an inner packet.
    pub(super) fn opens(&mut self, packet: &[u8]) -> bool {
        let mut inner = [0; OPENED];
        let opened = self.core.decapsulate(Some(self.address.into()), packet, &mut inner);
        matches!(opened, TunnResult::WriteToTunnelV4(..))
    }
}

#[cfg(test)]
mod tests {
    use jumpgate_protocol::entropy::SeededEntropy;

    use super::*;
    use crate::load::datagram::{Stamp, write_inner};

    const HERE: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 1);

    fn pair() -> (Tunnel, Tunn, StaticSecret) {
        let mut entropy = SeededEntropy::new(1);
        let (client, gateway) = (StaticSecret::generate(&mut entropy), StaticSecret::generate(&mut entropy));
        let tunnel = Tunnel::new(&client, gateway.public().0, 7, HERE);
        let other = Tunn::new(
            x25519::StaticSecret::from(*gateway.as_bytes()),
            x25519::PublicKey::from(client.public().0),
            None,
            None,
            1,
            None,
        );
        (tunnel, other, client)
    }

    fn joined() -> (Tunnel, Tunn) {
        let (mut tunnel, mut gateway, _) = pair();
        let initiation = tunnel.initiation().unwrap();
        assert_eq!(Kind::of(&initiation), Some(Kind::Initiation));
        let mut room = [0; SCRATCH];
        let TunnResult::WriteToNetwork(response) = gateway.decapsulate(None, &initiation, &mut room) else {
            panic!("no response")
        };
        assert_eq!(Kind::of(response), Some(Kind::Response));
        let confirmation = tunnel.response(response).unwrap();
        assert!(matches!(gateway.decapsulate(None, &confirmation, &mut [0; SCRATCH]), TunnResult::Done));
        (tunnel, gateway)
    }

    fn inner() -> [u8; 64] {
        let mut packet = [0; 64];
        write_inner(
            &mut packet,
            Ipv4Addr::new(10, 0, 0, 9),
            Ipv4Addr::new(10, 0, 0, 8),
            Stamp { at: 1, number: 2, client: 3 },
        );
        packet
    }

    #[test]
    fn packets_sealed_ahead_open_at_the_other_end_once_each() {
        let (mut tunnel, mut gateway) = joined();
        let sealed: Vec<_> = (0..3)
            .map(|_| {
                let mut sealed = [0; 64 + OVERHEAD];
                tunnel.seal(&inner(), &mut sealed).unwrap();
                sealed
            })
            .collect();
        for packet in &sealed {
            assert_eq!(Kind::of(packet), Some(Kind::Data));
            let mut room = [0; 256];
            let TunnResult::WriteToTunnelV4(opened, _) = gateway.decapsulate(None, packet, &mut room) else {
                panic!("it does not open")
            };
            assert_eq!(opened, inner());
        }
        assert!(matches!(gateway.decapsulate(None, &sealed[0], &mut [0; 256]), TunnResult::Err(_)), "used twice");
    }

    #[test]
    fn what_the_gateway_sends_back_counts_only_if_it_opens() {
        let (mut tunnel, mut gateway) = joined();
        let mut room = [0; 256];
        let TunnResult::WriteToNetwork(packet) = gateway.encapsulate(&inner(), &mut room) else { panic!("no packet") };
        let mut forged = packet.to_vec();
        forged[20] ^= 1;
        assert!(!tunnel.opens(&forged));
        assert!(tunnel.opens(packet));
    }

    #[test]
    fn a_cookie_goes_into_the_next_initiation() {
        let (mut tunnel, _, client) = pair();
        let mut entropy = SeededEntropy::new(1);
        let _ = StaticSecret::generate(&mut entropy);
        let gateway = StaticSecret::generate(&mut entropy);
        let (private, public) = (*gateway.as_bytes(), client.public().0);
        let limiter = Arc::new(RateLimiter::new(&x25519::PublicKey::from(&x25519::StaticSecret::from(private)), 0));
        let mut strict = Tunn::new(private.into(), public.into(), None, None, 1, Some(limiter));
        let first = tunnel.initiation().unwrap();
        let mut room = [0; SCRATCH];
        let TunnResult::WriteToNetwork(cookie) = strict.decapsulate(Some(HERE.into()), &first, &mut room) else {
            panic!("no cookie")
        };
        assert_eq!(Kind::of(cookie), Some(Kind::Cookie));
        assert!(tunnel.cookie(cookie));
        let second = tunnel.initiation().unwrap();
        assert_ne!(second[132..148], [0; 16], "the second authenticator is there");
        let mut room = [0; SCRATCH];
        let answered = strict.decapsulate(Some(HERE.into()), &second, &mut room);
        assert!(matches!(answered, TunnResult::WriteToNetwork(_)), "{answered:?}");
    }

    #[test]
    fn a_client_without_a_session_seals_nothing() {
        let (mut tunnel, ..) = pair();
        assert!(tunnel.seal(&inner(), &mut [0; 64 + OVERHEAD]).is_err());
    }

    #[test]
    fn foreign_and_broken_packets_are_of_no_kind() {
        assert_eq!(Kind::of(&[]), None);
        assert_eq!(Kind::of(&[1, 0, 0, 0]), None);
        assert_eq!(Kind::of(&[4; 64]), None);
        assert_eq!(Kind::of(&[4, 0, 0, 0]), None);
    }
}
