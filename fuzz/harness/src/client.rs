//! The client against a gateway that holds the keys of its session and means harm, and against everybody who does not.

use std::collections::VecDeque;

use jumpgate_protocol::client::{Client, ClientConfig, ClientEvent, ClientStatus, PathInfo, Transmit};
use jumpgate_protocol::handshake::{HelloReply, Responder, StaticSecret};
use jumpgate_protocol::ident::{Locator, PublicKey, TransportId};
use jumpgate_protocol::keys::{EphemeralSecret, Side};
use jumpgate_protocol::machine::Evidence;
use jumpgate_protocol::policy::{Policy, Profile, TransportClass};
use jumpgate_protocol::reason::Reason;
use jumpgate_protocol::time::{Span, Time};
use jumpgate_protocol::wire::{
    self, Body, DATA_OVERHEAD, Header, HeartbeatAck, HelloRetry, MessageType, PathProbe, PathProbeAck, PolicySnapshot,
    PolicyUpdate, ReattachAck, ReattachHint, ReattachReject, RekeyAck, RekeyInit, RequestedPolicy, ReservedZero,
    SessionReset, Terminate,
};
use jumpgate_sim::{Checker, NonceOracle, ReplayOracle, Safety, Sealer, fingerprint};

use crate::gateway::{GATEWAY, reply};
use crate::script::Script;
use crate::seal::{Ring, counter, plaintext, seal};

/// Operations of one script.
const OPERATIONS_MAX: usize = 300;
/// Timers in a second of virtual time, over all paths. More is a timer that spins.
const TIMERS_A_SECOND: u64 = 400;
/// After so much silence a session has ended (L-2): TRANSPORT_DEAD and the longest `transport_lost_ttl_ms` that a
/// client can be given.
const SILENCE: Span = Span::from_millis(420_000);
/// Paths of the client.
const PATHS: u16 = 3;
/// Messages of the client that still wait for an answer.
const WAITING: usize = 32;
/// Packets that one packet or one timer may make: a copy of everything that can be outstanding.
const TRANSMITS_MAX: usize = 32;

/// What a request may be refused with; an operand beyond them grants it.
const REFUSALS: [Reason; 6] = [
    Reason::StaleStateVersion,
    Reason::CooldownActive,
    Reason::SwitchRateLimited,
    Reason::FreshnessInvalid,
    Reason::InvalidTransportCandidate,
    Reason::FutureStateVersion,
];

/// What a script can do.
pub(crate) mod operation {
    pub(crate) const COUNT: u8 = 13;
    pub(crate) const WAIT: u8 = 0;
    pub(crate) const ANSWER: u8 = 1;
    pub(crate) const TELL: u8 = 2;
    pub(crate) const DATA: u8 = 3;
    pub(crate) const RAW: u8 = 4;
    pub(crate) const REPLAY: u8 = 5;
    pub(crate) const SEND: u8 = 6;
    pub(crate) const PATH: u8 = 7;
    pub(crate) const MOVE: u8 = 8;
    pub(crate) const RESET: u8 = 9;
    pub(crate) const RETRY: u8 = 10;
    pub(crate) const CONNECT: u8 = 11;
    pub(crate) const CALM: u8 = 12;
}

/// Plays a script.
pub fn run(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let mut stage = Stage::new();
    stage.connect(&mut script);
    for _ in 0..OPERATIONS_MAX {
        let Some(code) = script.operation() else { break };
        stage.play(code % operation::COUNT, &mut script);
    }
    stage.fall_silent();
}

/// What the harness knows as the gateway of the session.
struct Session {
    locator: Locator,
    token: [u8; 16],
    ring: Ring,
    epoch: u64,
    control_sent: u64,
    data_sent: u64,
}

struct Stage {
    client: Client,
    now: Time,
    born: Time,
    responder: Responder,
    key: PublicKey,
    session: Option<Session>,
    /// What the client sent and was not answered yet.
    waiting: VecDeque<Transmit>,
    checker: Checker,
    nonces: NonceOracle,
    replays: ReplayOracle,
    told: Vec<(u16, Vec<u8>)>,
}

