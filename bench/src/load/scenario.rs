//! What happens to the clients of a run.

use anyhow::{Result, ensure};
use jumpgate_protocol::time::{Span, Time};

use super::crowd::{Crowd, Jump};
use super::engine::Engine;

/// Time after the last arrival for first heartbeats and confirmations to settle.
const SETTLE: Span = Span::from_millis(1_000);

/// Lets clients arrive at a fixed rate, whatever becomes of those before them, and waits until all have a session.
/// Gives the time from the first HELLO_INIT to the last session.
pub fn arrive(engine: &mut Engine, per_second: u64, patience: Span) -> Result<Span> {
    let total = engine.crowd.len();
    let mut begun = 0;
    let mut start = None;
    let took = engine.run(patience, |crowd, now| {
        let start = *start.get_or_insert(now);
        let due = (now.since(start).as_micros() * per_second / 1_000_000 + 1).min(u64::from(total)) as u32;
        while begun < due {
            crowd.connect(now, begun)?;
            begun += 1;
        }
        Ok(crowd.attached() == u64::from(total))
    })?;
    Ok(took)
}

/// Every client has its session and none has anything left to do but to live.
pub fn settle(engine: &mut Engine) -> Result<()> {
    engine.run(SETTLE, |_, _| Ok(false)).map(drop)
}

/// The network fails all clients in the same instant. Gives the time until the last is back, or the patience.
pub fn storm(engine: &mut Engine, jump: Jump, patience: Span) -> Result<Span> {
    let total = engine.crowd.len();
    ensure!(engine.crowd.attached() == u64::from(total), "not all clients are attached before the storm");
    let mut next = 0;
    let before = engine.crowd.book.reattach.count();
    engine.run(patience, |crowd: &mut Crowd, now: Time| {
        // Their requests are written one after the other all the same; a slice in each turn, so that answers are heard.
        let end = (next + STORM_SLICE).min(total);
        while next < end {
            crowd.jump(now, next, jump)?;
            next += 1;
        }
        Ok(next == total && crowd.book.reattach.count() - before == u64::from(total))
    })
}

/// Clients that a storm takes in one turn.
const STORM_SLICE: u32 = 256;
