//! Cookies: under load, only who receives at the address it claims gets further, and the gateway keeps nothing (HS-7).

use std::net::SocketAddr;

use zeroize::Zeroizing;

use super::responder::HelloView;
use crate::crypto::equal_in_constant_time;
use crate::entropy::Entropy;
use crate::time::{Span, Time};
use crate::wire::{COOKIE_LEN, Field, HelloRetry};

/// A secret and when it was drawn.
struct Secret {
    key: Zeroizing<[u8; 32]>,
    since: Time,
}

impl Secret {
    fn draw(entropy: &mut dyn Entropy, now: Time) -> Self {
        let mut key = Zeroizing::new([0; 32]);
        entropy.fill(key.as_mut());
        Self { key, since: now }
    }

    fn cookie(&self, peer: SocketAddr, hello: &HelloView<'_>) -> [u8; COOKIE_LEN] {
        let mut address = [0; SocketAddr::LEN];
        peer.write(&mut address);
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(&address).update(hello.ephemeral());
        let mut cookie = [0; COOKIE_LEN];
        cookie.copy_from_slice(&hasher.finalize().as_bytes()[..COOKIE_LEN]);
        cookie
    }
}

/// The rotating secret of the cookies.
pub struct CookieJar {
    rotate: Span,
    current: Secret,
    previous: Option<Secret>,
}

impl CookieJar {
    /// A jar whose secret changes every `rotate` (PP80).
    pub fn new(rotate: Span, entropy: &mut dyn Entropy, now: Time) -> Self {
        Self { rotate, current: Secret::draw(entropy, now), previous: None }
    }

    /// Another pace of the rotation from now on. The present secret is as old as it is.
    pub const fn set_rotation(&mut self, rotate: Span) {
        self.rotate = rotate;
    }

    /// The HELLO_RETRY for a HELLO_INIT from that address.
    pub fn retry(&mut self, now: Time, peer: SocketAddr, hello: &HelloView<'_>, entropy: &mut dyn Entropy) -> Vec<u8> {
        self.turn(now, entropy);
        HelloRetry::new(hello.digest(), self.current.cookie(peer, hello)).to_bytes().to_vec()
    }

    /// Whether the HELLO_INIT carries the cookie that was given to that address for it.
    pub fn check(&mut self, now: Time, peer: SocketAddr, hello: &HelloView<'_>, entropy: &mut dyn Entropy) -> bool {
        self.turn(now, entropy);
        let Some(cookie) = hello.cookie() else {
            return false;
        };
        let fits = |secret: &Secret| equal_in_constant_time(&secret.cookie(peer, hello), cookie);
        fits(&self.current) || self.previous.as_ref().is_some_and(fits)
    }

    /// Draws a new secret when the current one is due, and keeps that one as the previous unless it is due twice.
    fn turn(&mut self, now: Time, entropy: &mut dyn Entropy) {
        let age = now.since(self.current.since);
        if age < self.rotate {
            return;
        }
        let old = core::mem::replace(&mut self.current, Secret::draw(entropy, now));
        self.previous = (age < self.rotate.times(2)).then_some(old);
    }
}
