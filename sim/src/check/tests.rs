//! Every safety counter rises when its rule is broken: checkers that cannot fail would prove nothing.

use jumpgate_protocol::ident::{TransportId, Tuple};
use jumpgate_protocol::machine::{Binding, State};
use jumpgate_protocol::policy::Profile;

use super::*;

const SESSION: Locator = Locator(0x0123_4567_89ab_cdef);
const CLIENT: PublicKey = PublicKey([7; 32]);

fn ms(millis: u64) -> Time {
    Time::from_millis(millis)
}

fn peer(port: u16) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, 7], port))
}

fn binding(epoch: u64, port: u16, at: Time) -> Binding {
    let tuple = Tuple { local: SocketAddr::from(([192, 0, 2, 1], 51_900)), peer: peer(port) };
    Binding { tuple, transport: TransportId(1), epoch, validated: true, committed_at: at }
}

fn packet(kind: MessageType, from: SocketAddr) -> Incoming {
    Incoming { kind: Some(kind), from, locator: SESSION, counter: 9, tag: 1, bytes: 90, forged: false, replay: false }
}

/// A transition as its row of the table has it.
fn transition(id: TransitionId, from: State, version: u64, active: Option<Binding>, at: Time) -> Transition {
    let row = id.row();
    Transition {
        id,
        from,
        to: row.to.unwrap_or(from),
        reason: row.reasons[0],
        detail: None,
        evidence: None,
        version,
        epoch: active.map_or(1, |binding| binding.epoch),
        at,
        retired: None,
        active,
    }
}

/// A checker that has seen a session begin at port 1, and found nothing.
fn attached() -> Checker {
    let mut checker = Checker::new(&Policy::profile(Profile::Default));
    checker.begin(Work::Datagram(packet(MessageType::HelloConfirm, peer(1))));
    checker.created(SESSION, CLIENT, 0, ms(1_000));
    let begin = transition(TransitionId::T01, State::Birth, 1, Some(binding(1, 1, ms(1_000))), ms(1_000));
    checker.transition(SESSION, CLIENT, 0, &begin);
    checker.end(&packet(MessageType::HelloConfirm, peer(1)), Ok(()), ms(1_000));
    assert_eq!(checker.violations(), &[] as &[String]);
    checker
}

/// A request from there is granted: the chain of SM-08, from version 1.
fn move_by(checker: &mut Checker, packet: &Incoming, at: Time) {
    let old = Some(binding(1, 1, ms(1_000)));
    checker.begin(Work::Datagram(*packet));
    checker.transition(SESSION, CLIENT, 0, &transition(TransitionId::T06, State::Attached, 2, old, at));
    checker.transition(SESSION, CLIENT, 0, &transition(TransitionId::T08b, State::Volatile, 3, old, at));
    let new = Some(binding(2, packet.from.port(), at));
    checker.transition(SESSION, CLIENT, 0, &transition(TransitionId::T11, State::Recovering, 4, new, at));
    checker.end(packet, Ok(()), at);
}

fn raised(checker: &Checker) -> Vec<&'static str> {
    let some = Safety::ALL.iter().filter(|kind| checker.safety().value(**kind) > 0);
    some.map(|kind| kind.name()).collect()
}

#[test]
fn a_move_by_the_rules_raises_nothing() {
    let mut checker = attached();
    move_by(&mut checker, &packet(MessageType::ReattachRequest, peer(2)), ms(2_000));
    assert_eq!(raised(&checker), [] as [&str; 0], "{:?}", checker.violations());
    assert_eq!((checker.transitions(), checker.commits()), (4, 1));
}

#[test]
fn inv26_a_binding_that_data_or_a_stranger_makes_is_found() {
    for (kind, forged, replay, from) in [
        (MessageType::Data, false, false, 2),
        (MessageType::PathProbe, false, false, 2),
        (MessageType::ReattachRequest, true, false, 2),
        (MessageType::ReattachRequest, false, true, 2),
    ] {
        let mut checker = attached();
        move_by(&mut checker, &Incoming { forged, replay, ..packet(kind, peer(from)) }, ms(2_000));
        assert!(checker.safety().value(Safety::UnboundAccepted) > 0, "{kind}");
    }
}

#[test]
fn inv02_a_state_that_hides_its_binding_is_found() {
    let mut checker = attached();
    let without = transition(TransitionId::T03, State::Attached, 2, None, ms(3_100));
    checker.transition(SESSION, CLIENT, 0, &without);
    assert!(raised(&checker).contains(&"dual_binding"), "{:?}", checker.violations());
}

