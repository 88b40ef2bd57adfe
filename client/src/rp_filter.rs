//! A trap of machines with several uplinks: with strict reverse-path filtering the kernel drops whatever arrives on an
//! interface that it would not use to answer, and so everything on a standby path. Nothing else would ever say so.

use std::fs;

use tracing::warn;

/// Value of `rp_filter` that means strict (RFC 3704).
const STRICT: u8 = 1;

/// Warns if the kernel filters strictly on that interface.
pub(crate) fn warn_if_strict(interface: &str) {
    let setting = |name: &str| -> u8 {
        let path = format!("/proc/sys/net/ipv4/conf/{name}/rp_filter");
        fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
    };
    if effective(setting("all"), setting(interface)) == STRICT {
        warn!(
            interface,
            "the kernel filters reverse paths strictly: this uplink may send but not receive unless it has the best \
             route; run `sysctl net.ipv4.conf.{interface}.rp_filter=2`"
        );
    }
}

/// The kernel takes the larger of both.
fn effective(all: u8, interface: u8) -> u8 {
    all.max(interface)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loose_filtering_anywhere_beats_strict() {
        assert_eq!(effective(1, 0), STRICT);
        assert_eq!(effective(0, 1), STRICT);
        assert_ne!(effective(2, 1), STRICT);
        assert_ne!(effective(0, 0), STRICT);
    }
}
