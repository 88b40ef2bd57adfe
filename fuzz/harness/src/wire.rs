//! Every parser of `protocol/src/wire`: whatever is accepted means the same after it was written and read again.

use std::fmt::Debug;

use jumpgate_protocol::crypto::{Aead, DefaultAead};
use jumpgate_protocol::entropy::{Entropy, SeededEntropy};
use jumpgate_protocol::handshake::{HelloReply, HelloRequest, Initiator, StaticSecret};
use jumpgate_protocol::ident::{Locator, TransportId};
use jumpgate_protocol::reason::Reason;
use jumpgate_protocol::wire::{
    self, Body, CONTROL_MAX, Cause, HEADER_LEN, HELLO_LEN, Header, Heartbeat, HeartbeatAck, HelloAck, HelloConfirm,
    HelloInit, HelloRetry, MessageType, PathProbe, PathProbeAck, PolicyUpdate, ReattachAck, ReattachHint,
    ReattachReject, ReattachRequest, RekeyAck, RekeyInit, RequestedPolicy, SessionReset, TAG_LEN, Terminate, UDP,
};

/// Reads the bytes as everything that they could be.
pub fn run(bytes: &[u8]) {
    whole_messages(bytes);
    body::<HelloConfirm>(bytes);
    body::<Heartbeat>(bytes);
    body::<HeartbeatAck>(bytes);
    body::<PathProbe>(bytes);
    body::<PathProbeAck>(bytes);
    body::<ReattachRequest>(bytes);
    body::<ReattachAck>(bytes);
    body::<ReattachReject>(bytes);
    body::<ReattachHint>(bytes);
    body::<RekeyInit>(bytes);
    body::<RekeyAck>(bytes);
    body::<PolicyUpdate>(bytes);
    body::<Terminate>(bytes);
    payloads(bytes);
}

fn whole_messages(bytes: &[u8]) {
    let kind = MessageType::of(bytes);
    if let Ok(header) = Header::parse(bytes) {
        assert_eq!(Ok(header.kind), kind);
        assert!(bytes.len() >= HEADER_LEN + TAG_LEN);
        assert!(header.kind == MessageType::Data || bytes.len() <= CONTROL_MAX);
        assert!(header.counter != 0 && header.counter != u64::MAX, "AR-2");
        let mut again = bytes.to_vec();
        header.emit(&mut again);
        assert_eq!(again, bytes, "a header comes back as it was read");
        let key = DefaultAead::new(&[7; 32]);
        assert!(wire::open(&key, &header, &mut again).is_err() || was_sealed_by_us(&header));
    }
    if let Ok(hello) = HelloInit::view(bytes) {
        assert_eq!((kind, bytes.len()), (Ok(MessageType::HelloInit), HELLO_LEN));
        assert_eq!(hello.gated().len() + hello.gate_mac().len(), HELLO_LEN);
        assert!(hello.noise().len() <= bytes.len());
    }
    if let Ok(ack) = HelloAck::parse(bytes) {
        assert_eq!(ack.to_bytes(), bytes);
    }
    if let Ok(retry) = HelloRetry::parse(bytes) {
        assert_eq!(retry.to_bytes(), bytes);
    }
    if let Ok(reset) = SessionReset::parse(bytes) {
        assert_eq!(reset.to_bytes(), bytes);
    }
}

fn body<B: Body + PartialEq + Debug>(bytes: &[u8]) {
    let Ok(body) = B::parse(bytes) else { return };
    let mut again = vec![0; B::PADDED_LEN];
    body.emit(&mut again[..B::LEN]);
    assert_eq!(B::parse(&again).as_ref(), Ok(&body), "a body means the same after it was written and read again");
}

fn payloads(bytes: &[u8]) {
    if let Ok(request) = HelloRequest::parse(bytes) {
        assert_eq!(HelloRequest::parse(&request.to_bytes()), Ok(request));
    }
    if let Ok(Ok(reply)) = HelloReply::parse(bytes) {
        assert_eq!(HelloReply::parse(&reply.to_bytes()), Ok(Ok(reply)));
    }
}

