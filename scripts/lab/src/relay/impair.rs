//! What happens to one frame on an impaired path: a pure function of a profile, a seed and the frames before it.

use serde::{Deserialize, Serialize};

/// How much a full queue of a rate-limited path holds, in microseconds of its rate, unless the profile says otherwise.
const DEFAULT_QUEUE_MS: f64 = 100.0;

/// The quality of one direction of a path. Shares lie between 0 and 1; the default is a perfect path.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Profile {
    /// Share of frames lost, each on its own.
    pub loss: f64,
    /// Loss in bursts.
    pub burst: Option<Burst>,
    /// Only datagrams that begin with this byte are lost, by chance or in bursts; all, if absent.
    pub loss_only: Option<u8>,
    /// One-way delay.
    pub delay_ms: f64,
    /// Most that a frame's delay may differ from `delay_ms`. Frames keep their order.
    pub jitter_ms: f64,
    /// Share of frames that are overtaken by their successors.
    pub reorder: f64,
    /// How long an overtaken frame is held back.
    pub reorder_hold_ms: f64,
    /// Share of frames delivered twice.
    pub duplicate: f64,
    /// Share of frames with one bit flipped in the last third of the frame, so that its headers survive.
    pub corrupt: f64,
    /// Rate of the bottleneck.
    pub rate_mbit: Option<f64>,
    /// How long a frame may wait for the bottleneck before it is dropped.
    pub queue_ms: Option<f64>,
    /// Nothing passes, and nobody is told.
    pub blackhole: bool,
}

/// Gilbert's model: the path falls into a state in which every frame is lost, and leaves it again.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Burst {
    /// Chance per frame that a burst begins.
    pub begin: f64,
    /// Chance per frame that it ends.
    pub end: f64,
}

/// Why a frame was not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    Chance,
    Burst,
    Queue,
    Blackhole,
}

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Lost(Lost),
    Delivered {
        /// When, in microseconds of the caller's clock.
        at: u64,
        /// When its copy is, if it has one.
        copy_at: Option<u64>,
        /// Which bit to flip, as a number to be taken modulo the bits that may be flipped.
        flip: Option<u64>,
    },
}

/// One direction of a path.
pub(crate) struct Impairment {
    profile: Profile,
    random: fastrand::Rng,
    in_burst: bool,
    /// When the bottleneck has sent all that waits for it.
    free_at: u64,
    /// When the last frame that kept its place is delivered; nobody overtakes it by jitter.
    last_at: u64,
}

impl Impairment {
    pub(crate) fn new(profile: Profile, seed: u64) -> Self {
        Self { profile, random: fastrand::Rng::with_seed(seed), in_burst: false, free_at: 0, last_at: 0 }
    }

    /// Takes another profile; the random sequence goes on, frames under way keep their times.
    pub(crate) fn set(&mut self, profile: Profile) {
        self.in_burst &= profile.burst.is_some();
        self.profile = profile;
    }

    /// Decides about a frame of `len` bytes that arrives at `now`, in microseconds. `kind` is the first byte of its
    /// datagram, if it holds one.
    pub(crate) fn decide(&mut self, now: u64, len: usize, kind: Option<u8>) -> Fate {
        if self.profile.blackhole {
            return Fate::Lost(Lost::Blackhole);
        }
        let may_be_lost = self.profile.loss_only.is_none() || self.profile.loss_only == kind;
        if let Some(burst) = self.profile.burst.filter(|_| may_be_lost) {
            let turn = if self.in_burst { burst.end } else { burst.begin };
            self.in_burst ^= self.chance(turn);
            if self.in_burst {
                return Fate::Lost(Lost::Burst);
            }
        }
        if may_be_lost && self.chance(self.profile.loss) {
            return Fate::Lost(Lost::Chance);
        }
        let Some(sent) = self.pass_bottleneck(now, len) else {
            return Fate::Lost(Lost::Queue);
        };
        let jitter =
            if self.profile.jitter_ms > 0.0 { self.profile.jitter_ms * (2.0 * self.random.f64() - 1.0) } else { 0.0 };
        let arrival = (sent + micros(self.profile.delay_ms + jitter)).max(self.last_at);
        let at = if self.chance(self.profile.reorder) {
            arrival + micros(self.profile.reorder_hold_ms)
        } else {
            self.last_at = arrival;
            arrival
        };
        let copy_at = self.chance(self.profile.duplicate).then_some(at);
        let flip = self.chance(self.profile.corrupt).then(|| self.random.u64(..));
        Fate::Delivered { at, copy_at, flip }
    }

    /// When the bottleneck has sent the frame, or `None` if its queue is full.
    fn pass_bottleneck(&mut self, now: u64, len: usize) -> Option<u64> {
        let Some(rate) = self.profile.rate_mbit else {
            return Some(now);
        };
        let start = self.free_at.max(now);
        if start - now > micros(self.profile.queue_ms.unwrap_or(DEFAULT_QUEUE_MS)) {
            return None;
        }
        // One Mbit/s is one bit per microsecond.
        self.free_at = start + rounded(len as f64 * 8.0 / rate);
        Some(self.free_at)
    }

    /// Draws only if there is something to draw, so that a seed's sequence depends on the profile alone.
    fn chance(&mut self, share: f64) -> bool {
        share > 0.0 && self.random.f64() < share
    }
}

