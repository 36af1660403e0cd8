//! Power cuts: the process and everything that was not forced to the disk are gone.
//!
//! A child works under `strace`. From what it has written, forced and said, in that order, the disk
//! is made again as it may be at any moment ([`crate::crash::disk`]), opened, and held against what
//! was said until then. One of these disks is where the next child goes on.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use tempfile::TempDir;

use crate::crash::disk::{Disk, Honesty, Image};
use crate::crash::history::History;
use crate::crash::load::{Conduct, Orders, Size};
use crate::crash::random::Random;
use crate::crash::trace::{self, Outcome, Step};
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
const EACH_OF_MANY: u64 = 36;

/// What some cuts have shown.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) cuts: u64,
    claims: u64,
    served: usize,
}

/// Runs a child where those files lie; what it did to its disk and said.
fn live(place: &Place, orders: &Orders, fault: Option<&str>) -> Vec<Step> {
    // Too long for some machines' memory.
    let traces = TempDir::new().unwrap();
    let trace = traces.path().join("trace");
    let mut options = [strace::FAST, "-y", "-xx", "-s", "10000000", "-o", trace.to_str().unwrap()]
        .map(ToOwned::to_owned)
        .to_vec();
    options.extend(["-e".to_owned(), format!("trace={}", trace::CALLS)]);
    options.extend(fault.iter().flat_map(|it| ["-e", it]).map(ToOwned::to_owned));
    let ended = strace::run(orders, &options);
    assert!(!ended.complaints.contains("panicked"), "{}", ended.complaints);
    let text = std::fs::read_to_string(trace).unwrap();
    trace::read(&text, &directory(place))
}

/// As the calls have it.
fn directory(place: &Place) -> PathBuf {
    place.directory.path().canonicalize().unwrap()
}

/// The moments of the cuts: while the file is made or opened, any, and those at which something has
/// just been said.
fn moments(steps: &[Step], random: &mut Random) -> Vec<usize> {
    let said = |it: &usize| matches!(steps[*it], Step::Said(_));
    let spoken: Vec<usize> = (0..steps.len()).filter(said).map(|it| it + 1).collect();
    let opened = spoken.first().copied().unwrap_or(steps.len());
    let mut below =
        |limit: usize| usize::try_from(random.below(limit.try_into().unwrap())).unwrap();
    let moment = |cut| match cut % 4 {
        0 => below(opened + 1),
        1 | 2 => below(steps.len() + 1),
        _ => spoken.get(below(spoken.len())).copied().unwrap_or(steps.len()),
    };
    let mut moments: Vec<usize> = (0..CUTS_PER_LIFE).map(moment).collect();
    moments.sort_unstable();
    moments
}

/// A disk and its lives; what was found wrong, and what was done.
pub(super) fn torment(seed: u64, conduct: Conduct, honesty: Honesty) -> (Tally, Vec<String>) {
    let mut random = Random::new(seed);
    let (mut tally, mut history, mut image) = (Tally::default(), History::default(), Image::new());
    for life in 1..=LIVES {
        let place = Place::in_memory();
        image = moved(image, &directory(&place));
        for (path, content) in &image {
            std::fs::write(path, content).unwrap();
        }
        // Now and then one that is long enough for the log to be full, and to begin anew.
        let each = if seed % 4 == 3 { EACH_OF_MANY } else { EACH };
        let steps = live(&place, &orders(&place, life, each, conduct, &history), None);
        let mut disk = Disk::new(&directory(&place), &image, honesty);
        let mut cut = cut_often(&mut disk, &steps, &mut history, &mut random);
        tally.cuts += cut.cuts;
        cut.breaches.extend_from_slice(&history.troubles);
        if !cut.breaches.is_empty() {
            return (tally, cut.breaches);
        }
        image = cut.image;
    }
    tally.claims = history.claims;
    tally.served = history.served();
    (tally, Vec::new())
}

fn orders(place: &Place, life: u64, each: u64, conduct: Conduct, history: &History) -> Orders {
    Orders {
        file: directory(place).join("farebox.db"),
        life,
        size: Size::Load { workers: WORKERS, each },
        conduct,
        again: history.open(usize::MAX),
        chain: history.on_chain(),
    }
}

