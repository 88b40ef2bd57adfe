//! Keys as people know them from WireGuard: 32 bytes in base64, a private one in a file that others cannot read.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

/// Longest text that can be a key with white space around it; more is some other file.
const MAX_KEY_TEXT: u64 = 256;
/// Mode of a private key file: its owner alone.
const PRIVATE_MODE: u32 = 0o600;
/// Bits of a file's mode that let everybody in.
const OTHERS: u32 = 0o007;

/// Why a key could not be read. The text names the cause; [`KeyError::cure`] the cure.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Everybody may read the private key.
    #[error("mode {0:04o} lets every user of this machine use the private key")]
    Exposed(u32),
    /// Not the text of a key.
    #[error("not a key: 44 characters of base64 (32 bytes) are expected")]
    NotAKey,
}

impl KeyError {
    /// What to do, given the path that was read.
    pub fn cure(&self, path: &Path) -> String {
        let path = path.display();
        match self {
            Self::Io(error) if error.kind() == io::ErrorKind::NotFound => {
                format!("make one: jumpgate keygen {path}")
            }
            Self::Io(_) => format!("make {path} a file that this user may read"),
            Self::Exposed(_) => format!("chmod 600 {path}"),
            Self::NotAKey => format!("make a new one: jumpgate genkey > {path}"),
        }
    }
}

/// Parses a key from its base64 text; white space around it is ignored.
pub fn parse(text: &str) -> Result<Zeroizing<[u8; 32]>, KeyError> {
    let mut key = Zeroizing::new([0; 32]);
    match STANDARD.decode_slice(text.trim(), key.as_mut_slice()) {
        Ok(32) => Ok(key),
        _ => Err(KeyError::NotAKey),
    }
}

/// The base64 text of a key.
pub fn text(key: &[u8; 32]) -> String {
    STANDARD.encode(key)
}

/// Reads a private key (or a pre-shared one) from a file and refuses it if others can read it as well.
pub fn read_private(path: &Path) -> Result<Zeroizing<[u8; 32]>, KeyError> {
    let file = fs::File::open(path)?;
    let metadata = file.metadata()?;
    let mode = metadata.permissions().mode() & 0o7777;
    if metadata.is_file() && mode & OTHERS != 0 {
        return Err(KeyError::Exposed(mode));
    }
    let mut text = Zeroizing::new(String::new());
    file.take(MAX_KEY_TEXT).read_to_string(&mut text)?;
    parse(&text)
}

/// Writes a private key to a new file of mode 0600. An existing file is never overwritten: it may be in use.
pub fn write_private(path: &Path, key: &[u8; 32]) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(PRIVATE_MODE).open(path)?;
    let line = Zeroizing::new(format!("{}\n", text(key)));
    file.write_all(line.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_being_written_and_read() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("private.key");
        write_private(&path, &[7; 32]).expect("written");
        assert_eq!(*read_private(&path).expect("read"), [7; 32]);
        assert_eq!(fs::metadata(&path).expect("metadata").permissions().mode() & 0o777, PRIVATE_MODE);
    }

    #[test]
    fn an_existing_key_is_never_overwritten() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("private.key");
        write_private(&path, &[7; 32]).expect("written");
        assert_eq!(write_private(&path, &[8; 32]).expect_err("refused").kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(*read_private(&path).expect("read"), [7; 32]);
    }

    #[test]
    fn a_world_readable_private_key_is_refused_with_its_cure() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("private.key");
        write_private(&path, &[7; 32]).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("chmod");
        let error = read_private(&path).expect_err("refused");
        assert!(matches!(error, KeyError::Exposed(0o644)), "{error}");
        assert!(error.cure(&path).starts_with("chmod 600 "));
    }

    #[test]
    fn text_that_is_no_key_is_refused() {
        for text in ["", "AAAA", "not base64 at all!", &"A".repeat(44), &text(&[1; 32])[1..]] {
            assert!(matches!(parse(text), Err(KeyError::NotAKey)), "{text}");
        }
    }
}