impl Stage {
    fn new() -> Self {
        let mut entropy = crate::entropy(11);
        let secret = StaticSecret::generate(&mut entropy);
        let own = StaticSecret::generate(&mut entropy);
        let key = own.public();
        let config = ClientConfig {
            secret: own,
            gateway: secret.public(),
            psk: None,
            requested_policy: RequestedPolicy::new(),
            hello_counter: 0,
            replaces: None,
        };
        let now = Time::from_millis(1_000);
        let mut client = Client::new(config, Box::new(crate::entropy(12)));
        for path in 1..=PATHS {
            client.path_up(now, TransportId(path), path_info(path));
        }
        Self {
            client,
            now,
            born: now,
            responder: Responder::new(secret),
            key,
            session: None,
            waiting: VecDeque::new(),
            checker: Checker::new(&Policy::profile(Profile::Default)),
            nonces: NonceOracle::default(),
            replays: ReplayOracle::default(),
            told: Vec::new(),
        }
    }

    fn play(&mut self, code: u8, script: &mut Script<'_>) {
        match code {
            operation::WAIT => self.wait(Span::from_millis(u64::from(script.word()))),
            operation::ANSWER => self.answer(script),
            operation::TELL => self.tell(script),
            operation::DATA => self.data(script),
            operation::RAW => {
                let (path, count) = (path_of(script.byte()), usize::from(script.word() % 1_300));
                let packet = script.bytes(count).to_vec();
                self.deliver(path, packet, false);
            }
            operation::REPLAY => self.replay(script),
            operation::SEND => {
                let mut packet = vec![0x45; usize::from(script.word() % 1_500)];
                if self.client.data_out(&mut packet).is_ok() {
                    assert!(packet.len() >= DATA_OVERHEAD);
                    if let Some(words) = self.nonces.sealed(Sealer::Client, &packet) {
                        self.checker.violated(self.now, Safety::NonceReuse, &words);
                    }
                }
            }
            operation::PATH => {
                let (choice, path) = (script.byte(), path_of(script.byte()));
                match choice % 4 {
                    0 => self.client.path_down(self.now, TransportId(path), Evidence::LinkDown),
                    1 => self.client.path_down(self.now, TransportId(path), Evidence::SocketClosed),
                    _ => self.client.path_up(self.now, TransportId(path), path_info(path)),
                }
                self.collect();
            }
            operation::MOVE => {
                let target = script.byte();
                let target = (target < 200).then(|| TransportId(path_of(target)));
                let _ = self.client.move_to(self.now, target);
                self.collect();
            }
            operation::RESET => self.reset(script),
            operation::RETRY => {
                let digest = self.waiting.back().map_or([0; 16], |hello| digest(&hello.packet));
                let retry = HelloRetry::new(digest, [script.byte(); 16]).to_bytes();
                self.deliver(path_of(script.byte()), retry.to_vec(), true);
            }
            operation::CONNECT => self.connect(script),
            operation::CALM => self.calm(Span::from_millis(u64::from(script.word()))),
            _ => unreachable!("the remainder is below the count"),
        }
    }

    /// A handshake, if there is no session. The reply may be defaced, and be authentic all the same.
    fn connect(&mut self, script: &mut Script<'_>) {
        if self.client.is_connected() {
            return;
        }
        self.client.connect(self.now);
        self.collect();
        let Some(at) = self.waiting.iter().rposition(|sent| is_hello(&sent.packet)) else { return };
        let Some(hello) = self.waiting.remove(at) else { return };
        let policy =
            Policy::profile([Profile::Default, Profile::Mobile, Profile::Fast][usize::from(script.byte() % 3)]);
        let snapshot = script.deface(policy.encode_snapshot());
        let reply = HelloReply {
            policy: snapshot.iter().copied().take(PolicySnapshot::new().capacity()).collect(),
            ..reply(&policy)
        };
        // Whatever may stand in its place must have been readable to be written.
        let defaced = script.deface(reply.to_bytes().to_vec());
        let reply = HelloReply::parse(&defaced).ok().and_then(Result::ok).unwrap_or(reply);
        let key = self.key;
        let known = |client: &PublicKey| if *client == key { Ok(None) } else { Err(Reason::PeerUnknown) };
        let view = self.responder.gate(&hello.packet).expect("the client writes what the gate admits");
        let opened = self.responder.open(&view, known).expect("the client writes what can be opened");
        let (ack, root, _) = opened.accept(&reply, &mut crate::entropy(13)).expect("an answer");
        let granted = Policy::decode_snapshot(&reply.policy).ok().filter(|_| reply.suite == 1);
        if let Some(policy) = granted.as_ref().filter(|_| !self.client.is_connected()) {
            // Another session: other keys, another policy.
            self.checker = Checker::new(policy);
            self.nonces = NonceOracle::default();
            self.replays = ReplayOracle::default();
        }
        self.deliver(hello.path.0, ack, true);
        assert_eq!(self.client.is_connected(), granted.is_some(), "INV-29: a session has a policy that was verified");
        self.session = granted.map(|_| Session {
            locator: reply.locator,
            token: reply.reset_token,
            ring: Ring::new(root, reply.identity, Side::Gateway),
            epoch: 1,
            control_sent: 0,
            data_sent: 0,
        });
        self.born = self.now;
    }