/// What came of the cuts of one life.
struct Cut {
    cuts: u64,
    /// The last disk.
    image: Image,
    /// What is wrong with it, if anything is, and when it came.
    breaches: Vec<String>,
}

/// Cuts the power at some moments of a life.
fn cut_often(disk: &mut Disk, steps: &[Step], history: &mut History, random: &mut Random) -> Cut {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut cut = Cut { cuts: 0, image: Image::new(), breaches: Vec::new() };
    let mut applied = 0;
    for moment in moments(steps, random) {
        for step in &steps[applied..moment] {
            disk.apply(step);
            if let Step::Said(event) = step {
                history.add(event);
            }
        }
        applied = moment;
        cut.image = disk.cut(random);
        cut.cuts += 1;
        cut.breaches = runtime.block_on(examine(&cut.image, history));
        if !cut.breaches.is_empty() {
            cut.breaches.insert(0, format!("step {moment} of {}", steps.len()));
            break;
        }
    }
    cut
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

/// After a sync has failed, the kernel may show what the disk never gets. Whoever goes on with the
/// file reads that; what is acknowledged from then on must not need it.
#[test]
fn a_disk_that_failed_for_a_while_loses_nothing_afterwards() {
    strace::require();
    let (mut cuts, disks) = (0, count(CUTS_VARIABLE, CUTS).div_ceil(CUTS_PER_LIFE));
    for seed in 0..disks {
        let mut random = Random::new(seed);
        let from = 8 + random.below(24);
        let (made, breaches) = if seed % 2 == 0 {
            survive_and_go_on(from, &mut random)
        } else {
            give_up_and_start_again(from, &mut random)
        };
        assert!(breaches.is_empty(), "disk {seed}, sync {from}: {breaches:#?}");
        cuts += made;
    }
    assert!(disks * CUTS_PER_LIFE < cuts * 2, "only {cuts} cuts: most disks did not fail");
    println!("{cuts} power cuts on {disks} disks that had failed: 0 untrue, {}", bound(cuts));
}

/// One sync fails, and the same process goes on.
fn survive_and_go_on(nth: u64, random: &mut Random) -> (u64, Vec<String>) {
    let (place, mut history) = (Place::in_memory(), History::default());
    let mut disk = Disk::new(&directory(&place), &Image::new(), Honesty::Honest);
    let fault = format!("inject=fsync,fdatasync:error=EIO:when={nth}");
    let orders = orders(&place, 1, EACH, Conduct::Sound, &history);
    let steps = live(&place, &orders, Some(&fault));
    let failed = |it: &Step| matches!(it, Step::SyncEnded { outcome: Outcome::Failed, .. });
    if !steps.iter().any(failed) {
        return (0, Vec::new());
    }
    let cut = cut_often(&mut disk, &steps, &mut history, random);
    assert!(!history.troubles.iter().any(|it| it.contains("wrong")), "{:?}", history.troubles);
    (cut.cuts, cut.breaches)
}

/// Syncs fail until the process gives up; then the disk is well again, and the next process finds
/// what the kernel still shows.
fn give_up_and_start_again(nth: u64, random: &mut Random) -> (u64, Vec<String>) {
    let (place, mut history) = (Place::in_memory(), History::default());
    let mut disk = Disk::new(&directory(&place), &Image::new(), Honesty::Honest);
    let fault = format!("inject=fsync,fdatasync:error=EIO:when={nth}+");
    let broken = orders(&place, 1, EACH, Conduct::Sound, &history);
    for step in live(&place, &broken, Some(&fault)) {
        disk.apply(&step);
        if let Step::Said(event) = step {
            history.add(&event);
        }
    }
    let wrong = history.troubles.iter().any(|it| it.contains("wrong"));
    assert!(!wrong, "{:?}", history.troubles);
    if history.troubles.is_empty() {
        // It has forced so much at once that it was done before the disk failed.
        return (0, Vec::new());
    }
    let well = orders(&place, 2, EACH, Conduct::Sound, &history);
    let steps = live(&place, &well, None);
    let cut = cut_often(&mut disk, &steps, &mut history, random);
    (cut.cuts, cut.breaches)
}
