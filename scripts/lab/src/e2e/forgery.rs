//! What was never said: proofs made without the key, under another session's key, or over the wrong epoch.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use jumpgate_protocol::ident::Locator;
use jumpgate_protocol::reason::Reason;
use jumpgate_protocol::wire::{Cause, MessageType, Terminate};

use super::Test;
use super::arena::{Arena, Watch, forged_source};
use crate::attacker::{Answer, Member, frame, request};
use crate::relay::Direction;
use crate::topology::{LTE, Lab, WIFI};

pub(super) const TESTS: &[Test] = &[
    Test { name: "forgery: one wrong bit anywhere in a reattach makes it worthless (A06, C04)", run: one_bit },
    Test {
        name: "forgery: reattach requests made without the key, as many as the time allows, move nothing (A06, INV-14)",
        run: without_the_key,
    },
    Test {
        name: "forgery: requests and data for random session ids are refused with flat memory (A09, INV-22)",
        run: random_ids,
    },
    Test { name: "forgery: a proof of one session is worth nothing for another (A07, A08, HS-8)", run: borrowed_proof },
    Test { name: "forgery: nothing that one session seals reaches into another (INV-27)", run: cross_session },
    Test {
        name: "forgery: a valid proof over an old or a future epoch changes nothing (A04, A05, C07, INV-06)",
        run: wrong_epoch,
    },
];

/// Most forged requests of a flood.
const MILLION: u32 = 1_000_000;
/// How long a flood may take.
const FLOOD_LIMIT: Duration = Duration::from_secs(4);
/// Forged requests of one round whose memory is compared.
const ROUND: u32 = 50_000;
/// What the gateway's memory may grow by from one round to the next, in bytes.
const FLAT: u64 = 1 << 20;
/// Where nonce and session id stand in a message.
const LOCATOR_AT: usize = 4;
const NONCE_AT: usize = 12;

/// A genuine REATTACH_REQUEST of the victim, which has just moved to lte0 by it.
fn genuine(lab: &Lab, arena: &Arena<'_>) -> Result<Vec<u8>> {
    lab.relay.capture(LTE.path, Direction::Up, Some(MessageType::ReattachRequest as u8), 1, false)?;
    arena.tunnel.jump(&LTE, || arena.tunnel.client.move_to(LTE.interface))?;
    let captured = lab.relay.captured(LTE.path, Direction::Up)?;
    Ok(captured.into_iter().next().context("no reattach request was seen")?.payload.0)
}

fn one_bit(lab: &Lab) -> Result<()> {
    let arena = Arena::open(lab, "")?;
    let request = genuine(lab, &arena)?;
    let watch = arena.watch()?;
    let mut sent = 0;
    // A bit of the nonce, of the ciphertext and of the tag; each makes the proof wrong.
    for at in [NONCE_AT + 7, NONCE_AT + 13, request.len() - 1] {
        let mut forged = request.clone();
        forged[at] ^= 0x40;
        lab.relay.inject(WIFI.path, Direction::Up, None, &forged)?;
        arena.wire.send_datagram(forged_source(at as u32), arena.endpoint(), &forged)?;
        sent += 2;
    }
    watch.counts(Reason::AuthFail.name(), sent)?;
    watch.is_undisturbed()
}

/// Datagrams that the kernel dropped in the gateway's namespace because a socket's queue was full.
fn lost_in_queue(lab: &Lab) -> Result<u64> {
    let text = lab.gateway.enter(|| std::fs::read_to_string("/proc/thread-self/net/snmp"))??;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let (names, values) = (lines.next().context("no counters of UDP")?, lines.next().context("no counters of UDP")?);
    let at = names.split(' ').position(|name| name == "RcvbufErrors").context("no RcvbufErrors")?;
    Ok(values.split(' ').nth(at).context("no RcvbufErrors")?.parse()?)
}

