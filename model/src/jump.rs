//! The model of the protocol: gateway, client, network and attacker, explored within bounds.

use std::fmt;
use std::hash::{Hash, Hasher};

use stateright::{Model, Property};

use crate::action::{Action, Budget, Pause};
use crate::law::Law;
use crate::outlook;
use crate::probe::probe;
use crate::watch::Violation;
use crate::world::{World, fingerprint};

/// What a run begins with, and what may happen in it.
#[derive(Clone, Copy, Debug)]
pub struct Scope {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it is about.
    pub about: &'static str,
    /// The world at its beginning.
    pub start: fn() -> World,
    /// The pauses that there are.
    pub pauses: &'static [Pause],
    /// Its bounds.
    pub budget: Budget,
}

const SHORT: &[Pause] = &[Pause::Short, Pause::Medium, Pause::Long];
const LONG: &[Pause] = &[Pause::Medium, Pause::Long, Pause::Recovery, Pause::End];

/// All scopes. The bounds are those of the test of the workspace; [`Budget::deepened`] widens them.
pub const SCOPES: &[Scope] = &[
    Scope {
        name: "birth",
        about: "the handshake is not confirmed: HELLO_CONFIRM is lost, late, repeated, comes from elsewhere",
        start: || World::born([true, false]),
        pauses: &[Pause::Medium, Pause::Recovery, Pause::End],
        budget: Budget { steps: 3, time: 2, local: 1, network: 1, attack: 2, data: 1, end: 1 },
    },
    Scope {
        name: "jump",
        about: "moves to a validated standby, under an attacker who delays, copies, races and replays",
        start: || attached([false, false]),
        pauses: SHORT,
        budget: Budget { steps: 4, time: 2, local: 2, network: 1, attack: 2, data: 1, end: 1 },
    },
    Scope {
        name: "cold",
        about: "moves to a path that the gateway has not seen yet: unvalidated bindings",
        start: || attached([false, true]),
        pauses: SHORT,
        budget: Budget { steps: 4, time: 2, local: 2, network: 1, attack: 2, data: 1, end: 0 },
    },
    Scope {
        name: "raced",
        about: "the attacker holds a request that the gateway has not seen",
        start: raced,
        pauses: SHORT,
        budget: Budget { steps: 4, time: 2, local: 1, network: 1, attack: 2, data: 1, end: 0 },
    },
    Scope {
        name: "lost-ack",
        about: "the gateway has moved and the client does not know",
        start: lost_ack,
        pauses: SHORT,
        budget: Budget { steps: 4, time: 2, local: 2, network: 2, attack: 1, data: 0, end: 0 },
    },
    Scope {
        name: "flapping",
        about: "all but one of the switches of the minute are used up",
        start: flapping,
        pauses: SHORT,
        budget: Budget { steps: 4, time: 2, local: 3, network: 1, attack: 1, data: 0, end: 0 },
    },
    Scope {
        name: "outage",
        about: "paths die, interfaces go, the client sleeps, time runs out",
        start: || attached([false, false]),
        pauses: LONG,
        budget: Budget { steps: 4, time: 3, local: 2, network: 2, attack: 0, data: 0, end: 0 },
    },
];

/// A request for the second path, which is blocked: only the attacker has it.
fn raced() -> World {
    let mut world = attached([false, true]);
    world.links[1].up = false;
    let _asked = world.move_to(1);
    world
}

/// A request for the second path that was granted, and an answer that was lost.
fn lost_ack() -> World {
    let mut world = attached([false, false]);
    world.links[1].down = false;
    let _asked = world.move_to(1);
    world.links[1].down = true;
    world
}

/// Two moves, each as soon as the cooldown allows it.
fn flapping() -> World {
    let mut world = attached([false, false]);
    for path in [1, 0] {
        world.wait(Pause::Medium.span());
        let _moved = world.move_to(path);
    }
    world.wait(Pause::Medium.span());
    world
}

/// Both ends are in ATTACHED and at rest; a path that was blocked is open from now on, but nobody has used it.
fn attached(blocked: [bool; 2]) -> World {
    let mut world = World::born(blocked);
    world.wait(Pause::Medium.span());
    assert!(world.is_whole(), "the handshake leads to a session");
    world.links.iter_mut().for_each(|link| (link.up, link.down) = (true, true));
    world
}