    /// An answer to something that the client asked: mostly an honest one, then defaced.
    fn answer(&mut self, script: &mut Script<'_>) {
        let (index, refusal) = (usize::from(script.byte()), REFUSALS.get(usize::from(script.byte())).copied());
        if self.waiting.is_empty() {
            return;
        }
        let Some(asked) = self.waiting.remove(index % self.waiting.len()) else { return };
        let Some((kind, honest)) = self.reply(&asked, refusal) else { return };
        let body = script.deface(honest);
        let path = match script.byte() {
            choice @ 200.. => path_of(choice),
            _ => asked.path.0,
        };
        self.say(path, kind, &body, script);
    }

    /// Something that the client did not ask.
    fn tell(&mut self, script: &mut Script<'_>) {
        let (choice, path) = (script.byte(), path_of(script.byte()));
        let epoch = self.session.as_ref().map_or(1, |session| session.epoch);
        let (kind, honest) = match choice % 8 {
            0 | 1 => {
                let (reason, same_path_ok) = (Reason::HeartbeatTimeout, choice & 1 == 0);
                let hint = ReattachHint { binding_epoch: epoch, reason, same_path_ok, deadline_ms: 4_000 };
                (MessageType::ReattachHint, plaintext(&hint))
            }
            2 => {
                let policy = Policy::profile(Profile::Fast);
                let snapshot = policy.encode_snapshot().into_iter().collect();
                let update =
                    PolicyUpdate { sequence: u32::from(script.byte()), hash: policy.hash(), mode: 0, snapshot };
                (MessageType::PolicyUpdate, plaintext(&update))
            }
            3 if choice > 240 => (MessageType::Terminate, plaintext(&Terminate { reason: Reason::OperatorTerminated })),
            _ => (MessageType::ALL[usize::from(choice) % MessageType::ALL.len()], vec![0; 51]),
        };
        let body = script.deface(honest);
        self.say(path, kind, &body, script);
    }

    /// Seals a message with keys and counter that the script chooses.
    fn say(&mut self, path: u16, kind: MessageType, body: &[u8], script: &mut Script<'_>) {
        let (counter_choice, key_choice) = (script.byte(), script.byte());
        let Some(session) = &mut self.session else { return };
        let counter = counter(counter_choice, session.control_sent);
        session.control_sent = session.control_sent.max(counter.min(u64::MAX - 1));
        let (keys, key_epoch) = session.ring.keys(key_choice == 201);
        let header = Header { kind, flags: 0, key_epoch, tag: 0, locator: session.locator, counter };
        let (packet, authentic) = match key_choice {
            0..=201 => (seal(&keys.control_seal, &header, body), true),
            202..=219 => (seal(&keys.control_open, &header, body), false),
            220..=229 => (seal(&keys.proof, &header, body), false),
            230..=239 => (seal(&keys.control_seal, &Header { locator: Locator(7), ..header }, body), false),
            240.. => (
                seal(
                    &keys.control_seal,
                    &Header { key_epoch: key_epoch.wrapping_add(key_choice - 238), ..header },
                    body,
                ),
                false,
            ),
        };
        self.deliver(path, packet, authentic);
    }

