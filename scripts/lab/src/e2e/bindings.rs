//! Who may speak for a session: tuples, epochs, and two holders of one key.

use std::net::UdpSocket;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use etherparse::PacketBuilder;
use jumpgate_protocol::reason::Reason;
use jumpgate_protocol::wire::{Cause, MessageType};

use super::Test;
use super::arena::{Arena, MALLORY, forged_source};
use crate::attacker::{Answer, Member};
use crate::relay::Direction;
use crate::topology::{LTE, Lab, SERVER_V4, WIFI};

pub(super) const TESTS: &[Test] = &[
    Test {
        name: "binding: data from an unbound address is dropped, and the binding stays (A17, INV-26, SP-5)",
        run: unbound_data,
    },
    Test {
        name: "binding: data of the previous epoch counts from the retiring tuple while it drains, and not after (A18, TC25, BD-1)",
        run: previous_epoch,
    },
    Test {
        name: "binding: two holders of one session's keys are never bound twice, and a proved clone ends it (A24, AR-4, INV-01)",
        run: clones,
    },
    Test {
        name: "binding: two holders of one client key have one session each, and never each other's (A24, INV-04)",
        run: two_holders,
    },
];

/// A UDP port at the server that nobody else uses.
const PORT: u16 = 9_777;

/// An inner packet of the member's own address to the server.
pub(super) fn inner(member: &Member, text: &[u8]) -> Result<Vec<u8>> {
    let (address, _) = member.reply().inner_v4.context("the member has no inner address")?;
    let udp = PacketBuilder::ipv4(address.octets(), SERVER_V4.octets(), 64).udp(PORT, PORT);
    let mut packet = Vec::new();
    udp.write(&mut packet, text)?;
    Ok(packet)
}

/// Listens at the server for what members send.
pub(super) fn listener(lab: &Lab) -> Result<UdpSocket> {
    let socket = lab.server.enter(|| UdpSocket::bind((SERVER_V4, PORT)))??;
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    Ok(socket)
}

/// The next text that reached the server.
pub(super) fn heard(listener: &UdpSocket) -> Option<String> {
    let mut buffer = [0; 256];
    let len = listener.recv(&mut buffer).ok()?;
    String::from_utf8(buffer[..len].to_vec()).ok()
}

fn unbound_data(lab: &Lab) -> Result<()> {
    let arena = Arena::open(lab, "")?;
    arena.tunnel.wait_for_standby(&LTE)?;
    let watch = arena.watch()?;
    lab.relay.capture(WIFI.path, Direction::Up, Some(MessageType::Data as u8), 1, true)?;
    thread::sleep(Duration::from_millis(100));
    let captured = lab.relay.captured(WIFI.path, Direction::Up)?;
    let data = captured.into_iter().next().context("no data was seen")?.payload.0;
    // Also from the validated standby path: it is not bound either.
    lab.relay.inject(LTE.path, Direction::Up, None, &data)?;
    arena.wire.send_datagram(forged_source(7), arena.endpoint(), &data)?;
    // And from the right address with another port.
    let mut neighbour = watch.before().peer.context("the victim has no peer")?;
    neighbour.set_port(neighbour.port() ^ 1);
    arena.wire.send_datagram(neighbour, arena.endpoint(), &data)?;
    watch.counts(Reason::WrongTransport.name(), 3)?;
    ensure!(watch.grown(Reason::DataReplay.name())? == 0, "the window was touched");
    watch.is_undisturbed()
}

