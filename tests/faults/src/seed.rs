//! Chance that can be replayed: a seed, and the plan of faults that follows from it.

use std::fmt;

/// What all of a run's chance follows from. The same seed is the same run, as far as the program
/// under test and the broker let it be: what is planned is the same to the message.
///
/// Printed at the start and on failure, and read back from the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seed(u64);

impl Seed {
    /// A seed that was printed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A new one: `ENOKI_SEED` from the environment, else by chance.
    pub fn from_environment() -> Self {
        let given = std::env::var("ENOKI_SEED").ok();
        Self(given.and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..)))
    }

    /// Chance for one purpose. Two purposes do not disturb each other: a draw more here changes
    /// nothing there.
    pub fn random(self, purpose: &str) -> fastrand::Rng {
        // FNV-1a: the standard library's hash may change with its version.
        let hash = purpose.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        fastrand::Rng::with_seed(self.0 ^ hash)
    }
}

impl fmt::Display for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A fault and where it happens: when this message is about to be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed<F> {
    /// The number of the message.
    pub at: u64,
    /// What happens.
    pub fault: F,
    /// For what the fault leaves to chance: how long, which one.
    pub chance: u64,
}

/// Places faults among messages: each kind as often as the others, give or take one, in random
/// order, spread over the run with random distances.
pub fn plan<F: Copy>(seed: Seed, kinds: &[F], faults: usize, messages: u64) -> Vec<Placed<F>> {
    let mut random = seed.random("plan");
    let mut drawn = Vec::with_capacity(faults);
    while drawn.len() < faults && !kinds.is_empty() {
        let mut round = kinds.to_vec();
        random.shuffle(&mut round);
        drawn.extend(round.into_iter().take(faults - drawn.len()));
    }
    let count = drawn.len() as u64;
    let place = |(number, fault)| {
        // One in each stretch of equal length, so that none has no messages before or after it.
        let (from, to) = (number * messages / count, (number + 1) * messages / count);
        let at = if to > from { random.u64(from..to) } else { from };
        Placed { at, fault, chance: random.u64(..) }
    };
    (0..).zip(drawn).map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [char; 4] = ['a', 'b', 'c', 'd'];

    #[test]
    fn the_same_seed_is_the_same_plan_and_another_is_another() {
        let plan_of = |seed| plan(Seed::new(seed), &KINDS, 50, 100_000);
        assert_eq!(plan_of(7), plan_of(7));
        assert_ne!(plan_of(7), plan_of(8));
    }

    #[test]
    fn this_plan_is_what_this_seed_has_always_meant() {
        let plan = plan(Seed::new(1), &KINDS, 4, 1000);
        let places: Vec<_> = plan.iter().map(|placed| (placed.at, placed.fault)).collect();
        assert_eq!(places, REMEMBERED);
    }

    #[test]
    fn every_kind_has_its_turn_and_the_faults_are_in_order() {
        for seed in 0..100 {
            let plan = plan(Seed::new(seed), &KINDS, 10, 1000);
            assert_eq!(plan.len(), 10);
            assert!(plan.iter().is_sorted_by_key(|placed| placed.at), "seed {seed}");
            assert!(plan.iter().all(|placed| placed.at < 1000), "seed {seed}");
            for kind in KINDS {
                let times = plan.iter().filter(|placed| placed.fault == kind).count();
                assert!((2..=3).contains(&times), "seed {seed}: {kind} {times} times");
            }
        }
    }

    #[test]
    fn more_faults_than_messages_is_no_panic() {
        assert_eq!(plan(Seed::new(1), &KINDS, 10, 3).len(), 10);
        assert_eq!(plan(Seed::new(1), &KINDS, 0, 3).len(), 0);
        assert_eq!(plan::<char>(Seed::new(1), &[], 3, 3).len(), 0);
    }

    #[test]
    fn one_purpose_does_not_disturb_another() {
        let seed = Seed::new(1);
        let undisturbed = seed.random("b").u64(..);
        let mut other = seed.random("a");
        let _ = other.u64(..);
        assert_eq!(seed.random("b").u64(..), undisturbed);
        assert_ne!(seed.random("a").u64(..), undisturbed);
    }

    const REMEMBERED: [(u64, char); 4] = [(171, 'b'), (333, 'a'), (532, 'd'), (830, 'c')];
}
