//! A slot that goes from shard to shard, with the keys of its client at hand.

use std::net::IpAddr;
use std::sync::Arc;

use arrayvec::ArrayVec;
use hashbrown::HashMap;

use super::*;
use crate::audit::Event;
use crate::crypto::DefaultAead;
use crate::entropy::SeededEntropy;
use crate::handshake::{Answer, HelloRequest, Initiator, StaticSecret};
use crate::ident::{Arrival, Locator, Slot, Tuple};
use crate::keys::{EpochKeys, KeyLimits, Side};
use crate::machine::{State, TransitionId};
use crate::policy::{Policy, Profile, Rate};
use crate::reason::Reason;
use crate::time::Time;
use crate::wire::{
    self, Body, Cause, DATA_OVERHEAD, HEADER_LEN, Header, HelloConfirm, MessageType, ReattachRequest, UDP,
};

const AT: fn(u64) -> Time = Time::from_millis;
const TITLE: Title = Title { fencing_epoch: 2, previous_worker: 0 };
/// The inner address of the first client.
const CLIENT: u32 = FIRST_CLIENT_INDEX;

/// Two workers, of which the first owns everything.
struct Stage {
    desk: HandshakeDesk,
    shards: [Shard; 2],
    gateway: StaticSecret,
    secret: StaticSecret,
    entropy: SeededEntropy,
}

/// A client by hand.
struct Guest {
    locator: Locator,
    keys: EpochKeys<DefaultAead>,
    hash: [u8; 32],
    inner: [u8; 4],
    control: u64,
    data: u64,
}

fn stage() -> Stage {
    let mut entropy = SeededEntropy::new(1);
    let (gateway, secret) = (StaticSecret::generate(&mut entropy), StaticSecret::generate(&mut entropy));
    let pool = AddressPool::new(Some([10, 0, 0, 0].into()), None, CLIENT + 2);
    let config = DeskConfig {
        secret: gateway.clone(),
        clients: HashMap::from_iter([(secret.public(), ClientEntry::default())]),
        policy: Arc::new(Policy::profile(Profile::Default)),
        pool,
        prefixes: (24, 0),
        mtu: 1_400,
        endpoints: ArrayVec::new(),
    };
    let desk = HandshakeDesk::new(config, Box::new(SeededEntropy::new(2)), Time::ZERO);
    let shards = [3, 4].map(|seed| {
        let config = ShardConfig { pool, reset_key: desk.reset_key(), resets: Rate::even(10) };
        let mut shard = Shard::new(config, Box::new(SeededEntropy::new(seed)), Time::ZERO);
        shard.keep_records(Time::ZERO, desk.disclosure());
        shard
    });
    let mut stage = Stage { desk, shards, gateway, secret, entropy };
    stage.shards[1].keep_slots(|_| false);
    stage
}

fn arrival() -> Arrival {
    let address = |ip: [u8; 4], port| (IpAddr::from(ip), port).into();
    let tuple = Tuple { local: address([192, 0, 2, 1], 51_900), peer: address([198, 51, 100, 7], 4_000) };
    Arrival { tuple, route: 5, queue: 0 }
}

impl Stage {
    /// A handshake up to HELLO_ACK: the first worker has the session, in BIRTH.
    fn hello(&mut self, now: Time, hello_counter: u64, replaces: Option<Locator>) -> Guest {
        let request = HelloRequest {
            hello_counter,
            client_time_ms: now.as_millis(),
            replaces,
            capabilities: 0,
            requested_policy: Default::default(),
        };
        let public = self.gateway.public();
        let mut initiator =
            Initiator::new(&self.secret, &public, None, &request, &mut self.entropy).expect("an initiator");
        let outcome = self.desk.hello(now, &arrival(), initiator.packet());
        self.shards[0].birth(now, outcome.birth.expect("a session"));
        let Ok(Answer::Established(established)) = initiator.on_ack(&outcome.reply.expect("an answer")) else {
            panic!("the gateway means well")
        };
        let (locator, identity) = (established.reply.locator, established.reply.identity);
        let inner = established.reply.inner_v4.expect("an address").0.octets();
        let keys = EpochKeys::derive(&established.root, 0, &identity, Side::Client);
        Guest { locator, keys, hash: established.hash, inner, control: 0, data: 0 }
    }

    /// A session in ATTACHED at the first worker.
    fn attach(&mut self, now: Time) -> Guest {
        let mut guest = self.hello(now, 1, None);
        self.confirm(0, now, &mut guest);
        guest
    }

