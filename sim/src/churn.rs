//! Many clients over bad networks: a script of everything that can happen to them, drawn from one seed.

use std::fmt;

use jumpgate_protocol::policy::{Policy, Profile};
use jumpgate_protocol::time::Span;

use crate::net::{Dice, Impairment};
use crate::world::{World, WorldConfig};

/// How often something happens to somebody, and each client sends a packet each way.
const STEP: Span = Span::from_millis(100);
/// Steps between two looks at every session (INV-28).
const AUDIT_EVERY: u64 = 50;
/// A few bad things in a row for one client in so many clients, each step.
const CLIENTS_A_STROKE: u64 = 8;
/// Paths of each client.
const PATHS: u16 = 2;
/// Datagrams of the last moments that an eavesdropper may send again.
const OVERHEARD: usize = 256;
/// After the storm: by then every session has come to rest, or ended and begun anew. The slowest way there is a full
/// sliding minute of switches.
const CALM: Span = Span::from_millis(90_000);
/// And from then on nothing moves any more.
const REST: Span = Span::from_millis(20_000);

/// One run.
#[derive(Clone, Debug)]
pub struct Churn {
    /// Everything random follows from it.
    pub seed: u64,
    /// How many clients.
    pub sessions: usize,
    /// How much virtual time.
    pub length: Span,
    /// The policy of every session.
    pub profile: Profile,
}

/// What a run left behind; equal for equal seeds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Transitions at the gateway.
    pub transitions: u64,
    /// Commits of T11 among them.
    pub commits: u64,
    /// Inner packets that came through upwards.
    pub received: usize,
    /// Inner packets that came through downwards.
    pub delivered: usize,
    /// Packets sealed, each under a nonce of its own.
    pub sealed: usize,
    /// Rekeys completed at the gateway.
    pub rekeys: usize,
    /// Clients that have a session at the end.
    pub connected: usize,
    /// Most commits that one session made within a sliding minute.
    pub busiest_minute: usize,
    /// All transitions of both ends with their times, as one number.
    pub digest: u64,
    /// What the checkers found.
    pub violations: Vec<String>,
}

impl Churn {
    /// Plays it.
    pub fn run(&self) -> Outcome {
        self.run_under(Policy::profile(self.profile))
    }

    /// Plays it under another policy than that of its profile.
    pub fn run_under(&self, policy: Policy) -> Outcome {
        let config = WorldConfig { seed: self.seed, workers: 2, policy };
        let mut world = World::new(&config, self.sessions, PATHS);
        let mut dice = Dice::new(self.seed ^ 0xd1ce);
        let rough = Impairment {
            delay: Span::from_millis(20),
            jitter: Span::from_millis(15),
            loss: 20,
            duplicate: 10,
            corrupt: 5,
            blackhole: false,
        };
        for client in 0..self.sessions {
            for path in 1..=PATHS {
                world.impair(client, path, rough);
            }
            world.connect(client);
        }
        world.capture = Some(Vec::new());
        let steps = self.length.as_micros() / STEP.as_micros();
        for step in 0..steps {
            // Every other seed: the gateway crashes half way, and every client learns it by SESSION_RESET (RF-3).
            if step == steps / 2 && self.seed % 2 == 1 {
                world.restart_gateway(&config.policy);
            }
            for _ in 0..(self.sessions as u64).div_ceil(CLIENTS_A_STROKE) {
                strike(&mut world, &mut dice, self.sessions, rough);
            }
            self.step(&mut world);
            if step % AUDIT_EVERY == 0 {
                world.audit();
            }
        }
        self.calm_down(&mut world);
        world.audit();
        let connected = (0..self.sessions).filter(|client| world.client(*client).client.is_connected()).count();
        let delivered = (0..self.sessions).map(|client| world.client(client).delivered.len()).sum();
        let checker = world.checker();
        Outcome {
            transitions: checker.transitions(),
            commits: checker.commits(),
            received: world.received.len(),
            delivered,
            sealed: world.sealed(),
            rekeys: world.rekeyed.len(),
            connected,
            busiest_minute: checker.busiest_minute(),
            digest: checker.digest(),
            violations: checker.violations().to_vec(),
        }
    }
}

