//! The state of a sink as people read it: `jumpgate audit status`, `jump audit status`.

use std::fmt::Write as _;

use comfy_table::{ContentArrangement, Table, presets};

use super::StatusView;
use crate::timeline::utc;

impl StatusView {
    /// As a table; `control` is what the thread is called that is no worker.
    pub fn show(&self, control: &str) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "directory  {}", self.directory.display());
        let _ = writeln!(text, "head       {}", self.head.as_deref().unwrap_or("none yet"));
        let _ = writeln!(text, "records    {}, lost {} in {} gaps", self.records, self.lost, self.gaps);
        match (&self.problem, self.impaired_since_ms) {
            (Some(problem), Some(since)) => {
                let _ = writeln!(text, "state      IMPAIRED since {} UTC: {problem}", utc(since));
            }
            _ => text.push_str("state      well\n"),
        }
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled).set_header([
            "RING",
            "WAITING A S T",
            "HIGH WATER A S T",
            "LOST A S T",
        ]);
        for ring in &self.rings {
            let name = ring.worker.map_or_else(|| control.to_owned(), |worker| format!("worker {worker}"));
            let three = |numbers: [u64; 3]| numbers.map(|number| number.to_string()).join(" ");
            let (waiting, high) = (ring.waiting.map(|count| count as u64), ring.high_water.map(|count| count as u64));
            table.add_row([name, three(waiting), three(high), three(ring.lost)]);
        }
        let _ = writeln!(text, "\n{table}");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::RingView;

    #[test]
    fn ob10_a_status_says_where_the_trace_is_its_head_and_what_is_wrong_with_it() {
        let mut status = StatusView {
            directory: "/var/log/jumpgate/audit/00".into(),
            head: None,
            records: 42,
            gaps: 1,
            lost: 7,
            errors: Vec::new(),
            problem: None,
            impaired_since_ms: None,
            rings: vec![
                RingView { worker: Some(3), waiting: [5, 0, 0], high_water: [9, 0, 0], lost: [7, 0, 0] },
                RingView { worker: None, waiting: [0; 3], high_water: [1, 0, 0], lost: [0; 3] },
            ],
        };
        let text = status.show("slow path");
        assert!(text.contains("none yet") && text.contains("42, lost 7 in 1 gaps") && text.contains("well"), "{text}");
        assert!(text.contains("worker 3") && text.contains("slow path"), "{text}");
        status.head = Some("41:c0ffee".to_owned());
        (status.problem, status.impaired_since_ms) = (Some("write: no space".to_owned()), Some(0));
        let text = status.show("slow path");
        assert!(text.contains("41:c0ffee") && text.contains("IMPAIRED since 1970-01-01"), "{text}");
    }
}
