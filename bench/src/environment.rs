//! On what machine a figure was measured.

use std::fs;

use serde::Serialize;

/// The machine and the build.
#[derive(Clone, Debug, Serialize)]
pub struct Environment {
    /// Version of the benchmark and of the code it measures.
    pub version: &'static str,
    /// Processor, as the kernel names it.
    pub cpu: String,
    /// Processors in use.
    pub cores: usize,
    /// Whether the kernel knows that it runs under a hypervisor.
    pub virtualised: bool,
    /// Kernel release.
    pub kernel: String,
    /// Whether the code was built with optimisations.
    pub optimised: bool,
    /// Processes that wanted a CPU in the last minute, on average: how busy the machine was with other things.
    pub load: f64,
}

impl Environment {
    /// Reads it from the kernel.
    pub fn read() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let field = |name: &str| {
            let line = cpuinfo.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let unknown = || "unknown".to_owned();
        Self {
            version: env!("CARGO_PKG_VERSION"),
            cpu: field("model name").unwrap_or_else(unknown),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            virtualised: field("flags").is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor")),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
                .map_or_else(|_| unknown(), |text| text.trim().into()),
            optimised: !cfg!(debug_assertions),
            load: load(&fs::read_to_string("/proc/loadavg").unwrap_or_default()).unwrap_or(f64::NAN),
        }
    }

    /// In one line.
    pub fn line(&self) -> String {
        let Self { version, cpu, cores, virtualised, kernel, optimised, load } = self;
        let machine = if *virtualised { "virtual machine" } else { "bare metal" };
        let build = if *optimised { "release build" } else { "DEBUG BUILD: figures mean nothing" };
        format!("jumpgate {version}, {build}; {cpu}, {cores} cores, {machine}, load before {load}; Linux {kernel}")
    }
}

/// The first of the averages in `/proc/loadavg`.
fn load(text: &str) -> Option<f64> {
    text.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_load_is_the_average_of_the_last_minute() {
        assert_eq!(load("2.49 1.90 1.03 3/216 12345\n"), Some(2.49));
        assert_eq!(load(""), None);
    }
}