/// Seeds are sealed under the key that is tried.
fn was_sealed_by_us(header: &Header) -> bool {
    header.locator == SEED_LOCATOR
}

const SEED_LOCATOR: Locator = Locator(0x1234_5678_9abc_def0);

/// One message of each type, as its writer makes it.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    let key = DefaultAead::new(&[7; 32]);
    for kind in MessageType::ALL.iter().copied().filter(|kind| kind.is_session()) {
        let header = Header { kind, flags: 0, key_epoch: 1, tag: 0, locator: SEED_LOCATOR, counter: 9 };
        for len in [18, 31, 39, 50, 51, 53, 66, 439] {
            let packet = crate::seal::seal(&key, &header, &vec![0x45; len]);
            if Header::parse(&packet).is_ok() {
                seeds.push(packet);
                break;
            }
        }
    }
    for len in [HELLO_ACK_SEED, 400] {
        seeds.push(HelloAck { digest: [3; 16], noise: &vec![4; len] }.to_bytes());
    }
    seeds.push(HelloRetry::new([3; 16], [4; 16]).to_bytes().to_vec());
    seeds.push(SessionReset { locator: SEED_LOCATOR, token: [5; 16] }.to_bytes().to_vec());
    seeds.extend(bodies());
    let mut entropy = SeededEntropy::new(1);
    let (client, gateway) = (StaticSecret::generate(&mut entropy), StaticSecret::generate(&mut entropy));
    let request = request();
    seeds.push(request.to_bytes().to_vec());
    if let Ok(initiator) = Initiator::new(&client, &gateway.public(), None, &request, &mut entropy) {
        seeds.push(initiator.packet().to_vec());
    }
    // A reply of zeros is none; one with a status of 0 and the fields at random is what mutation starts from.
    let mut reply = vec![0; HelloReply::MAX_LEN];
    entropy.fill(&mut reply[2..]);
    seeds.push(reply);
    seeds
}

/// Length of the Noise message in the smallest HELLO_ACK there is: a refusal.
const HELLO_ACK_SEED: usize = 50;

/// A request with everything that it can have.
pub(crate) fn request() -> HelloRequest {
    HelloRequest {
        hello_counter: 7,
        client_time_ms: 0,
        replaces: Some(SEED_LOCATOR),
        capabilities: 0,
        requested_policy: RequestedPolicy::from_iter([(40, 4), (42, 4_000)]),
    }
}

fn bodies() -> Vec<Vec<u8>> {
    use crate::seal::plaintext;
    let peer = std::net::SocketAddr::from(([198, 51, 100, 7], 4_096));
    vec![
        plaintext(&HelloConfirm { binding_epoch: 1, handshake_hash: [1; 32], transport_id: TransportId(1) }),
        plaintext(&PathProbeAck {
            echo: 3,
            transport_id: TransportId(2),
            observed: peer,
            token: 4,
            flags: PathProbeAck::STORED,
        }),
        plaintext(&ReattachRequest {
            binding_epoch: 1,
            client_time_ms: 2,
            cause: Cause::Silence,
            transport_id: TransportId(2),
            protocol: UDP,
        }),
        plaintext(&ReattachReject {
            nonce: 1,
            reason: Reason::StaleStateVersion,
            retry_after_ms: 0,
            gateway_time_ms: 9,
            current: Some((2, TransportId(1))),
        }),
        plaintext(&ReattachHint {
            binding_epoch: 1,
            reason: Reason::HeartbeatTimeout,
            same_path_ok: true,
            deadline_ms: 4_000,
        }),
        plaintext(&RekeyAck { echo: 1, next_epoch: 1, ephemeral: [2; 32], status: Some((Reason::RekeyDenied, 5_000)) }),
        plaintext(&Terminate { reason: Reason::OperatorTerminated }),
    ]
}
