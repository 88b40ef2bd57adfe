//! The corpus: good traces that must be accepted, and at least one bad one for each code of the verifier (O06).
//!
//! Every bad trace is a good one with one thing wrong, its chain made anew, as by somebody who can write the file; so
//! only the rule that is meant can find it. `JUMPGATE_BLESS=1 cargo test -p jumpgate-audit --test corpus` writes the
//! files from the table here.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use jumpgate_audit::verify::{Code, Input, Options, Verdict, Violation, verify};
use support::{full_life, lines, rechain};

/// What stands in no trace; tests plant it.
const CANARY: &str = "canary-7f3a";

struct Bad {
    code: Code,
    name: &'static str,
    edit: fn(Vec<String>) -> String,
}

/// Index of the n-th line with that event.
fn find(lines: &[String], event: &str, n: usize) -> usize {
    let named = format!("\"event_type\":\"{event}\"");
    lines.iter().enumerate().filter(|(_, line)| line.contains(&named)).nth(n).expect("the trace has it").0
}

/// Index of the first line of that transition.
fn transition(lines: &[String], id: &str) -> usize {
    lines.iter().position(|line| line.contains(&format!("\"transition\":\"{id}\""))).expect("the trace has it")
}

/// Changes one line, and makes the chain anew.
fn change(mut lines: Vec<String>, index: usize, from: &str, to: &str) -> String {
    assert!(lines[index].contains(from), "{} has no {from}", lines[index]);
    lines[index] = lines[index].replacen(from, to, 1);
    rechain(&lines)
}

/// Leaves one line out, and makes the chain anew.
fn without(mut lines: Vec<String>, index: usize) -> String {
    lines.remove(index);
    rechain(&lines)
}

/// Writes one line twice, and makes the chain anew.
fn twice(mut lines: Vec<String>, index: usize) -> String {
    lines.insert(index, lines[index].clone());
    rechain(&lines)
}