    /// What an honest gateway would answer: it agrees to everything, or refuses what can be refused.
    fn reply(&mut self, asked: &Transmit, refusal: Option<Reason>) -> Option<(MessageType, Vec<u8>)> {
        let gateway_time_ms = self.now.since(self.born).as_millis();
        let session = self.session.as_mut()?;
        let header = Header::parse(&asked.packet).ok()?;
        let echo = header.counter;
        let mut copy = asked.packet.clone();
        let keys = session.ring.named(header.key_epoch)?;
        let key = if header.kind == MessageType::ReattachRequest { &keys.proof } else { &keys.control_open };
        let body = wire::open(key, &header, &mut copy).ok()?;
        let observed = ([198, 51, 100, 7], 4_000 + asked.path.0).into();
        Some(match header.kind {
            MessageType::Heartbeat | MessageType::HelloConfirm => {
                let ack = HeartbeatAck {
                    echo,
                    binding_epoch: session.epoch,
                    gateway_time_ms,
                    sent: 0,
                    received: 0,
                    highest: 0,
                    state: 1,
                    flags: 0,
                };
                (MessageType::HeartbeatAck, plaintext(&ack))
            }
            MessageType::PathProbe => {
                let probe = PathProbe::parse(body).expect("the client writes what can be read");
                let flags = PathProbeAck::STORED | if probe.token == 0 { 0 } else { PathProbeAck::VALIDATED };
                let ack = PathProbeAck { echo, transport_id: probe.transport_id, observed, token: 77, flags };
                (MessageType::PathProbeAck, plaintext(&ack))
            }
            MessageType::ReattachRequest if refusal.is_some() => {
                let reject = ReattachReject {
                    nonce: echo,
                    reason: refusal?,
                    retry_after_ms: 100,
                    gateway_time_ms,
                    current: (refusal == Some(Reason::StaleStateVersion)).then_some((session.epoch, TransportId(1))),
                };
                (MessageType::ReattachReject, plaintext(&reject))
            }
            MessageType::RekeyInit if refusal.is_some() => {
                let (next_epoch, status) = (session.ring.epoch() + 1, Some((Reason::RekeyDenied, 1_000)));
                let ack = RekeyAck { echo, next_epoch, ephemeral: [0; 32], status };
                (MessageType::RekeyAck, plaintext(&ack))
            }
            MessageType::ReattachRequest => {
                session.epoch += 1;
                let ack = ReattachAck {
                    nonce: echo,
                    binding_epoch: session.epoch,
                    observed,
                    gateway_time_ms,
                    detail: 0,
                    flags: 0,
                    next_locator: ReservedZero,
                };
                (MessageType::ReattachAck, plaintext(&ack))
            }
            MessageType::RekeyInit => {
                let init = RekeyInit::parse(body).expect("the client writes what can be read");
                let secret = EphemeralSecret::generate(&mut crate::entropy(14));
                let (next_epoch, ephemeral) = (init.next_epoch, secret.public());
                let ack = RekeyAck { echo, next_epoch, ephemeral, status: None };
                let body = plaintext(&ack);
                let shared = secret.agree(&init.ephemeral).expect("the client's key is a key");
                let next = session.ring.root().next(&shared, &init, &ack);
                // The answer itself goes out under the keys that the client still has.
                session.ring.turn(next);
                (MessageType::RekeyAck, body)
            }
            _ => return None,
        })
    }

    fn data(&mut self, script: &mut Script<'_>) {
        let (path, choice, previous) = (path_of(script.byte()), script.byte(), script.byte() & 3 == 3);
        let length = usize::from(script.byte());
        let inner = script.deface(vec![0x45; length]);
        let Some(session) = &mut self.session else { return };
        let counter = counter(choice, session.data_sent);
        session.data_sent = session.data_sent.max(counter.min(u64::MAX - 1));
        let (keys, key_epoch) = session.ring.keys(previous);
        let (kind, tag) = (MessageType::Data, session.epoch as u8);
        let header = Header { kind, flags: 0, key_epoch, tag, locator: session.locator, counter };
        let packet = seal(&keys.data_seal, &header, &inner);
        self.deliver(path, packet, true);
    }

    fn replay(&mut self, script: &mut Script<'_>) {
        let (index, path, flip) = (usize::from(script.byte()), script.byte(), script.word());
        if self.told.is_empty() {
            return;
        }
        let (first, mut packet) = self.told[index % self.told.len()].clone();
        let path = if path & 1 == 0 { first } else { path_of(path) };
        let flipped = flip != 0 && !packet.is_empty();
        if flipped {
            let bit = usize::from(flip) % (packet.len() * 8);
            packet[bit / 8] ^= 1 << (bit % 8);
        }
        self.deliver(path, packet, !flipped);
    }

