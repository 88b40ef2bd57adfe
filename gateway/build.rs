//! Refuses to embed XDP programs that were built from other sources than those in this tree.

use std::path::Path;

#[path = "../ebpf/object/fingerprint.rs"]
#[allow(dead_code, unreachable_pub, reason = "xtask uses the rest")]
mod fingerprint;

/// What to do about every complaint of this script.
const CURE: &str = "run `cargo xtask build-ebpf` (it needs the BPF toolchain: `cargo xtask setup --bpf`)";

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace");
    for path in fingerprint::SOURCES.into_iter().chain([fingerprint::OBJECT, fingerprint::RECORD]) {
        println!("cargo::rerun-if-changed={}", root.join(path).display());
    }
    if let Err(complaint) = check(root) {
        println!("cargo::error={complaint}; {CURE}");
    }
}

fn check(root: &Path) -> Result<(), String> {
    let unreadable = |error| format!("cannot read the compiled XDP programs or their sources: {error}");
    let record = fingerprint::Record::read(root).map_err(unreadable)?;
    if fingerprint::source_hash(root).map_err(unreadable)? != record.source {
        return Err(format!("{} is stale: its sources in ebpf/ have changed since it was built", fingerprint::OBJECT));
    }
    let object = std::fs::read(root.join(fingerprint::OBJECT)).map_err(unreadable)?;
    if blake3::hash(&object).to_hex().as_str() != record.object {
        return Err(format!("{} is not the file that {} describes", fingerprint::OBJECT, fingerprint::RECORD));
    }
    Ok(())
}
