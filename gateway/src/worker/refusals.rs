//! Control messages that were refused, by message and reason.

use jumpgate_protocol::reason::{Reason, ReasonCounters};
use jumpgate_protocol::wire::MessageType;

/// One counter for each message and reason. All memory is taken at the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlRefusals(Vec<ReasonCounters>);

impl Default for ControlRefusals {
    fn default() -> Self {
        // One more, for a first byte that is no type.
        Self(vec![ReasonCounters::default(); MessageType::ALL.len() + 1])
    }
}

impl ControlRefusals {
    /// Counts a packet: the first byte says what it wanted to be.
    pub fn count(&mut self, packet: &[u8], reason: Reason) {
        self.add_of(packet.first().copied().and_then(MessageType::from_byte), reason, 1);
    }

    /// Counts several of one message; none for what is no message.
    pub fn add_of(&mut self, message: Option<MessageType>, reason: Reason, count: u64) {
        let index = MessageType::ALL.iter().position(|kind| Some(*kind) == message).unwrap_or(MessageType::ALL.len());
        self.0[index].add(reason, count);
    }

    /// Counts all that another has counted.
    pub fn add(&mut self, other: &Self) {
        other.iter().for_each(|(message, reason, count)| self.add_of(message, reason, count));
    }

    /// All that are not zero; no message where the first byte was no type.
    pub fn iter(&self) -> impl Iterator<Item = (Option<MessageType>, Reason, u64)> + '_ {
        self.0.iter().enumerate().flat_map(|(index, counters)| {
            counters.iter().map(move |(reason, count)| (MessageType::ALL.get(index).copied(), reason, count))
        })
    }

    /// Of all messages together.
    pub fn value(&self, reason: Reason) -> u64 {
        self.0.iter().map(|counters| counters.value(reason)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_counted_by_what_the_packet_wanted_to_be() {
        let mut refusals = ControlRefusals::default();
        refusals.count(&[MessageType::Heartbeat as u8, 1], Reason::AuthFail);
        refusals.count(&[MessageType::Heartbeat as u8], Reason::AuthFail);
        refusals.count(&[0xff], Reason::UnknownType);
        refusals.count(&[], Reason::Malformed);
        let counted: Vec<_> = refusals.iter().collect();
        let heartbeat = Some(MessageType::Heartbeat);
        assert_eq!(
            counted,
            [(heartbeat, Reason::AuthFail, 2), (None, Reason::Malformed, 1), (None, Reason::UnknownType, 1)]
        );
        assert_eq!(refusals.value(Reason::AuthFail), 2);
    }
}