/// Sends forged copies of a message from ever new senders, and gives how many. `forge` writes what differs.
fn flood(arena: &Arena<'_>, packet: &[u8], count: u32, forge: impl Fn(u32, &mut [u8])) -> Result<u32> {
    let template = frame::udp(arena.wire.macs(), forged_source(0), arena.endpoint(), packet).context("two families")?;
    let payload = template.len() - packet.len();
    arena.wire.flood(count, FLOOD_LIMIT, |number, frame| {
        template.clone_into(frame);
        let SocketAddr::V4(source) = forged_source(number) else { return };
        frame::set_ipv4_source(frame, source.ip().octets(), source.port());
        forge(number, &mut frame[payload..]);
    })
}

fn without_the_key(lab: &Lab) -> Result<()> {
    let arena = Arena::open(lab, "")?;
    let request = genuine(lab, &arena)?;
    let watch = arena.watch()?;
    let lost_before = lost_in_queue(lab)?;
    let sent = flood(&arena, &request, MILLION, |number, packet| {
        packet[NONCE_AT..NONCE_AT + 8].copy_from_slice(&(1_000 + u64::from(number)).to_be_bytes());
    })?;
    // Every one has a fate that is counted: refused for its proof or its rate, or lost in a full queue.
    let sum = |watch: &Watch<'_>| -> Result<u64> {
        let by = [Reason::AuthFail, Reason::RateLimited, Reason::QueueFull];
        by.iter().map(|reason| watch.grown(reason.name())).sum::<Result<u64>>()
    };
    super::wait_for("all of the flood to be counted", Duration::from_secs(5), || {
        Ok(sum(&watch)? + lost_in_queue(lab)? - lost_before >= u64::from(sent))
    })?;
    let refused = watch.grown(Reason::AuthFail.name())?;
    ensure!(refused > 0, "none of the forged requests got as far as its proof");
    lab.note(format!(
        "{sent} forged requests in at most {FLOOD_LIMIT:?}: {refused} refused for their proof, {} for their rate, {} in \
         full queues of the gateway, {} in the kernel's",
        watch.grown(Reason::RateLimited.name())?,
        watch.grown(Reason::QueueFull.name())?,
        lost_in_queue(lab)? - lost_before,
    ));
    watch.is_undisturbed()
}

fn random_ids(lab: &Lab) -> Result<()> {
    let arena = Arena::open(lab, "")?;
    let request = genuine(lab, &arena)?;
    let watch = arena.watch()?;
    let mut data = request.clone();
    data[0] = MessageType::Data as u8;
    let random = |number: u32, packet: &mut [u8]| {
        let locator = u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        packet[LOCATOR_AT..LOCATOR_AT + 8].copy_from_slice(&locator.to_be_bytes());
    };
    let mut memory = Vec::new();
    for _ in 0..3 {
        for packet in [&request, &data] {
            let before = watch.grown(Reason::SessionNotFound.name())?;
            flood(&arena, packet, ROUND, random)?;
            watch.counts(Reason::SessionNotFound.name(), before + 1)?;
        }
        // What still waits in queues has to be gone before memory is compared.
        std::thread::sleep(Duration::from_millis(300));
        memory.push(arena.tunnel.gateway.memory()?);
    }
    let growth = memory[2].saturating_sub(memory[1]);
    ensure!(growth <= FLAT, "the gateway's memory grew by {growth} bytes in a round of {ROUND}: {memory:?}");
    ensure!(arena.tunnel.gateway.sessions()?.len() == 1, "somebody has a session");
    watch.is_undisturbed()
}

fn victims_locator(watch: &Watch<'_>) -> Result<Locator> {
    Ok(Locator(u64::from_str_radix(&watch.before().locator, 16)?))
}