    fn confirm(&mut self, worker: usize, now: Time, guest: &mut Guest) {
        let confirm =
            HelloConfirm { binding_epoch: 1, handshake_hash: guest.hash, transport_id: crate::ident::TransportId(1) };
        let mut packet = guest.control(&confirm);
        self.shards[worker].control_in(now, &arrival(), &mut packet).expect("confirmed");
    }

    /// Moves the slot of a session from the first worker to the second.
    fn hand_over(&mut self, now: Time, slot: Slot) {
        let parcel = self.shards[0].release(now, slot).expect("it is its own");
        self.shards[1].adopt(now, parcel, TITLE, |_| None).expect("it is its own now");
    }

    fn transitions(&mut self, worker: usize) -> Vec<TransitionId> {
        let events = std::iter::from_fn(|| self.shards[worker].poll_event());
        events
            .filter_map(|event| match event.kind {
                EventKind::Transition(transition) => Some(transition.id),
                _ => None,
            })
            .collect()
    }
}

impl Guest {
    fn header(&self, counter: u64, tag: u8) -> Header {
        Header { kind: MessageType::Heartbeat, flags: 0, key_epoch: 0, tag, locator: self.locator, counter }
    }

    fn control<B: Body>(&mut self, body: &B) -> Vec<u8> {
        self.control += 1;
        wire::seal(&self.keys.control_seal, self.header(self.control, 0), body).to_vec()
    }

    fn request(&mut self, now: Time) -> Vec<u8> {
        self.control += 1;
        let body = ReattachRequest {
            binding_epoch: 1,
            client_time_ms: now.as_millis(),
            cause: Cause::Forced,
            transport_id: crate::ident::TransportId(2),
            protocol: UDP,
        };
        wire::seal(&self.keys.proof, self.header(self.control, 0), &body).to_vec()
    }

    fn data(&mut self) -> Vec<u8> {
        self.data += 1;
        let mut packet = vec![0; 24 + DATA_OVERHEAD];
        packet[HEADER_LEN] = 0x45;
        packet[HEADER_LEN + 3] = 24;
        packet[HEADER_LEN + 12..][..4].copy_from_slice(&self.inner);
        packet[HEADER_LEN + 16..][..4].copy_from_slice(&[10, 0, 0, 1]);
        let header = Header { kind: MessageType::Data, ..self.header(self.data, 1) };
        wire::seal_data(&self.keys.data_seal, &header, &mut packet);
        packet
    }
}

/// The counter of the packet that a shard seals for the first client, and its next hop.
fn send_down(shard: &mut Shard) -> Result<(u64, u32), Reason> {
    let mut packet = vec![0x45; 24 + DATA_OVERHEAD];
    let outbound = shard.data_out(CLIENT, &mut packet)?;
    Ok((Header::parse(&packet).expect("a header").counter, outbound.route))
}

#[test]
fn inv36_what_a_session_gives_account_of_is_true_and_goes_on_at_its_next_owner() {
    let mut stage = stage();
    let mut guest = stage.attach(AT(10));
    let born = std::iter::from_fn(|| stage.shards[0].poll_event()).last().and_then(|event| event.account);
    let zero = born.expect("of a session that there is");
    assert_eq!((zero.sealed, zero.opened, zero.highest, zero.received, zero.drains), (0, 0, 0, 0, false));
    stage.shards[0].data_in(AT(20), &arrival(), &mut guest.data()).expect("taken");
    assert_eq!(send_down(&mut stage.shards[0]), Ok((1, 5)));
    stage.hand_over(AT(30), guest.locator.slot());
    let _lost = guest.data();
    stage.shards[1].data_in(AT(40), &arrival(), &mut guest.data()).expect("taken");
    for counter in 2..4 {
        assert_eq!(send_down(&mut stage.shards[1]), Ok((counter, 5)));
    }
    assert!(stage.shards[1].terminate(AT(50), guest.locator, Reason::OperatorTerminated));
    let end = std::iter::from_fn(|| stage.shards[1].poll_event()).last().and_then(|event| event.account);
    assert_eq!(end, Some(Account { sealed: 3, opened: 2, highest: 3, received: 2, ..zero }));
}

