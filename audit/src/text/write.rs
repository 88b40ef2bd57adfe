//! Appends one JSON object to a buffer, key by key in the order of the calls.

use std::fmt::{self, Display, Write as _};

/// Appends one object; [`LineWriter::end`] closes it with a LF.
///
/// Nothing is allocated once the buffer has grown to the length of a line.
#[derive(Debug)]
pub struct LineWriter<'a> {
    out: &'a mut Vec<u8>,
    first: bool,
}

impl<'a> LineWriter<'a> {
    /// Begins an object at the end of `out`.
    pub fn begin(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, first: true }
    }

    /// A string, escaped as JSON wants it.
    pub fn text(&mut self, key: &str, value: &str) -> &mut Self {
        self.key(key);
        self.out.push(b'"');
        escape(self.out, value);
        self.out.push(b'"');
        self
    }

    /// A string that is formatted by its own `Display`; it must need no escapes, as numbers, names and hex do not.
    pub fn display(&mut self, key: &str, value: impl Display) -> &mut Self {
        self.key(key);
        self.out.push(b'"');
        // A vector takes all that is written.
        let _ = write!(Bytes(self.out), "{value}");
        self.out.push(b'"');
        self
    }

    /// Bytes as a string of lower-case hex.
    pub fn hex(&mut self, key: &str, value: &[u8]) -> &mut Self {
        self.key(key);
        self.out.push(b'"');
        for byte in value {
            self.out.push(HEX[usize::from(byte >> 4)]);
            self.out.push(HEX[usize::from(byte & 15)]);
        }
        self.out.push(b'"');
        self
    }

    /// A whole number.
    pub fn number(&mut self, key: &str, value: u64) -> &mut Self {
        self.key(key);
        let _ = write!(Bytes(self.out), "{value}");
        self
    }

    /// A whole number, or null.
    pub fn number_or_null(&mut self, key: &str, value: Option<u64>) -> &mut Self {
        match value {
            Some(value) => self.number(key, value),
            None => self.null(key),
        }
    }

    /// A string, or null.
    pub fn text_or_null(&mut self, key: &str, value: Option<&str>) -> &mut Self {
        match value {
            Some(value) => self.text(key, value),
            None => self.null(key),
        }
    }

    /// A truth value.
    pub fn truth(&mut self, key: &str, value: bool) -> &mut Self {
        self.key(key);
        self.out.extend_from_slice(if value { b"true" } else { b"false" });
        self
    }

    /// null.
    pub fn null(&mut self, key: &str) -> &mut Self {
        self.key(key);
        self.out.extend_from_slice(b"null");
        self
    }

    /// An object inside this one.
    pub fn object(&mut self, key: &str, fill: impl FnOnce(&mut LineWriter<'_>)) -> &mut Self {
        self.key(key);
        let mut inner = LineWriter::begin(self.out);
        fill(&mut inner);
        self.out.push(b'}');
        self
    }

    /// An array of objects.
    pub fn array<T>(
        &mut self,
        key: &str,
        items: impl IntoIterator<Item = T>,
        mut fill: impl FnMut(&mut LineWriter<'_>, T),
    ) -> &mut Self {
        self.key(key);
        self.out.push(b'[');
        for (index, item) in items.into_iter().enumerate() {
            if index > 0 {
                self.out.push(b',');
            }
            let mut inner = LineWriter::begin(self.out);
            fill(&mut inner, item);
            self.out.push(b'}');
        }
        self.out.push(b']');
        self
    }

    /// A ratio, given in thousandths and written as a decimal number without trailing zeros: 125 is 0.125.
    pub fn permille(&mut self, key: &str, permille: u32) -> &mut Self {
        self.key(key);
        let (whole, thousandths) = (permille / 1_000, permille % 1_000);
        let begin = self.out.len();
        let _ = write!(Bytes(self.out), "{whole}.{thousandths:03}");
        while self.out.len() > begin + 3 && self.out.ends_with(b"0") {
            self.out.pop();
        }
        self
    }

    /// Closes the object and ends the line.
    pub fn end(self) {
        self.out.extend_from_slice(b"}\n");
    }

    fn key(&mut self, key: &str) {
        if !std::mem::take(&mut self.first) {
            self.out.push(b',');
        }
        self.out.push(b'"');
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";

struct Bytes<'a>(&'a mut Vec<u8>);

impl fmt::Write for Bytes<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

fn escape(out: &mut Vec<u8>, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            0..0x20 => {
                out.extend_from_slice(b"\\u00");
                out.push(HEX[usize::from(byte >> 4)]);
                out.push(HEX[usize::from(byte & 15)]);
            }
            _ => out.push(byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Object, Value};
    use super::*;

    #[test]
    fn keys_stand_in_the_order_of_the_calls() {
        let mut out = Vec::new();
        let mut line = LineWriter::begin(&mut out);
        line.number("z", u64::MAX).null("a").truth("b", true).hex("h", &[0, 255]).display("d", 7);
        line.object("o", |inner| {
            inner.text("t", "x").number_or_null("n", None);
        });
        line.array("l", [1, 2], |inner, item| {
            inner.number("i", item);
        });
        line.permille("p", 125).permille("q", 0).permille("r", 1_000).permille("s", 20);
        line.end();
        let expected = concat!(
            r#"{"z":18446744073709551615,"a":null,"b":true,"h":"00ff","d":"7","o":{"t":"x","n":null},"#,
            r#""l":[{"i":1},{"i":2}],"p":0.125,"q":0.0,"r":1.0,"s":0.02}"#,
        );
        assert_eq!(String::from_utf8(out).unwrap(), format!("{expected}\n"));
    }

    proptest! {
        #[test]
        fn any_text_comes_back_as_it_was_and_never_breaks_its_line(text: String) {
            let mut out = Vec::new();
            let mut line = LineWriter::begin(&mut out);
            line.text("t", &text);
            line.end();
            prop_assert_eq!(out.pop(), Some(b'\n'));
            prop_assert!(!out.contains(&b'\n'));
            let object = Object::parse(&out).unwrap();
            prop_assert_eq!(object.get("t").and_then(Value::as_text), Some(text.as_str()));
        }
    }
}
