//! Whether this process may do what `jump up` does, asked before anything is touched: otherwise the first file that
//! cannot be written would be blamed.

use std::fs;

/// Number of CAP_NET_ADMIN (linux/capability.h): interfaces, addresses, routes.
const NET_ADMIN: u32 = 12;

/// This process lacks a privilege.
#[derive(Debug, thiserror::Error)]
#[error("`jump up` makes interfaces and routes; run it as root (sudo jump up ...) or with CAP_NET_ADMIN")]
pub struct NotPrivileged;

/// Checks for CAP_NET_ADMIN. A kernel that does not tell is given the benefit of the doubt.
pub fn check() -> Result<(), NotPrivileged> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    match effective(&status) {
        Some(capabilities) if capabilities & (1 << NET_ADMIN) == 0 => Err(NotPrivileged),
        _ => Ok(()),
    }
}

/// The effective capabilities in the text of /proc/self/status.
fn effective(status: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(value.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_read_from_the_kernels_text() {
        assert_eq!(effective("Name:\tjump\nCapEff:\t0000000000001000\n"), Some(1 << NET_ADMIN));
        assert_eq!(effective("CapEff:\t000001ffffffffff\n").map(|all| all & (1 << NET_ADMIN) != 0), Some(true));
        assert_eq!(effective("Name:\tjump\n"), None);
    }
}