fn micros(millis: f64) -> u64 {
    rounded(millis * 1_000.0)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to zero; saturates above")]
fn rounded(value: f64) -> u64 {
    value.max(0.0).round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAMES: usize = 20_000;
    const SEED: u64 = 7;

    fn fates(profile: Profile, seed: u64) -> Vec<Fate> {
        let mut impairment = Impairment::new(profile, seed);
        (0..FRAMES as u64).map(|number| impairment.decide(number * 100, 1_000, None)).collect()
    }

    fn arrivals(fates: &[Fate]) -> Vec<u64> {
        fates.iter().filter_map(|fate| if let Fate::Delivered { at, .. } = fate { Some(*at) } else { None }).collect()
    }

    fn share_lost(fates: &[Fate]) -> f64 {
        1.0 - arrivals(fates).len() as f64 / fates.len() as f64
    }

    #[test]
    fn a_perfect_path_delivers_everything_at_once() {
        let expected = (0..FRAMES as u64).map(|number| number * 100).collect::<Vec<_>>();
        assert_eq!(arrivals(&fates(Profile::default(), SEED)), expected);
    }

    #[test]
    fn equal_seeds_give_equal_fates_and_other_seeds_others() {
        let profile = Profile { loss: 0.1, jitter_ms: 3.0, delay_ms: 5.0, duplicate: 0.1, ..Profile::default() };
        assert_eq!(fates(profile.clone(), SEED), fates(profile.clone(), SEED));
        assert_ne!(fates(profile.clone(), SEED), fates(profile, SEED + 1));
    }

    #[test]
    fn loss_hits_its_share() {
        let lost = share_lost(&fates(Profile { loss: 0.02, ..Profile::default() }, SEED));
        assert!((0.017..0.023).contains(&lost), "{lost}");
    }

    #[test]
    fn bursts_lose_their_share_in_runs_of_their_length() {
        let burst = Burst { begin: 0.01, end: 0.1 };
        let fates = fates(Profile { burst: Some(burst), ..Profile::default() }, SEED);
        let lost = share_lost(&fates);
        let runs = fates.windows(2).filter(|pair| pair[0] != pair[1] && pair[1] == Fate::Lost(Lost::Burst)).count();
        let length = lost * FRAMES as f64 / runs as f64;
        // Of every 110 frames, 10 lie in a burst; it lasts 10 frames on average.
        assert!((0.07..0.11).contains(&lost), "{lost}");
        assert!((8.0..12.0).contains(&length), "{length}");
    }

    #[test]
    fn jitter_spreads_the_delay_and_keeps_the_order() {
        let arrivals = arrivals(&fates(Profile { delay_ms: 20.0, jitter_ms: 5.0, ..Profile::default() }, SEED));
        assert!(arrivals.is_sorted());
        let delays = arrivals.iter().enumerate().map(|(number, at)| at - number as u64 * 100);
        assert!(delays.clone().all(|delay| (15_000..=25_000).contains(&delay)));
        assert!(delays.clone().max() > delays.min().map(|least| least + 3_000));
    }

    #[test]
    fn reordered_frames_arrive_behind_their_successors() {
        let profile = Profile { delay_ms: 5.0, reorder: 0.05, reorder_hold_ms: 2.0, ..Profile::default() };
        let arrivals = arrivals(&fates(profile, SEED));
        let overtaken = arrivals.windows(2).filter(|pair| pair[0] > pair[1]).count();
        assert!((800..1_200).contains(&overtaken), "{overtaken}");
    }

    #[test]
    fn duplicates_and_flipped_bits_hit_their_share() {
        let fates = fates(Profile { duplicate: 0.1, corrupt: 0.2, ..Profile::default() }, SEED);
        let count = |wanted: fn(&Fate) -> bool| fates.iter().filter(|fate| wanted(fate)).count();
        let copies = count(|fate| matches!(fate, Fate::Delivered { copy_at: Some(_), .. }));
        let flips = count(|fate| matches!(fate, Fate::Delivered { flip: Some(_), .. }));
        assert!((1_800..2_200).contains(&copies), "{copies}");
        assert!((3_700..4_300).contains(&flips), "{flips}");
    }

    #[test]
    fn a_bottleneck_delivers_its_rate_and_drops_what_its_queue_cannot_hold() {
        // 1,000 bytes every 100 us are 80 Mbit/s; the path takes 40.
        let profile = Profile { rate_mbit: Some(40.0), queue_ms: Some(10.0), ..Profile::default() };
        let fates = fates(profile, SEED);
        assert!((0.49..0.51).contains(&share_lost(&fates)), "{}", share_lost(&fates));
        assert!(fates.contains(&Fate::Lost(Lost::Queue)));
        let arrivals = arrivals(&fates);
        assert!(arrivals.windows(2).all(|pair| pair[1] - pair[0] >= 200), "no frame leaves faster than the rate");
    }

    #[test]
    fn a_black_hole_swallows_everything_until_it_is_lifted() {
        let mut impairment = Impairment::new(Profile { blackhole: true, ..Profile::default() }, SEED);
        assert_eq!(impairment.decide(0, 100, None), Fate::Lost(Lost::Blackhole));
        impairment.set(Profile::default());
        assert_eq!(impairment.decide(5, 100, None), Fate::Delivered { at: 5, copy_at: None, flip: None });
    }

    #[test]
    fn what_may_not_be_lost_is_not_lost() {
        let profile = Profile { loss: 1.0, loss_only: Some(0x15), ..Profile::default() };
        let mut path = Impairment::new(profile, 1);
        assert_eq!(path.decide(0, 100, Some(0x15)), Fate::Lost(Lost::Chance));
        for spared in [Some(0x16), None] {
            assert!(matches!(path.decide(0, 100, spared), Fate::Delivered { .. }));
        }
    }
}
