//! Who holds which place of the address pool.

use std::collections::VecDeque;

use hashbrown::HashMap;

use super::FIRST_CLIENT_INDEX;
use crate::ident::{Locator, PublicKey};

/// The client on a place. Its sessions may share it while one replaces the other, and while handshakes of it that went
/// over different paths are open; at most one of them is confirmed.
struct Tenant {
    client: PublicKey,
    sessions: u32,
    owner: Option<Locator>,
}

/// The places of the pool.
pub(super) struct Places {
    size: u32,
    tenants: HashMap<u32, Tenant>,
    /// Never given out by chance: the gateway's own, and those fixed for a client.
    reserved: Vec<bool>,
    /// Places that may be free; looked at again when taken.
    free: VecDeque<u32>,
    /// Whether a place stands in `free`, so that it stands there once (INV-22).
    listed: Vec<bool>,
}

impl Places {
    pub(super) fn new(size: u32, fixed: impl Iterator<Item = u32>) -> Self {
        let mut reserved = vec![false; size as usize];
        for index in fixed.chain(0..FIRST_CLIENT_INDEX) {
            if let Some(place) = reserved.get_mut(index as usize) {
                *place = true;
            }
        }
        let free = (0..size).filter(|index| !reserved[*index as usize]).collect();
        let listed = reserved.iter().map(|reserved| !reserved).collect();
        Self { size, tenants: HashMap::new(), reserved, free, listed }
    }

    /// Other places are fixed for clients from now on. Who is on one stays there until its session ends.
    pub(super) fn set_fixed(&mut self, fixed: impl Iterator<Item = u32>) {
        self.reserved.fill(false);
        for index in fixed.chain(0..FIRST_CLIENT_INDEX) {
            if let Some(place) = self.reserved.get_mut(index as usize) {
                *place = true;
            }
        }
        for index in 0..self.size {
            self.list(index);
        }
    }

    /// Whether that client may have the place: nobody is there, or only handshakes of its own that are still open.
    pub(super) fn is_open_to(&self, client: &PublicKey, index: u32) -> bool {
        index < self.size
            && self.tenants.get(&index).is_none_or(|tenant| tenant.client == *client && tenant.owner.is_none())
    }

    /// A place that nobody holds; stays in the list until it is taken.
    pub(super) fn any_free(&mut self) -> Option<u32> {
        while let Some(index) = self.free.front().copied() {
            if !self.tenants.contains_key(&index) && !self.reserved[index as usize] {
                return Some(index);
            }
            self.free.pop_front();
            self.listed[index as usize] = false;
        }
        None
    }

    /// The session that has the place.
    pub(super) fn owner(&self, index: u32) -> Option<Locator> {
        self.tenants.get(&index)?.owner
    }

    /// One more session of that client on the place.
    pub(super) fn take(&mut self, index: u32, client: PublicKey) {
        self.tenants.entry(index).or_insert(Tenant { client, sessions: 0, owner: None }).sessions += 1;
    }

    /// The session is confirmed and has the place from now on. Gives the one that had it.
    pub(super) fn confirm(&mut self, index: u32, session: Locator) -> Option<Locator> {
        self.tenants.get_mut(&index).and_then(|tenant| tenant.owner.replace(session))
    }

    /// The session has ended.
    pub(super) fn release(&mut self, index: u32, session: Locator) {
        let Some(tenant) = self.tenants.get_mut(&index) else {
            return;
        };
        tenant.owner = tenant.owner.filter(|owner| *owner != session);
        tenant.sessions -= 1;
        if tenant.sessions > 0 {
            return;
        }
        self.tenants.remove(&index);
        self.list(index);
    }

    /// Puts a place into the list of free ones, if it is free and not there.
    fn list(&mut self, index: u32) {
        let place = index as usize;
        if !self.reserved[place] && !self.listed[place] && !self.tenants.contains_key(&index) {
            self.listed[place] = true;
            self.free.push_back(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: PublicKey = PublicKey([1; 32]);
    const OTHER: PublicKey = PublicKey([2; 32]);

    #[test]
    fn inv22_the_list_of_free_places_does_not_grow_with_the_sessions() {
        let mut places = Places::new(16, [3].into_iter());
        for session in 0..10_000 {
            places.take(5, ONE);
            places.release(5, Locator(session));
        }
        assert_eq!(places.free.len(), 16 - FIRST_CLIENT_INDEX as usize - 1);
    }

    #[test]
    fn a_place_is_shared_only_by_open_handshakes_of_one_client() {
        let mut places = Places::new(16, [].into_iter());
        places.take(5, ONE);
        assert!(places.is_open_to(&ONE, 5) && !places.is_open_to(&OTHER, 5));
        places.take(5, ONE);
        assert_eq!(places.confirm(5, Locator(1)), None);
        assert!(!places.is_open_to(&ONE, 5), "a confirmed session makes way only if it is named (HS-8)");
        assert_eq!(places.confirm(5, Locator(2)), Some(Locator(1)), "whoever is confirmed later has it");
        places.release(5, Locator(1));
        places.release(5, Locator(2));
        assert!(places.is_open_to(&OTHER, 5));
        assert!(!places.is_open_to(&OTHER, 16), "beyond the pool");
    }

    #[test]
    fn every_place_is_given_out_once_and_the_reserved_ones_never() {
        let mut places = Places::new(6, [3].into_iter());
        let given: Vec<u32> = std::iter::from_fn(|| {
            let index = places.any_free()?;
            places.take(index, ONE);
            Some(index)
        })
        .collect();
        assert_eq!(given, [2, 4, 5]);
        places.release(4, Locator(4));
        assert_eq!(places.any_free(), Some(4));
    }
}
