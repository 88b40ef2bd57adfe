//! The keys of a session: one root per key epoch, and five keys from it (§8).

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::crypto::{Aead, AuthError, KEY_LEN, KeyPair, SharedSecret, StaticSecret};
use crate::entropy::Entropy;
use crate::ident::SessionIdentity;
use crate::stored::{Damaged, Reader, Stored, Writer};
use crate::wire::{Body, RekeyAck, RekeyInit};

/// How much may be done with one key (KY-6). Not a policy: no configuration raises it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyLimits {
    /// DATA packets that it seals, in one direction. At the limit sending stops.
    pub packets: u64,
    /// Packets that failed to open under it before fresh keys are wanted (RK-5). No count of failures ends a session.
    pub forgeries: u64,
}

impl KeyLimits {
    /// Of suite 1. 2^60 packets by KY-6. RFC 9001 §6.6 allows 2^36 failures under a ChaCha20-Poly1305 key; 2^20 is far
    /// below that, and far above what packets damaged on the way amount to.
    pub const SUITE_1: Self = Self { packets: 1 << 60, forgeries: 1 << 20 };

    /// Of each limit the lower one.
    #[must_use]
    pub fn lower_of(self, other: Self) -> Self {
        Self { packets: self.packets.min(other.packets), forgeries: self.forgeries.min(other.forgeries) }
    }
}

/// Contexts of [`blake3::derive_key`]. A key derived under one of them has no other use (KY-2).
mod context {
    pub(super) const SESSION_ROOT: &str = "jumpgate v1 session root";
    pub(super) const NEXT_ROOT: &str = "jumpgate v1 next root";
    pub(super) const TRAFFIC_C2G: &str = "jumpgate v1 traffic c2g";
    pub(super) const TRAFFIC_G2C: &str = "jumpgate v1 traffic g2c";
    pub(super) const CONTROL_C2G: &str = "jumpgate v1 control c2g";
    pub(super) const CONTROL_G2C: &str = "jumpgate v1 control g2c";
    pub(super) const REATTACH_PROOF: &str = "jumpgate v1 reattach proof";
}

/// An end of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// Keeps the authoritative record.
    Gateway,
    /// Keeps the mirror.
    Client,
}

/// The root of one key epoch; erased when dropped.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Root([u8; KEY_LEN]);

impl Root {
    /// The root of key epoch 0 (KY-1). `split` are the two keys that Noise ends with, the initiator's first.
    pub fn from_handshake(
        split: (&[u8; KEY_LEN], &[u8; KEY_LEN]),
        handshake_hash: &[u8; 32],
        identity: &SessionIdentity,
    ) -> Self {
        Self(derive(context::SESSION_ROOT, &[split.0, split.1, handshake_hash, &identity.0]))
    }

    /// The root of the next key epoch (KY-3): from the old one, a fresh X25519 result, and both messages of the rekey.
    #[must_use]
    pub fn next(&self, shared: &SharedSecret, init: &RekeyInit, ack: &RekeyAck) -> Self {
        let mut transcript = blake3::Hasher::new();
        let (mut init_bytes, mut ack_bytes) = ([0; RekeyInit::LEN], [0; RekeyAck::LEN]);
        init.emit(&mut init_bytes);
        ack.emit(&mut ack_bytes);
        transcript.update(&init_bytes).update(&ack_bytes);
        Self(derive(context::NEXT_ROOT, &[&self.0, &shared.0, transcript.finalize().as_bytes()]))
    }
}

/// Only gateways hand over.
impl Stored for Side {
    fn store(&self, out: &mut Writer) {
        (*self == Self::Client).store(out);
    }
    fn load(from: &mut Reader<'_>) -> Result<Self, Damaged> {
        if bool::load(from)? { Err(Damaged) } else { Ok(Self::Gateway) }
    }
}

/// For the sealed hand-over alone (KY-9).
impl Stored for Root {
    fn store(&self, out: &mut Writer) {
        self.0.store(out);
    }
    fn load(from: &mut Reader<'_>) -> Result<Self, Damaged> {
        Ok(Self(Stored::load(from)?))
    }
}

/// The X25519 key that one end makes for one rekey (RK-2); used up by it.
pub struct EphemeralSecret(KeyPair);

impl EphemeralSecret {
    /// A fresh key.
    pub fn generate(entropy: &mut dyn Entropy) -> Self {
        Self(KeyPair::new(StaticSecret::generate(entropy)))
    }

    /// The half that goes into REKEY_INIT or REKEY_ACK.
    pub fn public(&self) -> [u8; KEY_LEN] {
        self.0.public().0
    }

    /// The result of the exchange.
    ///
    /// # Errors
    /// The peer's key is a point of low order.
    pub fn agree(self, peer: &[u8; KEY_LEN]) -> Result<SharedSecret, AuthError> {
        self.0.agree(peer)
    }
}

/// The keys of one key epoch, as one end uses them (KY-2). `C` is the cipher of the control messages.
pub struct EpochKeys<A, C = A> {
    /// Seals our DATA.
    pub data_seal: A,
    /// Opens the peer's DATA.
    pub data_open: A,
    /// Seals our control messages, but REATTACH_REQUEST.
    pub control_seal: C,
    /// Opens the peer's control messages, but REATTACH_REQUEST.
    pub control_open: C,
    /// Seals REATTACH_REQUEST at the client and opens it at the gateway.
    pub proof: C,
}

