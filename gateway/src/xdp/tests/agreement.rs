//! `jumpgate-common` repeats a few facts of the protocol, because XDP programs cannot contain that crate. They agree.

use jumpgate_common::{maps, slot_of, steer};
use jumpgate_protocol::ident::{Locator, SLOT_COUNT, Slot};
use jumpgate_protocol::wire::{DATA_OVERHEAD, Header, MessageType, VERSION};
use proptest::prelude::*;

#[test]
fn steering_knows_the_numbers_of_the_wire_format() {
    assert_eq!(steer::TYPE_DATA, MessageType::Data as u8);
    assert_eq!(steer::TYPE_HEARTBEAT, MessageType::Heartbeat as u8);
    assert_eq!(steer::VERSION, VERSION);
    assert_eq!(steer::SEALED_MIN_LEN, DATA_OVERHEAD);
    assert_eq!(maps::SLOT_COUNT as usize, SLOT_COUNT);
}

proptest! {
    #[test]
    fn steering_finds_the_slot_of_every_locator_in_an_emitted_header(number in 0..4096_u16, random: u64) {
        let slot = Slot::new(number).unwrap();
        let locator = Locator::new(slot, random);
        let header = Header { kind: MessageType::Data, flags: 0, key_epoch: 0, tag: 0, locator, counter: 0 };
        let mut packet = [0; DATA_OVERHEAD];
        header.emit(&mut packet);
        let start = [packet[steer::LOCATOR_OFFSET], packet[steer::LOCATOR_OFFSET + 1]];
        prop_assert_eq!(slot_of(start), number);
    }
}
