//! More than one may ask for: floods of handshakes, of valid requests, and of sessions.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use jumpgate_protocol::entropy::SeededEntropy;
use jumpgate_protocol::handshake::StaticSecret;
use jumpgate_protocol::reason::Reason;
use jumpgate_protocol::wire::{Cause, MessageType};

use super::Test;
use super::arena::{Arena, MALLORY, forged_source, socket_at};
use crate::attacker::{Answer, Member, Overheard, frame, hello, request};
use crate::topology::{FORGED, Lab};

pub(super) const TESTS: &[Test] = &[
    Test {
        name: "flood: handshakes from forged senders get cookies, and a client still gets in (A11, HS-7, INV-37)",
        run: handshakes,
    },
    Test {
        name: "flood: a session that asks to be moved 100 times a second is braked, and nobody else is (A10, INV-15)",
        run: reattaches,
    },
    Test {
        name: "flood: one address gets no more handshakes a second than the policy says, and another gets its own (A12, PP74)",
        run: one_source,
    },
    Test {
        name: "flood: no client and not all of them together get more sessions than the policy says (A12, PP70, PP71)",
        run: session_table,
    },
];

/// Forged handshakes of one flood.
const HELLOS: u32 = 30_000;
/// Distinct HELLO_INITs of a flood; the rest are copies from other senders, which the gateway cannot know.
const DISTINCT: u64 = 64;
/// How long a flood may take.
const FLOOD_LIMIT: Duration = Duration::from_secs(4);
/// What the gateway's memory may grow by from one flood to the next, in bytes.
const FLAT: u64 = 1 << 20;
/// Handshakes of one address: each that is not answered takes the two seconds of its sender's patience.
const KNOCKS: u64 = 8;
/// Handshakes of one address at once: several times as many as it has left then.
const BURST: u64 = 16;
/// Requests to be moved, and the time between two of them: 100 a second.
const REQUESTS: u16 = 200;
const REQUEST_PAUSE: Duration = Duration::from_millis(10);

fn handshakes(lab: &Lab) -> Result<()> {
    let arena = Arena::open(lab, "limits.handshakes_total = 10\nlimits.source_table_entries = 1024")?;
    let watch = arena.watch()?;
    let public = arena.target().public;
    let stranger = StaticSecret::generate(&mut SeededEntropy::new(11));
    let frames: Vec<Vec<u8>> = (0..DISTINCT)
        .map(|number| {
            let hello = hello(public, &stranger, number)?;
            frame::udp(arena.wire.macs(), forged_source(0), arena.endpoint(), &hello).context("two families")
        })
        .collect::<Result<_>>()?;
    let length = frames[0].len();
    let flood = || {
        arena.wire.flood(HELLOS, FLOOD_LIMIT, |number, out| {
            frames[number as usize % frames.len()].clone_into(out);
            if let SocketAddr::V4(source) = forged_source(number) {
                frame::set_ipv4_source(out, source.ip().octets(), source.port());
            }
        })
    };
    let _ = arena.wire.answers()?;
    let sent = flood()?;
    watch.counts(Reason::CookieRequired.name(), 100)?;
    thread::sleep(Duration::from_millis(300));
    let mut answered = 0_usize;
    for Overheard { to, payload, .. } in arena.wire.answers()? {
        if to.ip().to_string().starts_with("198.1") {
            ensure!(payload[0] == MessageType::HelloRetry as u8, "a stranger got message type {:#x}", payload[0]);
            ensure!(payload.len() < length, "an answer of {} bytes", payload.len());
            answered += 1;
        }
    }
    ensure!(answered > 0, "no HELLO_RETRY was sent");
    lab.note(format!(
        "{sent} forged handshakes: {} asked for a cookie, {answered} HELLO_RETRYs heard",
        watch.grown("COOKIE_REQUIRED")?
    ));
    let before = arena.tunnel.gateway.memory()?;
    flood()?;
    thread::sleep(Duration::from_millis(300));
    let after = arena.tunnel.gateway.memory()?;
    ensure!(after.saturating_sub(before) <= FLAT, "the gateway's memory grew from {before} to {after} bytes");
    ensure!(arena.tunnel.gateway.sessions()?.len() == 1, "a stranger has a session");

    // An honest client comes while the flood goes on, and shows the cookie that it is asked for.
    let done = AtomicBool::new(false);
    thread::scope(|scope| -> Result<()> {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) && flood().is_ok() {
                thread::sleep(Duration::from_millis(100));
            }
        });
        let started = Instant::now();
        let mut joined = try_to_join(&arena);
        // Like a real client it asks again when a full queue swallowed its question.
        while joined.is_err() && started.elapsed() < Duration::from_secs(10) {
            joined = try_to_join(&arena);
        }
        done.store(true, Ordering::Relaxed);
        joined.map(drop).context("the honest client is shut out")
    })?;
    watch.is_undisturbed()
}

fn try_to_join(arena: &Arena<'_>) -> Result<Member> {
    static HELLO: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    let counter = HELLO.fetch_add(1, Ordering::Relaxed);
    Member::join(arena.socket()?, &arena.target(), arena.key(), &request(counter))
}

