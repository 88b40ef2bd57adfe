//! What can happen: to the ends, to the network, and by the attacker.

use std::fmt;

use jumpgate_protocol_woven::time::Span;

use crate::packet::Sealer;
use crate::world::{PATHS, World, attacker, fingerprint};

/// How long nothing else happens. The times of the policy (profile `fast`) lie between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pause {
    /// One retransmission: 60 ms.
    Short,
    /// Cooldown, drain and an attempt without an answer are over: 260 ms.
    Medium,
    /// A silent path is dead, an unvalidated binding lost: 720 ms.
    Long,
    /// RECOVERING is over: 2.1 s.
    Recovery,
    /// Whoever has no transport is at its end: 10.2 s.
    End,
}

/// Where the attacker lets a datagram come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// From that path, as if it came from its owner.
    Path(u8),
    /// From an address of its own.
    Own,
}

/// One step of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Time passes.
    Wait(Pause),
    /// The client is suspended, and wakes.
    Sleep(Pause),
    /// The interface of a path changes.
    Link(u8, bool),
    /// The NAT of a path forgets.
    Rebind(u8),
    /// The operator moves the session to that path.
    Move(u8),
    /// DATA from that end.
    Data(Sealer),
    /// That end ends the session.
    End(Sealer),
    /// The way of a path that starts at that end is blocked, or open again.
    Block(u8, Sealer, bool),
    /// A datagram that the attacker keeps, at that place of its memory, arrives: late, for the first time or again.
    Inject(u8, Source),
}

/// How many actions of a kind a run may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Budget {
    /// Actions of all kinds.
    pub steps: u8,
    /// Pauses.
    pub time: u8,
    /// Sleep, interfaces, NATs, moves.
    pub local: u8,
    /// Ways blocked and opened.
    pub network: u8,
    /// Datagrams injected.
    pub attack: u8,
    /// DATA.
    pub data: u8,
    /// Ends.
    pub end: u8,
}

impl Pause {
    /// Its length.
    pub const fn span(self) -> Span {
        Span::from_millis(match self {
            Self::Short => 60,
            Self::Medium => 260,
            Self::Long => 720,
            Self::Recovery => 2_100,
            Self::End => 10_200,
        })
    }
}

impl Budget {
    /// What is left of a kind.
    fn of(&mut self, action: &Action) -> &mut u8 {
        match action {
            Action::Wait(_) => &mut self.time,
            Action::Sleep(_) | Action::Link(..) | Action::Rebind(_) | Action::Move(_) => &mut self.local,
            Action::Data(_) => &mut self.data,
            Action::End(_) => &mut self.end,
            Action::Block(..) => &mut self.network,
            Action::Inject(..) => &mut self.attack,
        }
    }

    /// Runs of that many actions, with as much more of each kind that it has at all.
    #[must_use]
    pub fn deepened(self, steps: u8) -> Self {
        let more = steps.saturating_sub(self.steps).div_ceil(2);
        let grow = |count: u8| if count == 0 { 0 } else { count + more };
        Self {
            steps,
            time: grow(self.time),
            local: grow(self.local),
            network: grow(self.network),
            attack: grow(self.attack),
            data: self.data,
            end: self.end,
        }
    }

    /// What is left after the action; none if it is beyond the bounds.
    pub fn spend(mut self, action: &Action) -> Option<Self> {
        self.steps = self.steps.checked_sub(1)?;
        let left = self.of(action);
        *left = left.checked_sub(1)?;
        Some(self)
    }
}

impl Action {
    /// Everything that could happen in that world.
    pub fn all(world: &World, pauses: &[Pause]) -> Vec<Self> {
        let mut actions: Vec<_> = pauses.iter().map(|pause| Self::Wait(*pause)).collect();
        actions.extend(pauses.iter().filter(|pause| **pause != Pause::Short).map(|pause| Self::Sleep(*pause)));
        for (path, link) in world.links.iter().enumerate() {
            let path = path as u8;
            actions.push(Self::Link(path, !link.linked));
            actions.push(Self::Rebind(path));
            actions.push(Self::Move(path));
            actions.push(Self::Block(path, Sealer::Client, link.up));
            actions.push(Self::Block(path, Sealer::Gateway, link.down));
        }
        for end in [Sealer::Client, Sealer::Gateway] {
            actions.push(Self::Data(end));
            actions.push(Self::End(end));
        }
        // Replays of what was taken already are tried in every state, and change nothing (Law::Replay).
        for (index, captured) in world.captured.iter().enumerate().filter(|(_, captured)| !captured.is_used()) {
            let index = index as u8;
            actions.extend((0..PATHS as u8).map(|path| Self::Inject(index, Source::Path(path))));
            if captured.by == Sealer::Client {
                actions.push(Self::Inject(index, Source::Own));
            }
        }
        actions
    }

