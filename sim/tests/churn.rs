//! Many clients over bad networks, for a fixed corpus of seeds: no checker finds anything, and equal seeds run equally.

use jumpgate_protocol::policy::{Policy, Profile};
use jumpgate_protocol::time::Span;
use jumpgate_sim::{Dice, Impairment, World, WorldConfig};

const MS: fn(u64) -> Span = Span::from_millis;

/// What a run left behind; equal for equal seeds.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    transitions: u64,
    commits: u64,
    received: usize,
    connected: usize,
}

fn run(seed: u64, clients: usize, seconds: u64) -> Outcome {
    let config = WorldConfig { seed, workers: 2, policy: Policy::profile(Profile::Mobile) };
    let mut world = World::new(&config, clients, 2);
    let mut dice = Dice::new(seed ^ 0xd1ce);
    let rough = Impairment { delay: MS(20), jitter: MS(15), loss: 20, duplicate: 10, corrupt: 5, blackhole: false };
    for client in 0..clients {
        world.impair(client, 1, rough);
        world.impair(client, 2, rough);
        world.connect(client);
    }
    for _ in 0..seconds * 10 {
        let client = dice.below(clients as u64) as usize;
        let path = 1 + dice.below(2) as u16;
        match dice.below(8) {
            0 => world.link_down(client, path),
            1 | 2 => world.link_up(client, path),
            3 => world.rebind(client, path),
            4 => world.impair(client, path, Impairment { blackhole: true, ..rough }),
            5 => world.impair(client, path, rough),
            6 => {
                // Refused where there is no session or no such path: the throw does not know.
                let _refused = world.move_to(client, path);
            }
            _ => {}
        }
        for client in 0..clients {
            // While nothing is bound there is nothing to send on.
            let _dropped = world.send_up(client, b"up");
            let _dropped = world.send_down(client, b"down");
            if world.client(client).client.is_idle() {
                world.connect(client);
            }
        }
        world.run_for(MS(100));
    }
    let limit = usize::from(config.policy.switching.max_switches_per_min);
    assert_eq!(world.checker().violations(), &[] as &[String], "seed {seed}");
    assert!(world.checker().busiest_minute() <= limit, "INV-15, seed {seed}");
    let connected = (0..clients).filter(|client| world.client(*client).client.is_connected()).count();
    Outcome {
        transitions: world.checker().transitions(),
        commits: world.checker().commits(),
        received: world.received.len(),
        connected,
    }
}

#[test]
fn the_invariants_hold_for_every_seed_of_the_corpus() {
    for seed in 0..12 {
        let outcome = run(seed, 8, 60);
        assert!(outcome.commits > 0 && outcome.received > 0, "seed {seed} tested nothing: {outcome:?}");
    }
}

#[test]
fn i07_the_same_seed_gives_the_same_run() {
    assert_eq!(run(42, 6, 30), run(42, 6, 30));
}

#[test]
fn other_seeds_give_other_runs() {
    assert_ne!(run(1, 6, 30), run(2, 6, 30));
}
