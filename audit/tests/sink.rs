//! The sink against stores that are slow, full, stuck or gone (O01 to O05).

mod support;

use std::io;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use jumpgate_audit::chain::{Author, ChainLines, Role, Store, StoreFile, TimeAnchor};
use jumpgate_audit::ring::{Publisher, RingSizes};
use jumpgate_audit::sink::{Sink, SinkConfig, SinkHandle};
use jumpgate_audit::verify::{Input, Options, Report, Verdict, Violation, verify};
use jumpgate_protocol::audit::Record;
use jumpgate_protocol::machine::TransitionId;
use jumpgate_protocol::reason::Reason;
use jumpgate_protocol::time::Time;
use jumpgate_protocol::wire::Cause;
use support::{Life, Trace};

const PATIENCE: Duration = Duration::from_secs(20);

/// A disk in memory that can be full, stuck or slow.
#[derive(Clone, Default)]
struct Disk(Arc<(Mutex<Inner>, Condvar)>);

#[derive(Default)]
struct Inner {
    files: Vec<(String, Vec<u8>)>,
    /// Bytes that still fit; none: no limit.
    room: Option<usize>,
    stuck: bool,
    waiting: bool,
}

impl Disk {
    fn set(&self, change: impl FnOnce(&mut Inner)) {
        change(&mut self.0.0.lock().unwrap());
        self.0.1.notify_all();
    }

    fn is_waited_for(&self) -> bool {
        self.0.0.lock().unwrap().waiting
    }

    fn judge(&self, options: &Options) -> (Report, Vec<Violation>) {
        let inner = self.0.0.lock().unwrap();
        let inputs = inner.files.iter().map(|(name, bytes)| Input::bytes(name, bytes)).collect();
        let mut violations = Vec::new();
        let report = verify(inputs, options, |violation| violations.push(violation));
        (report, violations)
    }

    fn text(&self) -> String {
        let inner = self.0.0.lock().unwrap();
        inner.files.iter().map(|(_, bytes)| String::from_utf8_lossy(bytes).into_owned()).collect()
    }
}

impl Store for Disk {
    fn create(&mut self, first_seq: u64) -> io::Result<Box<dyn StoreFile>> {
        let mut inner = self.0.0.lock().unwrap();
        inner.files.push((format!("{first_seq:020}"), Vec::new()));
        Ok(Box::new(DiskFile { disk: self.clone(), index: inner.files.len() - 1 }))
    }
}

struct DiskFile {
    disk: Disk,
    index: usize,
}

impl StoreFile for DiskFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let (lock, changed) = &*self.disk.0;
        let mut inner = lock.lock().unwrap();
        while inner.stuck {
            inner.waiting = true;
            inner = changed.wait(inner).unwrap();
        }
        inner.waiting = false;
        if let Some(room) = &mut inner.room {
            *room = room.checked_sub(bytes.len()).ok_or_else(|| io::Error::from(io::ErrorKind::StorageFull))?;
        }
        inner.files[self.index].1.extend_from_slice(bytes);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn is_in_place(&self) -> bool {
        true
    }
}

/// For the test it stands before all records, for the sink after them: so that none is too young to be taken.
fn clock() -> Time {
    let of_sink = thread::current().name() == Some("jg-audit");
    Time::from_millis(if of_sink { 1_000_000 } else { 1_000 })
}

fn sink(disk: &Disk, rings: RingSizes) -> Sink {
    let author = Author { role: Role::Gateway, node_id: "node-1".to_owned() };
    let lines = ChainLines::new(author, "boot-1".to_owned(), TimeAnchor::new(Time::ZERO, support::EPOCH_MS));
    let config = SinkConfig { rings, rotate_bytes: 100_000, ..SinkConfig::at("memory") };
    Sink::to_store(lines, Box::new(disk.clone()), &config, clock)
}

/// Publishes what a trace writes: the records of a test life, in their order.
fn lives(count: u8, moves: usize) -> Vec<Record> {
    let mut trace = Trace::gateway();
    let mut lives: Vec<Life> = (1..=count).map(|name| trace.attach(name)).collect();
    for turn in 0..moves {
        trace.wait(10_000);
        for life in &mut lives {
            trace.peer_moves(life, 2 + (turn % 2) as u16, Cause::Silence);
        }
    }
    trace.wait(10_000);
    for life in &mut lives {
        trace.finish(life, TransitionId::T19, Reason::OperatorTerminated);
    }
    trace.records
}

