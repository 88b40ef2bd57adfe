//! A gateway and two clients over a network that the script controls: the simulator's oracles look at everything.

use std::net::SocketAddr;

use jumpgate_protocol::policy::{Policy, Profile};
use jumpgate_protocol::time::Span;
use jumpgate_sim::{Impairment, World, WorldConfig};

use crate::script::Script;

/// Operations of one script.
const OPERATIONS_MAX: usize = 120;
/// Clients of the world.
const CLIENTS: u8 = 2;
/// Paths of each.
const PATHS: u16 = 2;
/// Longest step of the world's clock, in milliseconds: a script cannot make a run endless.
const STEP_MAX_MS: u16 = 5_000;

/// What a script can do.
pub(crate) mod operation {
    pub(crate) const COUNT: u8 = 11;
    pub(crate) const RUN: u8 = 0;
    pub(crate) const IMPAIR: u8 = 1;
    pub(crate) const REBIND: u8 = 2;
    pub(crate) const LINK: u8 = 3;
    pub(crate) const SLEEP: u8 = 4;
    pub(crate) const TRAFFIC: u8 = 5;
    pub(crate) const INJECT: u8 = 6;
    pub(crate) const REPLAY: u8 = 7;
    pub(crate) const MOVE: u8 = 8;
    pub(crate) const CONNECT: u8 = 9;
    pub(crate) const RESTART: u8 = 10;
}

/// Plays a script.
pub fn run(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let profile = [Profile::Default, Profile::Mobile, Profile::Fast][usize::from(script.byte() % 3)];
    let policy = Policy::profile(profile);
    let config = WorldConfig { seed: u64::from(script.byte()), workers: 2, policy };
    let mut world = World::new(&config, usize::from(CLIENTS), PATHS);
    world.capture = Some(Vec::new());
    (0..usize::from(CLIENTS)).for_each(|client| world.connect(client));
    for _ in 0..OPERATIONS_MAX {
        let Some(code) = script.operation() else { break };
        play(&mut world, &config, code % operation::COUNT, &mut script);
        let violations = world.checker().violations();
        assert!(violations.is_empty(), "{violations:#?}");
    }
    (0..usize::from(CLIENTS)).for_each(|client| world.wake(client));
    world.audit();
    assert!(world.checker().violations().is_empty(), "{:#?}", world.checker().violations());
}

fn play(world: &mut World, config: &WorldConfig, code: u8, script: &mut Script<'_>) {
    let who = script.byte();
    let (client, path) = (usize::from(who % CLIENTS), u16::from(who / CLIENTS) % PATHS + 1);
    match code {
        operation::RUN => world.run_for(Span::from_millis(u64::from(script.word() % STEP_MAX_MS))),
        operation::IMPAIR => {
            let impairment = Impairment {
                delay: Span::from_millis(u64::from(script.byte())),
                jitter: Span::from_millis(u64::from(script.byte())),
                loss: u32::from(script.byte()) * 4,
                duplicate: u32::from(script.byte()),
                corrupt: u32::from(script.byte()),
                blackhole: script.byte() > 200,
                ..Impairment::GOOD
            };
            world.impair(client, path, impairment);
        }
        operation::REBIND => world.rebind(client, path),
        operation::LINK if script.byte() & 1 == 0 => world.link_down(client, path),
        operation::LINK => world.link_up(client, path),
        operation::SLEEP if script.byte() & 1 == 0 => world.sleep(client),
        operation::SLEEP => world.wake(client),
        operation::TRAFFIC => {
            for _ in 0..=script.byte() & 7 {
                let _ = (world.send_up(client, b"up"), world.send_down(client, b"down"));
            }
        }
        operation::INJECT => {
            let count = usize::from(script.byte());
            world.inject(stranger(who), script.bytes(count));
        }
        operation::REPLAY => {
            let (index, flip) = (usize::from(script.byte()), usize::from(script.word()));
            let captured = world.capture.take().unwrap_or_default();
            // Of what was overheard, the newest is the most dangerous.
            if let Some((from, packet)) = captured.iter().rev().nth(index) {
                let mut packet = packet.clone();
                if flip != 0 {
                    let bit = flip % (packet.len() * 8);
                    packet[bit / 8] ^= 1 << (bit % 8);
                }
                world.inject(if who & 1 == 0 { *from } else { stranger(who) }, &packet);
            }
            world.capture = Some(captured);
        }
        operation::MOVE => {
            let _ = world.move_to(client, path);
        }
        operation::CONNECT => world.connect(client),
        // Rare, since it ends every session.
        operation::RESTART => match script.byte() {
            251.. => world.restart_gateway(&config.policy),
            // As planned, and nothing ends.
            201.. => world.hand_over(&config.policy, Span::from_millis(u64::from(who))),
            _ => {}
        },
        _ => {}
    }
}

/// Somebody who has no session.
fn stranger(number: u8) -> SocketAddr {
    SocketAddr::from(([203, 0, 113, number], 4_000))
}

/// A calm day, a bad one, an eavesdropper, a suspended machine.
pub fn seeds() -> Vec<Vec<u8>> {
    use operation::{CONNECT, IMPAIR, INJECT, LINK, MOVE, REBIND, REPLAY, RESTART, RUN, SLEEP, TRAFFIC};
    let run = |ms: u16| [&[RUN, 0][..], &ms.to_be_bytes()].concat();
    let dead = |who: u8| vec![IMPAIR, who, 10, 0, 0, 0, 0, 255];
    vec![
        [vec![0, 1], run(900), vec![TRAFFIC, 0, 3], run(4_000), vec![TRAFFIC, 1, 3], run(4_000)].concat(),
        [vec![2, 2], run(2_000), dead(0), run(3_000), vec![LINK, 1, 0], run(900), vec![LINK, 1, 1], run(4_000)]
            .concat(),
        [
            vec![1, 3],
            run(2_000),
            vec![REBIND, 0],
            run(4_000),
            vec![REPLAY, 0, 0, 0, 0],
            run(50),
            vec![MOVE, 2],
            run(900),
        ]
        .concat(),
        [
            vec![0, 4],
            run(900),
            vec![REPLAY, 1, 1, 0, 0],
            vec![REPLAY, 0, 2, 0, 9],
            vec![INJECT, 9, 3, 0x1a, 0x10, 0],
            run(90),
        ]
        .concat(),
        [
            vec![2, 5],
            run(900),
            vec![SLEEP, 0, 0],
            run(4_000),
            vec![SLEEP, 0, 1],
            run(4_000),
            vec![CONNECT, 0],
            run(2_000),
        ]
        .concat(),
        [vec![0, 6], vec![IMPAIR, 0, 40, 60, 60, 40, 20, 0], run(4_000), vec![RESTART, 0, 255], run(4_000), run(4_000)]
            .concat(),
    ]
}
