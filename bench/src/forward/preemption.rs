//! How often other work took the CPU away: the noise of a machine that is not quiet.

use std::fs;

/// Times that a thread of this process lost its CPU although it had work to do, so far.
pub(super) fn count() -> u64 {
    let Ok(threads) = fs::read_dir("/proc/self/task") else { return 0 };
    let status = threads.flatten().filter_map(|thread| fs::read_to_string(thread.path().join("status")).ok());
    status.filter_map(|text| parse(&text)).sum()
}

fn parse(status: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix("nonvoluntary_ctxt_switches:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_switches_that_the_thread_did_not_want_count() {
        let status = "Name:\tworker\nvoluntary_ctxt_switches:\t150\nnonvoluntary_ctxt_switches:\t545\n";
        assert_eq!(parse(status), Some(545));
        assert_eq!(parse("voluntary_ctxt_switches:\t150\n"), None);
    }
}
