//! Every call that writes fails once: with EIO, with ENOSPC, and by killing the process.
//!
//! A script of some fifty operations runs once to see which calls it makes; then again for each of
//! them, and that call goes wrong. The process must go on or stop cleanly; nothing acknowledged is
//! lost; and what is looked up after an unknown outcome is what there is after a crash.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use farebox_store::Ledger;

use crate::crash::audit;
use crate::crash::event::What;
use crate::crash::history::History;
use crate::crash::load::{Conduct, Orders, Size};
use crate::crash::{bound, count, strace};
use crate::support::{Place, payment_id};

/// Payments of the script: one of each plan.
const PAYMENTS: u64 = 8;
/// Of calls of one name so many fail in each way, if nobody says otherwise, evenly spread.
const SAMPLES: u64 = 20;
const SAMPLES_VARIABLE: &str = "FAREBOX_FAULTS_PER_CALL";
/// For how many calls a disk is full that has room again afterwards.
const WHILE_FULL: u64 = 8;

/// What goes wrong with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// It fails once, and the disk is well again.
    Eio,
    /// There is no room, once.
    Enospc,
    /// The process dies in it.
    Kill,
    /// There is no room for a while.
    Full,
    /// It never works again.
    Broken,
}

const FAULTS: [Fault; 5] = [Fault::Eio, Fault::Enospc, Fault::Kill, Fault::Full, Fault::Broken];

/// One experiment.
#[derive(Clone, Copy, Debug)]
struct Try {
    call: &'static str,
    /// The how manieth of its thread.
    nth: u64,
    fault: Fault,
}

impl Try {
    /// For `strace -e`.
    fn inject(self) -> String {
        let Self { call, nth, fault } = self;
        match fault {
            Fault::Eio => format!("inject={call}:error=EIO:when={nth}"),
            Fault::Enospc => format!("inject={call}:error=ENOSPC:when={nth}"),
            Fault::Kill => format!("inject={call}:signal=KILL:when={nth}"),
            Fault::Full => {
                format!("inject={call}:error=ENOSPC:when={nth}..{}", nth + WHILE_FULL)
            }
            Fault::Broken => format!("inject={call}:error=EIO:when={nth}+"),
        }
    }

    /// Whether the script must come to its end all the same, once the ledger is open.
    fn must_go_on(self) -> bool {
        match self.fault {
            Fault::Eio | Fault::Enospc => true,
            Fault::Full => self.call == "pwrite64",
            Fault::Kill | Fault::Broken => false,
        }
    }
}

/// What some experiments have shown.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    tries: u64,
    /// In which the call was made and went wrong.
    hit: u64,
    /// In which the script came to its end.
    done: u64,
    /// Outcomes that were unknown and looked up.
    unknown: u64,
}

fn orders(place: &Place, conduct: Conduct) -> Orders {
    Orders {
        file: place.file(),
        life: 1,
        size: Size::Script { payments: PAYMENTS },
        conduct,
        again: Vec::new(),
        chain: Vec::new(),
    }
}

/// The script under `strace`; what it said, what it complained of, and the calls it made.
struct Script {
    place: Place,
    history: History,
    said: Vec<What>,
    complaints: String,
    trace: String,
}

impl Script {
    fn run(conduct: Conduct, it: Option<Try>) -> Self {
        let place = Place::in_memory();
        let traces = tempfile::TempDir::new().unwrap();
        let trace = traces.path().join("trace");
        let mut options = strace::about(&place.file());
        options.extend(["-s", "0", "-o", trace.to_str().unwrap()].map(ToOwned::to_owned));
        options.extend(["-e".to_owned(), format!("trace={}", strace::CALLS.join(","))]);
        options.extend(it.iter().flat_map(|it| ["-e".to_owned(), it.inject()]));
        if it.is_none_or(|it| it.fault != Fault::Kill) {
            options.push(strace::FAST.to_owned());
        }
        let ended = strace::run(&orders(&place, conduct), &options);
        let mut history = History::default();
        for event in &ended.said {
            history.add(event);
        }
        let said = ended.said.into_iter().map(|it| it.what).collect();
        let trace = std::fs::read_to_string(trace).unwrap();
        Self { place, history, said, complaints: ended.complaints, trace }
    }

    fn has_said(&self, what: &What) -> bool {
        self.said.contains(what)
    }

