//! What the kernel says of this process.

use std::fs;
use std::path::Path;

/// Memory of the process, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Address space.
    pub size: u64,
    /// Of it, in memory now.
    pub resident: u64,
}

/// Memory, and time on a CPU of each worker. What cannot be read is left out.
#[derive(Debug, Default)]
pub struct Process {
    /// Memory of the process.
    pub memory: Option<Memory>,
    /// Number of each worker, and the seconds that its thread ran.
    pub workers: Vec<(u16, f64)>,
}

impl Process {
    /// Reads `/proc/self`: two small files, and two for each thread.
    pub fn read() -> Self {
        let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten();
        let statm = fs::read_to_string("/proc/self/statm").ok();
        let memory = statm.zip(page).and_then(|(text, page)| memory(&text, page as u64));
        let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
        let mut workers: Vec<_> = tasks.filter_map(|task| worker(&task.path())).collect();
        workers.sort_by_key(|(number, _)| *number);
        Self { memory, workers }
    }
}

fn memory(statm: &str, page: u64) -> Option<Memory> {
    let mut pages = statm.split_ascii_whitespace().map_while(|field| field.parse::<u64>().ok());
    Some(Memory { size: pages.next()? * page, resident: pages.next()? * page })
}

/// The worker that a thread is, by its name, and the first field of its `schedstat`: nanoseconds on a CPU.
fn worker(task: &Path) -> Option<(u16, f64)> {
    let name = fs::read_to_string(task.join("comm")).ok()?;
    let number = name.trim_end().strip_prefix(crate::worker::THREAD_NAME)?.parse().ok()?;
    let schedstat = fs::read_to_string(task.join("schedstat")).ok()?;
    let nanos: u64 = schedstat.split_ascii_whitespace().next()?.parse().ok()?;
    Some((number, nanos as f64 / 1e9))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_is_counted_in_pages_and_said_in_bytes() {
        assert_eq!(memory("100 25 7 1 0 9 0\n", 4096), Some(Memory { size: 409_600, resident: 102_400 }));
        assert_eq!(memory("", 4096), None);
    }

    #[test]
    fn a_worker_is_known_by_the_name_of_its_thread() {
        let named = std::thread::Builder::new().name(format!("{}7", crate::worker::THREAD_NAME));
        let process = named.spawn(Process::read).expect("a thread").join().expect("read");
        let numbers: Vec<_> = process.workers.iter().map(|(number, _)| *number).collect();
        // Workers of other tests may run beside it.
        assert!(numbers.contains(&7), "{numbers:?}");
        assert!(process.memory.is_some_and(|memory| memory.resident > 0));
    }
}
