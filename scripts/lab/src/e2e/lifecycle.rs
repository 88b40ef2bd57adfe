//! Starting, stopping, restarting and misconfiguring: whatever happens, the host is left as it was.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

use super::tunnel::{Ends, Tunnel};
use super::{Test, wait_for};
use crate::namespace::Namespace;
use crate::programs::{Client, Event, Gateway};
use crate::topology::{GATEWAY_OUTSIDE, Lab};

pub(super) const TESTS: &[Test] = &[
    Test {
        name: "end: a gateway that stops tells its clients and leaves no program and no link (T24)",
        run: clean_shutdown,
    },
    Test {
        name: "end: a client that stops ends its session and leaves no link and no route (TC30)",
        run: client_stops,
    },
    Test {
        name: "end: a crashed gateway comes back, and the client says why it needs a new session (K10)",
        run: gateway_restart,
    },
    Test {
        name: "end: Ctrl-C at any moment of its start leaves nothing of the gateway behind",
        run: gateway_interrupted,
    },
    Test {
        name: "end: Ctrl-C at any moment of its start leaves nothing of the client behind",
        run: client_interrupted,
    },
    Test { name: "config: a wrong value is refused with file, line, key and cure, at both ends", run: wrong_config },
    Test { name: "config: a missing interface and a taken port are refused with a cure", run: wrong_host },
];

/// Delays after which a starting program is interrupted: from "hardly begun" to "already up".
const INTERRUPTIONS: [u64; 9] = [0, 5, 15, 30, 60, 100, 160, 250, 500];
/// How long a program may take to stop.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// Links, addresses, routes, rules and attached programs of a namespace, as text that can be compared. What counts
/// packets or ages is left out.
fn inventory(lab: &Lab, namespace: &Namespace) -> Result<String> {
    let mut text = String::new();
    for arguments in [
        &["-d", "-o", "link", "show"][..],
        &["-o", "addr", "show"],
        &["route", "show", "table", "all"],
        &["-6", "route", "show", "table", "all"],
        &["rule", "show"],
        &["-6", "rule", "show"],
    ] {
        text += &lab.run.check(Command::new("ip").args(["-n", namespace.name()]).args(arguments), "")?;
    }
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    Ok(lines.join("\n"))
}

/// Checks that a namespace is as it was; links vanish a moment after the process that held them.
fn is_as_before(lab: &Lab, namespace: &Namespace, before: &str, after_what: &str) -> Result<()> {
    let mut now = String::new();
    let settled = wait_for("the namespace to be as it was", Duration::from_secs(2), || {
        now = inventory(lab, namespace)?;
        Ok(now == before)
    });
    settled.with_context(|| {
        let new: Vec<&str> = now.lines().filter(|line| !before.lines().any(|old| old == *line)).collect();
        let gone: Vec<&str> = before.lines().filter(|line| !now.lines().any(|new| new == *line)).collect();
        format!("{after_what}: new is {new:#?}, gone is {gone:#?}")
    })
}

fn clean_shutdown(lab: &Lab) -> Result<()> {
    let before = inventory(lab, &lab.gateway)?;
    let Tunnel { client, gateway, .. } = Tunnel::open(lab, false)?;
    let links =
        lab.run.check(Command::new("ip").args(["-n", lab.gateway.name(), "link", "show", GATEWAY_OUTSIDE]), "")?;
    ensure!(links.contains("xdp"), "no program is attached while the gateway runs: {links}");
    let events = client.events()?;
    // The listener has to be there before the event is.
    thread::sleep(Duration::from_millis(200));
    gateway.stop()?;
    let mut told = None;
    wait_for("the client to be told", Duration::from_secs(2), || {
        told = events.from(0).into_iter().find_map(|heard| match heard.event {
            Event::Terminated { reason, .. } => Some(reason),
            _ => None,
        });
        Ok(told.is_some())
    })?;
    ensure!(told.as_deref() == Some("PEER_TERMINATED"), "the client was told {told:?}");
    is_as_before(lab, &lab.gateway, &before, "after the gateway stopped")
}

fn client_stops(lab: &Lab) -> Result<()> {
    let before = inventory(lab, &lab.client)?;
    let Tunnel { client, gateway, .. } = Tunnel::open(lab, false)?;
    client.stop()?;
    wait_for("the gateway to end the session", Duration::from_secs(2), || Ok(gateway.sessions()?.is_empty()))?;
    is_as_before(lab, &lab.client, &before, "after the client stopped")
}

fn gateway_restart(lab: &Lab) -> Result<()> {
    let Tunnel { client, gateway, gateway_options, programs, .. } = Tunnel::open(lab, false)?;
    let first = gateway.session()?.locator;
    gateway.kill();
    lab.note_killed();
    let gateway = Gateway::start(lab, &programs, &gateway_options)?;
    let status = client.wait_for("a second session", Duration::from_secs(45), |status| {
        status.phase == "connected" && status.sessions >= 2 && status.session.as_deref() != Some(&first)
    })?;
    let log = client.log();
    ensure!(
        log.contains("SESSION_LOST") || log.contains("TTL_TRANSPORT_LOSS_EXPIRED"),
        "the client does not say why:\n{log}"
    );
    ensure!(status.session == Some(gateway.session()?.locator), "the ends differ");
    Ok(())
}

