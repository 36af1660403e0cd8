//! kill -9 at random moments, under load and while the file is made, opened and recovered.
//!
//! What this cannot show: a killed process loses nothing that it has handed to the kernel, so a
//! ledger that never forces its log to the disk would pass as well. [`crate::crash::power`] shows
//! that.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use farebox_store::{Intake, Ledger as _};

use crate::crash::audit;
use crate::crash::child::{Running, copy_files};
use crate::crash::event::What;
use crate::crash::history::History;
use crate::crash::load::{Conduct, Orders, Size};
use crate::crash::random::Random;
use crate::crash::{bound, count};
use crate::support::Place;

/// How often a child is killed, if nobody says otherwise.
const KILLS: u64 = 208;
const KILLS_VARIABLE: &str = "FAREBOX_KILLS";
/// So often on one file; then there is a new one.
const KILLS_PER_FILE: u64 = 8;
const WORKERS: u64 = 8;
/// Payments of one worker in one life, more than it can make.
const EACH: u64 = 100_000;
/// A child may say so much before it is killed.
const LINES_MAX: u64 = 500;
/// Payments that are asked for again after a crash.
const AGAIN: usize = 24;

/// What some kills have shown.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) kills: u64,
    /// Before the file was open.
    opening: u64,
    /// Before it was in order.
    recovering: u64,
    claims: u64,
    served: usize,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.kills += other.kills;
        self.opening += other.opening;
        self.recovering += other.recovering;
        self.claims += other.claims;
        self.served += other.served;
    }
}

/// One file, killed over and over; what is wrong with it, and what was done to it.
pub(super) fn torment(seed: u64, kills: u64, conduct: Conduct) -> (Tally, Vec<String>) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut random = Random::new(seed);
    let (mut tally, mut history) = (Tally::default(), History::default());
    // On a disk most kills meet a child that waits for it; in memory, one that writes.
    let place = if seed.is_multiple_of(2) { Place::in_memory() } else { Place::new() };
    for life in 1..=kills {
        let orders = Orders {
            file: place.file(),
            life,
            size: Size::Load { workers: WORKERS, each: EACH },
            conduct,
            again: history.open(AGAIN),
            chain: history.on_chain(),
        };
        let running = Running::start(&orders);
        // A third of the kills meet a child that opens its file or puts it in order.
        if random.below(3) == 0 {
            std::thread::sleep(Duration::from_micros(random.below(25_000)));
        } else {
            running.wait_for(random.below(LINES_MAX));
            std::thread::sleep(Duration::from_micros(random.below(3_000)));
        }
        let ended = running.kill();
        ended.said.iter().for_each(|it| history.add(it));
        tally.kills += 1;
        let said = |what| ended.said.iter().any(|it| it.what == what);
        tally.opening += u64::from(!said(What::Opened));
        tally.recovering += u64::from(said(What::Opened) && !said(What::Recovered));
        // A copy is held against the history, so that the next child finds what this one left.
        let copy = Place::in_memory();
        copy_files(&place.file(), &copy.file());
        let copied = copy.open();
        assert_eq!(copied.intake(), Intake::Open, "a kill is no restored backup");
        let mut breaches = runtime.block_on(audit::breaches(&copied, &history));
        breaches.append(&mut history.troubles);
        if !breaches.is_empty() {
            return (tally, breaches);
        }
    }
    tally.claims = history.claims;
    tally.served = history.served();
    (tally, Vec::new())
}

/// Two files at a time.
#[test]
fn a31_kill_9_loses_nothing_that_was_acknowledged_served_or_sent() {
    let kills = count(KILLS_VARIABLE, KILLS);
    let files: Vec<u64> = (0..kills.div_ceil(KILLS_PER_FILE)).collect();
    let next = AtomicUsize::new(0);
    let hand = || {
        let mut tally = Tally::default();
        while let Some(file) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
            let (one, breaches) = torment(*file, KILLS_PER_FILE, Conduct::Sound);
            assert!(breaches.is_empty(), "file {file}, kill {}: {breaches:#?}", one.kills);
            tally.add(one);
        }
        tally
    };
    let tally = std::thread::scope(|it| {
        let hands = [it.spawn(hand), it.spawn(hand)];
        let mut all = Tally::default();
        for hand in hands {
            all.add(hand.join().unwrap());
        }
        all
    });
    let Tally { kills, opening, recovering, claims, served } = tally;
    assert!(kills * 20 < claims, "only {claims} claims: the children did not work");
    println!(
        "{kills} kills ({opening} before the file was open, {recovering} before it was in \
         order), {served} served, {claims} claims: 0 untrue, {}",
        bound(kills),
    );
}

/// The first moments of a file are the ones in which it is made.
#[test]
fn kill_9_while_the_file_is_made_leaves_one_that_opens() {
    for seed in 0..24 {
        let (_, breaches) = torment(1_000 + seed, 1, Conduct::Sound);
        assert!(breaches.is_empty(), "{breaches:#?}");
    }
}
