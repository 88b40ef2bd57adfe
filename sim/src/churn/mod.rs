//! Many clients over bad networks: a script of everything that can happen to them, drawn from one seed.

mod outcome;
mod strike;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use jumpgate_protocol::audit::Record;
use jumpgate_protocol::policy::{Policy, Profile};
use jumpgate_protocol::time::{Span, Time};

use crate::eavesdropper::Eavesdropper;
use crate::net::{Dice, Impairment};
use crate::records::Writer;
use crate::trace::Trace;
use crate::world::{World, WorldConfig};

pub use outcome::Outcome;
use strike::{rough, strike};

/// How often something may happen to somebody.
const STEP: Span = Span::from_millis(100);
/// Steps between two looks at every session (INV-28, L-2).
const AUDIT_EVERY: u64 = 50;
/// Paths of each client.
const PATHS: u16 = 2;
/// Fastest and slowest clock of a client, in parts per million.
const SKEW_PPM: u64 = 200;
/// After the storm: by then every session has come to rest, or ended and begun anew. The slowest way there is a full
/// sliding minute of switches.
const CALM: Span = Span::from_millis(90_000);
/// In a run with a crash, the gateway is restarted as planned after so many hundredths of it.
const HAND_OVERS: [u64; 3] = [20, 35, 75];
/// For so long there is no gateway then.
const DOWNTIME: Span = Span::from_millis(300);
/// And from then on nothing moves any more.
const REST: Span = Span::from_millis(20_000);

/// One run.
#[derive(Clone, Debug)]
pub struct Churn {
    /// Everything random follows from it.
    pub seed: u64,
    /// How many clients.
    pub sessions: usize,
    /// Workers of the gateway.
    pub workers: usize,
    /// How much virtual time of trouble; then comes the calm in which everything must come to rest.
    pub length: Span,
    /// The policy of every session.
    pub profile: Profile,
    /// How much happens.
    pub pace: Pace,
}

/// How much happens to each client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Blow upon blow, data all the while: for few clients, to find out how states follow each other.
    Storm,
    /// A few blows a minute, little data: for many clients, to find out how they get along.
    Steady,
}

/// How a run is watched and cut short from outside. Nothing of it changes what happens before.
#[derive(Default)]
pub struct Watch {
    /// Somebody wants the state so far.
    pub stop: AtomicBool,
    /// Virtual time that has passed, in microseconds.
    pub passed: AtomicU64,
    /// Ends the run after so much virtual time: nothing after the first violation is of interest.
    pub until: Option<Span>,
    /// A client whose transitions are printed.
    pub traced: Option<usize>,
    /// Writes the gateway's audit trace into that directory, and has it judged at the end.
    pub audit: Option<PathBuf>,
}

impl Pace {
    /// Blows for each client and minute.
    const fn strikes_a_minute(self) -> u64 {
        match self {
            Self::Storm => 75,
            Self::Steady => 4,
        }
    }

    /// Each client sends a packet each way so often.
    const fn data_every(self) -> u64 {
        match self {
            Self::Storm => 1,
            Self::Steady => 50,
        }
    }
}

impl Churn {
    /// Plays it.
    pub fn run(&self) -> Outcome {
        self.run_under(Policy::profile(self.profile))
    }

    /// Plays it under another policy than that of its profile.
    pub fn run_under(&self, policy: Policy) -> Outcome {
        self.watched(policy, &Watch::default())
    }

    /// Plays it for somebody who looks on.
    pub fn watched(&self, policy: Policy, watch: &Watch) -> Outcome {
        self.played(policy, watch, false).0
    }

    /// Plays it and gives every audit record besides, in the order in which they were written.
    pub fn recorded(&self, policy: Policy) -> (Outcome, Vec<(Writer, Record)>) {
        let (outcome, world) = self.played(policy, &Watch::default(), true);
        (outcome, world.records().kept().to_vec())
    }

