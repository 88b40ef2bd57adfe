//! One run of the lab: a name nobody else has, and the promise that nothing of it stays behind.
//!
//! Every namespace, process and file of a run carries the run's tag. The tag holds the process id and the start time of
//! the process that owns the run, so whoever comes later can tell a live run from the leftovers of a dead one.
//! All processes start through [`Run::spawn`]; closing the run refuses new ones, ends the old ones, and deletes
//! namespaces and files by their tag. That happens on drop (so also on panic) and on SIGINT, SIGTERM and SIGHUP.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Context, Result, anyhow, bail};
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// First part of every name that a run gives; `clean` looks for it.
const TAG_PREFIX: &str = "jg-";
/// Where iproute2 keeps its named namespaces.
const NAMESPACE_DIR: &str = "/run/netns";
/// How long a process may take to end after SIGTERM. The gateway tells its clients and detaches its programs meanwhile.
const GRACE: Duration = Duration::from_secs(3);
/// Pause between two looks at a process that should end.
const POLL: Duration = Duration::from_millis(5);
/// How long a helper command such as `ip` or `nft` may take; they need milliseconds.
const COMMAND_LIMIT: Duration = Duration::from_secs(20);

/// Whether a signal is closing all runs.
static STOPPED: AtomicBool = AtomicBool::new(false);
/// The runs that a signal has to close: each from before its first file until all of it is gone.
static OPEN: Mutex<Vec<Arc<Inner>>> = Mutex::new(Vec::new());

/// Handle to a run; clones share it, the last one to go closes it.
#[derive(Clone)]
pub struct Run {
    inner: Arc<Handle>,
}

/// What the clones share.
struct Handle(Arc<Inner>);

struct Inner {
    tag: String,
    directory: PathBuf,
    state: Mutex<State>,
    /// Held while the run is closed: whoever closes it as well returns when it is gone, not before.
    closing: Mutex<()>,
}

#[derive(Default)]
struct State {
    closed: bool,
    children: Vec<Arc<Mutex<Child>>>,
}

/// A process of the run. Dropping the handle ends the process.
pub struct Process {
    name: String,
    child: Arc<Mutex<Child>>,
}

/// What a helper command left: its exit status and all that it wrote.
#[derive(Debug)]
pub struct Output {
    /// The exit status.
    pub status: ExitStatus,
    /// Everything it wrote to standard output.
    pub stdout: String,
    /// Everything it wrote to standard error.
    pub stderr: String,
}

impl Run {
    /// Opens a run and makes sure that a signal closes it.
    pub fn open() -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let pid = std::process::id();
        let started = start_time(pid).context("reading the start time of this process from /proc")?;
        let tag = format!("{TAG_PREFIX}{pid}-{started:x}-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let directory = std::env::temp_dir().join(&tag);
        close_on_signal()?;
        let mut open = lock(&OPEN);
        fs::create_dir(&directory).with_context(|| format!("creating {}", directory.display()))?;
        let inner = Arc::new(Inner { tag, directory, state: Mutex::default(), closing: Mutex::default() });
        open.push(inner.clone());
        Ok(Self { inner: Arc::new(Handle(inner)) })
    }

    /// The tag that all names of this run start with.
    pub fn tag(&self) -> &str {
        &self.inner.0.tag
    }

    /// A directory for the run's files, deleted with it.
    pub fn directory(&self) -> &Path {
        &self.inner.0.directory
    }

    /// Starts a process that this run will end. It gets a process group of its own, so that Ctrl-C reaches the lab alone
    /// and the lab decides the order in which its processes stop.
    pub fn spawn(&self, name: &str, command: &mut Command) -> Result<Process> {
        let mut state = lock(&self.inner.0.state);
        if state.closed {
            bail!("the lab is closing; {name} is not started");
        }
        let child = command.process_group(0).spawn().with_context(|| format!("starting {name}"))?;
        let child = Arc::new(Mutex::new(child));
        state.children.retain(|child| is_running(child));
        state.children.push(child.clone());
        Ok(Process { name: name.to_owned(), child })
    }

    /// Runs a command to its end, feeding it `input`; an error if it takes longer than `limit`.
    pub fn output(&self, command: &mut Command, input: &str, limit: Duration) -> Result<Output> {
        let name = describe(command);
        let process = self.spawn(&name, command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()))?;
        let (stdin, stdout, stderr) = {
            let mut child = lock(&process.child);
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        };
        let stdout = thread::spawn(move || read_all(stdout));
        let stderr = thread::spawn(move || read_all(stderr));
        if let Some(mut stdin) = stdin {
            // A command that exits without reading its input says why by its status.
            let _ = std::io::Write::write_all(&mut stdin, input.as_bytes());
        }
        let status = process.wait(limit)?.ok_or_else(|| anyhow!("{name} did not end within {limit:?}"));
        process.stop();
        let stdout = stdout.join().unwrap_or_default();
        let stderr = stderr.join().unwrap_or_default();
        Ok(Output { status: status?, stdout, stderr })
    }

    /// Runs a helper command that has to succeed and returns what it printed.
    pub fn check(&self, command: &mut Command, input: &str) -> Result<String> {
        let name = describe(command);
        let output = self.output(command, input, COMMAND_LIMIT)?;
        if !output.status.success() {
            bail!("`{name}` failed ({}): {}", output.status, output.stderr.trim());
        }
        Ok(output.stdout)
    }

    /// Ends every process and deletes every namespace and file of the run. Safe to call again.
    pub fn close(&self) {
        self.inner.0.close();
    }
}

