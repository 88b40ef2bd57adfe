//! Hash of a line, and the head of a chain.

use std::fmt;
use std::str::FromStr;

/// BLAKE3-256 of the exact bytes of a line, LF excluded; in lower-case hex (OB-08).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct LineHash([u8; 32]);

/// The last record of a chain: what an operator keeps elsewhere (OB-10). Written `SEQ:HASH`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// `seq` of the record.
    pub seq: u64,
    /// Hash of its line.
    pub hash: LineHash,
}

/// A text is no head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a head is SEQ:HASH, a number and 64 lower-case hex digits, as `jumpgate audit head` prints it")]
pub struct BadHead;

impl LineHash {
    /// What the first line of a chain names, since there is none before it: 64 zeros.
    pub const NONE: Self = Self([0; 32]);

    /// The hash of a line, given without its LF.
    pub fn of(line: &[u8]) -> Self {
        Self(*blake3::hash(line).as_bytes())
    }

    /// From a hash that was fed piece by piece.
    pub fn finish(hasher: &blake3::Hasher) -> Self {
        Self(*hasher.finalize().as_bytes())
    }

    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for LineHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for LineHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LineHash({self})")
    }
}

impl FromStr for LineHash {
    type Err = BadHead;

    fn from_str(text: &str) -> Result<Self, BadHead> {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Ok(byte - b'0'),
            b'a'..=b'f' => Ok(byte - b'a' + 10),
            _ => Err(BadHead),
        };
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        let pairs: &[[u8; 2]; 32] = pairs.try_into().map_err(|_| BadHead)?;
        if !rest.is_empty() {
            return Err(BadHead);
        }
        let mut hash = [0; 32];
        for (byte, [high, low]) in hash.iter_mut().zip(pairs) {
            *byte = digit(*high)? << 4 | digit(*low)?;
        }
        Ok(Self(hash))
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.seq, self.hash)
    }
}

impl FromStr for Head {
    type Err = BadHead;

    fn from_str(text: &str) -> Result<Self, BadHead> {
        let (seq, hash) = text.split_once(':').ok_or(BadHead)?;
        Ok(Self { seq: seq.parse().map_err(|_| BadHead)?, hash: hash.parse()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_comes_back_from_its_text() {
        let head = Head { seq: 42, hash: LineHash::of(b"{}") };
        assert_eq!(head.to_string().parse(), Ok(head));
    }

    #[test]
    fn what_is_no_head_is_refused() {
        let hash = LineHash::NONE.to_string();
        for text in
            ["", "1", ":", "1:", &hash, &format!("x:{hash}"), &format!("1:{hash}0"), &format!("1:{}", "A".repeat(64))]
        {
            assert_eq!(text.parse::<Head>(), Err(BadHead), "{text}");
        }
    }

    #[test]
    fn the_hash_is_blake3_of_the_exact_bytes() {
        let known = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
        assert_eq!(LineHash::of(b"").to_string(), known);
    }
}
