//! Policies as they come over the wire: snapshots, and what a client asks for (RL-5, INV-24, INV-29).

use jumpgate_protocol::policy::{PARAMETERS, Policy, Profile};

use crate::script::Script;

/// Most values that are asked for: one more than a HELLO_INIT can carry.
const REQUESTED_MAX: u8 = 33;

/// A byte that chooses, then a snapshot, or a request to narrow.
pub fn run(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let base = Policy::profile(Profile::ALL[usize::from(script.byte()) % Profile::ALL.len()]);
    if script.byte() & 1 == 0 {
        // A snapshot with some bytes changed, or nothing but the fuzzer's bytes.
        let honest = if script.byte() & 1 == 0 { base.encode_snapshot() } else { script.bytes(512).to_vec() };
        snapshot(&script.deface(honest));
    } else {
        let count = script.byte() % REQUESTED_MAX;
        let requested: Vec<(u16, u64)> = (0..count)
            .map(|_| {
                let number = match script.byte() {
                    255 => script.word(),
                    index => PARAMETERS[usize::from(index) % PARAMETERS.len()].number,
                };
                // Mostly near the value that is there.
                let own =
                    PARAMETERS.iter().find(|parameter| parameter.number == number).map_or(0, |it| it.value(&base));
                let wanted = match script.byte() {
                    255 => script.long(),
                    step => own.wrapping_add_signed(i64::from(step as i8) * 50),
                };
                (number, wanted)
            })
            .collect();
        narrow(&base, &requested);
    }
}

fn snapshot(bytes: &[u8]) {
    let Ok(policy) = Policy::decode_snapshot(bytes) else { return };
    policy.validate().expect("INV-24: no invalid policy comes out of a snapshot");
    assert_eq!(policy.encode_snapshot(), bytes, "a policy has one encoding");
}

fn narrow(base: &Policy, requested: &[(u16, u64)]) {
    match base.narrow(requested) {
        Ok(narrowed) => {
            narrowed.validate().expect("INV-24: no request makes an invalid policy");
            for parameter in PARAMETERS {
                let (own, now) = (parameter.value(base), parameter.value(&narrowed));
                assert!(own == now || parameter.may_narrow(own, now), "{} went from {own} to {now}", parameter.key);
            }
            snapshot(&narrowed.encode_snapshot());
        }
        // A complaint can always be shown.
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Every profile's snapshot, and requests that are granted.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<_> = (0..3).map(|profile| vec![profile, 0, 0, 0, 0]).collect();
    for (profile, parameters) in [(0, 1..9_u8), (1, 20..30), (2, 40..60)] {
        let asked = parameters.clone().flat_map(|index| [index, 0_u8.wrapping_sub(index)]);
        seeds.push([profile, 1, parameters.len() as u8].into_iter().chain(asked).collect());
    }
    seeds
}