#[test]
fn inv05_a_version_that_is_skipped_repeated_or_lowered_is_found() {
    for version in [0, 1, 3] {
        let mut checker = attached();
        let at = ms(3_001);
        let active = Some(binding(1, 1, ms(1_000)));
        let mut step = transition(TransitionId::T05, State::Attached, version, active, at);
        step.epoch = 1;
        checker.transition(SESSION, CLIENT, 0, &step);
        assert_eq!(raised(&checker), ["version_regression"], "{version}: {:?}", checker.violations());
    }
}

#[test]
fn inv10_whatever_happens_after_the_end_is_found() {
    let mut checker = attached();
    let mut end = transition(TransitionId::T19, State::Attached, 2, None, ms(2_000));
    end.retired = Some(binding(1, 1, ms(1_000)));
    checker.begin(Work::Operator);
    checker.transition(SESSION, CLIENT, 0, &end);
    assert_eq!(raised(&checker), [] as [&str; 0]);
    checker.begin(Work::Timer);
    checker.transition(SESSION, CLIENT, 0, &transition(TransitionId::T17, State::Attached, 3, None, ms(2_100)));
    assert_eq!(raised(&checker), ["post_end_activity"]);
    // The same name again is no new session (INV-03).
    checker.created(SESSION, CLIENT, 0, ms(2_200));
    assert_eq!(raised(&checker), ["silent_reset", "post_end_activity"]);
}

#[test]
fn inv12_a_copy_that_is_taken_is_found() {
    for kind in [MessageType::Data, MessageType::Heartbeat, MessageType::PathProbe] {
        let mut checker = attached();
        let copy = Incoming { replay: true, ..packet(kind, peer(1)) };
        checker.begin(Work::Datagram(copy));
        checker.end(&copy, Ok(()), ms(1_100));
        assert_eq!(raised(&checker), ["replay_accepted"], "{kind}");
    }
}

#[test]
fn inv13_a_chain_that_stops_half_way_is_found() {
    let mut checker = attached();
    let request = packet(MessageType::ReattachRequest, peer(2));
    checker.begin(Work::Datagram(request));
    let old = Some(binding(1, 1, ms(1_000)));
    checker.transition(SESSION, CLIENT, 0, &transition(TransitionId::T06, State::Attached, 2, old, ms(1_500)));
    checker.end(&request, Err(Reason::AtomicityFailed), ms(1_500));
    assert!(raised(&checker).contains(&"dual_binding"), "{:?}", checker.violations());
}

/// A checker that has seen a session move once, at 2 s, and follows the mirror of its client, which has nothing bound now.
fn moved_and_lost() -> Checker {
    let mut checker = attached();
    move_by(&mut checker, &packet(MessageType::ReattachRequest, peer(2)), ms(2_000));
    checker.connected(0, SESSION, ms(1_000), ms(1_000));
    let bound = Some(binding(1, 1, ms(1_000)));
    checker.mirrored(0, &transition(TransitionId::T01, State::Birth, 1, bound, ms(1_000)), ms(1_000));
    checker.mirrored(0, &transition(TransitionId::T04, State::Attached, 2, None, ms(2_300)), ms(2_300));
    assert_eq!(raised(&checker), [] as [&str; 0], "{:?}", checker.violations());
    checker
}

/// The request with that nonce is granted at 2.5 s, half a second after the last commit.
fn grant_in_cooldown(checker: &mut Checker, counter: u64) {
    let (request, at) = (Incoming { counter, ..packet(MessageType::ReattachRequest, peer(3)) }, ms(2_500));
    let bound = Some(binding(2, 2, ms(2_000)));
    checker.begin(Work::Datagram(request));
    checker.transition(SESSION, CLIENT, 0, &transition(TransitionId::T06, State::Attached, 5, bound, at));
    checker.transition(SESSION, CLIENT, 0, &transition(TransitionId::T08b, State::Volatile, 6, bound, at));
    let third = Some(binding(3, 3, at));
    checker.transition(SESSION, CLIENT, 0, &transition(TransitionId::T11, State::Recovering, 7, third, at));
    checker.end(&request, Ok(()), at);
}

#[test]
fn inv15_a_commit_inside_the_cooldown_is_found_unless_it_is_exempt() {
    for (asked, expected) in [(10, &[] as &[&str]), (11, &["switch_limit_exceeded"])] {
        let mut checker = moved_and_lost();
        checker.asked(0, SESSION, asked);
        grant_in_cooldown(&mut checker, 10);
        assert_eq!(raised(&checker), expected, "{:?}", checker.violations());
    }
}

#[test]
fn inv15_an_exempt_request_stays_exempt_while_later_ones_overtake_it() {
    let mut checker = moved_and_lost();
    checker.asked(0, SESSION, 10);
    checker.asked(0, SESSION, 11);
    grant_in_cooldown(&mut checker, 10);
    assert_eq!(raised(&checker), [] as [&str; 0], "{:?}", checker.violations());
}

