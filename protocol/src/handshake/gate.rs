//! The gate MAC: whoever does not know the gateway's public key gets silence (HS-2).

use crate::crypto::equal_in_constant_time;
use crate::ident::PublicKey;
use crate::wire::HelloInit;
use crate::wire::outer::GATE_MAC_LEN;

/// Context of the key that is derived from the gateway's public key (KY-4).
const CONTEXT: &str = "jumpgate v1 gate mac";

/// The key of the gate MAC of one gateway. No secret to its clients, but to the rest of the world.
pub(super) struct GateKey([u8; 32]);

impl GateKey {
    pub(super) fn new(gateway: &PublicKey) -> Self {
        Self(blake3::derive_key(CONTEXT, &gateway.0))
    }

    /// Writes the MAC into a HELLO_INIT that is complete but for it.
    pub(super) fn seal(&self, hello: &mut HelloInit) {
        hello.set_gate_mac(self.mac(hello));
    }

    /// Whether the MAC fits.
    pub(super) fn admits(&self, hello: &HelloInit) -> bool {
        equal_in_constant_time(&self.mac(hello), hello.gate_mac())
    }

    fn mac(&self, hello: &HelloInit) -> [u8; GATE_MAC_LEN] {
        let mut mac = [0; GATE_MAC_LEN];
        mac.copy_from_slice(&blake3::keyed_hash(&self.0, hello.gated()).as_bytes()[..GATE_MAC_LEN]);
        mac
    }
}
