//! The hash chain (OB-08 to OB-10): every line names the hash of the line before it.
//!
//! Tamper-evident, not tamper-proof: whoever can write the files can cut the tail or write everything anew. So the
//! [`Head`] is told to the process log and to operators, to be kept elsewhere.

mod directory;
mod files;
mod hash;
mod lines;
mod recovery;

pub use directory::{AuditDirectory, DirectoryError, FILE_PREFIX, FILE_SUFFIX, Store, StoreFile};
pub use files::{ChainFiles, StoreError};
pub use hash::{BadHead, Head, LineHash};
pub use lines::{Author, ChainLines, Notice, Role, SCHEMA_VERSION, TimeAnchor};
pub use recovery::{Recovered, RecoveryError, recover};
