//! What a child is told to do, and the doing: many workers at once, or one script.

use std::future::poll_fn;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use farebox_store::{Ledger, SqliteLedger, SqliteOptions, Synchronous};

use crate::crash::event::{Event, What};
use crate::crash::worker::{GaveUp, Worker};

/// Lives of one file are so far apart.
const LIFE_MILLIS: u64 = 1_000_000;
/// And so are their payments.
const LIFE_NUMBERS: u64 = 1_000_000_000;
const WORKER_NUMBERS: u64 = 1_000_000;

/// What a child is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Orders {
    pub(super) file: PathBuf,
    /// Which life of the file it is, from 1.
    pub(super) life: u64,
    pub(super) size: Size,
    pub(super) conduct: Conduct,
    /// Payments whose clients ask again, because the life before ended on them.
    pub(super) again: Vec<u64>,
    /// What is on the chain and perhaps not known to be: payment and nonce.
    pub(super) chain: Vec<(u64, u64)>,
}

/// How much there is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    /// So many workers at once, each with so many payments.
    Load { workers: u64, each: u64 },
    /// So many payments, one after the other; then the ledger is closed.
    Script { payments: u64 },
}

/// Whether the child works as the gateway does, or has a bug that must be noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Conduct {
    Sound,
    /// The first bytes leave before the hold is asked for.
    ServesFirst,
    /// A settlement that may have been sent is signed and sent anew, without a look at the chain.
    Resigns,
    /// It works well on a ledger that is never forced to the disk.
    NeverForces,
    /// It works well on a ledger that is forced to the disk now and then.
    ForcesAtTimes,
    /// It works well, and ends as soon as it has looked up what an unknown outcome was.
    EndsUnsure,
}

impl Conduct {
    const ALL: [(Self, &str); 6] = [
        (Self::Sound, "sound"),
        (Self::ServesFirst, "serves-first"),
        (Self::Resigns, "resigns"),
        (Self::EndsUnsure, "ends-unsure"),
        (Self::NeverForces, "never-forces"),
        (Self::ForcesAtTimes, "forces-at-times"),
    ];

    fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|it| it.0 == self).unwrap().1
    }

    fn options(self) -> SqliteOptions {
        let synchronous = match self {
            Self::NeverForces => Synchronous::Off,
            Self::ForcesAtTimes => Synchronous::Normal,
            Self::Sound | Self::ServesFirst | Self::Resigns | Self::EndsUnsure => Synchronous::Full,
        };
        SqliteOptions { synchronous, ..SqliteOptions::default() }
    }

    fn parse(word: &str) -> Self {
        Self::ALL.iter().find(|it| it.1 == word).unwrap().0
    }
}

impl Orders {
    /// In one text, for the child's environment.
    pub(super) fn write(&self) -> String {
        let size = match self.size {
            Size::Load { workers, each } => format!("load {workers} {each}"),
            Size::Script { payments } => format!("script {payments} 0"),
        };
        let again: Vec<_> = self.again.iter().map(ToString::to_string).collect();
        let chain: Vec<_> = self.chain.iter().map(|(it, nonce)| format!("{it}:{nonce}")).collect();
        let lines = [
            self.file.to_str().unwrap().to_owned(),
            self.life.to_string(),
            size,
            self.conduct.as_str().to_owned(),
            again.join(" "),
            chain.join(" "),
        ];
        lines.join("\n")
    }

    /// What [`Self::write`] wrote.
    pub(super) fn read(text: &str) -> Self {
        let lines: Vec<_> = text.split('\n').collect();
        let [file, life, size, conduct, again, chain] = lines[..] else { panic!("{text}") };
        let size: Vec<_> = size.split(' ').collect();
        let [kind, count, each] = size[..] else { panic!("{text}") };
        let (count, each) = (number(count), number(each));
        let pair = |it: &str| it.split_once(':').map(|(it, nonce)| (number(it), number(nonce)));
        Self {
            file: PathBuf::from(file),
            life: number(life),
            size: match kind {
                "load" => Size::Load { workers: count, each },
                _ => Size::Script { payments: count },
            },
            conduct: Conduct::parse(conduct),
            again: again.split_whitespace().map(number).collect(),
            chain: chain.split_whitespace().filter_map(pair).collect(),
        }
    }
}

fn number(text: &str) -> u64 {
    text.parse().unwrap()
}

/// A child's whole life. It ends by itself only after a script, or if the ledger has given up.
pub(super) fn run(orders: Orders) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let ledger = match SqliteLedger::open(&orders.file, orders.conduct.options()) {
            Ok(ledger) => Arc::new(ledger),
            Err(error) => return Event::say(0, What::Trouble(format!("not opened: {error}"))),
        };
        Event::say(0, What::Opened);
        let now = orders.life * LIFE_MILLIS;
        let worker =
            Worker::new(Arc::<SqliteLedger>::clone(&ledger), now, orders.conduct, &orders.chain);
        let worker = Arc::new(worker);
        let worked = match orders.size {
            Size::Load { workers, each } => work(worker, &orders, (workers, each)).await,
            Size::Script { payments } => script(&worker, orders.life, payments).await,
        };
        match worked {
            Ok(()) => Event::say(0, What::Done),
            Err(GaveUp) => Event::say(0, What::Trouble("gave up".to_owned())),
        }
        if let Err(error) = ledger.close().await {
            Event::say(0, What::Trouble(format!("not closed: {error}")));
        }
    });
}

async fn work(
    worker: Arc<Worker>,
    orders: &Orders,
    (workers, each): (u64, u64),
) -> Result<(), GaveUp> {
    worker.recover().await?;
    let mut tasks = tokio::task::JoinSet::new();
    for index in 0..workers {
        let worker = Arc::clone(&worker);
        let first = orders.life * LIFE_NUMBERS + index * WORKER_NUMBERS;
        let mine = |it: &u64| it % workers == index;
        let again: Vec<_> = orders.again.iter().copied().filter(mine).collect();
        tasks.spawn_local(async move {
            for number in again.into_iter().chain(first..first + each) {
                worker.sell(number).await?;
            }
            Ok(())
        });
    }
    let settler = Arc::clone(&worker);
    let settling = async move {
        loop {
            settler.settle_due().await?;
            settler.captured().await;
        }
    };
    let selling = async {
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap()?;
        }
        Ok(())
    };
    let mut settling = pin!(settling);
    let mut selling = pin!(selling);
    poll_fn(|context| match selling.as_mut().poll(context) {
        Poll::Ready(sold) => Poll::Ready(sold),
        Poll::Pending => settling.as_mut().poll(context),
    })
    .await?;
    worker.settle_due().await
}

async fn script(worker: &Worker, life: u64, payments: u64) -> Result<(), GaveUp> {
    worker.recover().await?;
    let first = life * LIFE_NUMBERS;
    for number in first..first + payments {
        worker.sell(number).await?;
        worker.settle_due().await?;
    }
    Ok(())
}

#[test]
fn orders_are_understood() {
    let orders = Orders {
        file: PathBuf::from("farebox.db"),
        life: 3,
        size: Size::Script { payments: 8 },
        conduct: Conduct::Resigns,
        again: vec![1, 2],
        chain: vec![(1, 1), (2, 7)],
    };
    assert_eq!(Orders::read(&orders.write()), orders);
    let load = Orders { size: Size::Load { workers: 8, each: 3 }, again: Vec::new(), ..orders };
    assert_eq!(Orders::read(&load.write()), load);
}
