// Shared by `gateway/build.rs` and `xtask` (by `#[path]`): one way to say which sources an object was built from.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The compiled XDP programs, from the repository's root.
pub const OBJECT: &str = "ebpf/object/jumpgate-xdp.bpf.o";
/// What they were built from and by.
pub const RECORD: &str = "ebpf/object/jumpgate-xdp.hash";

/// Everything that decides what the object contains, apart from the toolchain.
pub const SOURCES: [&str; 4] = ["ebpf/common/src", "ebpf/xdp/src", "ebpf/xdp/Cargo.toml", "ebpf/xdp/Cargo.lock"];

/// The content of [`RECORD`].
#[derive(Debug, PartialEq, Eq)]
pub struct Record {
    /// BLAKE3 of the sources.
    pub source: String,
    /// BLAKE3 of the object.
    pub object: String,
    /// What the toolchain prints about itself.
    pub toolchain: String,
}

impl Record {
    /// Reads the record of the checked-in object.
    pub fn read(root: &Path) -> io::Result<Self> {
        let text = fs::read_to_string(root.join(RECORD))?;
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.map(|value| value.trim().to_owned()).ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidData, format!("{RECORD} has no line \"{name} ...\""))
            })
        };
        Ok(Self { source: field("source")?, object: field("object")?, toolchain: field("toolchain")? })
    }
}

/// BLAKE3 over the names and contents of the sources.
pub fn source_hash(root: &Path) -> io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    for file in source_files(root)? {
        let content = fs::read(root.join(&file))?;
        // Lengths keep apart what would otherwise run together.
        for part in [file.to_string_lossy().as_bytes(), &content] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
    }
    Ok(hasher.finalize().to_hex().to_string())
}

/// Every source file, relative to the root, in a fixed order.
pub fn source_files(root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for source in SOURCES {
        collect(root, Path::new(source), &mut files)?;
    }
    files.sort();
    Ok(files)
}

fn collect(root: &Path, path: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    if !root.join(path).is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    for entry in fs::read_dir(root.join(path))? {
        let entry = path.join(entry?.file_name());
        // An editor's swap file is no source.
        if root.join(&entry).is_dir() || entry.extension().is_some_and(|extension| extension == "rs") {
            collect(root, &entry, files)?;
        }
    }
    Ok(())
}