#[test]
fn sl4_a_slot_leaves_with_its_session_whole_and_the_former_owner_can_do_nothing_for_it() {
    let mut stage = stage();
    let mut guest = stage.attach(AT(10));
    let slot = guest.locator.slot();
    stage.shards[0].data_in(AT(20), &arrival(), &mut guest.data()).expect("taken");
    assert_eq!(send_down(&mut stage.shards[0]), Ok((1, 5)));
    let before = format!("{:?}", stage.shards[0].view(AT(30), guest.locator).expect("there"));
    let parcel = stage.shards[0].release(AT(30), slot).expect("its own");
    assert_eq!(parcel.sessions().collect::<Vec<_>>(), [guest.locator]);
    // Nobody owns it: both refuse, in both directions, and no order reaches it.
    for shard in &mut stage.shards {
        assert_eq!(shard.data_in(AT(30), &arrival(), &mut guest.data()), Err(Reason::NotAuthoritativeOwner));
        assert_eq!(
            shard.control_in(AT(30), &arrival(), &mut guest.request(AT(30))),
            Err(Reason::NotAuthoritativeOwner)
        );
        assert!(send_down(shard).is_err());
        assert!(!shard.terminate(AT(30), guest.locator, Reason::OperatorTerminated));
        assert!(shard.is_empty() && !shard.owns(slot));
    }
    assert_eq!(send_down(&mut stage.shards[0]), Err(Reason::NotAuthoritativeOwner), "it knows whose it was");
    stage.shards[1].adopt(AT(30), parcel, TITLE, |_| None).expect("its own now");
    assert_eq!(format!("{:?}", stage.shards[1].view(AT(30), guest.locator).expect("there")), before, "INV-05, AR-2");
    assert_eq!(send_down(&mut stage.shards[1]), Ok((2, 5)), "INV-36: the counter goes on");
    stage.shards[1].data_in(AT(40), &arrival(), &mut guest.data()).expect("taken");
    assert!(stage.shards[0].data_in(AT(40), &arrival(), &mut guest.data()).is_err());
    assert!(stage.shards[0].next_timeout().is_none_or(|at| at > AT(40)), "it does not spin for what is gone");
}

#[test]
fn inv12_what_was_seen_before_a_hand_over_is_a_replay_after_it() {
    let mut stage = stage();
    let mut guest = stage.attach(AT(10));
    let (data, request) = (guest.data(), guest.request(AT(20)));
    stage.shards[0].data_in(AT(20), &arrival(), &mut data.clone()).expect("taken");
    stage.shards[0].control_in(AT(20), &arrival(), &mut request.clone()).expect("taken");
    stage.hand_over(AT(30), guest.locator.slot());
    let shard = &mut stage.shards[1];
    let epoch = shard.view(AT(30), guest.locator).expect("there").epoch;
    assert!(shard.data_in(AT(30), &arrival(), &mut data.clone()).is_err());
    let _cached = shard.control_in(AT(30), &arrival(), &mut request.clone());
    assert_eq!(shard.view(AT(30), guest.locator).expect("there").epoch, epoch, "INV-12: no second commit");
}

#[test]
fn rf3_a_request_for_a_slot_of_another_worker_gets_no_proof_that_the_session_is_gone() {
    let mut stage = stage();
    let mut guest = stage.attach(AT(10));
    let request = guest.request(AT(20));
    assert_eq!(
        stage.shards[1].control_in(AT(20), &arrival(), &mut request.clone()),
        Err(Reason::NotAuthoritativeOwner)
    );
    let reply = stage.shards[1].poll_reply().expect("RF-1: it looks as always");
    assert_eq!(reply.packet[0], MessageType::SessionReset as u8);
    let token = stage.desk.reset_key().token(guest.locator);
    assert!(!reply.packet.windows(token.len()).any(|bytes| bytes == token), "the session lives");
}

#[test]
fn ow12_a_title_that_is_not_above_every_earlier_one_is_fenced_and_the_parcel_comes_back_whole() {
    let mut stage = stage();
    let guest = stage.attach(AT(10));
    let slot = guest.locator.slot();
    stage.hand_over(AT(20), slot);
    let parcel = stage.shards[1].release(AT(30), slot).expect("its own");
    let stale = Title { fencing_epoch: 1, previous_worker: 1 };
    let parcel = stage.shards[0].adopt(AT(30), parcel, stale, |_| None).expect_err("INV-38: superseded");
    assert_eq!((stage.shards[0].len(), stage.shards[0].counters().value(Reason::Fenced)), (0, 1));
    let fresh = Title { fencing_epoch: 3, previous_worker: 1 };
    stage.shards[0].adopt(AT(30), parcel, fresh, |_| None).expect("its own again");
    assert_eq!(stage.shards[0].view(AT(30), guest.locator).expect("there").state, State::Attached);
    assert!(send_down(&mut stage.shards[0]).is_ok(), "its address came back with it");
    // A slot that it has cannot come a second time.
    stage.shards[1].keep_slots(|_| false);
    let mut other = self::stage();
    let empty = other.shards[0].release(AT(30), slot).expect("its own");
    assert!(stage.shards[0].adopt(AT(30), empty, Title { fencing_epoch: 9, ..fresh }, |_| None).is_err());
}

