//! The handshake desk: HELLO_INITs with a valid gate MAC, so that the depth is reached; cookies, limits, replacement.

use std::net::SocketAddr;

use jumpgate_protocol::crypto::DefaultAead;
use jumpgate_protocol::handshake::{Answer, HelloRequest, Initiator};
use jumpgate_protocol::ident::{Arrival, Locator, TransportId, Tuple};
use jumpgate_protocol::keys::{EpochKeys, Side};
use jumpgate_protocol::policy::{Policy, Profile, Rate};
use jumpgate_protocol::reason::Reason;
use jumpgate_protocol::time::Span;
use jumpgate_protocol::wire::{HELLO_LEN, Header, HelloConfirm, HelloInit, MessageType};

use crate::gateway::{GATEWAY, Gateway};
use crate::script::Script;
use crate::seal::{plaintext, seal};

/// Operations of one script; each costs a handshake.
const OPERATIONS_MAX: usize = 60;
/// Clients that the gateway knows; one more asks and is not known.
const CLIENTS: usize = 3;
/// After so long nothing of any client is left: BIRTH, and sessions that nobody talks to.
const SILENCE: Span = Span::from_millis(60_000);
/// BIRTH records at once, small enough to be reached: PP72 begins at 16.
const HALF_OPEN_MAX: u32 = 16;
/// Sessions at once, small enough to be reached.
const SESSIONS_MAX: u32 = 20;

/// What a script can do.
pub(crate) mod operation {
    pub(crate) const COUNT: u8 = 6;
    pub(crate) const HELLO: u8 = 0;
    pub(crate) const NOISE: u8 = 1;
    pub(crate) const REPEAT: u8 = 2;
    pub(crate) const CONFIRM: u8 = 3;
    pub(crate) const WAIT: u8 = 4;
    pub(crate) const RAW: u8 = 5;
}

/// Plays a script.
pub fn run(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let mut stage = Stage::new(script.byte());
    for _ in 0..OPERATIONS_MAX {
        let Some(code) = script.operation() else { break };
        stage.play(code % operation::COUNT, &mut script);
    }
    stage.wait(SILENCE);
    assert!(stage.gateway.desk.is_empty() && stage.gateway.shard.is_empty(), "INV-22: something is left over");
}

struct Stage {
    gateway: Gateway,
    limits: (u32, u32),
    /// Handshakes that were sent, whole.
    asked: Vec<(SocketAddr, Initiator)>,
    /// HELLO_CONFIRMs that could be sent.
    confirms: Vec<(SocketAddr, Vec<u8>)>,
}

impl Stage {
    fn new(choice: u8) -> Self {
        let mut policy = Policy::profile(Profile::Default);
        policy.limits.max_half_open = HALF_OPEN_MAX;
        policy.limits.max_sessions = SESSIONS_MAX;
        if choice & 1 == 1 {
            policy.limits.handshakes_total = Rate::even(10);
        }
        policy.validate().expect("the limits are within their ranges");
        let limits = (policy.limits.half_open_per_identity, policy.limits.max_sessions_per_identity);
        let mut gateway = Gateway::new(policy, CLIENTS);
        let stranger = jumpgate_protocol::handshake::StaticSecret::generate(&mut crate::entropy(21));
        gateway.clients.push(stranger);
        Self { gateway, limits, asked: Vec::new(), confirms: Vec::new() }
    }

    fn play(&mut self, code: u8, script: &mut Script<'_>) {
        match code {
            operation::HELLO => self.hello(script),
            operation::NOISE => {
                // The honest message with bytes changed under a gate MAC made anew, as anybody can who knows the
                // gateway's public key.
                let from = place(script.byte());
                let Some(initiator) = self.initiator(script) else { return };
                let mut packet = script.deface(initiator.packet().to_vec());
                self.gateway.gate(&mut packet);
                self.deliver(from, &packet);
            }
            operation::REPEAT => {
                let (index, from) = (usize::from(script.byte()), script.byte());
                if let Some((first, initiator)) = self.asked.get(index % self.asked.len().max(1)) {
                    let (first, packet) = (*first, initiator.packet().to_vec());
                    self.deliver(if from & 1 == 0 { first } else { place(from) }, &packet);
                }
            }
            operation::CONFIRM => self.confirm(script),
            operation::WAIT => self.wait(Span::from_millis(u64::from(script.word()))),
            operation::RAW => {
                let (from, count) = (place(script.byte()), usize::from(script.word() % 1_300));
                let mut packet = script.bytes(count).to_vec();
                if script.byte() & 1 == 1 {
                    packet.resize(HELLO_LEN, 0);
                    packet[..2].copy_from_slice(&[MessageType::HelloInit as u8, 0x10]);
                    self.gateway.gate(&mut packet);
                }
                self.deliver(from, &packet);
            }
            _ => unreachable!("the remainder is below the count"),
        }
    }