fn reattaches(lab: &Lab) -> Result<()> {
    let arena = Arena::open(lab, "")?;
    let mut mallory = arena.join()?;
    let watch = arena.watch()?;
    let before = arena.mallory()?;
    // Always from where it is not bound, with the cause that is exempt from the cooldown: as badly as a client can.
    let mut other = arena.socket()?;
    let (mut granted, mut refused) = (0, 0);
    for number in 0..REQUESTS {
        let due = Instant::now() + REQUEST_PAUSE;
        other = mallory.move_to(other)?;
        match mallory.reattach(2 + number % 2, Cause::HardDead).with_context(|| format!("request {number}"))? {
            Answer::Bound(_) => granted += 1,
            Answer::Refused(reject) => {
                let known = [Reason::RateLimited, Reason::SwitchRateLimited];
                ensure!(known.contains(&reject.reason), "refused as {}", reject.reason);
                ensure!(reject.retry_after_ms > 0, "refused without saying until when: {reject:?}");
                refused += 1;
                other = mallory.move_to(other)?;
            }
            answer => bail!("answered by {answer:?}"),
        }
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    let after = arena.mallory()?;
    let switches = after.switches - before.switches;
    // PP40 of the profile `default`; PP79 lets through 5 at once and 2 a second.
    ensure!(switches <= 8, "{switches} commits within seconds");
    ensure!(after.locator == before.locator, "another session");
    ensure!(granted == switches, "{granted} requests were granted, {switches} commits were made");
    let counted = watch.grown(Reason::RateLimited.name())? + watch.grown(Reason::SwitchRateLimited.name())?;
    ensure!(counted == refused, "{refused} refusals, {counted} counted");
    lab.note(format!("{REQUESTS} requests: {granted} granted, {refused} refused"));
    watch.is_undisturbed()
}

/// Whole handshakes of a configured client, all from one address, each from another port.
fn one_source(lab: &Lab) -> Result<()> {
    // Twice the burst and more would fit into the table: only the source is in the way.
    let policy = "limits.handshakes_per_source = [1, 4]\nlimits.max_sessions_per_identity = 64";
    let arena = Arena::open(lab, policy)?;
    let watch = arena.watch()?;
    lab.core.ip("route replace local 198.18.0.0/16 dev lo")?;
    let address = |last: u8| std::net::Ipv4Addr::from([FORGED[0], FORGED[1], 3, last]);
    let mut members = Vec::new();
    let mut silent = 0_u32;
    for number in 1..=KNOCKS {
        let socket = socket_at(lab, address(1))?;
        match Member::join(socket, &arena.target(), arena.key(), &request(number)) {
            Ok(member) => members.push(member),
            Err(_) => silent += 1,
        }
    }
    let by_scope = |page: &jumpgate_metrics::Readings, scope: &str| {
        page.sum("jumpgate_rate_limit_hits_total", &[&format!("scope=\"{scope}\"")])
    };
    let page = arena.tunnel.gateway.metrics()?;
    ensure!(silent > 0, "all of {KNOCKS} handshakes of one address were served");
    ensure!(by_scope(&page, "handshake") >= f64::from(silent), "{silent} were not answered: {page:?}");
    watch.counts(Reason::RateLimited.name(), u64::from(silent))?;
    ensure!(watch.grown(Reason::CapacityExceeded.name())? == 0, "it was the table and not the source");
    // Beside it, the same client gets in at once from another address, while the first one has just used up what it had.
    let (stranger, flooder) = (StaticSecret::generate(&mut SeededEntropy::new(12)), socket_at(lab, address(1))?);
    for number in 0..BURST {
        flooder.send_to(&hello(arena.target().public, &stranger, number)?, arena.endpoint())?;
    }
    let elsewhere = Member::join(socket_at(lab, address(2))?, &arena.target(), arena.key(), &request(KNOCKS + 1));
    members.push(elsewhere.context("another address is shut out as well")?);
    lab.core.ip("route del local 198.18.0.0/16 dev lo")?;
    let running = arena.tunnel.gateway.sessions()?;
    ensure!(running.len() == members.len() + 1, "{} sessions for {} clients", running.len(), members.len() + 1);
    lab.note(format!("{KNOCKS} handshakes of one address: {} served, {silent} not answered", members.len() - 1));
    watch.is_undisturbed()
}

fn session_table(lab: &Lab) -> Result<()> {
    // The smallest table that the policy knows, and half of it for one client.
    let policy = "limits.max_sessions = 16\nlimits.max_half_open = 16\nlimits.max_sessions_per_identity = 8";
    let arena = Arena::open(lab, policy)?;
    let watch = arena.watch()?;
    let mut members = Vec::new();
    lab.core.ip("route replace local 198.18.0.0/16 dev lo")?;
    // Every handshake from an address of its own, so that only the table is in the way.
    let mut knock = |key, hello: u64| {
        let last = u8::try_from(members.len())?;
        let socket = socket_at(lab, [FORGED[0], FORGED[1], 2, last].into())?;
        match Member::knock(socket, &arena.target(), key, &request(hello))? {
            Ok(mut member) => {
                let confirm = member.confirm();
                member.send(&confirm)?;
                ensure!(matches!(member.answer()?, Answer::HeartbeatAck(_)), "HELLO_CONFIRM is not answered");
                members.push(member);
                Ok(None)
            }
            Err(reason) => Ok(Some(reason)),
        }
    };
    for (key, most, whose) in [(arena.key(), 8, "its own"), (arena.second_key(), 7, "the gateway's")] {
        for hello in 1..=most {
            let refused = knock(key, hello)?;
            ensure!(refused.is_none(), "session {hello} of {most} is refused as {refused:?}");
        }
        let refused = knock(key, most + 1)?;
        ensure!(refused == Some(Reason::CapacityExceeded), "beyond {whose} limit the answer is {refused:?}");
    }
    lab.core.ip("route del local 198.18.0.0/16 dev lo")?;
    watch.counts(Reason::CapacityExceeded.name(), 2)?;
    let sessions = arena.tunnel.gateway.sessions()?;
    ensure!(sessions.len() == 16, "{} sessions", sessions.len());
    ensure!(sessions.iter().filter(|session| session.client == MALLORY).count() == 8, "{sessions:?}");
    watch.is_undisturbed()
}