const BAD: &[Bad] = &[
    Bad {
        code: Code::Schema,
        name: "field-missing",
        edit: |l| {
            let i = find(&l, "TransportDead", 0);
            change(l, i, "\"evidence\":\"link_down\",", "")
        },
    },
    Bad {
        code: Code::Schema,
        name: "field-misnamed",
        edit: |l| {
            let i = find(&l, "TransportDead", 0);
            change(l, i, "\"evidence\"", "\"evidense\"")
        },
    },
    Bad {
        code: Code::Schema,
        name: "field-mistyped",
        edit: |l| {
            let i = find(&l, "TransportDead", 0);
            change(l, i, "\"last_delivery_age_ms\":10", "\"last_delivery_age_ms\":\"10\"")
        },
    },
    Bad {
        code: Code::Schema,
        name: "event-unknown",
        edit: |l| {
            let i = find(&l, "TransportRetired", 0);
            change(l, i, "TransportRetired", "TransportForgotten")
        },
    },
    Bad {
        code: Code::Schema,
        name: "reason-unknown",
        edit: |l| {
            let i = find(&l, "SessionTerminated", 0);
            change(l, i, "OPERATOR_TERMINATED", "BECAUSE")
        },
    },
    Bad {
        code: Code::Schema,
        name: "key-twice",
        edit: |l| {
            let i = find(&l, "TransportDead", 0);
            change(l, i, "\"details\":null", "\"details\":null,\"details\":null")
        },
    },
    Bad {
        code: Code::Chain,
        name: "line-changed",
        edit: |l| l.join("\n").replacen("\"packets\":7", "\"packets\":8", 1) + "\n",
    },
    Bad {
        code: Code::Chain,
        name: "line-removed",
        edit: |mut l| {
            l.remove(6);
            l.join("\n") + "\n"
        },
    },
    Bad {
        code: Code::Chain,
        name: "line-doubled",
        edit: |mut l| {
            l.insert(6, l[6].clone());
            l.join("\n") + "\n"
        },
    },
    Bad {
        code: Code::Chain,
        name: "lines-swapped",
        edit: |mut l| {
            l.swap(6, 7);
            l.join("\n") + "\n"
        },
    },
    Bad { code: Code::Chain, name: "no-start", edit: |l| without(l, 0) },
    Bad {
        code: Code::Version,
        name: "skipped",
        edit: |mut l| {
            let i = transition(&l, "T07");
            l[i] = l[i].replacen("\"state_version\":3", "\"state_version\":4", 1);
            rechain(&l)
        },
    },
    Bad {
        code: Code::Version,
        name: "companion-of-another",
        edit: |l| {
            let i = find(&l, "VolatilitySignal", 0);
            change(l, i, "\"state_version\":2", "\"state_version\":7")
        },
    },
    Bad {
        code: Code::State,
        name: "left-without-entry",
        edit: |l| {
            let i = transition(&l, "T08b");
            without(l, i)
        },
    },
    Bad {
        code: Code::State,
        name: "beside-its-session",
        edit: |l| {
            let i = find(&l, "VolatilitySignal", 0);
            change(l, i, "\"state\":\"VOLATILE\"", "\"state\":\"DEGRADED\"")
        },
    },
    Bad {
        code: Code::Edge,
        name: "not-in-the-table",
        edit: |l| {
            let i = transition(&l, "T09");
            change(l, i, "\"transition\":\"T09\"", "\"transition\":\"T14\"")
        },
    },
    Bad {
        code: Code::Edge,
        name: "another-trigger",
        edit: |l| {
            let i = transition(&l, "T07");
            change(l, i, "STABILITY_RESTORED", "RECOVERY_START")
        },
    },
    Bad {
        code: Code::Reason,
        name: "not-of-its-edge",
        edit: |l| {
            let i = transition(&l, "T07");
            change(l, i, "HEALTH_RECOVERED", "LOSS_RECOVERY")
        },
    },
    Bad {
        code: Code::Reason,
        name: "missing",
        edit: |l| {
            let i = transition(&l, "T07");
            change(l, i, "\"reason_code\":\"HEALTH_RECOVERED\"", "\"reason_code\":null")
        },
    },
    Bad {
        code: Code::Birth,
        name: "none",
        edit: |l| {
            let i = find(&l, "SessionCreated", 0);
            without(l, i)
        },
    },
    Bad {
        code: Code::Birth,
        name: "two",
        edit: |l| {
            let i = find(&l, "SessionCreated", 0);
            twice(l, i)
        },
    },
    Bad {
        code: Code::End,
        name: "goes-on",
        edit: |l| {
            let i = find(&l, "SessionTerminated", 0);
            twice(l, i)
        },
    },
    Bad {
        code: Code::End,
        name: "without-its-record",
        edit: |l| {
            let i = find(&l, "SessionTerminated", 0);
            without(l, i)
        },
    },
    Bad {
        code: Code::End,
        name: "wrong-total",
        edit: |l| {
            let i = find(&l, "SessionTerminated", 0);
            change(l, i, "\"total_switches\":3", "\"total_switches\":4")
        },
    },
    Bad {
        code: Code::Bind,
        name: "attached-without",
        edit: |l| {
            let i = transition(&l, "T07");
            change(l, i, "\"active_transport\":1", "\"active_transport\":null")
        },
    },
    Bad {
        code: Code::Bind,
        name: "switch-from-another",
        edit: |l| {
            let i = find(&l, "TransportSwitch", 0);
            change(l, i, "\"previous_transport\":1", "\"previous_transport\":9")
        },
    },
    Bad {
        code: Code::Bind,
        name: "epoch-moves-alone",
        edit: |l| {
            let i = find(&l, "VolatilitySignal", 0);
            change(l, i, "\"binding_epoch\":1", "\"binding_epoch\":2")
        },
    },
    Bad {
        code: Code::Attempt,
        name: "switch-without",
        edit: |l| {
            let i = find(&l, "ReattachAttempt", 0);
            without(l, i)
        },
    },
    Bad {
        code: Code::Attempt,
        name: "never-closed",
        edit: |l| {
            let i = find(&l, "TransportSwitchFailed", 0);
            without(l, i)
        },
    },
    Bad {
        code: Code::Attempt,
        name: "closed-twice",
        edit: |l| {
            let i = find(&l, "TransportSwitchFailed", 0);
            twice(l, i)
        },
    },
    Bad {
        code: Code::Rate,
        name: "limit-passed",
        edit: |l| {
            rechain(
                &l.into_iter()
                    .map(|line| line.replace("\"max_switches_per_min\":8", "\"max_switches_per_min\":1"))
                    .collect::<Vec<_>>(),
            )
        },
    },
    Bad {
        code: Code::Rate,
        name: "brake-without-denial",
        edit: |l| {
            let i = transition(&l, "T10") + 1;
            without(l, i)
        },
    },
    Bad {
        code: Code::Time,
        name: "falling",
        edit: |l| {
            let i = find(&l, "AuditCheck", 0);
            change(l, i, "\"ts_ms\":17672256", "\"ts_ms\":17672255")
        },
    },
    Bad {
        code: Code::Time,
        name: "healed-too-soon",
        edit: |l| {
            rechain(
                &l.into_iter()
                    .map(|line| line.replace("\"stability_window_ms\":2000", "\"stability_window_ms\":3000"))
                    .collect::<Vec<_>>(),
            )
        },
    },
    Bad {
        code: Code::Time,
        name: "recovering-too-long",
        edit: |l| {
            rechain(
                &l.into_iter()
                    .map(|line| line.replace("\"recovery_window_ms\":8000", "\"recovery_window_ms\":7000"))
                    .collect::<Vec<_>>(),
            )
        },
    },
    Bad {
        code: Code::Owner,
        name: "superseded",
        edit: |mut l| {
            let i = find(&l, "VolatilitySignal", 0);
            let line = l[i].replace("VolatilitySignal", "SessionOwnerTransferred");
            let cut = line.find(",\"loss_ratio\"").expect("its own fields");
            l.insert(
                i + 1,
                format!(
                    "{},\"owner_node_id\":\"node-2\",\"previous_owner\":\"node-1\",\"fencing_epoch\":2,\"previous_worker\":null}}",
                    &line[..cut]
                ),
            );
            rechain(&l)
        },
    },
    Bad {
        code: Code::Owner,
        name: "two-workers",
        edit: |l| {
            let i = find(&l, "VolatilitySignal", 0);
            change(l, i, "\"worker\":0", "\"worker\":1")
        },
    },
    Bad {
        code: Code::Check,
        name: "one-missing",
        edit: |l| {
            let i = find(&l, "AuditCheck", 1);
            without(l, i)
        },
    },
    Bad {
        code: Code::Check,
        name: "failed",
        edit: |l| {
            let i = find(&l, "AuditCheck", 0);
            change(l, i, "\"result\":\"PASS\"", "\"result\":\"FAIL\"")
        },
    },
    Bad {
        code: Code::Marker,
        name: "reset-claimed",
        edit: |l| {
            let i = find(&l, "ReattachResult", 0);
            change(l, i, "\"details\":null", "\"details\":null,\"identity_reset\":true")
        },
    },
    Bad {
        code: Code::Marker,
        name: "renegotiation",
        edit: |l| {
            let i = find(&l, "TransportRetired", 0);
            change(l, i, "TransportRetired", "SessionRenegotiated")
        },
    },
    Bad {
        code: Code::Leak,
        name: "planted",
        edit: |l| {
            let i = find(&l, "VolatilitySignal", 0);
            change(l, i, "\"details\":null", "\"details\":null,\"note\":\"canary-7f3a\"")
        },
    },
];