    fn reset(&mut self, script: &mut Script<'_>) {
        let Some(session) = &self.session else { return };
        let mut token = session.token;
        let truly = script.word() == 0xdead;
        token[3] ^= u8::from(!truly);
        let packet = SessionReset { locator: session.locator, token }.to_bytes().to_vec();
        self.deliver(path_of(script.byte()), packet, truly);
    }

    /// One datagram arrives at the client, and everything that must hold is looked at.
    fn deliver(&mut self, path: u16, packet: Vec<u8>, authentic: bool) {
        let print = fingerprint(&packet);
        let replay = self.replays.is_replay(print);
        let before = self.client.status(self.now);
        let mut copy = packet.clone();
        let result = self.client.datagram_in(self.now, TransportId(path), &mut copy);
        let sent = self.collect();
        let after = self.client.status(self.now);
        if let Ok(Some(inner)) = &result {
            assert!(inner.start <= inner.end && inner.end <= packet.len());
        }
        if !authentic {
            assert!(result.is_err() && sent == 0, "INV-31: {result:?}, {sent} packets");
            assert!(same(&before, &after), "INV-31: {before:?} became {after:?}");
        }
        if replay {
            assert!(same(&before, &after), "INV-12: {before:?} became {after:?}");
        }
        if result.is_ok() {
            self.replays.accepted(print);
        }
        if authentic && self.told.len() < 64 {
            self.told.push((path, packet));
        }
    }

    /// Takes what the client sends and tells. Gives how many packets there were.
    fn collect(&mut self) -> usize {
        let mut count = 0;
        while let Some(transmit) = self.client.poll_transmit() {
            assert!((1..=PATHS).contains(&transmit.path.0), "a packet for a path that there is");
            if let Some(words) = self.nonces.sealed(Sealer::Client, &transmit.packet) {
                self.checker.violated(self.now, Safety::NonceReuse, &words);
            }
            if self.waiting.len() == WAITING {
                self.waiting.pop_front();
            }
            self.waiting.push_back(transmit);
            count += 1;
        }
        assert!(count <= TRANSMITS_MAX, "{count} packets for one");
        while let Some(event) = self.client.poll_event() {
            match &event {
                ClientEvent::Transition { transition, .. } => {
                    assert_ne!(transition.reason, Reason::InvariantViolation, "T23 is a defect of ours");
                    self.checker.mirrored(0, transition, self.now);
                }
                ClientEvent::Connected { locator, .. } => self.checker.connected(0, *locator, self.now, self.now),
                ClientEvent::Terminated { .. } => assert!(!self.client.is_connected()),
                _ => {}
            }
        }
        assert!(self.checker.violations().is_empty(), "{:#?}", self.checker.violations());
        count
    }

    /// Time passes; nobody answers.
    fn wait(&mut self, span: Span) {
        let end = self.now + span;
        let mut timers = 0;
        while let Some(due) = self.client.next_timeout(self.now).filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.client.timeout(self.now);
            self.collect();
            timers += 1;
            let bound = 50 + TIMERS_A_SECOND * (1 + span.as_millis() / 1_000);
            assert!(timers <= bound, "{timers} timers in {} ms: one of them spins", span.as_millis());
        }
        self.now = end;
    }

    /// Time passes, and the gateway answers everything as it should.
    fn calm(&mut self, span: Span) {
        let end = self.now + span;
        for _ in 0..2_000 {
            while let Some(asked) = self.waiting.pop_front() {
                if let Some((kind, body)) = self.reply(&asked, None) {
                    self.say(asked.path.0, kind, &body, &mut Script::new(&[]));
                }
            }
            let Some(due) = self.client.next_timeout(self.now).filter(|due| *due <= end) else { break };
            self.now = self.now.max(due);
            self.client.timeout(self.now);
            self.collect();
        }
        self.now = self.now.max(end);
    }

    /// Without a gateway a session ends by time alone (L-2).
    fn fall_silent(&mut self) {
        self.wait(SILENCE);
        assert!(self.client.is_idle(), "L-2: {:?}", self.client.status(self.now));
    }
}

