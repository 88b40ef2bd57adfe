//! The lines of a file, one after the other, each with the hash of its exact bytes; bounded whatever the file holds.

use std::io::{self, BufRead};

use crate::chain::LineHash;

/// Longest line that is kept; a record has about 1 KiB. Of a longer one only the hash is taken.
pub(crate) const LINE_MAX: usize = 64 * 1024;

/// One line.
#[derive(Debug)]
pub(crate) struct RawLine<'a> {
    /// Its bytes without LF; the first [`LINE_MAX`] if it is longer.
    pub(crate) bytes: &'a [u8],
    /// Hash of all of its bytes.
    pub(crate) hash: LineHash,
    /// Whether a LF ends it.
    pub(crate) whole: bool,
    /// Whether it is longer than [`LINE_MAX`].
    pub(crate) overlong: bool,
}

/// Reads lines.
pub(crate) struct Lines<R> {
    reader: R,
    buffer: Vec<u8>,
}

impl<R: BufRead> Lines<R> {
    pub(crate) fn new(reader: R) -> Self {
        Self { reader, buffer: Vec::new() }
    }

    /// The next line; none at the end of the file.
    pub(crate) fn next(&mut self) -> io::Result<Option<RawLine<'_>>> {
        self.buffer.clear();
        let mut hasher = blake3::Hasher::new();
        let (mut any, mut whole, mut overlong) = (false, false, false);
        while !whole {
            let available = match self.reader.fill_buf() {
                Ok(available) => available,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if available.is_empty() {
                break;
            }
            any = true;
            let lf = available.iter().position(|byte| *byte == b'\n');
            let piece = &available[..lf.unwrap_or(available.len())];
            hasher.update(piece);
            let room = LINE_MAX - self.buffer.len();
            overlong |= piece.len() > room;
            self.buffer.extend_from_slice(&piece[..piece.len().min(room)]);
            whole = lf.is_some();
            let used = piece.len() + usize::from(whole);
            self.reader.consume(used);
        }
        let hash = LineHash::finish(&hasher);
        Ok(any.then_some(RawLine { bytes: &self.buffer, hash, whole, overlong }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_has_the_hash_of_its_bytes_however_the_reader_cuts_them() {
        let text = b"one\n\nthree\nrest";
        for capacity in 1..20 {
            let mut lines = Lines::new(io::BufReader::with_capacity(capacity, &text[..]));
            let mut seen = Vec::new();
            while let Some(line) = lines.next().unwrap() {
                assert_eq!(line.hash, LineHash::of(line.bytes));
                seen.push((line.bytes.to_vec(), line.whole));
            }
            let expected = [(&b"one"[..], true), (b"", true), (b"three", true), (b"rest", false)];
            assert_eq!(seen, expected.map(|(bytes, whole)| (bytes.to_vec(), whole)));
        }
    }

    #[test]
    fn a_line_without_end_takes_no_more_memory_than_the_longest_record() {
        let long = vec![b'x'; LINE_MAX * 3];
        let mut lines = Lines::new(&long[..]);
        let line = lines.next().unwrap().unwrap();
        assert!(line.overlong && !line.whole);
        assert_eq!((line.bytes.len(), line.hash), (LINE_MAX, LineHash::of(&long)));
    }
}
