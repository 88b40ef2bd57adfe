//! Locators of sessions that ended: for a while they are not given out again (TM-2).

use std::collections::BTreeSet;

use hashbrown::HashSet;

use crate::ident::Locator;
use crate::time::Time;

/// The names of the dead, each until its time. Beyond the capacity those make room whose time would be over first, however
/// fast sessions come and go (INV-22).
#[derive(Debug, Default)]
pub(super) struct Tombstones {
    names: HashSet<Locator>,
    ends: BTreeSet<(Time, Locator)>,
}

impl Tombstones {
    /// The locator is not to be given out before `until`.
    pub(super) fn bury(&mut self, locator: Locator, until: Time, capacity: usize, now: Time) {
        while let Some((end, name)) = self.ends.first().copied()
            && (end <= now || self.ends.len() >= capacity.max(1))
        {
            self.ends.pop_first();
            self.names.remove(&name);
        }
        // No locator dies twice while it is buried: it is not given out.
        if self.names.insert(locator) {
            self.ends.insert((until, locator));
        }
    }

    /// Whether the locator is not to be given out. One whose time is over may still count until the next burial: it costs
    /// one more draw.
    pub(super) fn holds(&self, locator: Locator) -> bool {
        self.names.contains(&locator)
    }

    /// Each name with its time, the first to end first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Time, Locator)> {
        self.ends.iter().copied()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.names.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tm2_a_locator_is_held_back_for_its_time_and_then_forgotten() {
        let mut tombstones = Tombstones::default();
        let at = Time::from_millis;
        tombstones.bury(Locator(1), at(60_000), 100, at(0));
        tombstones.bury(Locator(2), at(10_000), 100, at(1));
        tombstones.bury(Locator(3), at(69_999), 100, at(9_999));
        assert!((1..=3).all(|name| tombstones.holds(Locator(name))));
        tombstones.bury(Locator(4), at(70_000), 100, at(10_000));
        assert!(!tombstones.holds(Locator(2)), "its time is over, though it died after the first");
        assert!(tombstones.holds(Locator(1)) && tombstones.holds(Locator(3)));
        assert_eq!(tombstones.len(), 3);
    }

    #[test]
    fn inv22_there_are_never_more_than_the_capacity() {
        let mut tombstones = Tombstones::default();
        for name in 0..10_000 {
            tombstones.bury(Locator(name), Time::from_millis(60_000 + name), 64, Time::from_millis(name));
        }
        assert_eq!((tombstones.len(), tombstones.ends.len()), (64, 64));
        assert!(tombstones.holds(Locator(9_999)) && !tombstones.holds(Locator(9_935)));
    }
}