    /// The world after it; none if nothing changes.
    pub fn apply(&self, world: &World) -> Option<World> {
        let mut next = world.clone();
        match *self {
            Self::Wait(pause) => next.wait(pause.span()),
            Self::Sleep(pause) => next.sleep(pause.span()),
            Self::Link(path, up) => next.link(usize::from(path), up),
            Self::Rebind(path) => next.rebind(usize::from(path)),
            Self::Move(path) => {
                if next.move_to(usize::from(path)).is_err() && fingerprint(&next) == fingerprint(world) {
                    return None;
                }
            }
            Self::Data(Sealer::Client) => next.send_up(),
            Self::Data(Sealer::Gateway) => next.send_down(),
            Self::End(by) => next.end(by),
            Self::Block(path, Sealer::Client, blocked) => next.links[usize::from(path)].up = !blocked,
            Self::Block(path, Sealer::Gateway, blocked) => next.links[usize::from(path)].down = !blocked,
            Self::Inject(index, source) => {
                next.inject(usize::from(index), source);
                if fingerprint(&next) == fingerprint(world) {
                    return None;
                }
            }
        }
        Some(next)
    }

    /// In words, as seen in the world before it.
    pub fn describe(&self, world: &World) -> String {
        match *self {
            Self::Wait(pause) => format!("{} ms pass", pause.span().as_millis()),
            Self::Sleep(pause) => format!("the client sleeps for {} ms", pause.span().as_millis()),
            Self::Link(path, true) => format!("the interface of path {} comes up", path + 1),
            Self::Link(path, false) => format!("the interface of path {} goes down", path + 1),
            Self::Rebind(path) => format!("the NAT of path {} gives another port", path + 1),
            Self::Move(path) => format!("the operator moves the session to path {}", path + 1),
            Self::Data(by) => format!("DATA from the {}", end(by)),
            Self::End(by) => format!("the {} ends the session", end(by)),
            Self::Block(path, by, blocked) => {
                format!("path {} {} for datagrams of the {}", path + 1, verb(blocked), end(by))
            }
            Self::Inject(index, source) => {
                let captured = &world.captured[usize::from(index)];
                let what = format!("the attacker delivers {captured:?}");
                match (source, captured.by) {
                    (Source::Own, _) => format!("{what} from {}", attacker()),
                    (Source::Path(path), Sealer::Client) => {
                        format!("{what} from {} (path {})", world.links[usize::from(path)].external, path + 1)
                    }
                    (Source::Path(path), Sealer::Gateway) => format!("{what} to the client on path {}", path + 1),
                }
            }
        }
    }
}

impl World {
    /// The attacker delivers something that it keeps.
    fn inject(&mut self, index: usize, source: Source) {
        let captured = self.captured[index].clone();
        match (captured.by, source) {
            (Sealer::Client, Source::Own) => self.to_gateway(attacker(), &captured.bytes),
            (Sealer::Client, Source::Path(path)) => {
                self.to_gateway(self.links[usize::from(path)].external, &captured.bytes);
            }
            (Sealer::Gateway, Source::Path(path)) => self.to_client(usize::from(path), &captured.bytes),
            (Sealer::Gateway, Source::Own) => {}
        }
        self.settle();
    }
}

const fn end(by: Sealer) -> &'static str {
    match by {
        Sealer::Client => "client",
        Sealer::Gateway => "gateway",
    }
}

const fn verb(blocked: bool) -> &'static str {
    if blocked { "is blocked" } else { "opens" }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { steps, time, local, network, attack, data, end } = self;
        write!(f, "{steps} actions: at most {time} pauses, {local} local events, {network} ways blocked or opened, ")?;
        write!(f, "{attack} datagrams injected, {data} DATA, {end} ends")
    }
}
