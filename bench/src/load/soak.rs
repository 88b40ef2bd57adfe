//! Whether a gateway stays as it is while sessions come and go: what the second half of a run costs beside the first.

use std::fs;
use std::path::Path;

use anyhow::Result;
use jumpgate_metrics::Readings;

use super::plant::Plant;
use super::scenario::Findings;
use crate::report::Goal;

/// Growth over the second half of a run that is still called flat, as a share.
pub(super) const FLAT: f64 = 0.05;
/// The same for medians of times, which the gateway tells in buckets that double: times the first half's.
const FLAT_TIMES: f64 = 1.5;
/// Times that the gateway measures of itself: name in reports, family of its metrics.
const TIMES: [(&str, &str); 3] = [
    ("lookup", "jumpgate_lookup_duration_seconds"),
    ("transition", "jumpgate_transition_duration_seconds"),
    ("eviction", "jumpgate_eviction_duration_seconds"),
];

/// A gateway at one moment.
#[derive(Clone, Debug)]
pub(super) struct Moment {
    /// Buckets of each of [`TIMES`]: upper bound in seconds, and how many were not above.
    times: [Vec<(f64, f64)>; TIMES.len()],
    sessions: f64,
    steering: f64,
    files: f64,
}

impl Moment {
    /// Asks the gateway, and the kernel about it.
    pub(super) fn of(plant: &Plant) -> Result<Self> {
        let files = fs::read_dir(Path::new("/proc").join(plant.pid().to_string()).join("fd"))?.count();
        Ok(Self { files: files as f64, ..Self::read(&plant.metrics()?) })
    }

    fn read(page: &Readings) -> Self {
        Self {
            times: TIMES.map(|(_, family)| page.buckets(family)),
            sessions: page.sum("jumpgate_sessions", &[]),
            steering: page.sum("jumpgate_xdp_map_entries", &[]),
            files: 0.0,
        }
    }

    /// How many of that time were measured since then, and their median in microseconds; NaN if there were none.
    fn since(&self, before: &Self, time: usize) -> (f64, f64) {
        let earlier = before.times[time].iter().map(|(_, count)| count).chain(std::iter::repeat(&0.0));
        let grown = self.times[time].iter().zip(earlier).map(|((bound, count), earlier)| (*bound, count - earlier));
        let grown: Vec<(f64, f64)> = grown.collect();
        let total = grown.last().map_or(0.0, |(_, count)| *count);
        (total, median(&grown, total) * 1e6)
    }
}

/// Within its bucket as if all there were spread evenly.
fn median(buckets: &[(f64, f64)], total: f64) -> f64 {
    let Some(index) = buckets.iter().position(|(_, count)| total > 0.0 && *count >= total / 2.0) else {
        return f64::NAN;
    };
    let (lower, below) = index.checked_sub(1).map_or((0.0, 0.0), |index| buckets[index]);
    let (upper, up_to) = buckets[index];
    lower + (upper - lower) * (total / 2.0 - below) / (up_to - below)
}

/// Judges the second half of a run of `clients` by the first.
pub(super) fn judge([start, middle, end]: [&Moment; 3], clients: u32, findings: &mut Findings) {
    for (time, (name, _)) in TIMES.iter().enumerate() {
        let ((first, usual), (second, later)) = (middle.since(start, time), end.since(middle, time));
        findings.figure(format!("{name}_samples"), first + second);
        findings.figure(format!("{name}_us_first_half"), usual);
        findings.figure(format!("{name}_us_second_half"), later);
        let goal = format!("median {name}, second half beside the first");
        findings.goals.push(Goal::at_most(&goal, later / usual, FLAT_TIMES, "x"));
    }
    findings.figure("steering_entries", end.steering);
    findings.figure("open_files", end.files);
    let growth = end.steering / middle.steering - 1.0;
    findings.goals.extend([
        Goal::at_most("sessions at the gateway at the end", end.sessions, clients.into(), "sessions"),
        Goal::at_most("growth of the steering maps in the second half", growth, FLAT, "share"),
        Goal::at_most("growth of open files in the second half", end.files - middle.files, 0.0, "files"),
    ]);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After so many of each of the times below a microsecond, from there to two, and above.
    fn moment(counts: [u32; 3], sessions: u32) -> Moment {
        let [short, long, longest] = [counts[0], counts[0] + counts[1], counts.iter().sum()];
        let times = TIMES.map(|(_, family)| {
            format!(
                "{family}_bucket{{le=\"1e-6\"}} {short}\n{family}_bucket{{le=\"2e-6\"}} {long}\n\
                 {family}_bucket{{le=\"+Inf\"}} {longest}\n"
            )
        });
        let page = format!(
            "{}jumpgate_sessions{{state=\"ATTACHED\",worker=\"0\"}} {sessions}\n\
             jumpgate_sessions{{state=\"VOLATILE\",worker=\"0\"}} 1\njumpgate_sessions_created_total 99\n\
             jumpgate_xdp_map_entries{{map=\"pool\"}} 100\n",
            times.concat()
        );
        Moment { files: 20.0, ..Moment::read(&Readings::parse(&page).unwrap()) }
    }

    fn missed(moments: [&Moment; 3]) -> Vec<String> {
        let mut findings = Findings::default();
        judge(moments, 10, &mut findings);
        findings.goals.iter().filter(|goal| !goal.is_met()).map(|goal| goal.name.clone()).collect()
    }

    #[test]
    fn the_second_half_is_judged_by_the_first_and_not_by_what_was_before() {
        let (start, middle) = (moment([0, 500, 0], 9), moment([900, 600, 0], 9));
        // A few that were preempted move no median.
        let end = moment([980, 600, 20], 9);
        assert_eq!(missed([&start, &middle, &end]), [""; 0]);
        let slower = moment([900, 700, 0], 9);
        let all = TIMES.map(|(name, _)| format!("median {name}, second half beside the first"));
        assert_eq!(missed([&start, &middle, &slower]), all);
        let left_over = moment([980, 600, 20], 10);
        assert_eq!(missed([&start, &middle, &left_over]), ["sessions at the gateway at the end"]);
        let more_files = Moment { files: 21.0, ..end.clone() };
        assert_eq!(missed([&start, &middle, &more_files]), ["growth of open files in the second half"]);
        let more_entries = Moment { steering: 106.0, ..end };
        assert_eq!(missed([&start, &middle, &more_entries]), ["growth of the steering maps in the second half"]);
    }

    #[test]
    fn a_time_that_was_not_measured_is_not_called_flat() {
        let (start, middle) = (moment([0, 0, 0], 9), moment([90, 10, 0], 9));
        assert_eq!(missed([&start, &middle, &middle]).len(), TIMES.len());
        assert_eq!(missed([&start, &start, &middle]).len(), TIMES.len());
    }

    #[test]
    fn a_median_lies_within_its_bucket() {
        let (before, after) = (moment([0, 0, 0], 1), moment([20, 60, 20], 1));
        let (count, median) = after.since(&before, 0);
        assert_eq!(count, 100.0);
        assert!((median - 1.5).abs() < 1e-9, "{median}");
    }
}