impl<A: Aead, C: Aead> EpochKeys<A, C> {
    /// The keys of `key_epoch`, whose root is `root`.
    pub fn derive(root: &Root, key_epoch: u32, identity: &SessionIdentity, side: Side) -> Self {
        let key = |context| Zeroizing::new(derive(context, &[&root.0, &key_epoch.to_be_bytes(), &identity.0]));
        let (traffic_out, traffic_in, control_out, control_in) = match side {
            Side::Client => (context::TRAFFIC_C2G, context::TRAFFIC_G2C, context::CONTROL_C2G, context::CONTROL_G2C),
            Side::Gateway => (context::TRAFFIC_G2C, context::TRAFFIC_C2G, context::CONTROL_G2C, context::CONTROL_C2G),
        };
        Self {
            data_seal: A::new(&key(traffic_out)),
            data_open: A::new(&key(traffic_in)),
            control_seal: C::new(&key(control_out)),
            control_open: C::new(&key(control_in)),
            proof: C::new(&key(context::REATTACH_PROOF)),
        }
    }
}

/// `derive_key` over parts of fixed lengths, so that their concatenation is unambiguous.
fn derive(context: &str, parts: &[&[u8]]) -> [u8; KEY_LEN] {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    for part in parts {
        hasher.update(part);
    }
    let key = *hasher.finalize().as_bytes();
    hasher.zeroize();
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::{NONCE_LEN, RustCryptoChaCha};
    use crate::entropy::SeededEntropy;
    use crate::reason::Reason;

    const IDENTITY: SessionIdentity = SessionIdentity([3; 16]);

    /// Shows which key a cipher has, by what it makes of nothing.
    fn mark<A: Aead>(cipher: &A) -> [u8; 16] {
        cipher.seal_in_place(&[0; NONCE_LEN], b"", &mut [])
    }

    fn root(byte: u8) -> Root {
        Root::from_handshake((&[byte; 32], &[2; 32]), &[4; 32], &IDENTITY)
    }

    fn marks(root: &Root, key_epoch: u32, identity: &SessionIdentity, side: Side) -> [[u8; 16]; 5] {
        let keys = EpochKeys::<RustCryptoChaCha>::derive(root, key_epoch, identity, side);
        [&keys.data_seal, &keys.data_open, &keys.control_seal, &keys.control_open, &keys.proof].map(mark)
    }

    #[test]
    fn what_one_end_seals_with_the_other_opens_with() {
        let [seal, open, control_seal, control_open, proof] = marks(&root(1), 5, &IDENTITY, Side::Client);
        assert_eq!(marks(&root(1), 5, &IDENTITY, Side::Gateway), [open, seal, control_open, control_seal, proof]);
    }

    #[test]
    fn ky_2_no_two_keys_are_equal() {
        let other = SessionIdentity([9; 16]);
        let mut all: Vec<_> = [
            marks(&root(1), 5, &IDENTITY, Side::Client),
            marks(&root(1), 6, &IDENTITY, Side::Client),
            marks(&root(2), 5, &IDENTITY, Side::Client),
            marks(&root(1), 5, &other, Side::Client),
        ]
        .concat();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }

    #[test]
    fn ky_1_and_ky_2_as_the_specification_says_it() {
        let material = [[1; 32], [2; 32], [4; 32]].concat();
        let root_bytes = blake3::derive_key("jumpgate v1 session root", &[&material[..], &IDENTITY.0].concat());
        let material = [&root_bytes[..], &5_u32.to_be_bytes(), &IDENTITY.0].concat();
        let expected = [
            "jumpgate v1 traffic c2g",
            "jumpgate v1 traffic g2c",
            "jumpgate v1 control c2g",
            "jumpgate v1 control g2c",
            "jumpgate v1 reattach proof",
        ]
        .map(|context| mark(&RustCryptoChaCha::new(&blake3::derive_key(context, &material))));
        assert_eq!(marks(&root(1), 5, &IDENTITY, Side::Client), expected);
    }

    #[test]
    fn ky_3_the_next_root_depends_on_all_that_made_it() {
        let mut entropy = SeededEntropy::new(1);
        let (client, gateway) = (EphemeralSecret::generate(&mut entropy), EphemeralSecret::generate(&mut entropy));
        let init = RekeyInit { next_epoch: 1, ephemeral: client.public(), trigger: Reason::RekeyVolume };
        let ack = RekeyAck { echo: 1, next_epoch: 1, ephemeral: gateway.public(), status: None };
        let at_client = client.agree(&ack.ephemeral).expect("a usable key");
        let at_gateway = gateway.agree(&init.ephemeral).expect("a usable key");
        let next = root(1).next(&at_client, &init, &ack);
        assert_eq!(next.0, root(1).next(&at_gateway, &init, &ack).0);
        let other_init = RekeyInit { trigger: Reason::RekeyTimeElapsed, ..init.clone() };
        let other_ack = RekeyAck { echo: 2, ..ack.clone() };
        let others = [
            root(1),
            root(2).next(&at_client, &init, &ack),
            root(1).next(&SharedSecret([0; 32]), &init, &ack),
            root(1).next(&at_client, &other_init, &ack),
            root(1).next(&at_client, &init, &other_ack),
        ];
        assert!(others.iter().all(|other| other.0 != next.0));
    }
}
