//! Ways for a path to die, and what must be left of the session: everything.

use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::Test;
use super::tunnel::{Jumped, Tunnel, WIFI_PATH, quieten};
use crate::programs::{Event, Heard};
use crate::relay::{Direction, Profile};
use crate::topology::{LTE, Lab, WIFI};

pub(super) const TESTS: &[Test] = &[
    Test {
        name: "death: the host's firewall eats a path's packets, and the session moves once (TC01)",
        run: |lab| killed(lab, SILENT, firewall, lift_firewall),
    },
    Test {
        name: "death: the route to a path is removed, and the session moves at once (TC01, TC18, SM-13)",
        run: |lab| killed(lab, TOLD, remove_route, restore_route),
    },
    Test {
        name: "death: the address of a path is removed, and the session moves at once (TC01, SM-13)",
        run: |lab| killed(lab, TOLD, remove_address, restore_address),
    },
    Test {
        name: "death: the kernel aborts a path's socket, and the session goes on (TC01, TC35)",
        run: aborted_socket,
    },
    Test {
        name: "death: a router on the way stops forwarding, and the session moves once (TC34)",
        run: |lab| killed(lab, SILENT, stop_router, start_router),
    },
    Test {
        name: "death: a NAT mapping that expires while nothing is sent is found by a heartbeat (TC15, BD-4)",
        run: idle_mapping,
    },
    Test {
        name: "death: a NAT that rotates every second and a half costs one reattach each time, and data never moves (TC16)",
        run: rotating_nat,
    },
    Test {
        name: "death: what is late from the old path counts while it drains, and is dropped and counted after (TC24, TC25, BD-1)",
        run: |lab| late_packets(lab, "native"),
    },
    Test {
        name: "death: a link that moves on its own and late packets do the same in generic mode (TC37, TC18, TC25)",
        run: generic,
    },
    Test {
        name: "death: an old path that closes after the switch touches nothing (TC40, INV-32)",
        run: old_path_closes,
    },
];

/// Longest outage when the client is told of the death: cooldown of the profile `mobile` (500 ms), and round trips on a
/// busy machine.
const TOLD: Duration = Duration::from_millis(700);
/// The same when silence has to be noticed first: 1 000 ms in the profile `mobile`.
const SILENT: Duration = Duration::from_millis(2_500);
/// Rotations of a NAT, and the time between them: beyond the cooldown, within the switches of a minute.
const ROTATIONS: u64 = 5;
const ROTATION: Duration = Duration::from_millis(1_500);

/// Kills wifi0 and checks that the session moved to lte0: by one switch, in the order of the table, and nothing else.
fn killed(lab: &Lab, bound: Duration, kill: fn(&Lab) -> Result<()>, heal: fn(&Lab) -> Result<()>) -> Result<()> {
    let tunnel = Tunnel::open(lab, false)?;
    let events = tunnel.client.events()?;
    // The listener has to be there before the event is.
    thread::sleep(Duration::from_millis(200));
    let moved = tunnel.jump(&LTE, || kill(lab));
    heal(lab)?;
    let Jumped { before, after, seen } = moved?;
    ensure!(seen.outage <= bound, "an outage of {:?}", seen.outage);
    ensure!(after.switches == before.switches + 1, "{} switches", after.switches - before.switches);
    ensure!(tunnel.client.status()?.sessions == 1, "there was another handshake");
    let states = states(&events.from(0));
    ensure!(states == ["VOLATILE", "RECOVERING", "ATTACHED"], "the states were {states:?}");
    Ok(())
}

/// The states that a client went through; a transition into the same state (T16) is none of these.
pub(super) fn states(heard: &[Heard]) -> Vec<String> {
    let mut states: Vec<String> = Vec::new();
    for heard in heard {
        if let Event::Transition { to, .. } = &heard.event {
            states.push(to.clone());
        }
    }
    states.dedup();
    states
}

fn client_firewall(lab: &Lab, rules: &str) -> Result<()> {
    lab.run.check(lab.client.command("nft").args(["-f", "-"]), rules).map(drop)
}