    /// A handshake of some client that asks for something.
    fn hello(&mut self, script: &mut Script<'_>) {
        let from = place(script.byte());
        let Some(mut initiator) = self.initiator(script) else { return };
        let packet = initiator.packet().to_vec();
        let (mut reply, mut reason) = self.deliver(from, &packet);
        if reason == Some(Reason::CookieRequired)
            && let Some(retry) = &reply
        {
            initiator.on_retry(retry).expect("the cookie is for this HELLO_INIT");
            let packet = initiator.packet().to_vec();
            (reply, reason) = self.deliver(from, &packet);
            assert_ne!(reason, Some(Reason::CookieInvalid), "a cookie that was given here is good here");
        }
        let Some(reply) = reply.filter(|_| reason != Some(Reason::CookieRequired)) else {
            self.asked.push((from, initiator));
            return;
        };
        match initiator.on_ack(&reply).expect("an answer to a client that is known can be read by it") {
            Answer::Refused(told) => assert_eq!(Some(told), reason, "HS-4: the client learns the true reason"),
            Answer::Established(established) => {
                assert_eq!(reason, None);
                let (identity, locator) = (established.reply.identity, established.reply.locator);
                let keys = EpochKeys::<DefaultAead>::derive(&established.root, 0, &identity, Side::Client);
                let (kind, transport_id) = (MessageType::HelloConfirm, TransportId(1));
                let header = Header { kind, flags: 0, key_epoch: 0, tag: 0, locator, counter: 1 };
                let body = HelloConfirm { binding_epoch: 1, handshake_hash: established.hash, transport_id };
                self.confirms.push((from, seal(&keys.control_seal, &header, &plaintext(&body))));
            }
        }
    }

    /// A handshake that asks for what the script says, by a client that it chooses.
    fn initiator(&mut self, script: &mut Script<'_>) -> Option<Initiator> {
        let client = usize::from(script.byte()) % self.gateway.clients.len();
        let mut honest = self.gateway.request();
        if script.byte() & 3 == 3 {
            let views = self.gateway.shard.views(self.gateway.now);
            let old = views.get(usize::from(script.byte()) % views.len().max(1)).map(|view| view.locator);
            honest.replaces = Some(old.unwrap_or(Locator(77)));
        }
        let request = HelloRequest::parse(&script.deface(honest.to_bytes().to_vec())).unwrap_or(honest);
        let psk = (script.byte() == 255).then_some([5; 32]);
        // Another ephemeral key each time, as it should be, but the same in each run.
        let mut entropy = crate::entropy(30 + self.asked.len() as u64 + self.confirms.len() as u64 * 100);
        let secret = &self.gateway.clients[client];
        let gateway = self.gateway.secret.public();
        Initiator::new(secret, &gateway, psk.as_ref(), &request, &mut entropy).ok()
    }

    fn confirm(&mut self, script: &mut Script<'_>) {
        let (index, from) = (usize::from(script.byte()), script.byte());
        let Some((first, mut packet)) = self.confirms.get(index % self.confirms.len().max(1)).cloned() else { return };
        let peer = if from < 200 { first } else { place(from) };
        let arrival = Arrival { tuple: Tuple { local: GATEWAY, peer }, route: 1, queue: 0 };
        let _ = self.gateway.shard.control_in(self.gateway.now, &arrival, &mut packet);
        self.collect();
    }

