//! Bytes as instructions: how a structured target reads what the fuzzer made.
//!
//! Read front to back, one operation code and its operands after the other, so that a piece cut out, doubled or put in
//! elsewhere is still a script, and a seed can be written by hand. Past the end every operand is 0.

/// A script that is being played.
#[derive(Debug)]
pub struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    /// The script that these bytes are.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The next operation code; none at the end.
    pub fn operation(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// An operand of one byte.
    pub fn byte(&mut self) -> u8 {
        self.operation().unwrap_or(0)
    }

    /// An operand of two bytes.
    pub fn word(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    /// An operand of eight bytes.
    pub fn long(&mut self) -> u64 {
        u64::from_be_bytes(std::array::from_fn(|_| self.byte()))
    }

    /// So many bytes, or as many as there are.
    pub fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// A message with up to three bytes changed and perhaps another length: what a peer may send that holds the keys
    /// and means harm.
    pub fn deface(&mut self, mut message: Vec<u8>) -> Vec<u8> {
        for _ in 0..self.byte() & 3 {
            let (offset, value) = (usize::from(self.word()), self.byte());
            if !message.is_empty() {
                let offset = offset % message.len();
                message[offset] = value;
            }
        }
        match self.byte() {
            CUT => message.truncate(usize::from(self.byte())),
            GROW => message.resize(message.len() + usize::from(self.byte()), 0xff),
            _ => {}
        }
        message
    }
}

/// Operand of [`Script::deface`]: the message is cut to the length that follows.
pub const CUT: u8 = 254;
/// Operand of [`Script::deface`]: so many bytes follow the message.
pub const GROW: u8 = 255;
