//! Ethernet frames as the XDP programs and the workers read them (`ebpf/common`).

use jumpgate_common::steer::{InsideTables, OutsideTables, SEALED_MIN_LEN, TYPE_DATA, TYPE_HEARTBEAT, inside, outside};
use jumpgate_common::{
    Address, Frame, InsideConfig, OutsideConfig, PASS_TO_HOST, Verdict, parse_inside, parse_outer, slot_of,
};

/// The port of the gateway that the steering knows.
const PORT: u16 = 51_900;
/// Workers of that gateway.
const WORKERS: u32 = 3;
/// Its own address, and the first of its pool.
const GATEWAY: [u8; 4] = [192, 0, 2, 1];

struct Tables;

impl OutsideTables for Tables {
    fn config(&self) -> OutsideConfig {
        OutsideConfig { port: PORT, workers: WORKERS }
    }

    fn is_local(&self, address: &Address) -> bool {
        *address == Address::v4(GATEWAY)
    }

    fn slot_entry(&self, slot: u16) -> u32 {
        // Some slots belong to workers that are not there, some to nobody.
        u32::from(slot) % (WORKERS + 2)
    }
}

impl InsideTables for Tables {
    fn config(&self) -> InsideConfig {
        let v4_base = u32::from_be_bytes([10, 0, 0, 0]);
        InsideConfig { workers: WORKERS, v4_size: 256, v6_size: 256, v4_base, v6_base: 0xfd66 << 112 }
    }

    fn client_entry(&self, index: u32) -> u32 {
        if index == 1 { PASS_TO_HOST } else { index % (WORKERS + 2) }
    }
}

/// Parses and steers one frame.
pub fn run(frame: &[u8]) {
    let outer = parse_outer(frame);
    if let Ok(outer) = &outer {
        assert!(outer.l3 < outer.l4 && outer.l4 < outer.payload);
        assert!(outer.payload + outer.payload_len <= frame.len(), "the payload lies within the frame");
        let _ = (outer.peer(), outer.local());
    }
    if let Ok(packet) = parse_inside(frame) {
        assert!(packet.header_len <= packet.len && packet.l3 + packet.len <= frame.len());
    }
    if let Verdict::Steer(worker) = outside(frame, &Tables) {
        let outer = outer.expect("only what parses is steered");
        let payload = &frame[outer.payload..][..outer.payload_len];
        assert!(worker < WORKERS && outer.destination_port == PORT && payload.len() >= SEALED_MIN_LEN);
        assert!(payload[0] == TYPE_DATA || payload[0] == TYPE_HEARTBEAT);
        assert_eq!(Tables.slot_entry(slot_of([payload[4], payload[5]])), worker + 1, "the owner of the slot gets it");
    }
    if let Verdict::Steer(worker) = inside(frame, &Tables) {
        assert!(worker < WORKERS && parse_inside(frame).is_ok());
    }
    assert_eq!(frame.length(), frame.len());
}

/// Frames of both families, with and without tags, for the gateway and for a client.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut data = vec![0; SEALED_MIN_LEN];
    data[..6].copy_from_slice(&[TYPE_DATA, 0x10, 0, 1, 0x00, 0x10]);
    let outer = udp(PORT, &data);
    let tagged = [&[0x81, 0, 0, 5][..], &ip_type(4)].concat();
    vec![
        frame(&ip_type(4), &v4(GATEWAY, 17, &outer)),
        frame(&tagged, &v4(GATEWAY, 17, &outer)),
        frame(&[&[0x88, 0xa8, 0, 7][..], &tagged].concat(), &v4(GATEWAY, 17, &outer)),
        frame(&ip_type(4), &v4([10, 0, 0, 9], 6, &[0; 20])),
        frame(&ip_type(6), &v6(17, &outer)),
        frame(&ip_type(6), &v6(58, &[135, 0, 0, 0, 0, 0, 0, 0])),
    ]
}

fn ip_type(version: u8) -> [u8; 2] {
    if version == 4 { [0x08, 0x00] } else { [0x86, 0xdd] }
}

fn frame(types: &[u8], packet: &[u8]) -> Vec<u8> {
    [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2][..], types, packet].concat()
}

fn udp(port: u16, payload: &[u8]) -> Vec<u8> {
    let len = (8 + payload.len()) as u16;
    [&[0x20, 0x00], &port.to_be_bytes()[..], &len.to_be_bytes(), &[0, 0], payload].concat()
}

fn v4(destination: [u8; 4], protocol: u8, payload: &[u8]) -> Vec<u8> {
    let len = (20 + payload.len()) as u16;
    let start = [&[0x45, 0][..], &len.to_be_bytes(), &[0, 0, 0x40, 0, 64, protocol, 0, 0]].concat();
    [&start[..], &[198, 51, 100, 7], &destination, payload].concat()
}

fn v6(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend_from_slice(&(payload.len() as u16).to_be_bytes());
    packet.extend_from_slice(&[next, 64]);
    packet.extend_from_slice(&[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]);
    packet.extend_from_slice(&[0xfd, 0x66, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
    packet.extend_from_slice(payload);
    packet
}
