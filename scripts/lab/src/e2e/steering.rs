//! The steering of the XDP program is an optimisation: what it gets wrong, the worker's own check puts right (RS-3).

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use aya::maps::{Array, HashMap, Map, MapData, MapInfo};
use aya::programs::loaded_programs;
use jumpgate_common::maps::{LOCAL_ADDRESSES, LOCAL_ADDRESSES_MAX, NO_WORKER, POOL, SLOTS, entry_of_worker};
use jumpgate_protocol::ident::Locator;
use jumpgate_protocol::reason::Reason;

use super::arena::{Arena, Watch};
use super::{Test, wait_for};
use crate::attacker::{Member, request};
use crate::topology::{GATEWAY_OUTSIDE, LTE, Lab};

pub(super) const TESTS: &[Test] = &[
    Test {
        name: "steering: a slot that leads to the wrong worker loses packets, counted, and writes nothing (TC39, K08, AS-4)",
        run: wrong_worker,
    },
    Test {
        name: "steering: a slot without a worker loses packets, counted, and a late entry brings them back (TC39)",
        run: no_worker,
    },
    Test {
        name: "steering: a client that leads to the wrong worker gets nothing of another's, and the delay of the table is shown (TC39, AS-4)",
        run: stale_client,
    },
    Test {
        name: "steering: a full table of addresses takes no more, says so, and disturbs nobody (TC39)",
        run: full_table,
    },
];

/// Sessions that are opened at most until one is at the other worker.
const TRIES: u64 = 16;
/// Addresses that the gateway gets while it runs.
const LATE_ADDRESS: &str = "203.0.113.77";
const LATER_ADDRESS: &str = "203.0.113.78";

/// A table of the gateway's programs, as an operator with BPF tools would change it behind its back.
fn table(lab: &Lab, name: &str) -> Result<MapData> {
    // Others may run on the machine: only the programs on the links of this lab's gateway.
    let show =
        lab.run.check(std::process::Command::new("ip").args(["-n", lab.gateway.name(), "-d", "link", "show"]), "")?;
    let ids = show.split("prog/xdp id ").skip(1).filter_map(|rest| rest.split_whitespace().next()?.parse().ok());
    let ids: BTreeSet<u32> = ids.collect();
    ensure!(!ids.is_empty(), "no XDP program is attached");
    for program in loaded_programs().flatten().filter(|program| ids.contains(&program.id())) {
        for map in program.map_ids()?.unwrap_or_default() {
            if MapInfo::from_id(map)?.name_as_str() == Some(name) {
                return Ok(MapData::from_id(map)?);
            }
        }
    }
    anyhow::bail!("the programs {ids:?} have no map {name}")
}

/// A table whose entries name workers.
struct Owners(Array<MapData, u32>);

impl Owners {
    fn of(lab: &Lab, name: &str) -> Result<Self> {
        Ok(Self(Map::Array(table(lab, name)?).try_into()?))
    }

    fn set(&mut self, index: u32, entry: u32) -> Result<()> {
        Ok(self.0.set(index, entry, 0)?)
    }
}

/// The victim's slot and worker.
fn place(watch: &Watch<'_>) -> Result<(u32, u32)> {
    let locator = Locator(u64::from_str_radix(&watch.before().locator, 16)?);
    Ok((locator.slot().number().into(), watch.before().worker.into()))
}

/// Misleads the victim's packets by that entry, and puts it right again as soon as they are counted.
fn mislead(lab: &Lab, entry: impl Fn(u32) -> u32, counter: &str) -> Result<()> {
    let arena = Arena::open(lab, "")?;
    let watch = arena.watch()?;
    let mut slots = Owners::of(lab, SLOTS)?;
    let (slot, worker) = place(&watch)?;
    slots.set(slot, entry(worker))?;
    let counted = watch.counts(counter, 20);
    let meanwhile = arena.tunnel.session();
    slots.set(slot, entry_of_worker(worker))?;
    counted?;
    let meanwhile = meanwhile?;
    ensure!(meanwhile.worker == watch.before().worker, "another worker has the session: {meanwhile:?}");
    ensure!(arena.tunnel.gateway.sessions()?.len() == 1, "there is a second record");
    // Less than the silence that makes VOLATILE in the profile `default`: the session is as if nothing had been.
    wait_for("the traffic to flow again", Duration::from_secs(5), || Ok(watch.flows()))?;
    let after = arena.tunnel.session()?;
    ensure!(after.locator == watch.before().locator && after.worker == watch.before().worker, "{after:?}");
    ensure!(watch.grown(Reason::InvariantViolation.name())? == 0, "an invariant broke");
    // The switch goes through the kernel's socket and needs no steering; the data behind it does.
    arena.tunnel.jump(&LTE, || arena.tunnel.client.move_to(LTE.interface)).map(drop)
}

fn wrong_worker(lab: &Lab) -> Result<()> {
    mislead(lab, |worker| entry_of_worker(1 - worker), Reason::NotAuthoritativeOwner.name())
}

fn no_worker(lab: &Lab) -> Result<()> {
    mislead(lab, |_| NO_WORKER, "outside_unknown_slot")
}