impl Churn {
    /// Every client sends a packet each way, and whoever has no session asks for one.
    fn step(&self, world: &mut World) {
        for client in 0..self.sessions {
            // While nothing is bound there is nothing to send on.
            let _dropped = world.send_up(client, b"up");
            let _dropped = world.send_down(client, b"down");
            if world.client(client).client.is_idle() {
                world.connect(client);
            }
        }
        world.run_for(STEP);
    }

    /// The storm is over: every session comes to rest at both ends (L-1, L-2), and then nothing moves any more (SM-11).
    fn calm_down(&self, world: &mut World) {
        world.capture = None;
        for client in 0..self.sessions {
            world.wake(client);
            for path in 1..=PATHS {
                world.impair(client, path, Impairment::default());
                world.link_up(client, path);
            }
        }
        for _ in 0..CALM.as_micros() / STEP.as_micros() {
            self.step(world);
        }
        for client in 0..self.sessions {
            world.expect_rest(client);
        }
        let before = world.checker().transitions();
        for _ in 0..REST.as_micros() / STEP.as_micros() {
            self.step(world);
        }
        world.expect_silence_since(before);
    }
}

/// One thing happens to one client.
fn strike(world: &mut World, dice: &mut Dice, clients: usize, rough: Impairment) {
    let client = dice.below(clients as u64) as usize;
    let path = 1 + dice.below(u64::from(PATHS)) as u16;
    match dice.below(14) {
        0 => world.link_down(client, path),
        1 | 2 => world.link_up(client, path),
        3 => world.rebind(client, path),
        4 => world.impair(client, path, Impairment { blackhole: true, ..rough }),
        5 | 6 => world.impair(client, path, rough),
        7 => {
            // Refused where there is no session or no such path: the throw does not know.
            let _refused = world.move_to(client, path);
        }
        8 => {
            // One way only.
            if let Some(link) = world.client(client).links.get_mut(&path) {
                link.down.blackhole = true;
            }
        }
        9 => world.sleep(client),
        10 => world.wake(client),
        11 | 12 => {
            // Somebody sends what was overheard, from where it came or from elsewhere.
            let overheard = world.capture.as_mut().map(|capture| {
                capture.drain(..capture.len().saturating_sub(OVERHEARD));
                capture.clone()
            });
            for _ in 0..8 {
                let Some(all) = overheard.as_ref().filter(|all| !all.is_empty()) else {
                    return;
                };
                let (from, packet) = &all[dice.below(all.len() as u64) as usize];
                let elsewhere = ([203, 0, 113, dice.below(256) as u8], 1 + dice.below(65_535) as u16).into();
                world.inject(if dice.chance(500) { *from } else { elsewhere }, packet);
            }
        }
        _ => {}
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "transitions at the gateway  {:>12}", self.transitions)?;
        writeln!(f, "switches committed          {:>12}", self.commits)?;
        writeln!(f, "busiest minute of a session {:>12}", self.busiest_minute)?;
        writeln!(f, "inner packets up            {:>12}", self.received)?;
        writeln!(f, "inner packets down          {:>12}", self.delivered)?;
        writeln!(f, "packets sealed              {:>12}", self.sealed)?;
        writeln!(f, "rekeys                      {:>12}", self.rekeys)?;
        writeln!(f, "clients with a session      {:>12}", self.connected)?;
        writeln!(f, "digest of the run       {:016x}", self.digest)?;
        for violation in &self.violations {
            writeln!(f, "VIOLATION {violation}")?;
        }
        write!(f, "violations                  {:>12}", self.violations.len())
    }
}
