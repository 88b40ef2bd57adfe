//! The steering of the XDP program is an optimisation: what it gets wrong, the worker's own check puts right (RS-3).

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use aya::maps::{Array, Map, MapData, MapInfo};
use aya::programs::loaded_programs;
use jumpgate_common::maps::{NO_WORKER, SLOTS, entry_of_worker};
use jumpgate_protocol::ident::Locator;
use jumpgate_protocol::reason::Reason;

use super::arena::{Arena, Watch};
use super::{Test, wait_for};
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
];

/// The gateway's table of slots, as an operator with BPF tools would change it behind its back.
struct Slots(Array<MapData, u32>);

impl Slots {
    /// Finds the table of the program that is attached to this lab's gateway: others may run on the machine.
    fn of(lab: &Lab) -> Result<Self> {
        let show = lab.run.check(
            std::process::Command::new("ip").args(["-n", lab.gateway.name(), "-d", "link", "show", GATEWAY_OUTSIDE]),
            "",
        )?;
        let id = show.split("prog/xdp id ").nth(1).and_then(|rest| rest.split_whitespace().next());
        let id: u32 = id.context("no XDP program is attached")?.parse()?;
        let mut programs = loaded_programs().flatten();
        let program = programs.find(|program| program.id() == id).with_context(|| format!("no program {id}"))?;
        for map in program.map_ids()?.unwrap_or_default() {
            if MapInfo::from_id(map)?.name_as_str() == Some(SLOTS) {
                return Ok(Self(Map::Array(MapData::from_id(map)?).try_into()?));
            }
        }
        anyhow::bail!("program {id} has no map {SLOTS}")
    }

    fn set(&mut self, slot: u16, entry: u32) -> Result<()> {
        Ok(self.0.set(slot.into(), entry, 0)?)
    }
}

/// The victim's slot and worker.
fn place(watch: &Watch<'_>) -> Result<(u16, u32)> {
    let locator = Locator(u64::from_str_radix(&watch.before().locator, 16)?);
    Ok((locator.slot().number(), watch.before().worker.into()))
}

/// Misleads the victim's packets by that entry, and puts it right again as soon as they are counted.
fn mislead(lab: &Lab, entry: impl Fn(u32) -> u32, counter: &str) -> Result<()> {
    let arena = Arena::open(lab, "")?;
    let watch = arena.watch()?;
    let mut slots = Slots::of(lab)?;
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