fn previous_epoch(lab: &Lab) -> Result<()> {
    // The longest drain there is, so that "while it drains" is not a matter of luck on a busy machine.
    let drain = Duration::from_millis(1_000);
    let arena = Arena::open(lab, "switching.old_path_drain_ms = 1000")?;
    let listener = listener(lab)?;
    let mut mallory = arena.join()?;
    let watch = arena.watch()?;
    let first = mallory.data(&inner(&mallory, b"from the first binding")?);
    mallory.send(&first)?;
    ensure!(heard(&listener).as_deref() == Some("from the first binding"), "the first binding does not work");

    let old = mallory.move_to(arena.socket()?)?;
    ensure!(matches!(mallory.reattach(2, Cause::HardDead)?, Answer::Bound(_)), "the move is refused");
    let moved = std::time::Instant::now();
    let say = |mallory: &mut Member, tag: u8, text: &str| -> Result<Vec<u8>> {
        mallory.data_counter += 1;
        Ok(mallory.data_as(mallory.locator(), mallory.data_counter, tag, &inner(mallory, text.as_bytes())?))
    };
    let late = say(&mut mallory, 1, "late")?;
    old.send_to(&late, arena.endpoint())?;
    let taken = heard(&listener);
    ensure!(taken.as_deref() == Some("late") || moved.elapsed() > drain, "refused while it drains: {taken:?}");
    mallory.validate()?;

    thread::sleep(drain + Duration::from_millis(100));
    let too_late = say(&mut mallory, 1, "too late")?;
    old.send_to(&too_late, arena.endpoint())?;
    watch.counts(Reason::WrongTransport.name(), 1)?;
    // From the bound tuple, under the wrong epoch: behind and ahead.
    let stale = say(&mut mallory, 1, "stale")?;
    mallory.send(&stale)?;
    watch.counts(Reason::DataStaleEpoch.name(), 1)?;
    let future = say(&mut mallory, 3, "future")?;
    mallory.send(&future)?;
    watch.counts(Reason::DataFutureEpoch.name(), 1)?;
    let right = say(&mut mallory, 2, "right")?;
    mallory.send(&right)?;
    let next = heard(&listener);
    ensure!(next.as_deref() == Some("right"), "{next:?} came through the tunnel");
    watch.is_undisturbed()
}

fn clones(lab: &Lab) -> Result<()> {
    let arena = Arena::open(lab, "")?;
    let mut one = arena.join()?;
    let mut other = one.clone_to(arena.socket()?)?;
    let watch = arena.watch()?;
    // They take turns, each with a nonce above the other's: one binding wanders, and there is never a second.
    for turn in 0..4_u16 {
        let (speaker, silent) = if turn % 2 == 0 { (&mut other, &mut one) } else { (&mut one, &mut other) };
        (speaker.counter, speaker.epoch) = (silent.counter, silent.epoch);
        let Answer::Bound(ack) = speaker.reattach(2 + turn, Cause::HardDead)? else { bail!("turn {turn} is refused") };
        speaker.validate()?;
        let session = arena.mallory()?;
        ensure!(session.peer == Some(speaker.address()?), "bound to {:?}, not to who asked last", session.peer);
        ensure!(session.epoch == ack.binding_epoch, "the epoch is {}", session.epoch);
    }
    // The last speaker's copy uses the nonce that was used, for other words: that proves two holders.
    let (next, epoch) = (one.counter + 1, one.epoch);
    (one.counter, other.counter, other.epoch) = (next - 1, next - 1, epoch);
    let refused = one.prove(&one.request(7, Cause::Forced));
    one.send(&refused)?;
    one.answer()?;
    let proof = other.prove(&other.request(8, Cause::HardDead));
    other.send(&proof)?;
    watch.counts(Reason::KeyCompromiseSuspected.name(), 1)?;
    super::wait_for("the cloned session to end", Duration::from_secs(2), || {
        Ok(arena.tunnel.gateway.sessions()?.iter().all(|session| session.client != MALLORY))
    })?;
    watch.is_undisturbed()
}

fn two_holders(lab: &Lab) -> Result<()> {
    let arena = Arena::open(lab, "")?;
    let watch = arena.watch()?;
    let first = arena.join()?;
    // The second holder knows the key, and that hello counters rise.
    let hello = crate::attacker::request(2);
    let second = Member::join(arena.socket()?, &arena.target(), arena.key(), &hello)?;
    ensure!(first.locator() != second.locator(), "two handshakes gave one session");
    ensure!(first.reply().identity != second.reply().identity, "two sessions, one identity");
    ensure!(first.reply().inner_v4 != second.reply().inner_v4, "two sessions, one inner address");
    let sessions = arena.tunnel.gateway.sessions()?;
    for (speaker, other) in [(&first, &second), (&second, &first)] {
        let row = sessions.iter().find(|row| row.locator == speaker.locator().to_string());
        let peer = row.and_then(|row| row.peer).context("one of the sessions is not there")?;
        ensure!(peer == speaker.address()?, "a session is bound to somebody else: {peer}");
        // Neither can speak for the other: the keys of a session are its own.
        let refused = watch.grown(Reason::AuthFail.name())?;
        speaker.send(&speaker.prove_as(other.locator(), 1 << 40, &speaker.request(5, Cause::HardDead)))?;
        watch.counts(Reason::AuthFail.name(), refused + 1)?;
    }
    watch.is_undisturbed()
}