    /// One HELLO_INIT arrives, and everything that must hold is looked at.
    fn deliver(&mut self, from: SocketAddr, packet: &[u8]) -> (Option<Vec<u8>>, Option<Reason>) {
        let (known, held) = (self.gateway.desk.len(), self.gateway.shard.len());
        let outcome = self.gateway.hello(from, packet);
        let born = self.gateway.shard.len() - held;
        let reply = outcome.reply;
        assert!(
            reply.as_ref().is_none_or(|reply| reply.len() <= packet.len()),
            "HS-2: an answer longer than HELLO_INIT"
        );
        assert_eq!(self.gateway.desk.len() - known, born, "INV-37: what is kept is a session");
        assert!(born == 0 || (outcome.refused.is_none() && reply.is_some() && HelloInit::view(packet).is_ok()));
        assert!(!matches!(outcome.refused, Some(Reason::InternalError | Reason::InvariantViolation)));
        assert!(self.gateway.shard.len() <= SESSIONS_MAX as usize, "PP70");
        self.collect();
        (reply, outcome.refused)
    }

    fn collect(&mut self) {
        while self.gateway.poll_event().is_some() {}
        while self.gateway.shard.poll_reply().is_some() {}
        let views = self.gateway.shard.views(self.gateway.now);
        assert_eq!(views.len(), self.gateway.desk.len(), "desk and worker know the same sessions");
        for client in &self.gateway.clients {
            let own = views.iter().filter(|view| view.client == client.public());
            let (half_open, open): (Vec<_>, Vec<_>) = own.partition(|view| view.version == 0);
            // A successor may be confirmed a moment before the session that it replaces ends.
            assert!(half_open.len() <= self.limits.0 as usize, "PP73");
            assert!(open.len() <= (self.limits.0 + self.limits.1) as usize, "PP71");
        }
    }

    fn wait(&mut self, span: Span) {
        let end = self.gateway.now + span;
        while let Some(due) = self.gateway.shard.next_timeout().filter(|due| *due <= end) {
            self.gateway.now = self.gateway.now.max(due);
            self.gateway.shard.timeout(self.gateway.now);
            self.collect();
        }
        self.gateway.now = end;
    }
}

/// Where handshakes come from.
fn place(number: u8) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, number % 8], 1_024 + u16::from(number / 8)))
}

/// Handshakes that succeed, that are repeated, replace, exceed their limits, and are not quite right.
pub fn seeds() -> Vec<Vec<u8>> {
    use operation::{CONFIRM, HELLO, NOISE, RAW, REPEAT, WAIT};
    let hello = |from: u8, client: u8| vec![HELLO, from, client, 0, 0, 0, 0];
    let confirm = |index: u8| vec![CONFIRM, index, 0];
    let replace = |from: u8, client: u8, old: u8| vec![HELLO, from, client, 3, old, 0, 0, 0];
    let noise = |offset: u16, value: u8| {
        let [high, low] = offset.to_be_bytes();
        vec![NOISE, 1, 0, 0, 0, 0, 0, 1, high, low, value, 0]
    };
    let wait = |ms: u16| [&[WAIT][..], &ms.to_be_bytes()].concat();
    let mut seeds = vec![
        [vec![0], hello(1, 0), confirm(0), hello(2, 1), confirm(1), wait(900)].concat(),
        [vec![0], hello(1, 0), vec![REPEAT, 0, 0], vec![REPEAT, 0, 3], confirm(0), confirm(0), wait(6_000)].concat(),
        [vec![0], hello(1, 0), confirm(0), replace(2, 0, 0), confirm(1), replace(3, 1, 0), confirm(2)].concat(),
        [vec![1], (0..30).flat_map(|from| hello(from, from % 4)).collect::<Vec<_>>()].concat(),
        [vec![0], (0..12).flat_map(|n| [hello(n, 0), confirm(n)].concat()).collect::<Vec<_>>()].concat(),
        [vec![0], hello(1, 3), vec![HELLO, 1, 0, 0, 0, 0, 255], vec![RAW, 1, 0, 3, 1, 2, 3, 1]].concat(),
        [vec![0], hello(1, 0), vec![HELLO, 1, 0, 0, 1, 0, 30, 1, 0, 0]].concat(),
    ];
    // The type, the version, the offered suites, the flag of the pre-shared key, lengths and key material.
    for (offset, value) in [(0, 0x12), (1, 0x20), (1, 0x11), (3, 2), (20, 0xff), (21, 1), (22, 1), (60, 1), (1_190, 1)]
    {
        seeds.push([vec![0], noise(offset, value)].concat());
    }
    seeds
}
