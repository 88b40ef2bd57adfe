//! The internet checksum (RFC 1071), fast enough to run over every packet that leaves by IPv6.

/// A ones' complement sum in the machine's byte order. The sum is the same in either byte order, but for the order of
/// its own two bytes (RFC 1071, 2(B)), so words are never swapped on the way.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sum(u64);

impl Sum {
    /// Adds bytes, padded with a zero to an even number. All but the last addition to a sum are of even length.
    pub(super) fn bytes(self, bytes: &[u8]) -> Self {
        // 32-bit words into a 64-bit sum: no carry to look after below 16 GB, and the compiler makes vectors of it.
        let (words, rest) = bytes.as_chunks::<4>();
        let sum: u64 = words.iter().map(|&word| u64::from(u32::from_ne_bytes(word))).sum();
        let mut last = [0; 4];
        last[..rest.len()].copy_from_slice(rest);
        Self(self.0 + sum + u64::from(u32::from_ne_bytes(last)))
    }

    /// Adds a 16-bit number.
    pub(super) fn word(self, word: u16) -> Self {
        Self(self.0 + u64::from(word.to_be()))
    }

    /// The checksum, ready to be written big-endian.
    pub(super) fn finish(self) -> u16 {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !u16::from_be(sum as u16)
    }
}

/// The checksum after one 16-bit word under it changed (RFC 1624, equation 3).
pub(super) fn updated(checksum: u16, old: u16, new: u16) -> u16 {
    let mut sum = u32::from(!checksum) + u32::from(!old) + u32::from(new);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition, word by word.
    fn slow(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    #[test]
    fn the_example_of_rfc_1071_sums_as_it_should() {
        assert_eq!(Sum::default().bytes(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]).finish(), !0xddf2);
    }

    proptest! {
        #[test]
        fn the_fast_sum_is_the_slow_sum(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            prop_assert_eq!(Sum::default().bytes(&bytes).finish(), slow(&bytes));
        }

        #[test]
        fn parts_sum_as_the_whole(mut bytes in prop::collection::vec(any::<u8>(), 0..200), at in 0usize..100, word: u16) {
            let (head, tail) = bytes.split_at((at * 2).min(bytes.len() & !1));
            let parts = Sum::default().word(word).bytes(head).bytes(tail).finish();
            bytes.splice(0..0, word.to_be_bytes());
            prop_assert_eq!(parts, slow(&bytes));
        }

        #[test]
        fn an_update_is_as_good_as_a_new_sum(mut bytes in prop::collection::vec(any::<u8>(), 4..200), new: u16) {
            // A packet is never all zero, and only then the two zeros of ones' complement differ.
            bytes[0] |= 1;
            let before = slow(&bytes);
            let old = u16::from_be_bytes([bytes[2], bytes[3]]);
            bytes[2..4].copy_from_slice(&new.to_be_bytes());
            prop_assert_eq!(updated(before, old, new), slow(&bytes));
        }
    }
}
