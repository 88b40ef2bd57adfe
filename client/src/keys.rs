//! Keys as WireGuard users know them: 32 bytes, base64, one line; `genkey | tee private.key | pubkey`.

use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jumpgate_protocol::crypto::StaticSecret;
use jumpgate_protocol::entropy::Entropy;
use jumpgate_protocol::ident::PublicKey;
use zeroize::Zeroizing;

/// Length of every key in bytes.
pub const KEY_LEN: usize = 32;
/// Bytes of a file that can be a key with white space around it; what is longer is some other file, which is not
/// swallowed whole.
const MAX_KEY_TEXT: u64 = 256;
/// Permission bits that let somebody other than the owner read or write a secret file.
const FOREIGN_ACCESS: u32 = 0o077;

/// Why a key could not be used, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The text is no base64, or decodes to something else than 32 bytes.
    #[error(
        "not a key: {found}; a key is {KEY_LEN} bytes in base64 (44 characters ending in '='), as `jump genkey` prints it"
    )]
    Malformed {
        /// What was found instead; never the text itself, which may be a secret with a typing error.
        found: String,
    },
    /// The key file cannot be read.
    #[error("cannot read the key file {path}: {source}; make one with `umask 077; jump genkey > {path}`", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Others may read the key file.
    #[error("the key file {path} is open to others (mode {mode:03o}); run `chmod 600 {path}`", path = path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The content of the file is no key.
    #[error("{path}: {source}", path = path.display())]
    InFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<KeyError>,
    },
}

/// The operating system's random numbers.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&mut self, out: &mut [u8]) {
        aws_lc_rs::rand::fill(out).expect("the system's random number generator never fails once it is seeded");
    }
}

/// Reads a key from its base64 form; blanks and line ends around it do not matter.
pub fn parse_key(text: &str) -> Result<Zeroizing<[u8; KEY_LEN]>, KeyError> {
    let text = text.trim();
    let bytes = Zeroizing::new(
        STANDARD
            .decode(text)
            .map_err(|_| KeyError::Malformed { found: format!("{} characters that are not base64", text.len()) })?,
    );
    let key = <[u8; KEY_LEN]>::try_from(bytes.as_slice())
        .map_err(|_| KeyError::Malformed { found: format!("{} bytes", bytes.len()) })?;
    Ok(Zeroizing::new(key))
}

/// The base64 form of a key.
pub fn format_key(key: &[u8; KEY_LEN]) -> Zeroizing<String> {
    Zeroizing::new(STANDARD.encode(key))
}

/// Reads a public key from its base64 form.
pub fn parse_public_key(text: &str) -> Result<PublicKey, KeyError> {
    parse_key(text).map(|key| PublicKey(*key))
}

/// Reads a secret (private or pre-shared key) from a file that nobody else may read.
pub fn read_secret(path: &Path) -> Result<Zeroizing<[u8; KEY_LEN]>, KeyError> {
    let unreadable = |source| KeyError::Unreadable { path: path.to_owned(), source };
    let mode = fs::metadata(path).map_err(unreadable)?.permissions().mode() & 0o777;
    if mode & FOREIGN_ACCESS != 0 {
        return Err(KeyError::Exposed { path: path.to_owned(), mode });
    }
    let mut text = Zeroizing::new(String::new());
    let file = fs::File::open(path).map_err(unreadable)?;
    file.take(MAX_KEY_TEXT).read_to_string(&mut text).map_err(unreadable)?;
    parse_key(&text).map_err(|source| KeyError::InFile { path: path.to_owned(), source: Box::new(source) })
}

/// A new private key in base64.
pub fn generate() -> Zeroizing<String> {
    let mut entropy = SystemEntropy;
    format_key(StaticSecret::generate(&mut entropy).as_bytes())
}

/// The public key that belongs to a private one, both in base64.
pub fn public_from_private(private: &str) -> Result<String, KeyError> {
    let secret = StaticSecret::new(*parse_key(private)?);
    Ok(STANDARD.encode(secret.public().0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_key_has_a_public_key() {
        let private = generate();
        let public = public_from_private(&private).unwrap();
        assert_eq!(public.len(), 44);
        assert_ne!(public, *private);
        assert_eq!(public, public_from_private(&format!("  {}\n", *private)).unwrap());
    }

    #[test]
    fn the_public_key_is_the_one_wireguard_computes() {
        // RFC 7748 §6.1, Alice's pair.
        let private = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=";
        assert_eq!(public_from_private(private).unwrap(), "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=");
    }

    #[test]
    fn what_is_no_key_is_refused_without_repeating_it() {
        for (text, found) in [("hunter2!", "8 characters"), ("aGVsbG8=", "5 bytes"), ("", "0 bytes")] {
            let error = parse_key(text).unwrap_err().to_string();
            assert!(error.contains(found), "{error}");
            assert!(text.is_empty() || !error.contains(text), "{error}");
        }
    }

    #[test]
    fn a_secret_that_others_can_read_is_refused_with_the_cure() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("private.key");
        fs::write(&path, generate().as_str()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let error = read_secret(&path).unwrap_err().to_string();
        assert!(error.contains("chmod 600"), "{error}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        read_secret(&path).unwrap();
    }

    #[test]
    fn a_missing_secret_names_the_command_that_makes_it() {
        let error = read_secret(Path::new("/nonexistent/private.key")).unwrap_err().to_string();
        assert!(error.contains("jump genkey"), "{error}");
    }
}
