//! Strangers: whoever cannot prove a configured key gets silence, and leaves nothing behind.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use jumpgate_protocol::entropy::SeededEntropy;
use jumpgate_protocol::handshake::StaticSecret;
use jumpgate_protocol::reason::Reason;
use jumpgate_protocol::wire::{HELLO_LEN, MessageType};

use super::Test;
use super::arena::{Arena, MALLORY, Watch, forged_source, socket_at};
use super::tunnel::Ends;
use crate::attacker::{Member, Overheard, hello, request, reseal_gate};
use crate::programs::{Client, Gateway};
use crate::relay::Direction;
use crate::topology::{FORGED, Lab, WIFI};

pub(super) const TESTS: &[Test] = &[
    Test {
        name: "stranger: an unknown client key is answered by silence and leaves no session (HS-4)",
        run: unknown_client,
    },
    Test { name: "stranger: who does not know the gateway's key gets silence (HS-2)", run: unknown_gateway },
    Test { name: "stranger: a wrong pre-shared key makes no session (HS-1)", run: wrong_psk },
    Test {
        name: "stranger: another version, other suites or another pattern in HELLO_INIT get silence, not less protection (A16, HS-1)",
        run: downgrade,
    },
    Test {
        name: "stranger: a handshake that is never confirmed leaves no session and frees its place (TC33, A12, T02)",
        run: half_open,
    },
    Test {
        name: "stranger: nothing that a stranger sends is answered by more bytes (A29, INV-31)",
        run: amplification,
    },
    Test {
        name: "stranger: answers do not tell which sessions exist, by kind, length or time (A30, RF-1, RF-3)",
        run: oracle,
    },
];

/// How long silence has to last to count as silence.
const SILENCE: Duration = Duration::from_secs(2);
/// Pairs of questions whose answers are timed: about a known and an unknown session.
const QUESTIONS: usize = 400;
/// Time between two questions: fewer a second than PP76 lets one source ask.
const QUESTION_PAUSE: Duration = Duration::from_millis(6);
/// The medians of the two may differ by that much before it is called a finding. The times themselves are reported:
/// on a shared machine they are no sharper than its scheduler.
const TELLING: Duration = Duration::from_millis(2);

fn refused(lab: &Lab, ends: &Ends) -> Result<()> {
    let gateway = Gateway::start(lab, &ends.programs, &ends.gateway)?;
    let client = Client::launch(lab, &ends.programs, &ends.client)?;
    lab.relay.capture(WIFI.path, Direction::Down, None, 10, false)?;
    lab.relay.capture(WIFI.path, Direction::Up, Some(MessageType::HelloInit as u8), 10, false)?;
    thread::sleep(SILENCE);
    let asked = lab.relay.captured(WIFI.path, Direction::Up)?;
    ensure!(!asked.is_empty(), "the client did not even ask");
    let answers = lab.relay.captured(WIFI.path, Direction::Down)?;
    ensure!(answers.is_empty(), "the gateway answered {} times", answers.len());
    ensure!(gateway.sessions()?.is_empty(), "there is a session: {:?}", gateway.sessions()?);
    ensure!(client.status()?.phase != "connected", "the client says that it is connected");
    Ok(())
}

fn unknown_client(lab: &Lab) -> Result<()> {
    let mut ends = Ends::new(lab, false)?;
    ends.client.key = ends.programs.key_pair(&lab.run, "stranger")?;
    refused(lab, &ends)
}

fn unknown_gateway(lab: &Lab) -> Result<()> {
    let mut ends = Ends::new(lab, false)?;
    ends.client.gateway = ends.programs.key_pair(&lab.run, "other-gateway")?.public;
    refused(lab, &ends)
}

fn wrong_psk(lab: &Lab) -> Result<()> {
    let mut ends = Ends::new(lab, false)?;
    ends.client.psk_file = Some(ends.programs.key_pair(&lab.run, "psk")?.private_file);
    ends.gateway.peers[0].psk_file = Some(ends.programs.key_pair(&lab.run, "other-psk")?.private_file);
    let gateway = Gateway::start(lab, &ends.programs, &ends.gateway)?;
    let client = Client::launch(lab, &ends.programs, &ends.client)?;
    thread::sleep(SILENCE);
    // The key enters with the gateway's answer (IKpsk2), so there may be a record in BIRTH, but never more.
    let sessions = gateway.sessions()?;
    ensure!(sessions.iter().all(|session| session.state == "BIRTH"), "there is a session: {sessions:?}");
    ensure!(client.status()?.phase != "connected", "the client says that it is connected");
    Ok(())
}