#[test]
fn inv15_a_copy_is_not_exempt_because_its_client_lost_its_path_after_the_first() {
    let mut checker = attached();
    move_by(&mut checker, &packet(MessageType::ReattachRequest, peer(2)), ms(2_000));
    checker.connected(0, SESSION, ms(1_000), ms(1_000));
    let bound = Some(binding(1, 1, ms(1_000)));
    checker.mirrored(0, &transition(TransitionId::T01, State::Birth, 1, bound, ms(1_000)), ms(1_000));
    checker.asked(0, SESSION, 10);
    checker.mirrored(0, &transition(TransitionId::T04, State::Attached, 2, None, ms(2_300)), ms(2_300));
    checker.asked(0, SESSION, 10);
    grant_in_cooldown(&mut checker, 10);
    assert_eq!(raised(&checker), ["switch_limit_exceeded"], "{:?}", checker.violations());
}

#[test]
fn inv20_a_session_at_two_workers_is_found() {
    let mut checker = attached();
    let active = Some(binding(1, 1, ms(1_000)));
    checker.transition(SESSION, CLIENT, 1, &transition(TransitionId::T05, State::Attached, 2, active, ms(1_500)));
    assert_eq!(raised(&checker), ["ambiguous_owner"]);
}

#[test]
fn inv27_a_packet_that_moves_another_session_is_found() {
    let mut checker = attached();
    let other = Incoming { locator: Locator(5), ..packet(MessageType::Heartbeat, peer(9)) };
    checker.begin(Work::Datagram(other));
    let active = Some(binding(1, 1, ms(1_000)));
    checker.transition(SESSION, CLIENT, 0, &transition(TransitionId::T05, State::Attached, 2, active, ms(1_500)));
    assert!(raised(&checker).contains(&"cross_session_effect"), "{:?}", checker.violations());
}

#[test]
fn inv27_data_by_an_address_that_is_not_the_sessions_own_is_found() {
    let stranger = PublicKey([77; 32]);
    for (whose, expected) in [(Some(&CLIENT), vec![]), (Some(&stranger), vec!["cross_session_effect"])] {
        let mut checker = attached();
        checker.data_accepted(SESSION, peer(1), whose, ms(1_500));
        assert_eq!(raised(&checker), expected);
    }
    let mut checker = attached();
    checker.data_accepted(SESSION, peer(1), None, ms(1_500));
    assert_eq!(raised(&checker), ["cross_session_effect"], "nobody was told that address with it");
}

#[test]
fn inv28_a_session_that_is_lost_in_silence_is_found() {
    let mut checker = attached();
    checker.audit(&[], 0, ms(1_100));
    assert_eq!(raised(&checker), ["silent_reset"]);
}

#[test]
fn inv19_a_path_that_is_given_up_although_it_was_heard_is_found() {
    let mut checker = attached();
    let beat = packet(MessageType::Heartbeat, peer(1));
    checker.begin(Work::Datagram(beat));
    checker.end(&beat, Ok(()), ms(2_900));
    let mut early = transition(TransitionId::T03, State::Attached, 2, Some(binding(1, 1, ms(1_000))), ms(3_100));
    early.reason = Reason::HeartbeatTimeout;
    checker.transition(SESSION, CLIENT, 0, &early);
    assert_eq!(raised(&checker), ["other"], "{:?}", checker.violations());
}

#[test]
fn tb01_a_silence_that_nobody_notices_is_found() {
    let mut checker = attached();
    let late = transition(TransitionId::T05, State::Attached, 2, Some(binding(1, 1, ms(1_000))), ms(3_020));
    checker.transition(SESSION, CLIENT, 0, &late);
    assert_eq!(raised(&checker), ["unbounded_recovery"], "{:?}", checker.violations());
}

#[test]
fn inv36_two_packets_under_one_nonce_are_found_and_copies_are_not() {
    use crate::oracle::{NonceOracle, Sealer};
    let mut oracle = NonceOracle::default();
    let sealed = |counter: u64, last: u8| {
        let mut packet = vec![0; 90];
        let kind = MessageType::ReattachRequest;
        Header { kind, flags: 0, key_epoch: 0, tag: 0, locator: SESSION, counter }.emit(&mut packet);
        packet[89] = last;
        packet
    };
    assert_eq!(oracle.sealed(Sealer::Client, &sealed(1, 0)), None);
    assert_eq!(oracle.sealed(Sealer::Client, &sealed(2, 0)), None);
    assert_eq!(oracle.sealed(Sealer::Client, &sealed(1, 0)), None, "a copy");
    assert_eq!(oracle.sealed(Sealer::Gateway, &sealed(1, 9)), None, "the other direction has other keys");
    assert!(oracle.sealed(Sealer::Client, &sealed(2, 1)).is_some());
    assert_eq!(oracle.count(), 3);
}