/// What is for the victim goes to the worker of another client, who has the same inner network and other keys.
fn stale_client(lab: &Lab) -> Result<()> {
    let arena = Arena::open(lab, "")?;
    let victim = arena.tunnel.session()?;
    let mut mallory = arena.join()?;
    // Chance decides on the worker of a session.
    for number in 2..=TRIES {
        let session = arena.mallory()?;
        if session.worker != victim.worker {
            break;
        }
        arena.tunnel.gateway.terminate(&session.locator)?;
        mallory = Member::join(arena.socket()?, &arena.target(), arena.key(), &request(number))?;
        let own = mallory.locator().to_string();
        wait_for("the next session alone", Duration::from_secs(3), || {
            Ok(arena.mallory().is_ok_and(|session| session.locator == own))
        })?;
    }
    let watch = arena.watch()?;
    let worker = u32::from(watch.before().worker);
    ensure!(u32::from(arena.mallory()?.worker) == 1 - worker, "all of {TRIES} sessions are at one worker");
    let inner = watch.before().inner_v4.context("no inner IPv4 address")?;
    // The pool is 10.66.0.0/16: the index of an address is its lower half.
    let index = u32::from(inner) & 0xffff;
    let mut pool = Owners::of(lab, POOL)?;
    pool.set(index, entry_of_worker(1 - worker))?;
    let counted = watch.counts(Reason::NoActiveBinding.name(), 20);
    let strays = mallory.answer_within(Duration::from_millis(200))?;
    pool.set(index, entry_of_worker(worker))?;
    counted?;
    ensure!(strays.is_none(), "another client got {strays:?}");
    wait_for("the traffic to flow again", Duration::from_secs(5), || Ok(watch.flows()))?;
    let session = arena.tunnel.session()?;
    ensure!(session.locator == watch.before().locator && session.worker == watch.before().worker, "{session:?}");
    let page = arena.tunnel.gateway.metrics()?;
    let lag = |part: &str| page.sum(&format!("jumpgate_xdp_map_lag_seconds_{part}"), &["map=\"pool\""]);
    ensure!(lag("count") >= 2.0, "two sessions were born, and the table followed {} times", lag("count"));
    lab.note(format!(
        "the table followed {} births and ends, after {:.0} us on average",
        lag("count"),
        1e6 * lag("sum") / lag("count")
    ));
    ensure!(page.sum("jumpgate_safety_violations_total", &[]) == 0.0, "an invariant broke");
    Ok(())
}

/// The gateway listens on all of its addresses, and there is no room for one more.
fn full_table(lab: &Lab) -> Result<()> {
    super::tunnel::quieten(lab)?;
    let mut ends = super::tunnel::Ends::new(lab, false)?;
    ends.gateway.any_address = true;
    let tunnel = ends.open(lab)?;
    let watch = Watch::begin(&tunnel)?;
    let mut addresses: HashMap<_, [u8; 16], u8> = Map::HashMap(table(lab, LOCAL_ADDRESSES)?).try_into()?;
    let filler = |number: u32| {
        let mut address = [0xfe; 16];
        address[12..].copy_from_slice(&number.to_be_bytes());
        address
    };
    let filled = (0..LOCAL_ADDRESSES_MAX).take_while(|number| addresses.insert(filler(*number), 1, 0).is_ok()).count();
    ensure!(filled > 0 && filled < LOCAL_ADDRESSES_MAX as usize, "{filled} entries were free");
    let metric = |name: &str| Ok::<_, anyhow::Error>(tunnel.gateway.metrics()?.sum(name, &["map=\"local_addresses\""]));
    let known = metric("jumpgate_xdp_map_entries")?;
    lab.gateway.ip(&format!("addr add {LATE_ADDRESS}/32 dev {GATEWAY_OUTSIDE}"))?;
    wait_for("the table to take no more", Duration::from_secs(3), || {
        Ok(metric("jumpgate_xdp_map_errors_total")? > 0.0)
    })?;
    ensure!(metric("jumpgate_xdp_map_entries")? == known, "an entry was made in a full table");
    ensure!(tunnel.gateway.log().contains("own addresses stay as they were"), "the log does not say so");
    let seen = watch.seen();
    ensure!(watch.flows() && tunnel.session()?.is_as(watch.before()), "the session was disturbed: {seen:?}");
    // With room again, the next news of the interface brings both.
    (0..LOCAL_ADDRESSES_MAX).for_each(|number| drop(addresses.remove(&filler(number))));
    lab.gateway.ip(&format!("addr add {LATER_ADDRESS}/32 dev {GATEWAY_OUTSIDE}"))?;
    wait_for("both addresses", Duration::from_secs(3), || Ok(metric("jumpgate_xdp_map_entries")? == known + 2.0))?;
    for address in [LATE_ADDRESS, LATER_ADDRESS] {
        lab.gateway.ip(&format!("addr del {address}/32 dev {GATEWAY_OUTSIDE}"))?;
    }
    wait_for("them to go", Duration::from_secs(3), || Ok(metric("jumpgate_xdp_map_entries")? == known))?;
    ensure!(tunnel.session()?.is_as(watch.before()), "the session was disturbed");
    Ok(())
}