/// Sends a datagram from a fresh socket and gives what comes back within the time that silence takes to be silence.
fn exchange(arena: &Arena<'_>, packet: &[u8]) -> Result<Option<Vec<u8>>> {
    let socket = arena.socket()?;
    socket.set_read_timeout(Some(Duration::from_millis(300)))?;
    socket.send_to(packet, arena.endpoint())?;
    let mut buffer = [0; 2_048];
    Ok(socket.recv(&mut buffer).ok().map(|len| buffer[..len].to_vec()))
}

fn downgrade(lab: &Lab) -> Result<()> {
    let arena = Arena::open(lab, "")?;
    let watch = arena.watch()?;
    let public = arena.target().public.to_owned();
    let key = arena.key().secret()?;
    // Byte 1: version and flags. Bytes 2 and 3: the suites. All of it is in the prologue of the handshake (HS-1), so
    // whoever changes it on the way makes another handshake of it, though the gate MAC is within anybody's reach.
    let cases: [(&str, usize, u8, &str); 6] = [
        ("version 0", 1, 0x00, "UNSUPPORTED_VERSION"),
        ("version 2", 1, 0x20, "UNSUPPORTED_VERSION"),
        ("the pattern with a pre-shared key", 1, 0x11, "AUTH_FAIL"),
        ("no suite at all", 3, 0x00, "AUTH_FAIL"),
        ("a suite that is not spoken here", 3, 0x02, "AUTH_FAIL"),
        ("one suite more", 3, 0x03, "AUTH_FAIL"),
    ];
    for (number, (what, at, byte, counter)) in cases.into_iter().enumerate() {
        let mut packet = hello(&public, &key, 100 + number as u64)?;
        packet[at] = byte;
        let before = watch.grown(counter)?;
        reseal_gate(&mut packet, &public)?;
        let answer = exchange(&arena, &packet)?;
        ensure!(answer.is_none(), "{what} is answered by {} bytes", answer.map_or(0, |answer| answer.len()));
        watch.counts(counter, before + 1).with_context(|| what.to_owned())?;
    }
    ensure!(arena.tunnel.gateway.sessions()?.len() == 1, "one of them has a session");
    // Unchanged, the same key gets one.
    let _mallory = arena.join()?;
    watch.is_undisturbed()
}

fn half_open(lab: &Lab) -> Result<()> {
    let arena = Arena::open(lab, "session.handshake_timeout_ms = 1000\nlimits.half_open_per_identity = 3")?;
    let watch = arena.watch()?;
    let records = || -> Result<usize> {
        let sessions = arena.tunnel.gateway.sessions()?;
        Ok(sessions.iter().filter(|session| session.client == MALLORY).count())
    };
    let knock = |hello: u64| Member::knock(arena.socket()?, &arena.target(), arena.key(), &request(hello));
    for hello in 1..=3 {
        ensure!(knock(hello)?.is_ok(), "handshake {hello} of 3 is refused");
    }
    // The fourth is told why, under the gateway's key; nothing is kept for it.
    match knock(4)? {
        Err(reason) => ensure!(reason == Reason::CapacityExceeded, "refused as {reason}"),
        Ok(_) => bail!("a fourth half-open handshake of one key was accepted"),
    }
    watch.counts(Reason::CapacityExceeded.name(), 1)?;
    ensure!(records()? <= 3, "{} records for three handshakes", records()?);
    super::wait_for("the half-open records to go", Duration::from_secs(4), || Ok(records()? == 0))?;
    let mallory = Member::join(arena.socket()?, &arena.target(), arena.key(), &request(5))?;
    ensure!(arena.mallory()?.locator == mallory.locator().to_string(), "the place was not freed");
    watch.is_undisturbed()
}

/// One of everything that a stranger can send without a key, by name.
fn strange_packets(arena: &Arena<'_>, watch: &Watch<'_>) -> Result<Vec<(String, Vec<u8>)>> {
    let known = u64::from_str_radix(&watch.before().locator, 16)?;
    let stranger = StaticSecret::generate(&mut SeededEntropy::new(29));
    let mut packets = vec![
        ("a HELLO_INIT of an unknown key".to_owned(), hello(arena.target().public, &stranger, 1)?),
        ("a HELLO_INIT without gate MAC".to_owned(), vec![MessageType::HelloInit as u8; HELLO_LEN]),
        ("one byte".to_owned(), vec![MessageType::ReattachRequest as u8]),
    ];
    for kind in MessageType::ALL {
        for (what, locator) in [("a known session", known), ("an unknown session", known ^ 1)] {
            let mut packet = vec![0; 160];
            packet[0] = *kind as u8;
            packet[1] = 0x10;
            packet[4..12].copy_from_slice(&locator.to_be_bytes());
            packet[12..20].copy_from_slice(&(1_u64 << 40).to_be_bytes());
            packets.push((format!("{kind} for {what}"), packet));
        }
    }
    Ok(packets)
}

