//! A count that steers nothing within the bounds of a model: two states that differ in it alone are one state.

use std::hash::{Hash, Hasher};
use std::ops::AddAssign;

/// The count.
#[derive(Clone, Copy, Debug, Default)]
pub struct Statistic(u64);

impl Hash for Statistic {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

impl AddAssign<u64> for Statistic {
    fn add_assign(&mut self, more: u64) {
        self.0 += more;
    }
}

impl Statistic {
    /// The count as a number.
    pub const fn value(self) -> u64 {
        self.0
    }
}

/// The model never restarts a gateway.
impl crate::stored::Stored for Statistic {
    fn store(&self, out: &mut crate::stored::Writer) {
        self.0.store(out);
    }

    fn load(from: &mut crate::stored::Reader<'_>) -> Result<Self, crate::stored::Damaged> {
        crate::stored::Stored::load(from).map(Self)
    }
}
