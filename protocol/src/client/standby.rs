//! Which paths are held as standby: probed, so that they are ready when one is needed (SP-1). Not more of them than the
//! gateway keeps, and the same ones for the same table.

use super::core::Shared;
use super::live::Live;
use super::path::Path;
use crate::ident::TransportId;
use crate::policy::Policy;
use crate::time::Time;
use crate::wire::PathProbe;

/// What is due for a path that could be probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    /// It is held: a probe, and the next one after `probe_interval_ms`.
    Probe,
    /// It has gone silent and others wait for its place: a probe once in `candidate_ttl_ms`, so that its return is seen.
    Look,
    /// There is no place for it.
    Wait,
}

impl Live {
    /// Probes the standby paths that are due.
    pub(super) fn probe(&mut self, shared: &mut Shared, now: Time) {
        let (interval, ttl) = (self.policy.transport.probe_interval, self.policy.transport.candidate_ttl);
        for index in 0..shared.paths.len() {
            let path = &shared.paths[index];
            if !path.up || now < path.next_probe || !self.is_probed(path.id) {
                continue;
            }
            let due = due(path, &shared.paths, self.active_path(), &self.policy, now);
            let path = &mut shared.paths[index];
            path.validated &= path.seen_within(ttl, now);
            path.next_probe = now + if due == Due::Look { ttl } else { interval };
            if due == Due::Wait {
                continue;
            }
            let (id, token) = (path.id, path.token);
            let body = PathProbe { transport_id: id, client_time_ms: self.session_ms(now), token };
            let packet = self.seal_query(&body);
            shared.paths[index].probed(self.control_sent, now);
            shared.send(id, &packet);
        }
    }

    /// Not the path in use, and not one that a request to move is under way on: that becomes the path in use, or fails and
    /// is probed then. When many clients lose a path at once, their gateway has one message of each to look at.
    pub(super) fn is_probed(&self, id: TransportId) -> bool {
        self.active_path() != Some(id) && self.attempt.as_ref().is_none_or(|attempt| attempt.path != id)
    }
}

/// Places go to paths that answer, or were not asked for long enough to tell; among them by priority, then by number.
fn due(path: &Path, paths: &[Path], active: Option<TransportId>, policy: &Policy, now: Time) -> Due {
    let ttl = policy.transport.candidate_ttl;
    let key = |path: &Path| (path.is_stale(ttl, now), path.preference(policy), path.id.0);
    let others = paths.iter().filter(|other| other.up && active != Some(other.id));
    let before = others.filter(|other| key(other) < key(path)).count();
    if before < policy.transport.max_candidate_count as usize {
        Due::Probe
    } else if path.is_stale(ttl, now) {
        Due::Look
    } else {
        Due::Wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::PathInfo;
    use crate::policy::{Profile, TransportClass};
    use crate::time::Span;

    fn path(id: u16, priority: u8) -> Path {
        let class = TransportClass::Other;
        let info = PathInfo { gateway: "192.0.2.1:51900".parse().unwrap(), class, priority };
        Path::new(TransportId(id), info, Time::ZERO)
    }

    fn held(paths: &[Path], now: Time) -> Vec<(u16, Due)> {
        let policy = Policy::profile(Profile::Default);
        let active = Some(TransportId(1));
        let standby = paths.iter().filter(|path| active != Some(path.id));
        standby.map(|path| (path.id.0, due(path, paths, active, &policy, now))).collect()
    }

    #[test]
    fn p09_of_too_many_paths_the_preferred_ones_are_held_and_then_those_with_the_lowest_numbers() {
        let mut paths: Vec<Path> = [(1, 1), (6, 50), (5, 50), (4, 50), (3, 50), (2, 90), (7, 10)]
            .into_iter()
            .map(|(id, priority)| path(id, priority))
            .collect();
        let expected =
            [(6, Due::Wait), (5, Due::Wait), (4, Due::Probe), (3, Due::Probe), (2, Due::Wait), (7, Due::Probe)];
        assert_eq!(held(&paths, Time::ZERO), expected);
        paths.reverse();
        let mut reversed = held(&paths, Time::ZERO);
        reversed.reverse();
        assert_eq!(reversed, expected, "whatever their order in the table");
    }

    #[test]
    fn p09_a_silent_path_gives_its_place_to_one_that_waits_and_takes_it_back_when_it_answers() {
        let mut paths: Vec<Path> = (1..=5).map(|id| path(id, 50)).collect();
        let start = Time::from_millis(1_000);
        paths[1].probed(7, start);
        let before = start + Span::from_millis(14_999);
        assert_eq!(held(&paths, before)[0], (2, Due::Probe));
        assert_eq!(held(&paths, before)[3], (5, Due::Wait));
        let after = start + Span::from_millis(15_000);
        assert_eq!(held(&paths, after)[0], (2, Due::Look));
        assert_eq!(held(&paths, after)[3], (5, Due::Probe));
        paths[1].answered(7, after).unwrap();
        assert_eq!(held(&paths, after)[0], (2, Due::Probe));
        assert_eq!(held(&paths, after)[3], (5, Due::Wait));
    }

    #[test]
    fn a_silent_path_keeps_its_place_where_nobody_waits_for_it() {
        let mut paths: Vec<Path> = (1..=4).map(|id| path(id, 50)).collect();
        paths[2].probed(7, Time::ZERO);
        assert_eq!(held(&paths, Time::from_millis(60_000))[1], (3, Due::Probe));
    }

    #[test]
    fn a_path_that_is_down_takes_no_place() {
        let mut paths: Vec<Path> = (1..=5).map(|id| path(id, 50)).collect();
        paths[1].up = false;
        assert_eq!(held(&paths, Time::ZERO)[3], (5, Due::Probe));
    }
}
