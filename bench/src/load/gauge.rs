//! What a process costs, read from the kernel: CPU time of its threads, memory, and the softirq time of a CPU.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::unistd::{SysconfVar, sysconf};
use serde::Serialize;

/// One reading.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Reading {
    /// CPU time of the process in user space, in seconds.
    pub user_s: f64,
    /// CPU time of the process in the kernel, in seconds.
    pub system_s: f64,
    /// Time of all its threads on a CPU, in seconds: the sum of both, counted exactly.
    pub run_s: f64,
    /// Time of its CPU in softirqs, whoever caused them, in seconds.
    pub softirq_s: f64,
    /// Resident memory in bytes.
    pub resident: u64,
    /// Of it, memory of the process's own: without files and shared memory.
    pub anonymous: u64,
}

/// Reads a process on a CPU.
#[derive(Clone, Copy, Debug)]
pub struct Gauge {
    pid: u32,
    cpu: usize,
    ticks: f64,
}

impl Gauge {
    /// For that process, pinned to that CPU.
    pub fn new(pid: u32, cpu: usize) -> Self {
        let ticks = sysconf(SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
        Self { pid, cpu, ticks: ticks as f64 }
    }

    /// Reads now.
    pub fn read(&self) -> Result<Reading> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).context("the gateway is gone")?;
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).context("the gateway is gone")?;
        let cpus = fs::read_to_string("/proc/stat")?;
        let (user, system) = times_of(&stat).context("/proc/PID/stat has another form than expected")?;
        Ok(Reading {
            user_s: user as f64 / self.ticks,
            system_s: system as f64 / self.ticks,
            run_s: self.threads().values().sum(),
            softirq_s: softirq_of(&cpus, self.cpu).unwrap_or(0) as f64 / self.ticks,
            resident: kilobytes(&status, "VmRSS:").unwrap_or(0) * 1_024,
            anonymous: kilobytes(&status, "RssAnon:").unwrap_or(0) * 1_024,
        })
    }

    /// Seconds on a CPU of each thread, by its name; threads of one name together. What ends meanwhile is not counted.
    pub fn threads(&self) -> BTreeMap<String, f64> {
        let mut threads = BTreeMap::new();
        let Ok(directory) = fs::read_dir(format!("/proc/{}/task", self.pid)) else { return threads };
        for path in directory.flatten().map(|thread| thread.path()) {
            let texts = fs::read_to_string(path.join("comm")).and_then(|name| {
                let text = fs::read_to_string(path.join("schedstat"))?;
                Ok((name, text))
            });
            // The first field is nanoseconds on a CPU (Documentation/scheduler/sched-stats.rst).
            if let Ok((name, text)) = texts
                && let Some(Ok(ns)) = text.split_ascii_whitespace().next().map(str::parse::<u64>)
            {
                *threads.entry(name.trim().to_owned()).or_default() += ns as f64 / 1e9;
            }
        }
        threads
    }
}

impl Reading {
    /// CPU seconds of the process since an earlier reading.
    pub fn cpu_since(&self, earlier: &Self) -> f64 {
        (self.user_s + self.system_s) - (earlier.user_s + earlier.system_s)
    }

    /// CPU seconds since an earlier reading as a share of the time between.
    pub fn share_since(&self, earlier: &Self, elapsed: Duration) -> f64 {
        self.cpu_since(earlier) / elapsed.as_secs_f64().max(f64::EPSILON)
    }
}

/// utime and stime, fields 14 and 15 (proc(5)); the name before them may hold anything but ends with the last ')'.
fn times_of(stat: &str) -> Option<(u64, u64)> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    Some((fields.nth(11)?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// Field 7 of the CPU's line in /proc/stat.
fn softirq_of(stat: &str, cpu: usize) -> Option<u64> {
    let name = format!("cpu{cpu}");
    let line = stat.lines().find(|line| line.split(' ').next() == Some(&name))?;
    line.split_ascii_whitespace().nth(7)?.parse().ok()
}

fn kilobytes(status: &str, field: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix(field))?.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_move_the_fields() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 3 0 100 1000 50";
        assert_eq!(times_of(stat), Some((250, 50)));
        assert_eq!(times_of("7"), None);
    }

    #[test]
    fn softirq_time_is_that_of_the_cpu() {
        let stat = "cpu  9 9 9 9 9 9 9 9\ncpu1 1 2 3 4 5 6 70 8\ncpu11 1 2 3 4 5 6 71 8\n";
        assert_eq!(softirq_of(stat, 1), Some(70));
        assert_eq!(softirq_of(stat, 11), Some(71));
        assert_eq!(softirq_of(stat, 2), None);
    }

    #[test]
    fn memory_is_found_by_its_field() {
        let status = "VmRSS:\t   2048 kB\nRssAnon:\t 1024 kB\n";
        assert_eq!(kilobytes(status, "VmRSS:"), Some(2_048));
        assert_eq!(kilobytes(status, "RssAnon:"), Some(1_024));
        assert_eq!(kilobytes(status, "Nothing:"), None);
    }
}
