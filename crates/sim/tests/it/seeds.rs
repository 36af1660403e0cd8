//! See the crate. More of them: `cargo xtask sim --seeds A..B`, `cargo xtask full`.

use farebox_sim::{Bug, Outcome, Tally, run};

/// Seeds of one test; there are four, so that they run side by side.
const SEEDS: u64 = 250;
/// Seeds within which each flaw must show.
const HUNT: u64 = 250;

#[track_caller]
fn fail(outcome: &Outcome) -> ! {
    for line in &outcome.last {
        println!("{line}");
    }
    for breach in &outcome.breaches {
        println!("{breach}");
    }
    panic!("seed {} fails: cargo xtask sim --seed {}", outcome.seed, outcome.seed);
}

/// Seeds in which every invariant holds, and in which something happens.
#[track_caller]
fn hold(part: u64) {
    let mut tally = Tally::default();
    for seed in part * SEEDS..(part + 1) * SEEDS {
        let outcome = run(seed, None).unwrap();
        if !outcome.breaches.is_empty() {
            fail(&outcome);
        }
        tally = tally.plus(outcome.tally);
    }
    println!("{tally:?}");
    let Tally { crashes, mishaps, served, unheard, .. } = tally;
    assert!(SEEDS < crashes && SEEDS < mishaps, "{tally:?}");
    assert!(SEEDS < served && SEEDS / 10 < unheard, "{tally:?}");
    let Tally { settled, released, lost, owed_back, .. } = tally;
    assert!(SEEDS < settled && SEEDS < released && 0 < lost && 10 < owed_back, "{tally:?}");
}

#[test]
fn a_thousand_seeds_hold_1() {
    hold(0);
}

#[test]
fn a_thousand_seeds_hold_2() {
    hold(1);
}

#[test]
fn a_thousand_seeds_hold_3() {
    hold(2);
}

#[test]
fn a_thousand_seeds_hold_4() {
    hold(3);
}

#[test]
fn a_seed_is_a_run() {
    let digest = |seed| run(seed, None).unwrap().digest;
    let first: Vec<u64> = (0..25).map(digest).collect();
    let second: Vec<u64> = (0..25).map(digest).collect();
    assert_eq!(first, second);
    let mut distinct = first.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), first.len(), "each seed is another run");
}

#[test]
fn every_flaw_shows() {
    for bug in Bug::ALL {
        let shows = |seed: &u64| !run(*seed, Some(bug)).unwrap().breaches.is_empty();
        let seed = (0..HUNT).find(shows);
        let seed = seed.unwrap_or_else(|| panic!("{bug:?} shows in none of {HUNT} seeds"));
        println!("{bug:?}: seed {seed}");
    }
}
