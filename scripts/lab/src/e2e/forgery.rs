//! What was never said: proofs made without the key, under another session's key, or over the wrong epoch.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result, bail, ensure};
use jumpgate_protocol::ident::Locator;
use jumpgate_protocol::reason::Reason;
use jumpgate_protocol::wire::{Cause, Terminate};

use super::Test;
use super::arena::{Arena, Watch, forged_source};
use super::replay::moved_by;
use crate::attacker::{Answer, Member, request};
use crate::relay::Direction;
use crate::topology::{Lab, WIFI};

pub(super) const TESTS: &[Test] = &[
    Test { name: "forgery: one wrong bit anywhere in a reattach makes it worthless (A06, C04)", run: one_bit },
    Test { name: "forgery: a proof of one session is worth nothing for another (A07, A08, HS-8)", run: borrowed_proof },
    Test { name: "forgery: nothing that one session seals reaches into another (INV-27)", run: cross_session },
    Test {
        name: "forgery: a valid proof over an old or a future epoch changes nothing (A04, A05, C07, INV-06)",
        run: wrong_epoch,
    },
];

/// Where the nonce stands in a request.
const NONCE_AT: usize = 12;

fn one_bit(lab: &Lab) -> Result<()> {
    let arena = Arena::open(lab, "")?;
    let request = moved_by(lab, &arena.tunnel)?;
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
