//! Small versions of the benchmarks, for a machine that checks changes: they fail on a safety counter or an empty result,
//! and never on a time.

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::forward::cpus;

/// A small run: its arguments, and the figures of its report that must not be zero.
struct Case {
    arguments: &'static str,
    wanted: &'static [&'static str],
}

const CASES: [Case; 15] = [
    Case { arguments: "datapath --repetitions 3 --sessions 1,100", wanted: &["/rows/0/decapsulate/median"] },
    Case { arguments: "forward --repetitions 1 --packets 5000", wanted: &["/rows/0/gateway/alone/median"] },
    Case { arguments: "handshake --clients 200 --arrivals 1000", wanted: &["/times/handshake/count"] },
    Case {
        arguments: "storm --clients 300 --bystanders 20",
        wanted: &["/times/reattach/count", "/times/round_trip_of_bystanders/count"],
    },
    // Each has 58 jumps to give away: with 200 the gateway was done before the warm-up was over.
    Case { arguments: "reattach-rate --clients 1000 --seconds 2", wanted: &["/summary/reattaches_per_s"] },
    Case {
        arguments: "churn --clients 200 --seconds 4 --jump-every 2 --lifetime 4",
        wanted: &["/times/reattach/count", "/times/round_trip/count"],
    },
    Case {
        arguments: "throughput --sessions 1,50 --bytes 64,mixed --packets 5000 --repetitions 1",
        wanted: &["/rows/0/arrived/median", "/rows/7/arrived/median"],
    },
    Case {
        arguments: "latency --clients 50 --packets 5000 --repetitions 1",
        wanted: &["/times/round_trip_at_50_percent/count", "/times/round_trip_at_90_percent/count"],
    },
    Case {
        arguments: "loss-spike --profile fast --clients 50 --seconds 3 --pause 500",
        wanted: &["/times/volatile_3s/count"],
    },
    Case { arguments: "failover --profile fast --clients 20 --pause 500", wanted: &["/times/reattach/count"] },
    Case { arguments: "rebind --profile fast --clients 20 --pause 500", wanted: &["/times/reattach/count"] },
    Case { arguments: "flap --clients 20 --seconds 3", wanted: &["/times/reattach/count"] },
    Case { arguments: "reattach-flood --clients 50 --seconds 2", wanted: &["/summary/flood_packets_per_s"] },
    Case { arguments: "handshake-flood --clients 50 --seconds 2", wanted: &["/summary/flood_packets_per_s"] },
    Case { arguments: "replay-flood --clients 50 --seconds 2", wanted: &["/summary/flood_packets_per_s"] },
];

/// Runs all of them, each as a process of its own.
///
/// # Errors
/// This program cannot be started again, or nothing can be written.
pub fn run() -> Result<ExitCode> {
    if !nix::unistd::geteuid().is_root() {
        println!("SKIPPED: benchmarks under load make network namespaces and load XDP programs: they need root");
        return Ok(ExitCode::SUCCESS);
    }
    if cpus()?.len() < 2 {
        println!("SKIPPED: gateway and generator need a CPU each, and this process may use one");
        return Ok(ExitCode::SUCCESS);
    }
    let directory = tempfile::tempdir()?;
    let started = Instant::now();
    let mut failed = 0;
    for case in &CASES {
        let began = Instant::now();
        let outcome = try_case(case, &directory.path().join("report.json"));
        let took = began.elapsed().as_secs_f64();
        match outcome {
            Ok(()) => println!("ok      {:>5.1} s  {}", took, case.arguments),
            Err(reason) => {
                failed += 1;
                println!("FAILED  {:>5.1} s  {}\n{reason:#}", took, case.arguments);
            }
        }
    }
    println!("{} small runs in {:.0} s, {failed} failed", CASES.len(), started.elapsed().as_secs_f64());
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn try_case(case: &Case, report: &Path) -> Result<()> {
    // An old report is not to be taken for this run's.
    let _ = std::fs::remove_file(report);
    let mut command = Command::new(std::env::current_exe()?);
    command.args(case.arguments.split(' ')).arg("--json").arg(report);
    let output = command.output()?;
    let said =
        || format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr).trim_end());
    let text = std::fs::read(report).unwrap_or_default();
    let report: Value = match serde_json::from_slice(&text) {
        Ok(report) => report,
        Err(_) => bail!("it wrote no report ({}):\n{}", output.status, said()),
    };
    judge(&report, case.wanted).with_context(said)
}

/// Whether a report is one that may be believed: no rule broken, nothing empty.
fn judge(report: &Value, wanted: &[&str]) -> Result<()> {
    for (name, count) in report.get("safety").and_then(Value::as_object).into_iter().flatten() {
        ensure!(count.as_u64() == Some(0), "the safety counter {name} is {count}");
    }
    if let Some(verdict) = report.pointer("/verifier/verdict").and_then(Value::as_str) {
        ensure!(!matches!(verdict, "INVALID" | "UNREADABLE"), "the audit log is {verdict}");
    }
    if let Some(allocations) = report.pointer("/rows/0/allocations").and_then(Value::as_u64) {
        ensure!(allocations == 0, "the packet path allocated {allocations} times");
    }
    for path in wanted {
        let value = report.pointer(path).and_then(Value::as_f64).unwrap_or(0.0);
        ensure!(value > 0.0, "{path} is empty: nothing was measured");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_safety_counter_an_invalid_log_and_an_empty_result_fail_and_a_missed_goal_does_not() {
        let report = |violations: u64, verdict: &str, count: u64| {
            json!({
                "result": "CONDITIONAL",
                "safety": {"dual_binding": violations},
                "verifier": {"verdict": verdict},
                "times": {"reattach": {"count": count, "p99_ms": 60_000.0}},
                "goals": [{"measured": 60_000.0, "bound": 100.0, "at_least": false}],
            })
        };
        let wanted = ["/times/reattach/count"];
        assert!(judge(&report(0, "VALID", 7), &wanted).is_ok(), "slow is no failure");
        assert!(judge(&report(1, "VALID", 7), &wanted).is_err());
        assert!(judge(&report(0, "INVALID", 7), &wanted).is_err());
        assert!(judge(&report(0, "VALID", 0), &wanted).is_err());
        assert!(judge(&json!({}), &wanted).is_err());
    }
}
