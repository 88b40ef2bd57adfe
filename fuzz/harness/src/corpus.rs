//! The corpus: seeds that are made anew each time, and the inputs that fuzzing found worth keeping.

use std::path::{Path, PathBuf};

use crate::Target;

/// Where the kept inputs of a target are.
pub fn directory(target: &Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus").join(target.name)
}

/// Every input that is known for a target, with where it is from, in an order that does not change.
pub fn known(target: &Target) -> Vec<(String, Vec<u8>)> {
    let seeds = (target.seeds)().into_iter().enumerate().map(|(number, seed)| (format!("seed {number}"), seed));
    let kept = std::fs::read_dir(directory(target)).into_iter().flatten().flatten();
    let mut kept: Vec<_> = kept
        .filter_map(|entry| Some((entry.file_name().to_string_lossy().into_owned(), std::fs::read(entry.path()).ok()?)))
        .collect();
    kept.sort();
    seeds.chain(kept).collect()
}
