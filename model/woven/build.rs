//! Copies the sources of jumpgate-protocol into the build directory and weaves into them what a model checker needs.
//!
//! Everything is found by its text, so that the sources need no mark. An edit that does not find its text fails the
//! build; a mutant that does not is listed as stale, and a test of jumpgate-model fails.

use std::fs;
use std::path::{Path, PathBuf};

pub struct Mutant {
    name: &'static str,
    #[allow(dead_code, reason = "read by the crate, which includes the same table")]
    does: &'static str,
    file: &'static str,
    find: &'static str,
    replace: &'static str,
}

include!("mutants.rs");

/// Where state lives. Every type in there gets `Clone` and `Hash`.
const STATE: &[&str] = &[
    "client/",
    "crypto.rs",
    "gateway/",
    "health",
    "ident.rs",
    "key_ring.rs",
    "keys.rs",
    "limits.rs",
    "machine/",
    "reason.rs",
    "replay.rs",
    "wire/",
];

/// No state of a session after its handshake, or nothing that could be cloned.
const STATELESS: &[&str] = &[
    "client/candidates.rs",
    "client/connect.rs",
    "gateway/birth.rs",
    "gateway/desk.rs",
    "gateway/handover/desk.rs",
    "gateway/handover/mod.rs",
    "gateway/handover/seal.rs",
    "gateway/handover/session.rs",
    "gateway/places.rs",
    "gateway/pool.rs",
    "gateway/reset.rs",
    "gateway/tombstones.rs",
];

/// Types in those files that hold references or maps of their own.
const LEFT_ALONE: &[&str] = &["AwsLcChaCha", "Context", "SharedSecret", "SourceTable"];

/// Two states that differ in these only are the same state: constants of a run, statistics, and ciphers, which follow
/// from the root of their key epoch and their place. They get `Clone` and a `Hash` of nothing.
const OPAQUE: &[&str] =
    &["ClientConfig", "Meter", "ReasonCounters", "RustCryptoChaCha", "ShardConfig", "Stopwatch", "Traffic"];

/// `Hash` written by hand, because a field is a map, a heap, or something of a library.
const HASHED_BY_HAND: &[&str] = &["KeyPair", "Lazy", "OnDemand", "Shard"];

/// File, text that stands there once, and what stands there instead.
const EDITS: &[(&str, &str, &str)] = &[
    ("audit/trail.rs", "pub(crate) struct Trail {", "#[derive(Clone)]\npub(crate) struct Trail {"),
    ("crypto.rs", "pub type DefaultAead = AwsLcChaCha;", "pub type DefaultAead = RustCryptoChaCha;"),
    // The checker's threads share states.
    ("crypto.rs", "use core::cell::OnceCell;", "use std::sync::OnceLock as OnceCell;"),
    // RK-5: forgeries are counted until there are so many that fresh keys are wanted; a model never gets there.
    ("key_ring.rs", "failures: u64,", "failures: crate::statistic::Statistic,"),
    ("key_ring.rs", "self.current.failures >= self", "self.current.failures.value() >= self"),
    ("key_ring.rs", "failures: 0 }", "failures: Default::default() }"),
    ("entropy.rs", "pub trait Entropy {", "pub trait Entropy: Sync {"),
    (
        "entropy.rs",
        "fn fill(&mut self, out: &mut [u8]);",
        "fn fill(&mut self, out: &mut [u8]);\n    fn boxed(&self) -> Box<dyn Entropy + Send>;\n    fn position(&self) -> u64;",
    ),
    (
        "entropy.rs",
        "impl Entropy for SeededEntropy {",
        "impl Entropy for SeededEntropy {
    fn boxed(&self) -> Box<dyn Entropy + Send> {
        Box::new(self.clone())
    }
    fn position(&self) -> u64 {
        self.0.position()
    }",
    ),
];

