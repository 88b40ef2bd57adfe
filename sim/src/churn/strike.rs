//! The blows: one thing happens to one client, or to the gateway.

use std::net::SocketAddr;

use jumpgate_protocol::ident::Locator;
use jumpgate_protocol::reason::Reason;
use jumpgate_protocol::time::Span;

use crate::net::{Burst, Dice, Flap, Impairment};
use crate::world::World;

const MS: fn(u64) -> Span = Span::from_millis;
/// Longest time that a worker is not scheduled, in milliseconds.
const PAUSE_MAX_MS: u64 = 250;
/// Longest time that a slot is between two workers, in milliseconds.
const UNDER_WAY_MAX_MS: u64 = 50;
/// Packets that somebody sends again in one blow.
const REPLAYED: usize = 8;

/// An ordinary bad path: what every client has most of the time.
pub(super) fn rough() -> Impairment {
    Impairment { delay: MS(20), jitter: MS(15), loss: 20, duplicate: 10, reorder: 5, corrupt: 5, ..Impairment::GOOD }
}

/// One blow.
pub(super) fn strike(world: &mut World, dice: &mut Dice, clients: usize, paths: u16) {
    let client = dice.below(clients as u64) as usize;
    let path = 1 + dice.below(u64::from(paths)) as u16;
    match dice.below(100) {
        0..6 => world.link_down(client, path),
        6..18 => world.link_up(client, path),
        18..24 => world.rebind(client, path),
        24..27 => world.rebind_address(client, path),
        27..34 => world.impair(client, path, Impairment { blackhole: true, ..rough() }),
        34..47 => world.impair(client, path, rough()),
        47..54 => {
            // Refused where there is no session or no such path: the throw does not know.
            let _refused = world.move_to(client, path);
        }
        54..60 => one_way_hole(world, dice, client, path),
        60..66 => world.sleep(client),
        66..75 => world.wake(client),
        75..81 => replay(world, dice),
        81..84 => forge(world, dice),
        84..96 => world.impair(client, path, bad(dice)),
        96 => {
            let life = MS(500 + dice.below(20_000));
            world.expire_mappings(client, path, Some(life).filter(|_| dice.chance(500)));
        }
        // What happens to the gateway does not become more because there are more clients.
        97 if dice.below(1 + clients as u64 / 10) == 0 => {
            world.pause_worker(client % world.shards().len(), MS(dice.below(PAUSE_MAX_MS)));
        }
        97 => move_slot(world, client),
        98 => end_by_operator(world, client),
        _ => world.disconnect(client),
    }
}

/// Nothing passes in one direction; the client or the gateway notices, but not both at once.
fn one_way_hole(world: &mut World, dice: &mut Dice, client: usize, path: u16) {
    if let Some(link) = world.client(client).links.get_mut(&path) {
        let way = if dice.chance(500) { &mut link.down } else { &mut link.up };
        way.blackhole = true;
    }
}

/// One of the less ordinary bad paths.
fn bad(dice: &mut Dice) -> Impairment {
    match dice.below(7) {
        0 => Impairment { loss: 50 + dice.below(550) as u32, ..rough() },
        1 => Impairment { burst: Some(Burst { enter: 20, leave: 100, loss: 900 }), ..rough() },
        2 => Impairment { delay: MS(50 + dice.below(450)), jitter: MS(dice.below(120)), ..rough() },
        3 => Impairment { flap: Some(Flap { up: MS(1 + dice.below(5_000)), down: MS(dice.below(5_000)) }), ..rough() },
        4 => Impairment { duplicate: 300, reorder: 300, corrupt: 200, ..rough() },
        5 => Impairment { rate: Some(8 + dice.below(120) as u32), ..rough() },
        _ => Impairment { mtu: Some(200 + dice.below(1_200) as u16), ..rough() },
    }
}

/// Somebody sends what was overheard: from where it came or from elsewhere, to the gateway or to a client.
fn replay(world: &mut World, dice: &mut Dice) {
    for _ in 0..REPLAYED {
        let choice = dice.throw();
        if dice.chance(250) {
            let heard = world.eavesdropper.as_ref().and_then(|somebody| somebody.of_the_gateway(choice).cloned());
            if let Some((client, path, packet)) = heard {
                world.inject_to_client(client, path, &packet);
            }
        } else {
            let heard = world.eavesdropper.as_ref().and_then(|somebody| somebody.of_clients(choice).cloned());
            if let Some((from, packet)) = heard {
                let from = if dice.chance(500) { from } else { elsewhere(dice) };
                world.inject(from, &packet);
            }
        }
    }
}

/// Somebody changes what was overheard, as far as a session is named in it, and sends it as from its owner.
fn forge(world: &mut World, dice: &mut Dice) {
    for _ in 0..REPLAYED {
        let choice = dice.throw();
        let heard = world.eavesdropper.as_ref().and_then(|somebody| somebody.of_clients(choice).cloned());
        if let Some((from, mut packet)) = heard {
            // Type, locator and counter stay plausible: what is wrong is behind them, or the counter alone.
            let at = 12 + dice.below(packet.len().saturating_sub(12).max(1) as u64) as usize;
            if let Some(byte) = packet.get_mut(at) {
                *byte ^= 1 << dice.below(8);
            }
            world.inject_forged(if dice.chance(700) { from } else { elsewhere(dice) }, packet);
        }
    }
}

fn elsewhere(dice: &mut Dice) -> SocketAddr {
    ([203, 0, 113, dice.below(256) as u8], 1 + dice.below(65_535) as u16).into()
}

/// The slot of a client's session goes to the next worker, and is under way for some milliseconds.
fn move_slot(world: &mut World, client: usize) {
    let now = world.now();
    if let Some(locator) = world.client(client).client.status(now).locator {
        let to = (world.owner(locator) + 1) % world.shards().len();
        // Refused where the worker is not scheduled, or the slot is under way: the throw does not know.
        let _refused = world.move_slot(locator.slot(), to, MS(locator.0 % UNDER_WAY_MAX_MS));
    }
}

fn end_by_operator(world: &mut World, client: usize) {
    let now = world.now();
    let locator: Option<Locator> = world.client(client).client.status(now).locator;
    if let Some(locator) = locator {
        world.terminate(locator, Reason::OperatorTerminated);
    }
}