fn amplification(lab: &Lab) -> Result<()> {
    let arena = Arena::open(lab, "")?;
    let watch = arena.watch()?;
    let _ = arena.wire.answers()?;
    let mut asked: BTreeMap<SocketAddr, (String, usize)> = BTreeMap::new();
    for (number, (what, packet)) in strange_packets(&arena, &watch)?.into_iter().enumerate() {
        let source = forged_source(u32::try_from(number)?);
        arena.wire.send_datagram(source, arena.endpoint(), &packet)?;
        asked.insert(source, (what, packet.len()));
    }
    thread::sleep(Duration::from_millis(500));
    let mut answers: BTreeMap<SocketAddr, Vec<Vec<u8>>> = BTreeMap::new();
    for Overheard { to, payload, .. } in arena.wire.answers()? {
        if asked.contains_key(&to) {
            answers.entry(to).or_default().push(payload);
        }
    }
    for (to, payloads) in &answers {
        let (what, len) = &asked[to];
        let bytes: usize = payloads.iter().map(Vec::len).sum();
        ensure!(bytes <= *len, "{what}: {len} bytes are answered by {bytes}");
        let reset = payloads.iter().all(|payload| payload[0] == MessageType::SessionReset as u8);
        ensure!(reset && payloads.len() == 1, "{what} is answered by {payloads:?}");
    }
    // Only REATTACH_REQUEST is answered at all, once for each session (RF-3).
    ensure!(answers.len() == 2, "{} of {} questions were answered", answers.len(), asked.len());
    watch.is_undisturbed()
}

fn oracle(lab: &Lab) -> Result<()> {
    let arena = Arena::open(lab, "")?;
    let watch = arena.watch()?;
    let known = u64::from_str_radix(&watch.before().locator, 16)?;
    lab.core.ip("route replace local 198.18.0.0/16 dev lo")?;
    let stranger = socket_at(lab, [FORGED[0], FORGED[1], 1, 1].into())?;
    stranger.set_read_timeout(Some(Duration::from_millis(500)))?;
    let endpoint = arena.endpoint();
    let ask = |locator: u64, nonce: u64| -> Result<(Duration, Vec<u8>)> {
        let mut request = vec![0; 160];
        request[0] = MessageType::ReattachRequest as u8;
        request[1] = 1 << 4;
        request[4..12].copy_from_slice(&locator.to_be_bytes());
        request[12..20].copy_from_slice(&nonce.to_be_bytes());
        let asked = Instant::now();
        stranger.send_to(&request, endpoint)?;
        let mut answer = [0; 2_048];
        let len = stranger.recv(&mut answer).context("no answer to a reattach request")?;
        Ok((asked.elapsed(), answer[..len].to_vec()))
    };
    // An unknown session of the same slot, so of the same worker; and the living one, without its key.
    let mut times = [Vec::new(), Vec::new()];
    for round in 0..QUESTIONS {
        let mut answers = Vec::new();
        for (which, locator) in [known, known ^ 1].into_iter().enumerate() {
            let (time, answer) = ask(locator, 1 + round as u64)?;
            times[which].push(time);
            answers.push(answer);
            thread::sleep(QUESTION_PAUSE);
        }
        let shape = |answer: &[u8]| (answer[0], answer[1], answer[2], answer[3], answer.len());
        ensure!(shape(&answers[0]) == shape(&answers[1]), "known and unknown differ: {answers:?}");
        ensure!(answers[0].len() < 160, "an answer of {} bytes", answers[0].len());
        ensure!(answers[0][12..] != answers[1][12..], "two sessions, one token");
    }
    lab.core.ip("route del local 198.18.0.0/16 dev lo")?;
    let quantile = |times: &mut Vec<Duration>, share: f64| {
        times.sort_unstable();
        times[((times.len() - 1) as f64 * share) as usize]
    };
    let [p10, p50, p90] = [0.1, 0.5, 0.9].map(|share| (quantile(&mut times[0], share), quantile(&mut times[1], share)));
    lab.note(format!(
        "{QUESTIONS} answers each, known/unknown: p10 {:?}/{:?}, median {:?}/{:?}, p90 {:?}/{:?}",
        p10.0, p10.1, p50.0, p50.1, p90.0, p90.1
    ));
    ensure!(p50.0.abs_diff(p50.1) <= TELLING, "the medians tell known from unknown: {p50:?}");
    watch.is_undisturbed()
}