fn publish(publisher: &mut Publisher, records: &[Record]) {
    records.iter().for_each(|record| publisher.publish(record));
}

#[track_caller]
fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(1));
    }
}

#[track_caller]
fn assert_stops(handle: SinkHandle) {
    assert!(handle.stop(PATIENCE), "the sink takes everything and ends");
}

#[test]
fn o05_an_orderly_stop_loses_nothing_and_closes_the_trace() {
    let disk = Disk::default();
    let mut sink = sink(&disk, RingSizes::default());
    let (mut one, mut two) = (sink.attach(Some(0)), sink.attach(Some(1)));
    let handle = sink.start().unwrap();
    let records = lives(10, 5);
    // Sessions of two workers.
    for record in &records {
        let even = record.standing().is_some_and(|standing| standing.session.0[0] % 2 == 0);
        if even { two.publish(record) } else { one.publish(record) }
    }
    drop((one, two));
    let status = Arc::clone(handle.status());
    assert_stops(handle);
    let head = Options { head: status.head(), closed: true, ..Options::default() };
    let (report, violations) = disk.judge(&head);
    assert_eq!((report.verdict, violations), (Verdict::Valid, vec![]), "{:?}", report.notes);
    assert!(report.files.len() > 1, "the files are rotated");
    let own = report.files.len() as u64 * 2;
    assert_eq!(report.records, records.len() as u64 + own, "all records, ChainStart and ChainEnd of each file");
}

/// INV-23
#[test]
fn o01_publishing_goes_on_while_the_disk_is_stuck_and_nothing_is_lost_that_fits_into_the_ring() {
    let disk = Disk::default();
    let mut sink = sink(&disk, RingSizes::default());
    let mut publisher = sink.attach(Some(0));
    disk.set(|inner| inner.stuck = true);
    let handle = sink.start().unwrap();
    wait_for("the sink is stuck", || disk.is_waited_for());
    // This thread is what a worker is: it must come to the end of this line.
    publish(&mut publisher, &lives(50, 8));
    assert!(disk.is_waited_for());
    disk.set(|inner| inner.stuck = false);
    drop(publisher);
    assert_stops(handle);
    let (report, violations) = disk.judge(&Options { closed: true, ..Options::default() });
    assert_eq!((report.verdict, violations), (Verdict::Valid, vec![]), "{:?}", report.notes);
    assert_eq!(report.sessions.ended, 50);
}

#[test]
fn o01_a_stop_does_not_wait_forever_for_a_disk_that_is_stuck() {
    let disk = Disk::default();
    let mut sink = sink(&disk, RingSizes::default());
    let publisher = sink.attach(Some(0));
    disk.set(|inner| inner.stuck = true);
    let handle = sink.start().unwrap();
    wait_for("the sink is stuck", || disk.is_waited_for());
    drop(publisher);
    assert!(!handle.stop(Duration::from_millis(50)));
    disk.set(|inner| inner.stuck = false);
}

#[test]
fn o03_a_full_disk_is_seen_and_recorded_and_what_waited_is_written_when_there_is_room() {
    let disk = Disk::default();
    let mut sink = sink(&disk, RingSizes::default());
    let mut publisher = sink.attach(Some(0));
    disk.set(|inner| inner.room = Some(5_000));
    let handle = sink.start().unwrap();
    let records = lives(20, 5);
    publish(&mut publisher, &records);
    let status = Arc::clone(handle.status());
    wait_for("the trouble is seen", || status.view().problem.is_some());
    let view = status.view();
    assert!(view.impaired_since_ms.is_some());
    assert!(view.errors.iter().any(|(operation, count)| operation == "write" && *count > 0), "{view:?}");
    disk.set(|inner| inner.room = None);
    wait_for("the sink is well again", || status.view().problem.is_none());
    drop(publisher);
    assert_stops(handle);
    let (report, violations) = disk.judge(&Options { closed: true, ..Options::default() });
    assert_eq!((report.verdict, violations), (Verdict::Valid, vec![]), "{:?}", report.notes);
    let text = disk.text();
    let degraded: Vec<_> = text.lines().filter(|line| line.contains("TelemetryDegraded")).collect();
    assert_eq!(degraded.len(), 2, "impaired, and well again: {degraded:?}");
    assert!(degraded[1].contains("\"since_ms\":null"));
    assert_eq!(status.view().lost, 0);
}