#[test]
fn ob07_the_record_of_the_hand_over_is_younger_than_all_that_the_former_worker_wrote() {
    let mut stage = stage();
    let guest = stage.attach(AT(10));
    stage.hand_over(AT(10), guest.locator.slot());
    let [former, new] = &mut stage.shards;
    let last = std::iter::from_fn(|| former.poll_record()).last().expect("records");
    let first = new.poll_record().expect("a record");
    assert!(first.at > last.at, "they are put in the order of their time");
    assert_eq!(first.reason, Some(Reason::OwnershipTransferred));
    assert_eq!(first.standing(), last.standing(), "no other version, no other epoch");
    let Event::SessionOwnerTransferred { fencing_epoch: 2, previous_worker: Some(0), .. } = first.event else {
        panic!("{first:?}")
    };
}

#[test]
fn sl4_timers_go_with_their_session() {
    let mut stage = stage();
    let guest = stage.hello(AT(10), 1, None);
    stage.hand_over(AT(20), guest.locator.slot());
    let due = stage.shards[1].next_timeout().expect("a handshake does not wait for ever");
    stage.shards[0].timeout(due);
    assert_eq!(stage.transitions(0), []);
    stage.shards[1].timeout(due + crate::time::Span::from_millis(10));
    assert_eq!(stage.transitions(1), [TransitionId::T02]);
    assert!(stage.shards[1].is_empty());
}

#[test]
fn ky6_a_session_whose_keys_are_used_up_ends_at_once_wherever_it_is() {
    let mut stage = stage();
    stage.shards[0].lower_key_limits(KeyLimits { packets: 3, ..KeyLimits::SUITE_1 });
    let guest = stage.attach(AT(10));
    while send_down(&mut stage.shards[0]).is_ok() {}
    stage.hand_over(AT(20), guest.locator.slot());
    stage.shards[1].timeout(AT(20));
    assert_eq!(stage.transitions(1), [TransitionId::T25]);
}

#[test]
fn sl4_a_next_hop_that_changed_on_the_way_is_the_one_that_the_new_worker_knows() {
    let mut stage = stage();
    let guest = stage.attach(AT(10));
    let peer = arrival().tuple.peer.ip();
    let parcel = stage.shards[0].release(AT(20), guest.locator.slot()).expect("its own");
    stage.shards[1].adopt(AT(20), parcel, TITLE, |of| (of == peer).then_some(8)).expect("its own now");
    assert_eq!(send_down(&mut stage.shards[1]), Ok((1, 8)));
    stage.shards[1].set_route(peer, 9);
    assert_eq!(send_down(&mut stage.shards[1]), Ok((2, 9)), "it hears of later ones");
}

#[test]
fn hs8_the_address_stays_with_the_younger_session_in_whichever_order_the_two_arrive() {
    for old_first in [true, false] {
        let mut stage = stage();
        let old = stage.attach(AT(10));
        let mut new = stage.hello(AT(1_000), 2, Some(old.locator));
        stage.confirm(0, AT(1_010), &mut new);
        assert_ne!(old.locator.slot(), new.locator.slot());
        let order = if old_first { [&old, &new] } else { [&new, &old] };
        for guest in order {
            stage.hand_over(AT(1_020), guest.locator.slot());
        }
        let mut packet = vec![0x45; 24 + DATA_OVERHEAD];
        stage.shards[1].data_out(CLIENT, &mut packet).expect("somebody has it");
        assert_eq!(Header::parse(&packet).expect("a header").locator, new.locator, "old first: {old_first}");
    }
}

#[test]
fn inv03_a_birth_in_a_slot_of_another_worker_is_refused_and_told() {
    let mut stage = stage();
    stage.shards[0].keep_slots(|_| false);
    let guest = stage.hello(AT(10), 1, None);
    let event = stage.shards[0].poll_event().expect("told");
    assert!(matches!(event.kind, EventKind::BirthRefused { reason: Reason::InvariantViolation }), "{event:?}");
    assert_eq!((event.locator, stage.shards[0].len()), (guest.locator, 0));
}

#[test]
fn a_slot_that_is_not_here_cannot_be_given_away() {
    let mut stage = stage();
    let slot = Slot::new(7).expect("slot");
    assert!(stage.shards[0].release(AT(0), slot).is_some_and(|parcel| parcel.sessions().next().is_none()));
    assert!(stage.shards[0].release(AT(0), slot).is_none());
    assert!(stage.shards[1].release(AT(0), slot).is_none());
}