fn gateway_interrupted(lab: &Lab) -> Result<()> {
    let before = inventory(lab, &lab.gateway)?;
    let ends = Ends::new(lab, false)?;
    for millis in INTERRUPTIONS {
        let gateway = Gateway::launch(lab, &ends.programs, &ends.gateway)?;
        thread::sleep(Duration::from_millis(millis));
        gateway.process().signal(Signal::SIGINT);
        let exit = gateway.process().wait(STOP_LIMIT)?;
        ensure!(exit.is_some(), "SIGINT after {millis} ms does not stop the gateway:\n{}", gateway.log());
        is_as_before(lab, &lab.gateway, &before, &format!("after SIGINT at {millis} ms"))?;
    }
    ensure!(!lab.run.directory().join("gateway.sock").exists(), "the admin socket is left");
    Ok(())
}

fn client_interrupted(lab: &Lab) -> Result<()> {
    let ends = Ends::new(lab, false)?;
    let _gateway = Gateway::start(lab, &ends.programs, &ends.gateway)?;
    let before = inventory(lab, &lab.client)?;
    for millis in INTERRUPTIONS {
        let client = Client::launch(lab, &ends.programs, &ends.client)?;
        thread::sleep(Duration::from_millis(millis));
        client.process().signal(Signal::SIGINT);
        let exit = client.process().wait(STOP_LIMIT)?;
        ensure!(exit.is_some(), "SIGINT after {millis} ms does not stop the client:\n{}", client.log());
        is_as_before(lab, &lab.client, &before, &format!("after SIGINT at {millis} ms"))?;
    }
    Ok(())
}

/// Runs a program that has to refuse, and returns what it says.
fn refusal(lab: &Lab, command: &mut Command) -> Result<String> {
    let output = lab.run.output(command, "", STOP_LIMIT)?;
    ensure!(!output.status.success(), "it accepted: {}", output.stdout);
    Ok(output.stderr)
}

fn says(text: &str, wanted: &[&str]) -> Result<()> {
    for word in wanted {
        ensure!(text.contains(word), "{word:?} is not in the complaint:\n{text}");
    }
    Ok(())
}

fn wrong_config(lab: &Lab) -> Result<()> {
    let ends = Ends::new(lab, false)?;
    let directory = lab.run.directory();

    let good = ends.gateway.config(lab, &directory.join("gateway.sock"));
    let file = directory.join("wrong-gateway.toml");
    let line_of = |text: &str, needle: &str| text.lines().position(|line| line.contains(needle)).map(|line| line + 1);
    for (right, wrong, key) in [
        ("count = 2", "count = \"two\"", "workers.count"),
        ("mode = \"native\"", "mode = \"warp\"", "outside.mode"),
        ("pool_v4 = \"10.66.0.0/16\"", "pool_v4 = \"10.66.0.0/99\"", "inside.pool_v4"),
        ("profile = \"mobile\"", "profile = \"mobile\"\nswitching.switch_cooldown_ms = 1", "switch_cooldown_ms"),
        ("kind = \"veth\"", "kind = \"veth\"\ncolour = \"red\"", "colour"),
    ] {
        let text = good.replacen(right, wrong, 1);
        fs::write(&file, &text)?;
        let complaint =
            refusal(lab, Command::new(&ends.programs.gateway).arg("check-config").arg("--config").arg(&file))?;
        let last_of_wrong = wrong.lines().last().unwrap_or(wrong);
        let line = line_of(&text, last_of_wrong).context("the wrong line is not there")?;
        says(&complaint, &["wrong-gateway.toml", &format!(":{line}"), key, "cure"])?;
    }

    let file = directory.join("wrong-client.toml");
    let text = format!(
        "[client]\nprivate_key_file = {:?}\n\n[gateway]\npublic_key = \"AAAA\"\nendpoints = [\"192.0.2.1:51900\"]\n\n\
         [[uplink]]\ninterface = \"wifi0\"\n",
        ends.client.key.private_file
    );
    fs::write(&file, text)?;
    let complaint = refusal(lab, Command::new(&ends.programs.client).arg("check-config").arg("--config").arg(&file))?;
    says(&complaint, &["wrong-client.toml:5", "public_key"])
}

fn wrong_host(lab: &Lab) -> Result<()> {
    let ends = Ends::new(lab, false)?;
    let directory = lab.run.directory();
    let file = directory.join("absent.toml");
    let good = ends.gateway.config(lab, &directory.join("absent.sock"));
    fs::write(&file, good.replace(GATEWAY_OUTSIDE, "absent0"))?;
    let complaint = refusal(lab, lab.gateway.command(&ends.programs.gateway).arg("run").arg("--config").arg(&file))?;
    says(&complaint, &["absent0", "cure"])?;

    let endpoint = lab.gateway_endpoint(false);
    let _taken = lab.gateway.enter(|| std::net::UdpSocket::bind(endpoint))??;
    fs::write(&file, good)?;
    let complaint = refusal(lab, lab.gateway.command(&ends.programs.gateway).arg("run").arg("--config").arg(&file))?;
    says(&complaint, &[&endpoint.to_string(), "cure"])
}
