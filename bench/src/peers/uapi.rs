//! The text that WireGuard programs are configured with, over their control socket.
//!
//! Lines of `key=value`; an empty line ends a request and an answer; the last line of an answer is `errno=0`, or another
//! number. Keys are in hexadecimal. Described at <https://www.wireguard.com/xplatform/>.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

/// Longest wait for an answer. Ten thousand peers are a long text, and one program takes them one by one.
const PATIENCE: Duration = Duration::from_secs(60);

/// A peer of the gateway: who it is and which address inside the tunnel is its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Its public key.
    pub(super) key: [u8; 32],
    /// Its address inside.
    pub(super) inner: Ipv4Addr,
}

/// The request that gives a gateway its key and its port.
pub(super) fn identity(private: &[u8; 32], port: u16) -> String {
    format!("set=1\nprivate_key={}\nlisten_port={port}\n\n", hex(private))
}

/// The request that replaces all peers by these.
pub(super) fn peers(entries: impl IntoIterator<Item = Entry>) -> String {
    let mut text = String::from("set=1\nreplace_peers=true\n");
    for Entry { key, inner } in entries {
        // Writing to a String cannot fail.
        let _ = write!(text, "public_key={}\nreplace_allowed_ips=true\nallowed_ip={inner}/32\n", hex(&key));
    }
    text.push('\n');
    text
}

/// Sends a request to a control socket; gives the lines of the answer without the last.
pub(super) fn ask(socket: &Path, request: &str) -> Result<Vec<String>> {
    let stream = UnixStream::connect(socket).with_context(|| format!("cannot reach {}", socket.display()))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    (&stream).write_all(request.as_bytes()).context("the program does not take its configuration")?;
    let lines = BufReader::new(&stream).lines().map(|line| line.context("the program does not answer"));
    answer(lines)
}

/// Whether a gateway answers at its control socket.
pub(super) fn is_there(socket: &Path) -> bool {
    ask(socket, "get=1\n\n").is_ok()
}

/// Reads an answer to its end.
fn answer(lines: impl Iterator<Item = Result<String>>) -> Result<Vec<String>> {
    let mut answer = Vec::new();
    for line in lines {
        let line = line?;
        if let Some(number) = line.strip_prefix("errno=") {
            ensure!(number == "0", "the program refuses its configuration: errno {number}");
            return Ok(answer);
        }
        if !line.is_empty() {
            answer.push(line);
        }
    }
    bail!("the answer of the program has no end")
}

fn hex(key: &[u8; 32]) -> String {
    key.iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> impl Iterator<Item = Result<String>> + '_ {
        text.lines().map(|line| Ok(line.to_owned()))
    }

    #[test]
    fn the_gateways_own_lines_stand_in_front_of_its_peers() {
        let text = identity(&[0xab; 32], 51_820);
        assert_eq!(text, format!("set=1\nprivate_key={}\nlisten_port=51820\n\n", "ab".repeat(32)));
    }

    #[test]
    fn every_peer_has_its_key_and_its_address_and_the_end_is_an_empty_line() {
        let entry = |number: u8| Entry { key: [number; 32], inner: Ipv4Addr::new(10, 0, 0, number) };
        let text = peers([entry(1), entry(2)]);
        let expected = format!(
            "set=1\nreplace_peers=true\n\
             public_key={}\nreplace_allowed_ips=true\nallowed_ip=10.0.0.1/32\n\
             public_key={}\nreplace_allowed_ips=true\nallowed_ip=10.0.0.2/32\n\n",
            "01".repeat(32),
            "02".repeat(32)
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn an_answer_ends_with_its_number() {
        assert_eq!(answer(lines("listen_port=1\nerrno=0\n\n")).unwrap(), ["listen_port=1"]);
        let refused = answer(lines("errno=98\n\n")).unwrap_err().to_string();
        assert!(refused.contains("98"), "{refused}");
    }

    #[test]
    fn an_answer_without_its_number_is_none() {
        assert!(answer(lines("listen_port=1\n")).is_err());
        assert!(answer(lines("")).is_err());
    }
}