/// One scope as a model.
#[derive(Clone, Copy, Debug)]
pub struct Jump {
    /// The scope.
    pub scope: Scope,
    /// A blackout is tried in one state of so many, chosen by their fingerprints; 1 for all. It costs more than all the
    /// rest, and states that differ little have blackouts that differ little.
    pub blackouts: u64,
}

/// A world, and what may still happen in it.
#[derive(Clone)]
pub struct Situation {
    /// The world.
    pub world: World,
    /// What is left.
    pub budget: Budget,
}

impl Model for Jump {
    type State = Situation;
    type Action = Action;

    fn init_states(&self) -> Vec<Situation> {
        vec![Situation { world: (self.scope.start)(), budget: self.scope.budget }]
    }

    fn actions(&self, state: &Situation, actions: &mut Vec<Action>) {
        if state.world.watch.violations.is_empty() {
            actions.extend(Action::all(&state.world, self.scope.pauses));
            actions.retain(|action| state.budget.spend(action).is_some());
        }
    }

    fn next_state(&self, state: &Situation, action: Action) -> Option<Situation> {
        let budget = state.budget.spend(&action)?;
        action.apply(&state.world).map(|world| Situation { world, budget })
    }

    fn format_action(&self, action: &Action) -> String {
        format!("{action:?}")
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties()
    }
}

/// What is broken in a state, as far as its outlook goes: followed, tried, and run forward.
pub fn judge(world: &World) -> Vec<Violation> {
    let mut broken = world.watch.violations.clone();
    if broken.is_empty() {
        broken.extend(probe(world));
        let outlooks = [(Law::Recovers, outlook::recovers(world)), (Law::Ends, outlook::ends(world))];
        for (law, outlook) in outlooks {
            broken.extend(outlook.err().map(|what| Violation { law, what }));
        }
    }
    broken
}

/// The laws that [`probe`] tries in every state.
const TRIED: &str = "INV-01, INV-12, INV-26, INV-31, INV-34: what is tried in a state changes nothing";

/// The laws that an action breaks for good.
fn followed<const LAW: usize>(_: &Jump, state: &Situation) -> bool {
    !state.world.watch.broke(Law::ALL[LAW])
}

fn is_broken(state: &Situation) -> bool {
    !state.world.watch.violations.is_empty()
}

fn properties() -> Vec<Property<Jump>> {
    macro_rules! followed {
        ($($law:literal)+) => { vec![$(Property::always(Law::ALL[$law].text(), followed::<$law>)),+] };
    }
    let mut properties = followed!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24);
    properties.push(Property::always(TRIED, |_: &Jump, state: &Situation| {
        is_broken(state) || probe(&state.world).is_empty()
    }));
    properties.push(Property::always(Law::Recovers.text(), |_: &Jump, state: &Situation| {
        !state.world.watch.broke(Law::Recovers) && (is_broken(state) || outlook::recovers(&state.world).is_ok())
    }));
    properties.push(Property::always(Law::Ends.text(), |model: &Jump, state: &Situation| {
        let skipped = !fingerprint(&state.world).is_multiple_of(model.blackouts);
        skipped || is_broken(state) || outlook::ends(&state.world).is_ok()
    }));
    properties
}

impl Hash for Situation {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        (&self.world, &self.budget).hash(hasher);
    }
}

impl PartialEq for Situation {
    fn eq(&self, other: &Self) -> bool {
        fingerprint(self) == fingerprint(other)
    }
}

impl fmt::Debug for Situation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (gateway, mirror) = (&self.world.watch.gateway, &self.world.watch.mirror);
        write!(f, "gateway {} epoch {}, ", gateway.state, gateway.epoch)?;
        match self.world.watch.active {
            Some(active) => write!(f, "bound to path {} at {}", active.transport, active.peer)?,
            None => f.write_str("not bound")?,
        }
        write!(f, "; client {} epoch {}", mirror.state, mirror.epoch)?;
        match self.world.client.record().and_then(|record| record.active()) {
            Some(active) => write!(f, " on path {}", active.transport),
            None => f.write_str(" on no path"),
        }
    }
}
