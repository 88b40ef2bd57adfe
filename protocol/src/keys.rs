//! The keys of a session: one root per key epoch, and five keys from it (§8).

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::crypto::{Aead, AuthError, KEY_LEN, SharedSecret, StaticSecret};
use crate::entropy::Entropy;
use crate::ident::SessionIdentity;
use crate::wire::{Body, RekeyAck, RekeyInit};

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

/// The X25519 key that one end makes for one rekey (RK-2); used up by it.
pub struct EphemeralSecret(StaticSecret);

impl EphemeralSecret {
    /// A fresh key.
    pub fn generate(entropy: &mut dyn Entropy) -> Self {
        Self(StaticSecret::generate(entropy))
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

/// The keys of one key epoch, as one end uses them (KY-2).
pub struct EpochKeys<A> {
    /// Seals our DATA.
    pub data_seal: A,
    /// Opens the peer's DATA.
    pub data_open: A,
    /// Seals our control messages, but REATTACH_REQUEST.
    pub control_seal: A,
    /// Opens the peer's control messages, but REATTACH_REQUEST.
    pub control_open: A,
    /// Seals REATTACH_REQUEST at the client and opens it at the gateway.
    pub proof: A,
}

impl<A: Aead> EpochKeys<A> {
    /// The keys of `key_epoch`, whose root is `root`.
    pub fn derive(root: &Root, key_epoch: u32, identity: &SessionIdentity, side: Side) -> Self {
        let key = |context| {
            let key = Zeroizing::new(derive(context, &[&root.0, &key_epoch.to_be_bytes(), &identity.0]));
            A::new(&key)
        };
        let (traffic_out, traffic_in, control_out, control_in) = match side {
            Side::Client => (context::TRAFFIC_C2G, context::TRAFFIC_G2C, context::CONTROL_C2G, context::CONTROL_G2C),
            Side::Gateway => (context::TRAFFIC_G2C, context::TRAFFIC_C2G, context::CONTROL_G2C, context::CONTROL_C2G),
        };
        Self {
            data_seal: key(traffic_out),
            data_open: key(traffic_in),
            control_seal: key(control_out),
            control_open: key(control_in),
            proof: key(context::REATTACH_PROOF),
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