impl Inner {
    fn close(&self) {
        let _closing = lock(&self.closing);
        let children = {
            let mut state = lock(&self.state);
            state.closed = true;
            std::mem::take(&mut state.children)
        };
        // The last one started is the first one told: clients say goodbye while their gateway still listens.
        for child in children.iter().rev() {
            terminate(child);
        }
        remove_namespaces(&self.tag);
        let _ = fs::remove_dir_all(&self.directory);
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.close();
        lock(&OPEN).retain(|open| !Arc::ptr_eq(open, &self.0));
    }
}

impl Process {
    /// The name given at the start.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        lock(&self.child).id()
    }

    /// Its exit status if it has ended.
    pub fn exited(&self) -> Result<Option<ExitStatus>> {
        Ok(lock(&self.child).try_wait()?)
    }

    /// Waits for its end, but no longer than `limit`.
    pub fn wait(&self, limit: Duration) -> Result<Option<ExitStatus>> {
        let deadline = Instant::now() + limit;
        loop {
            let status = self.exited()?;
            if status.is_some() || Instant::now() >= deadline {
                return Ok(status);
            }
            thread::sleep(POLL);
        }
    }

    /// Its standard output, if it is a pipe and nobody took it before.
    pub fn take_stdout(&self) -> Option<ChildStdout> {
        lock(&self.child).stdout.take()
    }

    /// Sends a signal, if it still runs.
    pub fn signal(&self, signal: Signal) {
        send(&self.child, signal);
    }

    /// Ends it: SIGTERM, and SIGKILL after a grace period. Returns its exit status, if it left one.
    pub fn stop(&self) -> Option<ExitStatus> {
        terminate(&self.child)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Removes what dead runs left: processes in their namespaces, the namespaces, their files. Returns what was removed.
pub fn clean() -> Vec<String> {
    let mut removed = Vec::new();
    let mut dead: Vec<String> = names_in(Path::new(NAMESPACE_DIR))
        .chain(names_in(&std::env::temp_dir()))
        .filter_map(|name| tag_of(&name).map(str::to_owned))
        .filter(|tag| !owner_lives(tag))
        .collect();
    dead.sort();
    dead.dedup();
    for tag in dead {
        removed.extend(remove_namespaces(&tag));
        let directory = std::env::temp_dir().join(&tag);
        if fs::remove_dir_all(&directory).is_ok() {
            removed.push(directory.display().to_string());
        }
    }
    removed
}

/// The tag inside the name of a namespace or directory: `jg-<pid>-<start>-<number>`, perhaps with more behind it.
fn tag_of(name: &str) -> Option<&str> {
    let rest = name.strip_prefix(TAG_PREFIX)?;
    let mut parts = rest.splitn(4, '-');
    let (pid, started, number) = (parts.next()?, parts.next()?, parts.next()?);
    pid.parse::<u32>().ok()?;
    u64::from_str_radix(started, 16).ok()?;
    number.parse::<u32>().ok()?;
    Some(&name[..TAG_PREFIX.len() + pid.len() + started.len() + number.len() + 2])
}

fn owner_lives(tag: &str) -> bool {
    let mut parts = tag[TAG_PREFIX.len()..].split('-');
    let pid = parts.next().and_then(|pid| pid.parse().ok());
    let started = parts.next().and_then(|started| u64::from_str_radix(started, 16).ok());
    pid.zip(started).is_some_and(|(pid, started)| start_time(pid) == Some(started))
}

/// When a process started, in clock ticks since boot: with the process id it names one process for ever.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command name, in brackets, may hold blanks; field 22 of the line is the 20th behind it.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(19)?.parse().ok()
}

fn names_in(directory: &Path) -> impl Iterator<Item = String> {
    fs::read_dir(directory).into_iter().flatten().filter_map(|entry| entry.ok()?.file_name().into_string().ok())
}

fn remove_namespaces(tag: &str) -> Vec<String> {
    let own = names_in(Path::new(NAMESPACE_DIR)).filter(|name| tag_of(name) == Some(tag));
    let mut removed = Vec::new();
    for name in own {
        for pid in processes_in(&name) {
            let _ = kill(pid, Signal::SIGKILL);
        }
        // As `ip netns delete` does it, but a second Ctrl-C cannot stop it.
        let path = Path::new(NAMESPACE_DIR).join(&name);
        let _ = umount2(&path, MntFlags::MNT_DETACH);
        if fs::remove_file(&path).is_ok() {
            removed.push(format!("namespace {name}"));
        }
    }
    removed
}

fn processes_in(namespace: &str) -> Vec<Pid> {
    let own = i32::try_from(std::process::id()).unwrap_or_default();
    let output = Command::new("ip").args(["netns", "pids", namespace]).stderr(Stdio::null()).process_group(0).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().filter_map(|line| line.trim().parse().ok()).filter(|pid| *pid != own).map(Pid::from_raw).collect()
}

