//! As much as the machine gives: forged, copied and random packets at line rate. They run alone, because they leave
//! little to others.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jumpgate_protocol::reason::Reason;
use jumpgate_protocol::wire::MessageType;

use super::Test;
use super::arena::{Arena, Watch, forged_source};
use super::replay::{data_of, moved_by};
use crate::attacker::frame;
use crate::topology::{LTE, Lab};

pub(super) const TESTS: &[Test] = &[
    Test {
        name: "volume: reattach requests made without the key, as many as the time allows, move nothing (A06, INV-14)",
        run: without_the_key,
    },
    Test {
        name: "volume: requests and data for random session ids are refused with flat memory (A09, INV-22)",
        run: random_ids,
    },
    Test {
        name: "volume: a flood of one captured request and one data packet costs no memory, wherever it comes from (A26, AR-6)",
        run: copies,
    },
    Test { name: "volume: random datagrams are counted, every single one, and the gateway lives (A14)", run: random },
];

/// Most forged requests of a flood.
const MILLION: u32 = 1_000_000;
/// How long a flood may take.
const FLOOD_LIMIT: Duration = Duration::from_secs(4);
/// How long the gateway may take to have worked off what waits in its queues.
const BACKLOG: Duration = Duration::from_millis(300);
/// Forged requests of one round whose memory is compared.
const ROUND: u32 = 50_000;
/// Copies in a flood of one message.
const COPIES: u32 = 20_000;
/// What the gateway's memory may grow by from one round to the next, in bytes: what allocators and page tables do by
/// themselves. A single byte kept for each packet of two rounds would already show.
const FLAT: u64 = 64 << 10;
/// Random datagrams of one run.
const RANDOM: u32 = 20_000;
/// Seed of the random datagrams: a run that fails can be repeated.
const SEED: u64 = 14;
/// Where session id and nonce stand in a message.
const LOCATOR_AT: usize = 4;
const NONCE_AT: usize = 12;

/// Datagrams that the kernel dropped in the gateway's namespace because a socket's queue was full.
fn lost_in_queue(lab: &Lab) -> Result<u64> {
    let text = lab.gateway.enter(|| std::fs::read_to_string("/proc/thread-self/net/snmp"))??;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let (names, values) = (lines.next().context("no counters of UDP")?, lines.next().context("no counters of UDP")?);
    let at = names.split(' ').position(|name| name == "RcvbufErrors").context("no RcvbufErrors")?;
    Ok(values.split(' ').nth(at).context("no RcvbufErrors")?.parse()?)
}

/// Sends forged copies of a message from ever new senders, and gives how many. `forge` writes what differs.
fn flood(arena: &Arena<'_>, packet: &[u8], count: u32, forge: impl Fn(u32, &mut [u8])) -> Result<u32> {
    let template = frame::udp(arena.wire.macs(), forged_source(0), arena.endpoint(), packet).context("two families")?;
    let payload = template.len() - packet.len();
    arena.wire.flood(count, FLOOD_LIMIT, |number, frame| {
        template.clone_into(frame);
        let SocketAddr::V4(source) = forged_source(number) else { return };
        frame::set_ipv4_source(frame, source.ip().octets(), source.port());
        forge(number, &mut frame[payload..]);
    })
}

fn without_the_key(lab: &Lab) -> Result<()> {
    let arena = Arena::open(lab, "")?;
    let request = moved_by(lab, &arena.tunnel)?;
    let watch = arena.watch()?;
    let lost_before = lost_in_queue(lab)?;
    let sent = flood(&arena, &request, MILLION, |number, packet| {
        packet[NONCE_AT..NONCE_AT + 8].copy_from_slice(&(1_000 + u64::from(number)).to_be_bytes());
    })?;
    // Every one has a fate that is counted: refused for its proof or its rate, or lost in a full queue.
    let sum = |watch: &Watch<'_>| -> Result<u64> {
        let by = [Reason::AuthFail, Reason::RateLimited, Reason::QueueFull];
        by.iter().map(|reason| watch.grown(reason.name())).sum::<Result<u64>>()
    };
    super::wait_for("all of the flood to be counted", Duration::from_secs(5), || {
        Ok(sum(&watch)? + lost_in_queue(lab)? - lost_before >= u64::from(sent))
    })?;
    let refused = watch.grown(Reason::AuthFail.name())?;
    ensure!(refused > 0, "none of the forged requests got as far as its proof");
    lab.note(format!(
        "{sent} forged requests in at most {FLOOD_LIMIT:?}: {refused} refused for their proof, {} for their rate, {} in \
         full queues of the gateway, {} in the kernel's",
        watch.grown(Reason::RateLimited.name())?,
        watch.grown(Reason::QueueFull.name())?,
        lost_in_queue(lab)? - lost_before,
    ));
    watch.is_undisturbed()
}