/// The gap is an AuditGap record with the reason AUDIT_GAP.
#[test]
fn o05_a_ring_that_overflows_declares_its_gap_and_the_trace_is_incomplete_not_invalid() {
    let disk = Disk::default();
    let rings = RingSizes { audit: 256, ..RingSizes::default() };
    let mut sink = sink(&disk, rings);
    let mut publisher = sink.attach(Some(3));
    disk.set(|inner| inner.stuck = true);
    let handle = sink.start().unwrap();
    wait_for("the sink is stuck", || disk.is_waited_for());
    let records = lives(30, 6);
    // The first half overflows while the disk is stuck; the second comes when it is well.
    let (first, second) = records.split_at(records.len() / 2);
    publish(&mut publisher, first);
    assert!(!publisher.is_settled());
    disk.set(|inner| inner.stuck = false);
    wait_for("there is room for all gaps", || {
        publisher.settle(clock());
        publisher.is_settled()
    });
    for piece in second.chunks(16) {
        publish(&mut publisher, piece);
        thread::sleep(Duration::from_millis(45));
    }
    drop(publisher);
    let status = Arc::clone(handle.status());
    assert_stops(handle);
    let (report, violations) = disk.judge(&Options { closed: true, head: status.head(), ..Options::default() });
    assert_eq!((report.verdict, violations), (Verdict::Incomplete, vec![]), "{:?}", report.notes);
    let view = status.view();
    assert!(view.lost > 0 && view.gaps > 1, "{view:?}");
    assert_eq!(report.gaps.1, view.lost, "the gaps account for every record that was lost");
    let telemetry = disk.text().matches("TelemetryDegraded").count();
    assert!(telemetry >= 2, "impaired, and well again");
}

#[test]
fn o05_losses_that_no_record_followed_are_declared_when_the_thread_ends() {
    let disk = Disk::default();
    let rings = RingSizes { audit: 16, ..RingSizes::default() };
    let mut sink = sink(&disk, rings);
    let mut publisher = sink.attach(Some(3));
    disk.set(|inner| inner.stuck = true);
    let handle = sink.start().unwrap();
    wait_for("the sink is stuck", || disk.is_waited_for());
    publish(&mut publisher, &lives(30, 1));
    drop(publisher);
    disk.set(|inner| inner.stuck = false);
    let status = Arc::clone(handle.status());
    assert_stops(handle);
    let (report, violations) = disk.judge(&Options::default());
    assert_eq!((report.verdict, violations), (Verdict::Incomplete, vec![]), "{:?}", report.notes);
    assert_eq!(report.gaps.1, status.view().lost);
}

#[test]
fn ob03_publishing_to_a_sink_that_is_gone_costs_nothing_but_the_record() {
    let disk = Disk::default();
    let mut sink = sink(&disk, RingSizes { audit: 16, security: 4, telemetry: 4 });
    let mut publisher = sink.attach(None);
    drop(sink);
    publish(&mut publisher, &lives(5, 5));
    assert!(!publisher.is_settled());
}

#[test]
fn ob04_the_default_ring_holds_a_full_recovery_of_ten_thousand_sessions() {
    assert!(RingSizes::default().outlast(10_000));
    assert!(!RingSizes::default().outlast(11_000));
}

#[test]
fn o02_a_directory_that_is_removed_is_made_again_and_the_trace_goes_on() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("audit");
    let author = Author { role: Role::Gateway, node_id: "node-1".to_owned() };
    let mut sink = Sink::open(&SinkConfig::at(&path), author, clock).unwrap();
    let mut publisher = sink.attach(Some(0));
    let handle = sink.start().unwrap();
    wait_for("the trace begins", || handle.status().head().is_some());
    std::fs::remove_dir_all(&path).unwrap();
    publish(&mut publisher, &lives(1, 1));
    drop(publisher);
    assert_stops(handle);
    let files = jumpgate_audit::verify::expand(&[path]).unwrap();
    let inputs = files.iter().map(|file| Input::open(file)).collect();
    let report = verify(inputs, &Options::default(), |violation| panic!("{violation}"));
    assert_eq!(report.verdict, Verdict::Incomplete, "what was removed is missing, and that is said");
    assert_eq!(report.sessions.ended, 1, "all that was published later is there");
}