fn firewall(lab: &Lab) -> Result<()> {
    client_firewall(
        lab,
        "table inet lab {\nchain out {\ntype filter hook output priority 0\noifname \"wifi0\" meta l4proto udp drop\n}\n}\n",
    )
}

fn lift_firewall(lab: &Lab) -> Result<()> {
    client_firewall(lab, "delete table inet lab\n")
}

fn remove_route(lab: &Lab) -> Result<()> {
    // All of them: while the router is a neighbour, the client's own host route to the gateway keeps the path alive.
    lab.client.ip(&format!("route flush dev {}", WIFI.interface))
}

fn restore_route(lab: &Lab) -> Result<()> {
    lab.client.ip(&format!("route replace {} dev {} scope link", WIFI.home_network(), WIFI.interface))?;
    lab.uplink_up(&WIFI)
}

fn remove_address(lab: &Lab) -> Result<()> {
    lab.client.ip(&format!("addr del {} dev {}", WIFI.home_address(), WIFI.interface))
}

fn restore_address(lab: &Lab) -> Result<()> {
    lab.client.ip(&format!("addr add {} dev {}", WIFI.home_address(), WIFI.interface))?;
    lab.uplink_up(&WIFI)
}

fn stop_router(lab: &Lab) -> Result<()> {
    lab.router(&WIFI).sysctl(&[("ipv4/ip_forward", "0")])
}

fn start_router(lab: &Lab) -> Result<()> {
    lab.router(&WIFI).sysctl(&[("ipv4/ip_forward", "1")])
}

fn aborted_socket(lab: &Lab) -> Result<()> {
    let tunnel = Tunnel::open(lab, false)?;
    tunnel.wait_for_standby(&LTE)?;
    let before = tunnel.session()?;
    let probe = tunnel.probe(false)?;
    // ss -K ends sockets in the kernel; the program finds out by an error. It had all of its sockets until now.
    lab.run.check(lab.client.command("ss").args(["-K", "-u", "-a", "-n"]), "")?;
    let again = |status: &crate::programs::Status| status.state == "ATTACHED" && status.epoch > before.epoch;
    tunnel.client.wait_for("the session to be taken up again", Duration::from_secs(10), again)?;
    super::wait_for("answers after it", Duration::from_secs(5), || Ok(probe.flows(10)))?;
    let after = tunnel.session()?;
    ensure!(after.locator == before.locator && after.peer != before.peer, "{before:?} became {after:?}");
    ensure!(tunnel.client.status()?.sessions == 1, "there was another handshake");
    Ok(())
}

fn idle_mapping(lab: &Lab) -> Result<()> {
    let tunnel = Tunnel::open(lab, false)?;
    let before = tunnel.session()?;
    let sent = before.rx_packets;
    lab.relay.rebind(WIFI.path, None)?;
    let again = |status: &crate::programs::Status| status.state == "ATTACHED" && status.epoch > before.epoch;
    tunnel.client.wait_for("a heartbeat to find it", Duration::from_secs(5), again)?;
    let after = tunnel.session()?;
    ensure!(after.locator == before.locator && after.switches == before.switches + 1, "{before:?} became {after:?}");
    ensure!(after.peer.map(|peer| peer.ip()) == before.peer.map(|peer| peer.ip()), "another path: {after:?}");
    ensure!(after.peer != before.peer, "the mapping did not change");
    ensure!(after.rx_packets - sent <= 5, "it was not idle: {} packets", after.rx_packets - sent);
    tunnel.probe_flows()
}