fn borrowed_proof(lab: &Lab) -> Result<()> {
    let arena = Arena::open(lab, "")?;
    let mallory = arena.join()?;
    let watch = arena.watch()?;
    let (own, victim) = (arena.mallory()?, victims_locator(&watch)?);
    let asked = mallory.request(2, Cause::HardDead);
    // A nonce far above anything that the victim has used.
    let borrowed = mallory.prove_as(victim, 1 << 40, &asked);
    mallory.send(&borrowed)?;
    match mallory.answer()? {
        Answer::Reset { genuine: false } => {}
        other => bail!("a borrowed proof was answered by {other:?}"),
    }
    watch.counts(Reason::AuthFail.name(), 1)?;
    ensure!(arena.mallory()?.is_as(&own), "the lender's session changed");

    // HS-8: a handshake that names somebody else's session as the one it replaces.
    let fixation = jumpgate_protocol::handshake::HelloRequest { replaces: Some(victim), ..request(2) };
    let _second = Member::join(arena.socket()?, &arena.target(), arena.key(), &fixation)?;
    watch.counts(Reason::SecSessionFixationAttempt.name(), 1)?;
    watch.is_undisturbed()
}

fn cross_session(lab: &Lab) -> Result<()> {
    let arena = Arena::open(lab, "")?;
    let mallory = arena.join()?;
    let watch = arena.watch()?;
    let victim = victims_locator(&watch)?;
    let bound = watch.before().peer.context("the victim has no peer")?;
    let tag = u8::try_from(watch.before().epoch & 0xff)?;
    let inner = [0x45; 40];
    // Sealed under Mallory's keys, for the victim's session, from the victim's own tuple: only the key is wrong.
    let data = mallory.data_as(victim, 1 << 40, tag, &inner);
    arena.wire.send_datagram(bound, arena.endpoint(), &data)?;
    watch.counts(Reason::DataAuthFail.name(), 1)?;
    let refused = watch.grown(Reason::AuthFail.name())?;
    let end = mallory.seal_as(victim, 1 << 40, &Terminate { reason: Reason::OperatorTerminated });
    arena.wire.send_datagram(bound, arena.endpoint(), &end)?;
    watch.counts(Reason::AuthFail.name(), refused + 1)?;
    // Mallory's own session, from the victim's tuple: that tuple is not bound to it.
    let stray = mallory.data_as(mallory.locator(), 1, 1, &inner);
    arena.wire.send_datagram(bound, arena.endpoint(), &stray)?;
    watch.counts(Reason::WrongTransport.name(), 1)?;
    // And where somebody else may be asking from, the victim's address is no help.
    let forged = SocketAddr::from((Ipv4Addr::new(198, 18, 0, 9), 9));
    arena.wire.send_datagram(forged, arena.endpoint(), &end)?;
    watch.counts(Reason::AuthFail.name(), refused + 2)?;
    watch.is_undisturbed()
}

fn wrong_epoch(lab: &Lab) -> Result<()> {
    let arena = Arena::open(lab, "")?;
    let mut mallory = arena.join()?;
    let watch = arena.watch()?;
    // A first move, so that there is an epoch to be behind of.
    let home = mallory.move_to(arena.socket()?)?;
    ensure!(matches!(mallory.reattach(2, Cause::HardDead)?, Answer::Bound(_)), "the first move is refused");
    mallory.validate()?;
    let before = arena.mallory()?;
    let current = mallory.epoch;
    for (epoch, wanted) in [(current - 1, Reason::StaleStateVersion), (current + 1, Reason::FutureStateVersion)] {
        let elsewhere = mallory.move_to(arena.socket()?)?;
        let mut asked = mallory.request(3, Cause::HardDead);
        asked.binding_epoch = epoch;
        let packet = mallory.prove(&asked);
        mallory.send(&packet)?;
        let Answer::Refused(reject) = mallory.answer()? else { bail!("epoch {epoch} was accepted at {current}") };
        ensure!(reject.reason == wanted, "epoch {epoch} at {current} is refused as {}", reject.reason);
        let told = reject.current.map(|(epoch, _)| epoch);
        let expected = (wanted == Reason::StaleStateVersion).then_some(current);
        ensure!(told == expected, "the answer says {told:?}, not {expected:?}");
        mallory.move_to(elsewhere)?;
        watch.counts(wanted.name(), 1)?;
        ensure!(arena.mallory()?.is_as(&before), "epoch {epoch} changed the session");
    }
    drop(home);
    watch.is_undisturbed()
}