fn random_ids(lab: &Lab) -> Result<()> {
    let arena = Arena::open(lab, "")?;
    let request = moved_by(lab, &arena.tunnel)?;
    let watch = arena.watch()?;
    let mut data = request.clone();
    data[0] = MessageType::Data as u8;
    let random = |number: u32, packet: &mut [u8]| {
        let locator = u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        packet[LOCATOR_AT..LOCATOR_AT + 8].copy_from_slice(&locator.to_be_bytes());
    };
    let mut memory = Vec::new();
    for _ in 0..3 {
        for packet in [&request, &data] {
            let before = watch.grown(Reason::SessionNotFound.name())?;
            flood(&arena, packet, ROUND, random)?;
            watch.counts(Reason::SessionNotFound.name(), before + 1)?;
        }
        // What still waits in queues has to be gone before memory is compared.
        std::thread::sleep(BACKLOG);
        memory.push(arena.tunnel.gateway.memory()?);
    }
    let growth = memory[2].saturating_sub(memory[1]);
    ensure!(growth <= FLAT, "the gateway's memory grew by {growth} bytes in a round of {ROUND}: {memory:?}");
    ensure!(arena.tunnel.gateway.sessions()?.len() == 1, "somebody has a session");
    watch.is_undisturbed()
}

fn copies(lab: &Lab) -> Result<()> {
    // The buckets of sources would end the flood before it is one; here it is the replay protection that has to bear it.
    let arena = Arena::open(lab, "limits.control_per_source = [100000, 100000]")?;
    let request = moved_by(lab, &arena.tunnel)?;
    let watch = arena.watch()?;
    let data = data_of(lab, LTE.path)?;
    // The bound tuple is the worst place for a copy to come from: nothing but the window refuses it there.
    let bound = watch.before().peer.context("the victim has no peer")?;
    let frames = [(bound, &data, Reason::DataReplay), (forged_source(26), &request, Reason::ReplayDetected)];
    let mut memory = Vec::new();
    for round in 0..3 {
        for (source, packet, reason) in frames {
            let copy = frame::udp(arena.wire.macs(), source, arena.endpoint(), packet).context("two families")?;
            let before = watch.grown(reason.name())?;
            let sent = arena.wire.flood(COPIES, FLOOD_LIMIT, |_, frame| copy.clone_into(frame))?;
            watch.counts(reason.name(), before + 1)?;
            std::thread::sleep(BACKLOG);
            let refused = watch.grown(reason.name())? - before;
            ensure!(refused <= u64::from(sent), "{refused} refusals of {sent} copies");
            if round == 0 {
                lab.note(format!(
                    "{refused} of {sent} copies refused as {}; what is missing was lost in a full queue",
                    reason.name()
                ));
            }
        }
        memory.push(arena.tunnel.gateway.memory()?);
    }
    let growth = memory[2].saturating_sub(memory[1]);
    ensure!(growth <= FLAT, "the gateway's memory grew by {growth} bytes during one more flood: {memory:?}");
    watch.is_undisturbed()
}

fn random(lab: &Lab) -> Result<()> {
    let arena = Arena::open(lab, "")?;
    let watch = arena.watch()?;
    let locator = u64::from_str_radix(&watch.before().locator, 16)?;
    let mut dice = fastrand::Rng::with_seed(SEED);
    let macs = *arena.wire.macs();
    let endpoint = arena.endpoint();
    let sent = arena.wire.flood(RANDOM, Duration::from_secs(10), |number, out| {
        let mut payload = vec![0; dice.usize(1..1_400)];
        dice.fill(&mut payload);
        // Half of them begin as a message does, and half of those are for the living session.
        if number % 2 == 0 && payload.len() >= 12 {
            payload[0] = MessageType::ALL[dice.usize(..MessageType::ALL.len())] as u8;
            payload[1] = 0x10;
            if number % 4 == 0 {
                payload[4..12].copy_from_slice(&locator.to_be_bytes());
            }
        }
        out.clear();
        out.extend(frame::udp(&macs, forged_source(number), endpoint, &payload).unwrap_or_default());
    })?;
    let fates =
        ["outside_steered", "outside_control", "outside_malformed", "outside_bad_version", "outside_unknown_slot"];
    let total = || fates.iter().map(|name| watch.grown(name)).sum::<Result<u64>>();
    super::wait_for("every random datagram to be counted", Duration::from_secs(5), || Ok(total()? >= u64::from(sent)))?;
    ensure!(arena.tunnel.gateway.process().exited()?.is_none(), "the gateway ended");
    ensure!(arena.tunnel.gateway.sessions()?.len() == 1, "there is a second session");
    watch.is_undisturbed()
}