    fn played(&self, policy: Policy, watch: &Watch, keep_records: bool) -> (Outcome, World) {
        let config = WorldConfig { seed: self.seed, workers: self.workers, policy };
        let mut world = World::new(&config, self.sessions, PATHS);
        world.history = false;
        if keep_records {
            world.keep_records();
        }
        world.traced = watch.traced;
        world.trace = watch.audit.as_ref().map(|directory| Trace::begin(directory, world.now()));
        world.eavesdropper = Some(Eavesdropper::default());
        let mut play =
            Play { churn: self, start: world.now(), world, dice: Dice::new(self.seed ^ 0xd1ce), step: 0, watch };
        play.set_up();
        // Every other seed: the gateway crashes half way, and every client learns it by SESSION_RESET (RF-3).
        let crash = (self.seed % 2 == 1).then_some(&config.policy);
        if play.storm(crash) && play.calm_down() {
            play.expect_rest();
        }
        play.world.audit();
        let outcome = Outcome::of(&mut play.world, self.sessions, play.start);
        (outcome, play.world)
    }
}

/// A run that is being played.
struct Play<'a> {
    churn: &'a Churn,
    start: Time,
    world: World,
    dice: Dice,
    step: u64,
    watch: &'a Watch,
}

impl Play<'_> {
    fn set_up(&mut self) {
        for client in 0..self.churn.sessions {
            let ppm = self.dice.below(2 * SKEW_PPM + 1) as i32 - SKEW_PPM as i32;
            self.world.step_clock(client, Span::from_millis(self.dice.below(1_000_000)));
            self.world.skew_clock(client, ppm);
            for path in 1..=PATHS {
                self.world.impair(client, path, rough());
            }
            self.world.connect(client);
        }
    }

    /// Plays until the storm is over. Gives whether it was played to the end.
    fn storm(&mut self, crash: Option<&Policy>) -> bool {
        let steps = self.churn.length.as_micros() / STEP.as_micros();
        let strikes_a_minute = self.churn.pace.strikes_a_minute() * self.churn.sessions as u64;
        let steps_a_minute = 60_000_000 / STEP.as_micros();
        let mut owed = 0;
        for step in 0..steps {
            if let Some(policy) = crash.filter(|_| step == steps / 2) {
                self.world.restart_gateway(policy);
            } else if let Some(policy) =
                crash.filter(|_| HAND_OVERS.contains(&(step * 100 / steps)) && step * 100 % steps < 100)
            {
                // Under the same eyes: no nonce comes twice, no replay is taken, nobody is lost or reset.
                self.world.hand_over(policy, DOWNTIME);
            }
            owed += strikes_a_minute;
            while owed >= steps_a_minute {
                owed -= steps_a_minute;
                strike(&mut self.world, &mut self.dice, self.churn.sessions, PATHS);
            }
            if !self.step() {
                return false;
            }
        }
        true
    }

    /// The storm is over: every session comes to rest at both ends (L-1, L-2), and then nothing moves any more (SM-11).
    fn calm_down(&mut self) -> bool {
        self.world.eavesdropper = None;
        for client in 0..self.churn.sessions {
            self.world.wake(client);
            for path in 1..=PATHS {
                self.world.impair(client, path, Impairment::GOOD);
                self.world.expire_mappings(client, path, None);
                self.world.link_up(client, path);
            }
        }
        (0..CALM.as_micros() / STEP.as_micros()).all(|_| self.step())
    }

    fn expect_rest(&mut self) {
        for client in 0..self.churn.sessions {
            self.world.expect_rest(client);
        }
        let before = self.world.checker().transitions();
        if (0..REST.as_micros() / STEP.as_micros()).all(|_| self.step()) {
            self.world.expect_silence_since(before);
        }
    }

    /// Clients send their packets each way, and whoever has no session asks for one. Gives whether to go on.
    fn step(&mut self) -> bool {
        let every = self.churn.pace.data_every();
        for client in 0..self.churn.sessions {
            if (self.step + client as u64).is_multiple_of(every) {
                // While nothing is bound there is nothing to send on.
                let _dropped = self.world.send_up(client, b"up");
                let _dropped = self.world.send_down(client, b"down");
            }
            if self.world.client(client).client.is_idle() {
                self.world.connect(client);
            }
        }
        self.world.run_for(STEP);
        if self.step.is_multiple_of(AUDIT_EVERY) {
            self.world.audit();
        }
        self.step += 1;
        let passed = self.world.now().since(self.start);
        self.watch.passed.store(passed.as_micros(), Ordering::Relaxed);
        !self.watch.stop.load(Ordering::Relaxed) && self.watch.until.is_none_or(|until| passed <= until)
    }
}
