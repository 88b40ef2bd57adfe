//! The audit trace of the program as it is: on a full disk, in a directory that goes away, under kill -9.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use jumpgate::admin::{Answer, Question};
use jumpgate::keyfile;
use jumpgate_audit::sink::StatusView;
use jumpgate_audit::verify::{self, Options, Report, Verdict, Violation};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;

use crate::host::{Gateway, Host, PATIENCE, on_a_host};

/// Every file of the trace, oldest first.
fn files(host: &Host) -> Vec<PathBuf> {
    let path = host.path("audit");
    if path.is_dir() { verify::expand(&[path]).unwrap_or_default() } else { Vec::new() }
}

/// The verifier's judgement of the whole trace.
fn judge(host: &Host, options: &Options) -> (Report, Vec<Violation>) {
    let inputs = files(host).iter().map(|file| verify::Input::open(file)).collect();
    let mut violations = Vec::new();
    let report = verify::verify(inputs, options, |violation| violations.push(violation));
    (report, violations)
}

fn status(gateway: &Gateway) -> StatusView {
    let Answer::Audit(Some(status)) = gateway.ask(&Question::Audit) else { panic!("no audit trace") };
    status
}

#[track_caller]
fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn o05_the_trace_of_a_gateway_that_stopped_is_closed_and_its_head_was_served() {
    on_a_host(|host| {
        let gateway = host.start();
        assert!(host.hello(&host.client_key).is_some());
        wait_until("the birth is in the file", || status(&gateway).records >= 2);
        let early = status(&gateway).head.expect("a head").parse().expect("SEQ:HASH");
        gateway.signal(Signal::SIGTERM);
        let (exit, errors) = gateway.end();
        assert_eq!(exit.code(), Some(0), "{errors}");
        let options = Options { head: Some(early), closed: true, ..Options::default() };
        let (report, violations) = judge(host, &options);
        assert_eq!((report.verdict, violations), (Verdict::Valid, vec![]), "{:?}", report.notes);
        assert_eq!((report.sessions.seen, report.sessions.ended), (1, 1));
        let text = fs::read_to_string(&files(host)[0]).expect("a file");
        for secret in [host.gateway_key.public(), host.client_key.public()] {
            assert!(!text.contains(&keyfile::text(&secret.0)), "no key stands in a trace (INV-30)");
        }
    });
}

#[test]
fn o03_a_full_disk_hinders_no_session_and_is_seen_and_recorded() {
    on_a_host(|host| {
        let disk = host.path("audit");
        fs::create_dir(&disk).expect("directory");
        unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace");
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).expect("private");
        let size = Some("size=64k");
        mount(Some("tmpfs"), &disk, Some("tmpfs"), MsFlags::empty(), size).expect("a small disk");
        let gateway = host.start();
        wait_until("the trace begins", || status(&gateway).head.is_some());
        let filler = disk.join("filler");
        // As much as there is room for.
        let _ = fs::write(&filler, vec![0; 64 * 1024]);
        // Sessions go on while no record finds room: each is answered, and shown.
        let answered = (0..4).filter(|_| host.hello(&host.client_key).is_some()).count();
        assert!(answered > 0);
        assert_eq!(gateway.sessions().len(), answered);
        wait_until("the full disk is seen", || {
            let _ = host.hello(&host.client_key);
            status(&gateway).problem.is_some()
        });
        assert!(gateway.counter("audit", "sink_errors_write") > 0);
        fs::remove_file(&filler).expect("room again");
        wait_until("the trace goes on", || status(&gateway).problem.is_none());
        gateway.signal(Signal::SIGTERM);
        let (exit, errors) = gateway.end();
        assert_eq!(exit.code(), Some(0), "{errors}");
        assert!(errors.contains("cannot be written") && errors.contains("can be written again"), "{errors}");
        let (report, violations) = judge(host, &Options { closed: true, ..Options::default() });
        assert_eq!((report.verdict, violations), (Verdict::Valid, vec![]), "{:?}", report.notes);
        let text = fs::read_to_string(&files(host)[0]).expect("a file");
        assert_eq!(text.matches("TelemetryDegraded").count(), 2, "impaired, and well again");
    });
}

#[test]
fn o02_a_directory_that_is_removed_under_a_running_gateway_is_made_again() {
    on_a_host(|host| {
        let gateway = host.start();
        wait_until("the trace begins", || status(&gateway).head.is_some());
        fs::remove_dir_all(host.path("audit")).expect("removed");
        wait_until("another file begins", || !files(host).is_empty());
        assert!(host.hello(&host.client_key).is_some());
        gateway.signal(Signal::SIGTERM);
        assert_eq!(gateway.end().0.code(), Some(0));
        let (report, violations) = judge(host, &Options::default());
        assert_eq!((report.verdict, violations), (Verdict::Incomplete, vec![]), "{report:?}");
        assert_eq!(report.sessions.ended, 1, "what came later is whole");
    });
}

#[test]
fn o08_after_every_kill_the_trace_holds_and_the_next_start_goes_on_with_it() {
    on_a_host(|host| {
        for pause_ms in [0, 3, 11, 29, 60] {
            let gateway = host.start();
            for _ in 0..2 {
                let _ = host.hello(&host.client_key);
            }
            thread::sleep(Duration::from_millis(pause_ms));
            gateway.kill();
            Command::new(env!("CARGO_BIN_EXE_jumpgate"))
                .args(["unload", "--interface", "jg0", "--interface", "out0"])
                .output()
                .expect("what the crash left is removed");
            let written = files(host).iter().map(|file| fs::read(file).expect("readable")).collect::<Vec<_>>().concat();
            if !written.contains(&b'\n') {
                // Killed before its first line was on disk: there is nothing yet that could be judged.
                continue;
            }
            let (report, violations) = judge(host, &Options::default());
            assert!(report.verdict >= Verdict::Incomplete, "{violations:?} {:?}", report.notes);
        }
        let gateway = host.start();
        gateway.signal(Signal::SIGTERM);
        assert_eq!(gateway.end().0.code(), Some(0));
        let (report, violations) = judge(host, &Options::default());
        assert_eq!((report.verdict, violations), (Verdict::Incomplete, vec![]), "{:?}", report.notes);
        assert_eq!(report.heads.len(), 1, "one chain over all starts");
    });
}

/// What nobody may read in any output, in the forms in which a careless line would show it.
fn secret_texts(key: &[u8; 32]) -> [String; 2] {
    [keyfile::text(key), key.iter().map(|byte| format!("{byte:02x}")).collect()]
}

/// INV-30
#[test]
fn o07_no_private_key_is_in_the_trace_the_log_or_any_answer_to_an_operator() {
    on_a_host(|host| {
        let gateway = host.start();
        assert!(host.hello(&host.client_key).is_some());
        wait_until("the birth is in the file", || status(&gateway).records >= 2);
        let mut said = String::new();
        for question in [Question::Sessions, Question::Counters, Question::Audit] {
            said += &format!("{:?}", gateway.ask(&question));
        }
        gateway.signal(Signal::SIGTERM);
        let (_, errors) = gateway.end();
        said += &errors;
        for file in files(host) {
            said += &fs::read_to_string(file).expect("the trace is text");
        }
        assert!(said.contains("SessionCreated") && said.contains("BIRTH"), "there is something to look through");
        for key in [host.gateway_key.as_bytes(), host.client_key.as_bytes()] {
            for text in secret_texts(key) {
                assert!(!said.contains(&text), "a private key is in the output");
            }
        }
    });
}
