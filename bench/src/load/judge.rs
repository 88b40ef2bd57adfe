//! Whether a run may be believed: its safety counters, and the product's own verifier over the run's own log.

use std::collections::BTreeMap;

use anyhow::Result;
use serde_json::Value;

use super::book::Book;
use super::plant::Plant;
use super::run::rows;
use crate::report::Verifier;

/// Which violations of the verifier move which counter.
const BY_CODE: [(&str, &[&str]); 7] = [
    ("dual_binding", &["V-BIND"]),
    ("silent_reset", &["V-MARKER", "V-BIRTH"]),
    ("ambiguous_owner", &["V-OWNER"]),
    ("version_regression", &["V-VERSION"]),
    ("post_end_activity", &["V-END"]),
    ("unbounded_recovery", &["V-TIME"]),
    ("switch_limit_exceeded", &["V-RATE"]),
];

/// What must be zero.
pub(super) fn safety(book: &Book, counters: &Value, verifier: &Verifier) -> BTreeMap<&'static str, u64> {
    let of = |name: &str| rows(counters).filter(|row| row.name == name).map(|row| row.value).sum::<u64>();
    let mut safety = BTreeMap::from([
        ("invariant_violation", of("INVARIANT_VIOLATION")),
        ("ambiguous_owner", of("OWNERSHIP_CONFLICT")),
        ("epoch_not_rising", 0),
        ("misrouted", 0),
        ("replay_accepted", 0),
    ]);
    for (name, codes) in BY_CODE {
        let found: u64 = codes.iter().filter_map(|code| verifier.violations.get(*code)).sum();
        *safety.entry(name).or_default() += found;
    }
    for (name, count) in &book.violations {
        *safety.entry(name).or_default() += count;
    }
    safety
}

/// Has the product's own verifier judge the run's log.
pub(super) fn verify(plant: &Plant) -> Result<Verifier> {
    let directory = plant.directory().join("audit");
    if !directory.exists() {
        return Ok(Verifier { verdict: "no audit log was written".to_owned(), ..Verifier::default() });
    }
    let mut files: Vec<_> = std::fs::read_dir(&directory)?.flatten().map(|entry| entry.path()).collect();
    files.sort();
    let names: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
    let arguments: Vec<&str> =
        ["audit", "verify", "--json"].into_iter().chain(names.iter().map(String::as_str)).collect();
    let output = plant.tool(&arguments)?;
    let said: Value = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    Ok(read(output.status.code(), &said))
}

/// What `jumpgate audit verify --json` said and ended with.
fn read(code: Option<i32>, said: &Value) -> Verifier {
    let verdict = match code {
        Some(0) => "VALID",
        Some(1) => "INVALID",
        Some(2) => "UNREADABLE",
        Some(3) => "INCOMPLETE",
        _ => "the verifier failed",
    };
    let list = said.get("list").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut violations = BTreeMap::new();
    for code in list.iter().filter_map(|violation| violation.get("code")?.as_str()) {
        *violations.entry(code.to_owned()).or_default() += 1;
    }
    Verifier {
        verdict: verdict.to_owned(),
        records: said.get("records").and_then(Value::as_u64).unwrap_or(0),
        gaps: said.pointer("/gaps/0").and_then(Value::as_u64).unwrap_or(0),
        violations,
        first_violation: list.first().map(Value::to_string),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_verifier_finds_moves_the_counter_of_its_kind() {
        let said = json!({
            "verdict": "INVALID", "violations": 2, "records": 40, "gaps": [1, 9],
            "list": [{"code": "V-BIND", "line": 7}, {"code": "V-OWNER", "line": 9}],
        });
        let verifier = read(Some(1), &said);
        assert_eq!((verifier.verdict.as_str(), verifier.records, verifier.gaps), ("INVALID", 40, 1));
        assert!(verifier.first_violation.as_ref().is_some_and(|text| text.contains("V-BIND")));
        let mut book = Book::new().unwrap();
        book.violations.insert("misrouted", 3);
        let counters = json!([{"place": "worker 0", "name": "OWNERSHIP_CONFLICT", "value": 2}]);
        let safety = safety(&book, &counters, &verifier);
        let of = |name: &str| safety.get(name).copied();
        assert_eq!((of("dual_binding"), of("ambiguous_owner"), of("misrouted")), (Some(1), Some(3), Some(3)));
        assert_eq!((of("silent_reset"), of("replay_accepted")), (Some(0), Some(0)));
    }
}
