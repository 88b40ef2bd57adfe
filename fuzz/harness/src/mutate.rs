//! Mutation without a fuzzer's help: for machines that have only stable Rust. Blind, but the seeds know the way.

use jumpgate_sim::Dice;

use crate::Target;

/// Most changes to one input.
const CHANGES_MAX: u64 = 6;
/// Bytes at the edges of what a field can hold; structured targets choose by them.
const EDGES: [u8; 8] = [0, 1, 0x7f, 0x80, 0xc9, 0xca, 0xfe, 0xff];

/// The next input: one that is known, with pieces changed, cut out, doubled, or taken from another.
pub fn mutate(known: &[Vec<u8>], dice: &mut Dice, longest: usize) -> Vec<u8> {
    let mut input = pick(known, dice).to_vec();
    for _ in 0..=dice.below(CHANGES_MAX) {
        let at = dice.below(input.len() as u64 + 1) as usize;
        match dice.below(7) {
            0 if at < input.len() => input[at] ^= 1 << dice.below(8),
            1 if at < input.len() => input[at] = EDGES[dice.below(EDGES.len() as u64) as usize],
            2 => input.insert(at, dice.below(256) as u8),
            3 => {
                let end = (at + dice.below(16) as usize).min(input.len());
                input.drain(at..end);
            }
            4 => {
                let end = (at + dice.below(64) as usize).min(input.len());
                let piece = input[at..end].to_vec();
                input.splice(at..at, piece);
            }
            5 => {
                let other = pick(known, dice);
                let from = dice.below(other.len() as u64 + 1) as usize;
                let to = (from + dice.below(64) as usize).min(other.len());
                input.splice(at..at, other[from..to].iter().copied());
            }
            _ => input.truncate(at.max(1)),
        }
    }
    input.truncate(longest);
    input
}

fn pick<'a>(known: &'a [Vec<u8>], dice: &mut Dice) -> &'a [u8] {
    known.get(dice.below(known.len() as u64) as usize).map_or(&[], Vec::as_slice)
}

/// Runs one input, and says which if it fails: whoever reads the report can run it again.
pub fn run(target: &Target, input: &[u8], origin: &str) {
    if let Err(panic) = std::panic::catch_unwind(|| (target.run)(input)) {
        eprintln!("target {}, {origin}, {} bytes:", target.name, input.len());
        eprintln!("  {}", hex(input));
        eprintln!("  again: cargo run -p jumpgate-fuzz -- run {} --hex BYTES", target.name);
        std::panic::resume_unwind(panic);
    }
}

/// Bytes as digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