fn folder(kind: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(kind)
}

fn file_of(bad: &Bad) -> PathBuf {
    folder("bad").join(format!("{}-{}.jsonl", bad.code, bad.name))
}

fn judge(path: &std::path::Path) -> (Verdict, Vec<Violation>) {
    let options = Options { canaries: vec![CANARY.as_bytes().to_vec()], ..Options::default() };
    let mut violations = Vec::new();
    let report = verify(vec![Input::open(path)], &options, |violation| violations.push(violation));
    (report.verdict, violations)
}

#[test]
fn o06_the_corpus_is_what_its_table_says() {
    let bless = std::env::var_os("JUMPGATE_BLESS").is_some();
    let good = full_life().text();
    let mut expected = vec![(folder("good").join("full-life.jsonl"), good.clone())];
    expected.extend(BAD.iter().map(|bad| (file_of(bad), (bad.edit)(lines(&good)))));
    for (path, text) in expected {
        if bless {
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            fs::write(&path, &text).expect("written");
        }
        let stored = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(stored == text, "{} is stale: JUMPGATE_BLESS=1 writes it anew", path.display());
    }
}

#[test]
fn o06_every_good_trace_is_accepted() {
    for entry in fs::read_dir(folder("good")).expect("the corpus") {
        let path = entry.expect("an entry").path();
        assert_eq!(judge(&path), (Verdict::Valid, vec![]), "{}", path.display());
    }
}

#[test]
fn o06_every_bad_trace_is_rejected_by_the_rule_that_is_meant() {
    for bad in BAD {
        let (verdict, violations) = judge(&file_of(bad));
        let codes: BTreeSet<Code> = violations.iter().map(|violation| violation.code).collect();
        assert_eq!(verdict, Verdict::Invalid, "{}-{}", bad.code, bad.name);
        assert!(codes.contains(&bad.code), "{}-{}: {violations:#?}", bad.code, bad.name);
    }
}

#[test]
fn o06_every_code_has_a_bad_trace() {
    let have: BTreeSet<Code> = BAD.iter().map(|bad| bad.code).collect();
    let missing: Vec<_> = Code::ALL.iter().filter(|code| !have.contains(code)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
