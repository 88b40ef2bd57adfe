//! The first look at a datagram of the slow path: C00 (length, type, version) and C01 (rates), before anything is
//! looked up, allocated or decrypted for it (§6.3).

use std::net::IpAddr;

use jumpgate_protocol::audit::LimitScope;
use jumpgate_protocol::ident::Slot;
use jumpgate_protocol::limits::{Bucket, SourceTable};
use jumpgate_protocol::policy::{Limits, Rate};
use jumpgate_protocol::reason::Reason;
use jumpgate_protocol::time::Time;
use jumpgate_protocol::wire::{CONTROL_MAX, Header, MessageType};

/// What a datagram asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// A new session: the handshake desk has limits of its own (HS-3).
    Hello,
    /// A control message for the owner of that slot.
    Control(Slot),
}

/// Why a datagram goes nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// The code to count and record it by.
    pub reason: Reason,
    /// Whose limit it was, with RATE_LIMITED.
    pub scope: LimitScope,
}

impl From<Reason> for Refused {
    fn from(reason: Reason) -> Self {
        Self { reason, scope: LimitScope::Source }
    }
}

/// Rates of control messages, in tables of fixed size.
pub struct Filter {
    sources: SourceTable,
    total: Bucket,
    total_rate: Rate,
}

impl Filter {
    /// A filter with the limits of a policy (PP76, PP77, PP81).
    pub fn new(limits: &Limits, now: Time) -> Self {
        Self {
            sources: SourceTable::new(limits.control_per_source, limits.source_table_entries as usize),
            total: Bucket::full(limits.control_total, now),
            total_rate: limits.control_total,
        }
    }

    /// Other limits from now on. What a source has used up stays used up.
    pub fn set_limits(&mut self, limits: &Limits) {
        self.sources.set_limits(limits.control_per_source, limits.source_table_entries as usize);
        self.total_rate = limits.control_total;
    }

    /// Says where a datagram goes, or why nowhere. A refusal is silent: nothing is known about its sender yet.
    pub fn look(&mut self, now: Time, source: IpAddr, datagram: &[u8]) -> Result<Request, Refused> {
        let kind = datagram.first().copied().and_then(MessageType::from_byte).ok_or(match datagram {
            [] => Reason::Malformed,
            _ => Reason::UnknownType,
        })?;
        if kind == MessageType::HelloInit {
            return Ok(Request::Hello);
        }
        if !is_control_of_client(kind) {
            return Err(match kind {
                // The steering hands DATA to its owner. What comes here had no owner, or came in fragments.
                MessageType::Data => Reason::NotAuthoritativeOwner,
                _ => Reason::UnknownType,
            }
            .into());
        }
        if datagram.len() > CONTROL_MAX {
            return Err(Reason::Malformed.into());
        }
        let header = Header::parse(datagram).map_err(|error| error.reason())?;
        // The source first: one that floods shall not use up what others need.
        self.sources.take(source, now).map_err(|_| Reason::RateLimited)?;
        let scope = LimitScope::Global;
        self.total.take(self.total_rate, now).map_err(|_| Refused { reason: Reason::RateLimited, scope })?;
        Ok(Request::Control(header.locator.slot()))
    }
}

/// Session messages that a client sends (§6.1, column "Dir") and that a worker's shard decides.
const fn is_control_of_client(kind: MessageType) -> bool {
    matches!(
        kind,
        MessageType::HelloConfirm
            | MessageType::Heartbeat
            | MessageType::PathProbe
            | MessageType::ReattachRequest
            | MessageType::RekeyInit
            | MessageType::Terminate
    )
}

#[cfg(test)]
mod tests {
    use jumpgate_protocol::ident::Locator;
    use jumpgate_protocol::policy::{Policy, Profile};
    use jumpgate_protocol::time::Span;
    use jumpgate_protocol::wire::{HEADER_LEN, TAG_LEN};

    use super::*;

    const SLOT: u16 = 0x123;

    fn filter() -> (Filter, Limits) {
        let limits = Policy::profile(Profile::Default).limits;
        (Filter::new(&limits, Time::ZERO), limits)
    }

    fn source(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn message(kind: MessageType) -> Vec<u8> {
        let locator = Locator::new(Slot::new(SLOT).expect("slot"), 77);
        let mut bytes = vec![0; HEADER_LEN + 100 + TAG_LEN];
        Header { kind, flags: 0, key_epoch: 0, tag: 0, locator, counter: 1 }.emit(&mut bytes);
        bytes
    }

    #[test]
    fn control_messages_go_to_the_owner_of_their_slot_and_hellos_to_the_desk() {
        let (mut filter, _) = filter();
        let slot = Slot::new(SLOT).expect("slot");
        for kind in [MessageType::HelloConfirm, MessageType::ReattachRequest, MessageType::PathProbe] {
            assert_eq!(filter.look(Time::ZERO, source(1), &message(kind)), Ok(Request::Control(slot)));
        }
        let hello = [MessageType::HelloInit as u8, 0x10];
        assert_eq!(filter.look(Time::ZERO, source(1), &hello), Ok(Request::Hello));
    }

    #[test]
    fn c00_what_no_client_sends_is_refused_with_its_reason() {
        let (mut filter, _) = filter();
        let mut look = |bytes: &[u8]| filter.look(Time::ZERO, source(1), bytes).map_err(|refused| refused.reason);
        assert_eq!(look(&[]), Err(Reason::Malformed));
        assert_eq!(look(&[1, 0, 0, 0]), Err(Reason::UnknownType), "WireGuard's");
        assert_eq!(look(&message(MessageType::HeartbeatAck)), Err(Reason::UnknownType), "only a gateway sends it");
        assert_eq!(look(&message(MessageType::Data)), Err(Reason::NotAuthoritativeOwner));
        assert_eq!(look(&message(MessageType::Heartbeat)[..HEADER_LEN - 1]), Err(Reason::Malformed));
        let mut long = message(MessageType::Heartbeat);
        long.resize(CONTROL_MAX + 1, 0);
        assert_eq!(look(&long), Err(Reason::Malformed));
        let mut version = message(MessageType::Heartbeat);
        version[1] = 0x20;
        assert_eq!(look(&version), Err(Reason::UnsupportedVersion));
    }

    #[test]
    fn c01_a_source_that_floods_is_slowed_down_and_others_are_not() {
        let (mut filter, limits) = filter();
        let bytes = message(MessageType::PathProbe);
        let passed = (0..10_000).filter(|_| filter.look(Time::ZERO, source(1), &bytes).is_ok()).count();
        assert_eq!(passed, limits.control_per_source.burst as usize);
        assert_eq!(filter.look(Time::ZERO, source(1), &bytes), Err(Reason::RateLimited.into()));
        assert!(filter.look(Time::ZERO, source(2), &bytes).is_ok());
        let second = Time::ZERO + Span::from_millis(1_000);
        let passed = (0..10_000).filter(|_| filter.look(second, source(1), &bytes).is_ok()).count();
        assert_eq!(passed, limits.control_per_source.per_second as usize);
    }

    #[test]
    fn c01_all_sources_together_are_bounded() {
        let (mut filter, limits) = filter();
        let bytes = message(MessageType::PathProbe);
        let sources = (0..limits.control_total.burst + 1_000)
            .map(|n| IpAddr::from(0x0a00_0000_u32.wrapping_add(n).to_be_bytes()));
        let passed = sources.filter(|source| filter.look(Time::ZERO, *source, &bytes).is_ok()).count();
        assert_eq!(passed, limits.control_total.burst as usize);
    }
}
