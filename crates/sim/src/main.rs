//! `farebox-sim --seed N` or `--seeds A..B`, with `--bug NAME` for a world that has one.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a tool that reports on the console"
)]

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use farebox_sim::{Breach, Bug, Outcome, Tally, Unbuilt, run};

const HELP: &str = "\
--seed N         one run: the last that happened, and what is wrong
--seeds A..B     all of them, on every core; prints the first that fails
--bug NAME       in a world with that flaw; `all` looks in the seeds for the first that shows each
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| {
        let place = arguments.iter().position(|it| it == name)?;
        arguments.get(place.checked_add(1)?).map(String::as_str)
    };
    let seeds = match (value("--seed"), value("--seeds")) {
        (Some(one), None) => one.parse().ok().map(|seed: u64| (seed, seed.saturating_add(1))),
        (None, Some(range)) => parse_range(range),
        (Some(_), Some(_)) | (None, None) => None,
    };
    let Some(seeds) = seeds else {
        eprint!("{HELP}");
        return ExitCode::from(2);
    };
    if value("--bug") == Some("all") {
        return hunt(seeds);
    }
    let bug = match value("--bug").map(str::parse::<Bug>).transpose() {
        Ok(bug) => bug,
        Err(error) => {
            eprintln!("{error}; there are {:?}", Bug::ALL);
            return ExitCode::from(2);
        }
    };
    if seeds.0.checked_add(1) == Some(seeds.1) {
        // To be looked at, whatever came of it.
        let outcome = run(seeds.0, bug).unwrap_or_else(|error| unbuilt(seeds.0, &error));
        report(&outcome);
        return if outcome.breaches.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let (tally, failure) = search(seeds, bug);
    if let Some(outcome) = failure {
        report(&outcome);
        return ExitCode::FAILURE;
    }
    println!("{} seeds hold: {tally:?}", seeds.1.saturating_sub(seeds.0));
    ExitCode::SUCCESS
}

fn parse_range(text: &str) -> Option<(u64, u64)> {
    let (first, end) = text.split_once("..")?;
    Some((first.parse().ok()?, end.parse().ok()?))
}

/// What happened in all of them, and the failure of the lowest seed; on every core.
fn search((first, end): (u64, u64), bug: Option<Bug>) -> (Tally, Option<Outcome>) {
    let next = AtomicU64::new(first);
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let work = || {
        let mut tally = Tally::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if end <= seed {
                return (tally, None);
            }
            let outcome = run(seed, bug).unwrap_or_else(|error| unbuilt(seed, &error));
            tally = tally.plus(outcome.tally);
            if !outcome.breaches.is_empty() {
                next.store(end, Ordering::Relaxed);
                return (tally, Some(outcome));
            }
        }
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        let mut found: (Tally, Option<Outcome>) = (Tally::default(), None);
        for thread in threads {
            // A thread that panicked has said so, and is a failure of its own.
            let Ok((tally, failure)) = thread.join() else { std::process::abort() };
            found.0 = found.0.plus(tally);
            let earlier = |it: &Outcome| failure.as_ref().is_some_and(|other| other.seed < it.seed);
            if found.1.as_ref().is_none_or(earlier) && failure.is_some() {
                found.1 = failure;
            }
        }
        found
    })
}

/// A world that could not be built fails like one that is wrong.
fn unbuilt(seed: u64, error: &Unbuilt) -> Outcome {
    let breach = Breach { invariant: 0, payment: None, what: error.to_string() };
    let (digest, tally, last) = (0, Tally::default(), Vec::new());
    Outcome { seed, digest, tally, breaches: vec![breach], last }
}

fn report(outcome: &Outcome) {
    for line in &outcome.last {
        println!("{line}");
    }
    println!("seed {}, digest {:016x}: {:?}", outcome.seed, outcome.digest, outcome.tally);
    for breach in &outcome.breaches {
        println!("{breach}");
    }
    if !outcome.breaches.is_empty() {
        println!("again: cargo xtask sim --seed {}", outcome.seed);
    }
}

/// Where each flaw shows first.
fn hunt(seeds: (u64, u64)) -> ExitCode {
    let mut missed = false;
    for bug in Bug::ALL {
        if let Some(outcome) = search(seeds, Some(bug)).1 {
            let what = outcome.breaches.first().map(ToString::to_string).unwrap_or_default();
            println!("{bug:?}: seed {}: {what}", outcome.seed);
        } else {
            missed = true;
            println!("{bug:?}: not found");
        }
    }
    if missed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