/// What is added at the end of a file.
const ADDITIONS: &[(&str, &str)] = &[
    (
        "crypto.rs",
        "
/// Ciphers follow from the root of their key epoch and their place.
impl<A> core::hash::Hash for Lazy<A> {
    fn hash<H: core::hash::Hasher>(&self, _: &mut H) {}
}
impl<A> core::hash::Hash for OnDemand<A> {
    fn hash<H: core::hash::Hasher>(&self, _: &mut H) {}
}
/// All of it follows from the secret.
impl core::hash::Hash for KeyPair {
    fn hash<H: core::hash::Hasher>(&self, hasher: &mut H) {
        self.secret.hash(hasher);
    }
}
",
    ),
    (
        "audit/journal.rs",
        "
/// The model keeps no records, and they steer nothing (INV-23).
impl Clone for Journal {
    fn clone(&self) -> Self {
        Self(None)
    }
}
impl core::hash::Hash for Journal {
    fn hash<H: core::hash::Hasher>(&self, _: &mut H) {}
}
",
    ),
    (
        "audit/trail.rs",
        "
/// What records say of the past steers nothing (INV-23).
impl core::hash::Hash for Trail {
    fn hash<H: core::hash::Hasher>(&self, _: &mut H) {}
}
",
    ),
    (
        "entropy.rs",
        "
impl Clone for Box<dyn Entropy + Send> {
    fn clone(&self) -> Self {
        self.boxed()
    }
}
impl core::hash::Hash for dyn Entropy + Send {
    fn hash<H: core::hash::Hasher>(&self, hasher: &mut H) {
        self.position().hash(hasher);
    }
}
",
    ),
    (
        "client/core.rs",
        "
impl Client {
    /// The record of the mirror, while there is a session.
    pub fn record(&self) -> Option<&crate::machine::Record> {
        self.live().map(|live| &live.record)
    }
    /// The epoch that a request made now names.
    pub fn known_epoch(&self) -> Option<u64> {
        self.live().map(|live| live.known_epoch)
    }
    fn live(&self) -> Option<&Live> {
        match &self.phase {
            Phase::Live(live) => Some(live),
            Phase::Idle | Phase::Connecting(_) => None,
        }
    }
}
",
    ),
    (
        "client/connect.rs",
        "
/// The model begins behind the handshake.
impl Clone for Connecting {
    fn clone(&self) -> Self {
        unreachable!(\"the model begins behind the handshake\")
    }
}
impl core::hash::Hash for Connecting {
    fn hash<H: core::hash::Hasher>(&self, _: &mut H) {}
}
",
    ),
    (
        "gateway/pool.rs",
        "
impl core::hash::Hash for AddressPool {
    fn hash<H: core::hash::Hasher>(&self, _: &mut H) {}
}
",
    ),
    (
        "gateway/shard.rs",
        "
/// The maps and the heap follow from the sessions: where they stand, and for when each is scheduled.
impl core::hash::Hash for Shard {
    fn hash<H: core::hash::Hasher>(&self, hasher: &mut H) {
        self.hash_sessions(hasher);
        self.farewells.hash(hasher);
        self.entropy.hash(hasher);
        self.resets.hash(hasher);
    }
}
impl Shard {
    /// What belongs to sessions, and not to the shard as a whole.
    pub fn hash_sessions<H: core::hash::Hasher>(&self, hasher: &mut H) {
        for (_, slot) in &self.sessions {
            core::hash::Hash::hash(slot, hasher);
        }
    }
    /// The record of the one session that a model has.
    pub fn record(&self) -> Option<&crate::machine::Record> {
        self.sessions.iter().next().map(|(_, slot)| &slot.session.record)
    }
}
",
    ),
    (
        "policy/mod.rs",
        "
impl core::hash::Hash for Policy {
    fn hash<H: core::hash::Hasher>(&self, _: &mut H) {}
}
",
    ),
];

fn main() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../protocol/src");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    println!("cargo::rerun-if-changed={}", sources.display());
    println!("cargo::rerun-if-changed=mutants.rs");
    println!("cargo::rerun-if-changed=build.rs");
    let mut stale: Vec<&str> = MUTANTS.iter().map(|mutant| mutant.name).collect();
    // A file that moved must not be found at its old place.
    let _absent_at_first = fs::remove_dir_all(out.join("protocol"));
    for file in files(&sources) {
        let name = file.strip_prefix(&sources).expect("below the sources").to_str().expect("a name in UTF-8");
        let text = fs::read_to_string(&file).expect("a source can be read");
        let woven = weave(name, text, &mut stale);
        let target = out.join("protocol").join(name);
        fs::create_dir_all(target.parent().expect("a file has a folder")).expect("OUT_DIR can be written");
        fs::write(&target, woven).expect("OUT_DIR can be written");
    }
    fs::write(out.join("stale.rs"), format!("&{stale:?}")).expect("OUT_DIR can be written");
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("the sources can be listed") {
        let path = entry.expect("the sources can be listed").path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path),
        }
    }
    found.sort();
    found
}

