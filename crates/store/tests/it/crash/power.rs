//! Power cuts: the process and everything that was not forced to the disk are gone.
//!
//! A child works under `strace`. From what it has written, forced and said, in that order, the disk
//! is made again as it may be at any moment ([`crate::crash::disk`]), opened, and held against what
//! was said until then. One of these disks is where the next child goes on.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::crash::disk::{Disk, Honesty, Image};
use crate::crash::history::History;
use crate::crash::load::{Conduct, Orders, Size};
use crate::crash::random::Random;
use crate::crash::trace::{self, Step};
use crate::crash::{audit, bound, count, strace};
use crate::support::Place;

/// How often the power is cut, if nobody says otherwise.
const CUTS: u64 = 40;
const CUTS_VARIABLE: &str = "FAREBOX_POWER_CUTS";
/// So many lives has a disk, and so often is the power cut in each.
const LIVES: u64 = 2;
const CUTS_PER_LIFE: u64 = 5;
const WORKERS: u64 = 6;
const EACH: u64 = 6;

/// What some cuts have shown.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) cuts: u64,
    claims: u64,
    served: usize,
}

/// Runs a child on a disk with that on it; what it did to the disk and said.
fn live(place: &Place, orders: &Orders, image: &Image) -> Vec<Step> {
    for (path, content) in image {
        std::fs::write(path, content).unwrap();
    }
    let traces = Place::in_memory();
    let trace = traces.directory.path().join("trace");
    let mut options = [strace::FAST, "-y", "-xx", "-s", "10000000", "-o", trace.to_str().unwrap()]
        .map(ToOwned::to_owned)
        .to_vec();
    options.extend(["-e".to_owned(), format!("trace={}", trace::CALLS)]);
    let ended = strace::run(orders, &options);
    assert!(ended.complaints.is_empty(), "{}", ended.complaints);
    let text = std::fs::read_to_string(trace).unwrap();
    trace::read(&text, place.directory.path())
}

/// The moments of the cuts: any, and those at which something has just been said.
fn moments(steps: &[Step], random: &mut Random) -> Vec<usize> {
    let said = |it: &usize| matches!(steps[*it], Step::Said(_));
    let spoken: Vec<usize> = (0..steps.len()).filter(said).map(|it| it + 1).collect();
    let mut below =
        |limit: usize| usize::try_from(random.below(limit.try_into().unwrap())).unwrap();
    let mut moments: Vec<usize> = (0..CUTS_PER_LIFE)
        .map(|cut| if cut % 2 == 0 { below(steps.len() + 1) } else { spoken[below(spoken.len())] })
        .collect();
    moments.sort_unstable();
    moments
}

/// A disk and its lives; what was found wrong, and what was done.
pub(super) fn torment(seed: u64, conduct: Conduct, honesty: Honesty) -> (Tally, Vec<String>) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut random = Random::new(seed);
    let (mut tally, mut history, mut image) = (Tally::default(), History::default(), Image::new());
    for life in 1..=LIVES {
        let place = Place::in_memory();
        let directory = place.directory.path().canonicalize().unwrap();
        image = moved(image, &directory);
        let orders = Orders {
            file: directory.join("farebox.db"),
            life,
            size: Size::Load { workers: WORKERS, each: EACH },
            conduct,
            again: history.open(usize::MAX),
            chain: history.on_chain(),
        };
        let steps = live(&place, &orders, &image);
        let mut disk = Disk::new(&directory, &image, honesty);
        let mut applied = 0;
        for moment in moments(&steps, &mut random) {
            for step in &steps[applied..moment] {
                disk.apply(step);
                if let Step::Said(event) = step {
                    history.add(event);
                }
            }
            applied = moment;
            image = disk.cut(&mut random);
            tally.cuts += 1;
            let mut breaches = runtime.block_on(examine(&image, &history));
            breaches.append(&mut history.troubles.clone());
            if !breaches.is_empty() {
                let when = format!(
                    "life {life}, step {moment} of {}: {:?}",
                    steps.len(),
                    steps.get(moment.saturating_sub(1)).map(|it| format!("{it:.200?}"))
                );
                breaches.insert(0, when);
                return (tally, breaches);
            }
        }
    }
    tally.claims = history.claims;
    tally.served = history.served();
    (tally, Vec::new())
}

/// The same files in another directory.
fn moved(image: Image, directory: &Path) -> Image {
    let rename = |path: &Path| directory.join(path.file_name().unwrap());
    image.into_iter().map(|(path, content)| (rename(&path), content)).collect()
}

/// Opens what is left on the disk and holds it against what was said.
async fn examine(image: &Image, history: &History) -> Vec<String> {
    let place = Place::in_memory();
    for (path, content) in moved(image.clone(), place.directory.path()) {
        // Shared memory, and a note of who has the file open: neither survives its process.
        let name = path.to_string_lossy();
        if !name.ends_with("-shm") && !name.ends_with(".lock") {
            std::fs::write(path, content).unwrap();
        }
    }
    match farebox_store::SqliteLedger::open(place.file(), farebox_store::SqliteOptions::default()) {
        Ok(ledger) => audit::breaches(&ledger, history).await,
        Err(error) => vec![format!("not opened: {error}")],
    }
}

#[test]
fn a31_a_power_cut_loses_nothing_that_was_acknowledged_served_or_sent() {
    strace::require();
    let cuts = count(CUTS_VARIABLE, CUTS);
    let disks = cuts.div_ceil(LIVES * CUTS_PER_LIFE);
    let next = AtomicU64::new(0);
    let hand = || {
        let mut all = Tally::default();
        loop {
            let disk = next.fetch_add(1, Ordering::Relaxed);
            if disks <= disk {
                return all;
            }
            let (one, breaches) = torment(disk, Conduct::Sound, Honesty::Honest);
            assert!(breaches.is_empty(), "disk {disk}, cut {}: {breaches:#?}", one.cuts);
            all.cuts += one.cuts;
            all.claims += one.claims;
            all.served += one.served;
        }
    };
    let [one, other] = std::thread::scope(|it| {
        let hands = [it.spawn(hand), it.spawn(hand)];
        hands.map(|it| it.join().unwrap())
    });
    let cuts = one.cuts + other.cuts;
    println!(
        "{cuts} power cuts on {disks} disks, {} served, {} claims: 0 untrue, {}",
        one.served + other.served,
        one.claims + other.claims,
        bound(cuts),
    );
}
