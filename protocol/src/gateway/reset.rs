//! Stateless reset tokens: how a client learns, beyond doubt, that its gateway has lost its session (RF-3, KY-4).

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::ident::Locator;

/// Key of the reset tokens. Derived from the gateway's long-term secret, so that it survives a restart: that is when
/// it is needed.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct ResetKey([u8; 32]);

impl ResetKey {
    /// The key of the gateway with that long-term secret.
    pub fn from_secret(secret: &[u8; 32]) -> Self {
        Self(blake3::derive_key("jumpgate v1 reset token", secret))
    }

    /// The token of one session.
    pub fn token(&self, locator: Locator) -> [u8; 16] {
        let hash = blake3::keyed_hash(&self.0, &locator.0.to_be_bytes());
        let mut token = [0; 16];
        token.copy_from_slice(&hash.as_bytes()[..16]);
        token
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_a_restart_and_belongs_to_one_gateway_and_one_session() {
        let key = ResetKey::from_secret(&[7; 32]);
        assert_eq!(key.token(Locator(1)), ResetKey::from_secret(&[7; 32]).token(Locator(1)));
        assert_ne!(key.token(Locator(1)), key.token(Locator(2)));
        assert_ne!(key.token(Locator(1)), ResetKey::from_secret(&[8; 32]).token(Locator(1)));
    }
}