fn weave(name: &str, mut text: String, stale: &mut Vec<&str>) -> String {
    for (index, mutant) in MUTANTS.iter().enumerate().filter(|(_, mutant)| mutant.file == name) {
        if text.matches(mutant.find).count() == 1 {
            let alive = format!("crate::mutant::is_alive({index})");
            text = text.replace(mutant.find, &mutant.replace.replace("MUTANT", &alive));
            stale.retain(|known| *known != mutant.name);
        }
    }
    for (_, find, replace) in EDITS.iter().filter(|(file, ..)| *file == name) {
        assert!(text.matches(find).count() >= 1, "protocol/src/{name}: `{find}` is gone; adapt model/woven/build.rs");
        text = text.replacen(find, replace, 1);
    }
    if STATE.iter().any(|prefix| name.starts_with(prefix)) && !STATELESS.contains(&name) {
        text = derive(&text);
    }
    for (_, addition) in ADDITIONS.iter().filter(|(file, _)| *file == name) {
        text.push_str(addition);
    }
    // Also where all targets are built: the tests of these sources run in jumpgate-protocol.
    text = text.replace("#[cfg(test)]", "#[cfg(any())]");
    if name == "lib.rs" {
        // Included, so it can have neither inner attributes nor documentation of its own.
        let outer = |line: &&str| !line.starts_with("//!") && !line.starts_with("#!");
        text = text.lines().filter(outer).map(|line| format!("{line}\n")).collect();
    }
    text
}

/// Adds `Clone` and `Hash` to every type of a file.
fn derive(text: &str) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let mut opaque = Vec::new();
    let mut index = 0;
    while index < lines.len() {
        if let Some(name) = type_name(&lines[index])
            && !LEFT_ALONE.contains(&name.as_str())
        {
            let hashed = !OPAQUE.contains(&name.as_str()) && !HASHED_BY_HAND.contains(&name.as_str());
            let mut wanted = vec!["Clone"];
            wanted.extend(hashed.then_some("Hash"));
            if OPAQUE.contains(&name.as_str()) {
                opaque.push(name);
            }
            let attributes = (0..index).rev().take_while(|at| is_attribute(&lines[*at]));
            let derive = attributes.into_iter().find(|at| lines[*at].trim_start().starts_with("#[derive("));
            match derive {
                Some(at) => {
                    let line = lines[at].clone();
                    wanted.retain(|name| !has_word(&line, name));
                    let more: String = wanted.iter().map(|name| format!("{name}, ")).collect();
                    lines[at] = line.replacen("#[derive(", &format!("#[derive({more}"), 1);
                }
                None => {
                    lines.insert(index, format!("#[derive({})]", wanted.join(", ")));
                    index += 1;
                }
            }
        }
        index += 1;
    }
    for name in opaque {
        lines.push(format!("impl core::hash::Hash for {name} {{"));
        lines.push("    fn hash<H: core::hash::Hasher>(&self, _: &mut H) {}".to_owned());
        lines.push("}".to_owned());
    }
    lines.join("\n") + "\n"
}

/// The name of the struct or enum that the line begins.
fn type_name(line: &str) -> Option<String> {
    let mut words = line.split_whitespace().skip_while(|word| word.starts_with("pub"));
    let keyword = words.next()?;
    if keyword == "in" || !matches!(keyword, "struct" | "enum") {
        return None;
    }
    let name = words.next()?;
    // In a macro the name is a variable.
    let end = name.find(|c: char| !c.is_alphanumeric() && c != '_' && c != '$').unwrap_or(name.len());
    (end > 0).then(|| name[..end].to_owned())
}

fn is_attribute(line: &str) -> bool {
    let line = line.trim_start();
    line.starts_with("#[") || line.starts_with("///")
}

fn has_word(line: &str, word: &str) -> bool {
    line.split(|c: char| !c.is_alphanumeric()).any(|found| found == word)
}