/// To be called before the program ends or reports an error: if a signal is closing the runs, the thread that does it has
/// to be waited for, and what fails meanwhile fails because of it. It ends the program.
pub fn stand_aside_for_signal() {
    while STOPPED.load(Ordering::SeqCst) {
        thread::park();
    }
}

/// One thread waits for signals for the whole process; it closes every open run and exits as a shell would say it.
fn close_on_signal() -> Result<()> {
    static START: Once = Once::new();
    let mut outcome = Ok(());
    START.call_once(|| match Signals::new([SIGINT, SIGTERM, SIGHUP]) {
        Ok(mut signals) => {
            thread::spawn(move || {
                if let Some(signal) = signals.forever().next() {
                    STOPPED.store(true, Ordering::SeqCst);
                    eprintln!("\nstopped by signal {signal}; removing the lab");
                    lock(&OPEN).iter().for_each(|run| run.close());
                    std::process::exit(128 + signal);
                }
            });
        }
        Err(error) => outcome = Err(error).context("catching SIGINT and SIGTERM"),
    });
    outcome
}

fn is_running(child: &Mutex<Child>) -> bool {
    matches!(lock(child).try_wait(), Ok(None))
}

/// Signals a child that has not been waited for, so that its process id cannot belong to anybody else.
fn send(child: &Mutex<Child>, signal: Signal) {
    let mut child = lock(child);
    if let (Ok(None), Ok(pid)) = (child.try_wait(), i32::try_from(child.id())) {
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

fn terminate(child: &Mutex<Child>) -> Option<ExitStatus> {
    send(child, Signal::SIGTERM);
    let deadline = Instant::now() + GRACE;
    while is_running(child) && Instant::now() < deadline {
        thread::sleep(POLL);
    }
    let mut child = lock(child);
    let _ = child.kill();
    child.wait().ok()
}

fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

fn read_all(stream: Option<impl Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut stream) = stream {
        let _ = stream.read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A lock that a panic elsewhere cannot take away: cleaning up has to work above all then.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_found_in_names_of_namespaces_and_nowhere_else() {
        assert_eq!(tag_of("jg-17-5fa-0-client"), Some("jg-17-5fa-0"));
        assert_eq!(tag_of("jg-17-5fa-0"), Some("jg-17-5fa-0"));
        for foreign in ["jg-17", "jg-17-5fa", "jg-x-5fa-0", "jg-17-zz-0-a", "eth0", ""] {
            assert_eq!(tag_of(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn the_owner_of_a_tag_lives_only_while_pid_and_start_time_agree() {
        let pid = std::process::id();
        let started = start_time(pid).unwrap();
        assert!(owner_lives(&format!("jg-{pid}-{started:x}-0")));
        assert!(!owner_lives(&format!("jg-{pid}-{:x}-0", started + 1)), "the pid was taken over by another process");
    }

    #[test]
    fn a_closed_run_leaves_no_process_and_no_file_and_starts_nothing_more() {
        let run = Run::open().unwrap();
        let directory = run.directory().to_owned();
        let sleeper = run.spawn("sleep", Command::new("sleep").arg("60")).unwrap();
        run.close();
        assert!(sleeper.exited().unwrap().is_some());
        assert!(!directory.exists());
        assert!(run.spawn("sleep", Command::new("sleep").arg("60")).is_err());
    }

    #[test]
    fn whoever_closes_a_run_as_well_returns_when_it_is_gone() {
        let run = Run::open().unwrap();
        let (inner, directory) = (run.inner.0.clone(), run.directory().to_owned());
        let mut stubborn = Command::new("sh");
        stubborn.args(["-c", "trap 'sleep 0.2; exit' TERM; echo ready; while :; do sleep 0.01; done"]);
        let process = run.spawn("sh", stubborn.stdout(Stdio::piped())).unwrap();
        process.take_stdout().unwrap().read_exact(&mut [0; 6]).unwrap();
        let first = thread::spawn(move || drop(run));
        while !lock(&inner.state).closed {
            thread::sleep(POLL);
        }
        assert!(lock(&OPEN).iter().any(|open| Arc::ptr_eq(open, &inner)), "a signal finds it while it closes");
        inner.close();
        assert!(!directory.exists());
        first.join().unwrap();
        assert!(!lock(&OPEN).iter().any(|open| Arc::ptr_eq(open, &inner)));
    }

    #[test]
    fn a_command_that_hangs_is_ended_at_its_limit() {
        let run = Run::open().unwrap();
        let error = run.output(Command::new("sleep").arg("60"), "", Duration::from_millis(50)).unwrap_err();
        assert!(error.to_string().contains("did not end"), "{error}");
    }

    #[test]
    fn the_output_of_a_command_is_returned_whole() {
        let run = Run::open().unwrap();
        let output = run.output(&mut Command::new("cat"), "two\nlines\n", COMMAND_LIMIT).unwrap();
        assert!(output.status.success());
        assert_eq!(output.stdout, "two\nlines\n");
    }
}
