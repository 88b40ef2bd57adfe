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
/// The same for mean times, in which single preemptions of a shared CPU weigh: times the first half's.
const FLAT_TIMES: f64 = 1.5;
/// Times that the gateway measures of itself: name in reports, family of its metrics.
const TIMES: [(&str, &str); 3] = [
    ("lookup", "jumpgate_lookup_duration_seconds"),
    ("transition", "jumpgate_transition_duration_seconds"),
    ("eviction", "jumpgate_eviction_duration_seconds"),
];

/// A gateway at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Moment {
    /// Sum in seconds, and number, of each of [`TIMES`].
    times: [(f64, f64); TIMES.len()],
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
        let sum = |name: &str| page.sum(name, &[]);
        Self {
            times: TIMES.map(|(_, family)| (sum(&format!("{family}_sum")), sum(&format!("{family}_count")))),
            sessions: sum("jumpgate_sessions"),
            steering: sum("jumpgate_xdp_map_entries"),
            files: 0.0,
        }
    }

    /// Mean of each time since then, in microseconds; NaN of what did not happen.
    fn means_since(&self, before: &Self) -> [f64; TIMES.len()] {
        std::array::from_fn(|index| {
            let ((sum, count), (sum_before, count_before)) = (self.times[index], before.times[index]);
            (sum - sum_before) / (count - count_before) * 1e6
        })
    }
}

/// Judges the second half of a run of `clients` by the first.
pub(super) fn judge([start, middle, end]: [Moment; 3], clients: u32, findings: &mut Findings) {
    let (first, second) = (middle.means_since(&start), end.means_since(&middle));
    for (index, (name, _)) in TIMES.iter().enumerate() {
        findings.figure(format!("{name}_us_first_half"), first[index]);
        findings.figure(format!("{name}_us_second_half"), second[index]);
        findings.figure(format!("{name}_samples"), end.times[index].1 - start.times[index].1);
        let ratio = second[index] / first[index];
        let goal = format!("mean {name}, second half beside the first");
        findings.goals.push(Goal::at_most(&goal, ratio, FLAT_TIMES, "x"));
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

    /// After so many of each of the times, which took so many microseconds together.
    fn moment(count: u32, microseconds: u32, sessions: u32) -> Moment {
        let times = TIMES.map(|(_, family)| format!("{family}_sum {}e-6\n{family}_count {count}\n", microseconds));
        let page = format!(
            "{}jumpgate_sessions{{state=\"ATTACHED\",worker=\"0\"}} {sessions}\n\
             jumpgate_sessions{{state=\"VOLATILE\",worker=\"0\"}} 1\njumpgate_sessions_created_total 99\n\
             jumpgate_xdp_map_entries{{map=\"pool\"}} 100\n",
            times.concat()
        );
        Moment { files: 20.0, ..Moment::read(&Readings::parse(&page).unwrap()) }
    }

    fn missed(moments: [Moment; 3]) -> Vec<String> {
        let mut findings = Findings::default();
        judge(moments, 10, &mut findings);
        findings.goals.iter().filter(|goal| !goal.is_met()).map(|goal| goal.name.clone()).collect()
    }

    #[test]
    fn s01_s05_the_second_half_is_judged_by_the_first_and_not_by_what_was_before() {
        let (start, middle, end) = (moment(100, 9_000, 9), moment(200, 9_100, 9), moment(300, 9_200, 9));
        assert_eq!(missed([start, middle, end]), [""; 0]);
        let slower = missed([start, middle, moment(300, 9_251, 9)]);
        assert_eq!(slower, TIMES.map(|(name, _)| format!("mean {name}, second half beside the first")));
        assert_eq!(missed([start, middle, moment(300, 9_200, 10)]), ["sessions at the gateway at the end"]);
        let more_files = Moment { files: 21.0, ..end };
        assert_eq!(missed([start, middle, more_files]), ["growth of open files in the second half"]);
        let more_entries = Moment { steering: 106.0, ..end };
        assert_eq!(missed([start, middle, more_entries]), ["growth of the steering maps in the second half"]);
    }

    #[test]
    fn a_time_that_was_not_measured_is_not_called_flat() {
        let (start, middle) = (moment(100, 9_000, 9), moment(200, 9_100, 9));
        assert_eq!(missed([start, middle, middle]).len(), TIMES.len());
    }
}
