//! All layouts as tables, and as the Markdown of the protocol document.

use core::fmt::Write;

use super::outer::{COOKIE_LEN, DIGEST_LEN, GATE_MAC_LEN, HELLO_ACK_NOISE_MAX, HELLO_NOISE_MAX, RESET_TOKEN_LEN};
use super::{HEADER_LEN, MessageType, TAG_LEN, body};
use crate::handshake::{HelloReply, HelloRequest};

/// One field: its name, length in bytes, and meaning. Fields follow each other without gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Name, as in the code.
    pub field: &'static str,
    /// Length in bytes; 0 if it takes what the others leave.
    pub len: usize,
    /// What it says.
    pub meaning: &'static str,
}

const fn row(field: &'static str, len: usize, meaning: &'static str) -> Row {
    Row { field, len, meaning }
}

/// The header of all messages of a session.
pub const HEADER: &[Row] = &[
    row("type", 1, "message type"),
    row("version, flags", 1, "version 1 in the high 4 bits; the low 4 bits are reserved, 0"),
    row("key_epoch", 1, "low 8 bits of the key epoch"),
    row("epoch_tag", 1, "DATA: low 8 bits of the sender's `binding_epoch`; else 0"),
    row("locator", 8, "name of the session; its high 12 bits are the slot"),
    row("counter", 8, "DATA: data counter; else control counter of the sender, the nonce of a REATTACH_REQUEST"),
];

/// M01.
pub const HELLO_INIT: &[Row] = &[
    row("type", 1, "0x11"),
    row("version, flags", 1, "version 1 in the high 4 bits; bit 0: Noise_IKpsk2 instead of Noise_IK"),
    row("suites", 2, "offered suites: bit 0 ChaCha20-Poly1305, bit 1 AES-256-GCM (reserved)"),
    row("cookie", COOKIE_LEN, "cookie of a HELLO_RETRY, 0 if none"),
    row("noise_len", 2, "length of the Noise message"),
    row("noise", HELLO_NOISE_MAX, "first Noise message, then zeros"),
    row("gate_mac", GATE_MAC_LEN, "keyed BLAKE3 over all before it; the key is derived from the gateway's public key"),
];

/// M02.
pub const HELLO_RETRY: &[Row] = &[
    row("type", 1, "0x12"),
    row("version, flags", 1, "version 1 in the high 4 bits"),
    row("reserved", 2, "0"),
    row("digest", DIGEST_LEN, "first bytes of the BLAKE3 hash of the HELLO_INIT answered"),
    row("cookie", COOKIE_LEN, "to be sent in the next HELLO_INIT"),
];

/// M03.
pub const HELLO_ACK: &[Row] = &[
    row("type", 1, "0x13"),
    row("version, flags", 1, "version 1 in the high 4 bits"),
    row("reserved", 2, "0"),
    row("digest", DIGEST_LEN, "first bytes of the BLAKE3 hash of the HELLO_INIT answered"),
    row("noise_len", 2, "length of the Noise message"),
    row("noise", 0, "second Noise message, to the end"),
];

/// M18.
pub const SESSION_RESET: &[Row] = &[
    row("type", 1, "0x22"),
    row("version, flags", 1, "version 1 in the high 4 bits"),
    row("reserved", 2, "0"),
    row("locator", 8, "name of the session"),
    row("token", RESET_TOKEN_LEN, "the token of HELLO_ACK, or random bytes"),
];

/// All layouts as Markdown.
pub fn render_markdown() -> String {
    let mut out = String::new();
    render(&mut out).expect("a String takes everything that is written to it");
    out
}

fn render(out: &mut String) -> core::fmt::Result {
    writeln!(out, "### Types\n\n| Type | Message | Id | Direction |\n|---|---|---|---|")?;
    for kind in MessageType::ALL {
        writeln!(out, "| 0x{:02x} | {kind} | {} | {} |", *kind as u8, kind.id(), kind.direction())?;
    }
    writeln!(out, "\n### Header\n\nAll messages but HELLO_INIT, HELLO_RETRY, HELLO_ACK and SESSION_RESET.\n")?;
    table(out, 0, HEADER)?;
    writeln!(out, "\n### DATA (M05)\n")?;
    let inner = row("inner packet", 0, "sealed: an IPv4 or IPv6 packet");
    table(out, HEADER_LEN, &[inner, row("tag", TAG_LEN, "AEAD tag over header and inner packet")])?;
    for (kind, rows) in [
        (MessageType::HelloInit, HELLO_INIT),
        (MessageType::HelloRetry, HELLO_RETRY),
        (MessageType::HelloAck, HELLO_ACK),
        (MessageType::SessionReset, SESSION_RESET),
    ] {
        writeln!(out, "\n### {kind} ({})\n", kind.id())?;
        table(out, 0, rows)?;
        match kind {
            MessageType::HelloInit => {
                writeln!(out, "\nPayload of its Noise message:\n")?;
                table(out, 0, HelloRequest::ROWS)?;
            }
            MessageType::HelloAck => {
                writeln!(
                    out,
                    "\nPayload of its Noise message, at most {HELLO_ACK_NOISE_MAX} bytes with what Noise adds: 2 bytes of \
                     status, 0 or a reason code. With 0 follows:\n"
                )?;
                table(out, 2, HelloReply::ROWS)?;
            }
            _ => {}
        }
    }
    for (kind, rows, padded) in body::ALL {
        writeln!(out, "\n### {kind} ({})\n", kind.id())?;
        table(out, HEADER_LEN, rows)?;
        let total = HEADER_LEN + padded + TAG_LEN;
        writeln!(out, "\nSealed with the header as associated data; {total} bytes with padding and tag.")?;
    }
    Ok(())
}

fn table(out: &mut String, start: usize, rows: &[Row]) -> core::fmt::Result {
    writeln!(out, "| Offset | Length | Field | Meaning |\n|---|---|---|---|")?;
    let mut offset = Some(start);
    for Row { field, len, meaning } in rows {
        let from = offset.map_or_else(|| "behind it".to_owned(), |offset| offset.to_string());
        let length = if *len == 0 { "rest".to_owned() } else { len.to_string() };
        writeln!(out, "| {from} | {length} | {field} | {meaning} |")?;
        offset = offset.filter(|_| *len > 0).map(|offset| offset + len);
    }
    Ok(())
}