    /// The most calls of each name that one thread has made.
    fn calls(&self) -> BTreeMap<&'static str, u64> {
        let mut by_thread: BTreeMap<(&str, &'static str), u64> = BTreeMap::new();
        for line in self.trace.lines() {
            let (thread, rest) = line.split_once(' ').unwrap();
            let call = rest.trim_start().split('(').next().unwrap();
            if let Some(call) = strace::CALLS.iter().find(|it| **it == call) {
                *by_thread.entry((thread, call)).or_default() += 1;
            }
        }
        let mut most = BTreeMap::new();
        for ((_, call), made) in by_thread {
            let it: &mut u64 = most.entry(call).or_default();
            *it = made.max(*it);
        }
        most
    }
}

fn check(it: Try) -> Tally {
    let script = Script::run(Conduct::Sound, Some(it));
    let hit = script.trace.contains("(INJECTED)") || script.trace.contains("killed by SIGKILL");
    let done = script.has_said(&What::Done);
    let unopened = !script.has_said(&What::Opened);
    let mut wrong: Vec<_> =
        script.history.troubles.iter().filter(|it| it.contains("wrong")).collect();
    let panicked = script.complaints.contains("panicked");
    assert!(wrong.is_empty() && !panicked, "{it:?}: {wrong:?} {}", script.complaints);
    wrong.clear();
    let goes_on = done || unopened || !it.must_go_on();
    assert!(goes_on, "{it:?} stopped it: {:?}", script.history.troubles);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let breaches = runtime.block_on(audit::breaches(&script.place.open(), &script.history));
    assert!(breaches.is_empty(), "{it:?}: {breaches:#?}\n{:?}", script.history.troubles);
    let unknown = script.history.troubles.iter().filter(|it| it.contains("unknown")).count();
    Tally { tries: 1, hit: hit.into(), done: done.into(), unknown: unknown.try_into().unwrap() }
}

#[test]
fn a_call_that_fails_loses_nothing() {
    strace::require();
    let calls = Script::run(Conduct::Sound, None).calls();
    let samples = count(SAMPLES_VARIABLE, SAMPLES);
    let mut tries = Vec::new();
    for (call, made) in &calls {
        for (index, fault) in (0..).zip(FAULTS) {
            let step = made.div_ceil(samples);
            // Another offset for each fault, so that together they meet more of the calls.
            let first = 1 + index % step;
            let nth = (first..=*made).step_by(step.try_into().unwrap());
            tries.extend(nth.map(|nth| Try { call, nth, fault }));
        }
    }
    let next = AtomicUsize::new(0);
    let hand = || {
        let mut all = Tally::default();
        while let Some(it) = tries.get(next.fetch_add(1, Ordering::Relaxed)) {
            let one = check(*it);
            all.tries += one.tries;
            all.hit += one.hit;
            all.done += one.done;
            all.unknown += one.unknown;
        }
        all
    };
    let [one, other] = std::thread::scope(|it| {
        let hands = [it.spawn(hand), it.spawn(hand)];
        hands.map(|it| it.join().unwrap())
    });
    let (tries, hit) = (one.tries + other.tries, one.hit + other.hit);
    println!(
        "calls of the script {calls:?}; {tries} faults, {hit} met, {} went on to the end, {} \
         unknown outcomes: nothing lost, {}",
        one.done + other.done,
        one.unknown + other.unknown,
        bound(hit),
    );
    assert!(tries * 9 < hit * 10, "the script does not repeat its calls");
}

/// A lookup after an unknown outcome is believed: a client was told, or another settlement sent.
#[test]
fn what_was_looked_up_after_an_unknown_outcome_stays_so() {
    strace::require();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let calls = Script::run(Conduct::EndsUnsure, None).calls();
    let (mut tries, mut seen) = (0, 0);
    let mut untrue = Vec::new();
    for call in ["fsync", "fdatasync"] {
        for nth in 1..=calls.get(call).copied().unwrap_or_default() {
            let it = Try { call, nth, fault: Fault::Eio };
            let script = Script::run(Conduct::EndsUnsure, Some(it));
            tries += 1;
            for (number, told) in &script.history.seen {
                let ledger = script.place.open();
                let found = runtime.block_on(ledger.lookup(payment_id(*number))).unwrap();
                let found = format!("{:?}", found.map(|it| it.state));
                seen += 1;
                if found != *told {
                    untrue.push(format!("{it:?}: {number} was {told}, and then {found}"));
                }
            }
        }
    }
    println!("{tries} faults, {seen} unknown outcomes looked up, {} untrue", untrue.len());
    assert!(0 < seen, "no outcome was unknown");
    assert!(untrue.is_empty(), "{untrue:#?}");
}
