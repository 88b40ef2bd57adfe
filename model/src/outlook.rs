//! What becomes of a state, by the real code run forward: with the network well again both ends get back together
//! (L-1, L-3, L-4), and without any network the session ends by time alone (L-2).

use jumpgate_protocol_woven::machine::State;
use jumpgate_protocol_woven::reason::Reason;
use jumpgate_protocol_woven::time::{Span, Time};

use crate::world::World;

/// How long a recovery may take once the network is well: a brake, a full recovery window, and another.
const RECOVERY: Span = Span::from_millis(12_000);
/// How long if the switch rate is used up: until a commit leaves the sliding minute (L-5).
const EXHAUSTED: Span = Span::from_millis(75_000);
/// Who has less time left without a transport may reach the limit before the recovery does (L-3).
const ENOUGH: Span = Span::from_millis(5_000);
/// Without a network: until the silence is noticed, and then the limit; the handshake has a limit of its own.
const BLACKOUT: Span = Span::from_millis(15_000);

/// Whether both ends get back together, or how they do not.
///
/// # Errors
/// What went wrong instead.
pub fn recovers(world: &World) -> Result<(), String> {
    if world.is_whole() || world.is_over() {
        return Ok(());
    }
    let mut run = world.clone();
    run.links.iter_mut().for_each(|link| (link.up, link.down) = (true, true));
    for path in 0..run.links.len() {
        if !run.links[path].linked {
            run.link(path, true);
        }
    }
    let exhausted = is_exhausted(world);
    let end = world.now + if exhausted { EXHAUSTED } else { RECOVERY };
    while !run.is_whole() && !run.is_over() && run.tick(end) {}
    if run.watch.violations.len() > world.watch.violations.len() {
        return Err(format!("on the way: {:?}", run.watch.violations));
    }
    if run.is_whole() || (run.is_over() && (exhausted || may_end(world, &run))) {
        return Ok(());
    }
    let (gateway, mirror) = (&run.watch.gateway, &run.watch.mirror);
    Err(format!("after {}: gateway {gateway:?}, mirror {mirror:?}", run.now.since(world.now)))
}

/// Whether the session is over at both ends after a blackout of that length.
///
/// # Errors
/// What is left.
pub fn ends(world: &World) -> Result<(), String> {
    let mut run = world.clone();
    run.links.iter_mut().for_each(|link| (link.up, link.down) = (false, false));
    let end = world.now + BLACKOUT;
    while !run.is_over() && run.tick(end) {}
    if run.is_over() && run.watch.violations.len() == world.watch.violations.len() {
        return Ok(());
    }
    Err(format!("gateway {:?}, mirror {:?}, {:?}", run.watch.gateway, run.watch.mirror, run.watch.violations))
}

/// A session may end although the network is well: it had ended at one end already, its handshake was never confirmed,
/// or its time without a transport was all but over.
fn may_end(before: &World, after: &World) -> bool {
    let one_sided = before.shard.record().is_none() || before.client.record().is_none();
    let unconfirmed = before.watch.gateway.state == State::Birth;
    let limit = before.policy.session.transport_lost_ttl;
    let late = [&before.watch.gateway, &before.watch.mirror].into_iter().any(|followed| {
        let unbound = followed.unbound_since.map_or(Span::ZERO, |since| before.now.since(since));
        unbound.as_micros() + ENOUGH.as_micros() >= limit.as_micros()
    });
    let by_limit = [&after.watch.gateway, &after.watch.mirror]
        .into_iter()
        .any(|followed| followed.ended == Some(Reason::TtlTransportLossExpired));
    one_sided || unconfirmed || (late && by_limit)
}

/// Whether another commit does not fit into the minute, or the next one will be the last.
fn is_exhausted(world: &World) -> bool {
    let limit = usize::from(world.policy.switching.max_switches_per_min);
    let window = jumpgate_protocol_woven::machine::SWITCH_WINDOW;
    let recent = |at: &&Time| world.now.since(**at) < window;
    world.watch.commits.iter().filter(recent).count() + 1 >= limit
}
