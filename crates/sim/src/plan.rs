//! What a seed decides before anything begins: who buys what, and how rough the world is.

use farebox_store::SettleMode;

use crate::random::Random;

/// The plan of one run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) clients: Vec<ClientPlan>,
    /// When the money moves on the routes with a flat price, and on those by tokens.
    pub(crate) flat: SettleMode,
    pub(crate) tokens: SettleMode,
    /// Whether answers are kept for whoever asks again.
    pub(crate) keeps: bool,
    /// What can be open of one payer, in atomic units.
    pub(crate) exposure_limit: Option<u128>,
    /// At which port each process is lost, counted from its start.
    pub(crate) crashes: Vec<u64>,
    /// How long a process is gone, at most, in milliseconds.
    pub(crate) downtime: u64,
    pub(crate) rough: Rough,
}

/// How often things fail, of a thousand.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rough {
    pub(crate) ledger_unavailable: u64,
    pub(crate) ledger_unknown: u64,
    pub(crate) ledger_slow: u64,
    pub(crate) node_unreachable: u64,
    pub(crate) node_unanswered: u64,
    pub(crate) node_lags: u64,
    pub(crate) transaction_dropped: u64,
    pub(crate) transaction_late: u64,
    pub(crate) reorg: u64,
    pub(crate) reverted: u64,
    pub(crate) upstream_fails: u64,
    pub(crate) upstream_stalls: u64,
    pub(crate) upstream_cuts: u64,
}

/// One client.
#[derive(Clone, Debug)]
pub(crate) struct ClientPlan {
    /// Which payer pays; clients may share one.
    pub(crate) payer: u8,
    pub(crate) starts_at: u64,
    pub(crate) purchases: Vec<Purchase>,
}

/// One thing that a client buys.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Purchase {
    pub(crate) goods: Goods,
    pub(crate) nonce: [u8; 32],
    /// Copies of the paid request that are sent at one time.
    pub(crate) copies: u64,
    /// Whether another request with the same payment is sent beside.
    pub(crate) abuses: bool,
    /// How long the first copies are waited for, in milliseconds.
    pub(crate) patience: Option<u64>,
    /// How often it is tried in all.
    pub(crate) tries: u32,
    /// Whether the request has a name (an idempotency key), and is signed anew for each try.
    pub(crate) named: bool,
}

/// What is bought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Goods {
    /// A thing with a flat price.
    Flat,
    /// A completion in one piece, by `exact` or `upto`.
    Whole { upto: bool },
    /// A stream, likewise.
    Stream { upto: bool },
}

impl Plan {
    pub(crate) fn draw(seed: u64) -> Self {
        let random = &mut Random::new(seed);
        let modes = [SettleMode::After, SettleMode::Background, SettleMode::Before];
        let flat = random.pick(&modes, SettleMode::After);
        let tokens = random.pick(
            &[SettleMode::After, SettleMode::After, SettleMode::Background, SettleMode::Before],
            SettleMode::After,
        );
        let upto = tokens != SettleMode::Before;
        let clients = (0..random.between(1, 5)).map(|_| ClientPlan::draw(random, upto)).collect();
        let crashes = random.pick(&[0, 1, 2, 3, 4, 6], 1);
        Self {
            clients,
            flat,
            tokens,
            keeps: random.percent(50),
            exposure_limit: random.percent(30).then(|| u128::from(random.between(10_000, 60_000))),
            crashes: (0..crashes).map(|_| random.between(1, 110)).collect(),
            downtime: random.pick(&[100, 5_000, 60_000, 600_000], 100),
            rough: Rough::draw(random),
        }
    }
}

impl Rough {
    fn draw(random: &mut Random) -> Self {
        let scale = random.pick(&[0, 1, 2, 4, 8, 12], 1);
        let mut rate = |most: u64| match random.below(3) {
            0 => 0,
            _ => random.between(1, most).saturating_mul(scale),
        };
        Self {
            ledger_unavailable: rate(20),
            ledger_unknown: rate(30),
            ledger_slow: rate(40),
            node_unreachable: rate(40),
            node_unanswered: rate(60),
            node_lags: rate(60),
            transaction_dropped: rate(40),
            transaction_late: rate(60),
            reorg: rate(60),
            reverted: rate(20),
            upstream_fails: rate(60),
            upstream_stalls: rate(30),
            upstream_cuts: rate(50),
        }
    }
}

impl ClientPlan {
    fn draw(random: &mut Random, upto: bool) -> Self {
        let payer = u8::try_from(random.between(1, 3)).unwrap_or(1);
        let starts_at = random.below(4_000);
        let purchases = (0..random.between(1, 3)).map(|_| Purchase::draw(random, upto)).collect();
        Self { payer, starts_at, purchases }
    }
}

impl Purchase {
    fn draw(random: &mut Random, may_be_upto: bool) -> Self {
        let upto = may_be_upto && random.percent(60);
        let goods = match random.below(5) {
            0 => Goods::Flat,
            1 | 2 => Goods::Whole { upto },
            _ => Goods::Stream { upto },
        };
        Self {
            goods,
            nonce: random.bytes(),
            copies: random.pick(&[1, 1, 1, 2, 3], 1),
            abuses: random.percent(10),
            patience: random.percent(25).then(|| random.between(1, 12_000)),
            tries: u32::try_from(random.between(1, 6)).unwrap_or(1),
            named: random.percent(30),
        }
    }
}