/// What only an authentic and fresh message may change.
fn same(before: &ClientStatus, after: &ClientStatus) -> bool {
    let point = |status: &ClientStatus| (status.locator, status.state, status.epoch, status.active, status.received);
    point(before) == point(after)
}

fn is_hello(packet: &[u8]) -> bool {
    MessageType::of(packet) == Ok(MessageType::HelloInit)
}

fn digest(hello: &[u8]) -> [u8; 16] {
    let mut digest = [0; 16];
    digest.copy_from_slice(&blake3::hash(hello).as_bytes()[..16]);
    digest
}

/// A path by an operand; rarely one that there is not.
const fn path_of(choice: u8) -> u16 {
    match choice {
        255 => u16::MAX,
        _ => choice as u16 % PATHS + 1,
    }
}

const fn path_info(path: u16) -> PathInfo {
    PathInfo { gateway: GATEWAY, class: TransportClass::Other, priority: path as u8 }
}

/// Stories: calm, jumps, answers that lie, a rekey, resets and cookies.
pub fn seeds() -> Vec<Vec<u8>> {
    use operation::{ANSWER, CALM, CONNECT, DATA, MOVE, PATH, RAW, REPLAY, RESET, RETRY, SEND, TELL, WAIT};
    let connect = |profile: u8| vec![profile, 0, 0, 0, 0];
    let calm = |ms: u16| [&[CALM][..], &ms.to_be_bytes()].concat();
    let wait = |ms: u16| [&[WAIT][..], &ms.to_be_bytes()].concat();
    let answer = |deface: &[u8]| [&[ANSWER, 0, 255][..], deface, &[0, 0, 0]].concat();
    let honest = [0, 0];
    let story = |profile: u8, steps: &[Vec<u8>]| [connect(profile), steps.concat()].concat();
    let mut seeds = vec![
        story(0, &[calm(3_000), vec![DATA, 0, 0, 0, 40, 0, 0], vec![SEND, 0, 200], calm(60_000)]),
        story(2, &[calm(3_000), vec![PATH, 0, 0], calm(2_000), vec![PATH, 2, 0], vec![MOVE, 0], calm(5_000)]),
        story(1, &[calm(3_000), wait(1_500), answer(&honest), answer(&honest), calm(5_000)]),
        story(2, &[calm(2_000), wait(2_000), calm(4_000), wait(9_000)]),
        story(0, &[calm(1_000), vec![TELL, 0, 0, 0, 0, 0, 0], calm(1_000), vec![TELL, 8, 0, 0, 0, 0, 0]]),
        story(
            0,
            &[calm(500), vec![RESET, 0, 0, 0], vec![RESET, 0xde, 0xad, 0], vec![CONNECT, 1, 0, 0, 0, 0], calm(900)],
        ),
        story(
            0,
            &[calm(500), vec![RAW, 1, 0, 4, 0x17, 0x10, 0, 0], vec![REPLAY, 0, 0, 0, 0], vec![REPLAY, 0, 0, 0, 77]],
        ),
        // A policy that is none: no session.
        [vec![0, 1, 0, 0, 9, 0, 0, 0], vec![RETRY, 5, 0], vec![CONNECT, 0, 0, 0, 0, 0]].concat(),
        story(0, &[calm(500), vec![TELL, 243, 0, 0, 0, 0, 0], vec![TELL, 2, 0, 1, 0, 0, 0, 0]]),
        // Half a day of rekeys.
        story(1, &vec![calm(u16::MAX); 12]),
    ];
    for key in [201, 202, 220, 230, 240] {
        seeds.push(story(0, &[calm(900), wait(600), vec![ANSWER, 0, 255, 0, 0, 0, 0, key], calm(900)]));
    }
    for refusal in 0..6 {
        let refused = vec![ANSWER, 0, refusal, 0, 0, 0, 0, 0];
        seeds.push(story(2, &[calm(2_000), vec![PATH, 0, 0], refused.clone(), wait(150), refused, calm(3_000)]));
    }
    // Answers to a jump that name another epoch, another nonce, or refuse.
    for (offset, value) in [(7, 9), (15, 9), (16, 6)] {
        let lie = [1, 0, offset, value, 0];
        seeds.push(story(2, &[calm(2_000), vec![PATH, 0, 0], answer(&lie), answer(&lie), calm(3_000)]));
    }
    seeds
}