fn rotating_nat(lab: &Lab) -> Result<()> {
    let tunnel = Tunnel::open(lab, false)?;
    let first = tunnel.session()?;
    let probe = tunnel.probe(false)?;
    let mut last = first.clone();
    for rotation in 1..=ROTATIONS {
        lab.relay.rebind(WIFI.path, None)?;
        let again =
            |status: &crate::programs::Status| status.state == "ATTACHED" && status.epoch == first.epoch + rotation;
        tunnel.client.wait_for(&format!("rotation {rotation} to be followed"), Duration::from_secs(5), again)?;
        let now = tunnel.session()?;
        ensure!(now.locator == first.locator, "another session");
        ensure!(now.epoch == last.epoch + 1 && now.version > last.version, "{last:?} became {now:?}");
        ensure!(now.peer != last.peer, "rotation {rotation} gave the old mapping");
        last = now;
        thread::sleep(ROTATION);
    }
    ensure!(tunnel.session()?.switches == first.switches + ROTATIONS, "{:?}", tunnel.session()?);
    ensure!(tunnel.gateway.counter("WRONG_TRANSPORT")? >= ROTATIONS, "no data came from an unbound port");
    ensure!(probe.flows(10), "the traffic does not flow");
    Ok(())
}

fn late_packets(lab: &Lab, mode: &'static str) -> Result<()> {
    quieten(lab)?;
    let mut ends = super::tunnel::Ends::new(lab, false)?;
    (ends.gateway.mode, ends.gateway.profile) = (mode, "default");
    ends.gateway.policy = "switching.old_path_drain_ms = 500".to_owned();
    let tunnel = ends.open(lab)?;
    let slow = |delay_ms: f64| Profile { delay_ms, ..WIFI_PATH };
    // What is on the old path when the commit comes arrives 100 ms after it: within the drain, and nothing is lost.
    lab.relay.set_direction(WIFI.path, Direction::Up, slow(100.0))?;
    let soon = tunnel.jump(&LTE, || tunnel.client.move_to(LTE.interface))?;
    ensure!(soon.seen.lost_up == 0, "lost {} of {} probes on their way up", soon.seen.lost_up, soon.seen.sent);
    // And now it arrives when the binding has been retired for good; earlier than silence would be called silence.
    lab.relay.set(WIFI.path, WIFI_PATH)?;
    tunnel.wait_for_standby(&WIFI)?;
    lab.relay.set_direction(LTE.path, Direction::Up, slow(1_000.0))?;
    let refused = tunnel.gateway.counter("WRONG_TRANSPORT")?;
    let late = tunnel.jump(&WIFI, || tunnel.client.move_to(WIFI.interface))?;
    ensure!(late.seen.lost_up > 0, "nothing was late: {:?}", late.seen);
    tunnel.wait_for_count("WRONG_TRANSPORT", refused, 1)?;
    ensure!(tunnel.session()?.switches == 2, "{:?}", tunnel.session()?);
    Ok(())
}

fn generic(lab: &Lab) -> Result<()> {
    late_packets(lab, "generic")?;
    quieten(lab)?;
    let mut ends = super::tunnel::Ends::new(lab, false)?;
    ends.gateway.mode = "generic";
    let tunnel = ends.open(lab)?;
    let mut show = Command::new("ip");
    let show = show.args(["-n", lab.gateway.name(), "link", "show", crate::topology::GATEWAY_OUTSIDE]);
    ensure!(lab.run.check(show, "")?.contains("xdpgeneric"), "no program is attached in generic mode");
    let Jumped { seen, .. } = tunnel.jump(&LTE, || lab.uplink_down(&WIFI))?;
    ensure!(seen.outage <= TOLD, "an outage of {:?}", seen.outage);
    lab.uplink_up(&WIFI)
}

fn old_path_closes(lab: &Lab) -> Result<()> {
    let tunnel = Tunnel::open(lab, false)?;
    tunnel.jump(&LTE, || tunnel.client.move_to(LTE.interface))?;
    let watch = super::arena::Watch::begin(&tunnel)?;
    lab.uplink_down(&WIFI)?;
    // Longer than anything that could still run for the old binding: drain, validation, silence.
    thread::sleep(Duration::from_millis(2_500));
    let undisturbed = watch.is_undisturbed();
    lab.uplink_up(&WIFI)?;
    undisturbed
}
