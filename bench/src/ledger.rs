//! What the ledger makes durable: holds and captures of payments a second, with so many clients waiting.
//!
//! A pair is one `admit` and one `capture`, each answered only when it is on the disk; it is what a
//! route that settles first asks of the ledger for a request. Beside it, on a file next to it: SQLite by
//! itself, with the same settings, that inserts a row of the same size and updates it, each once for a
//! pair, and forces as many of them to the disk at a time as clients wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use farebox_protocol::{Amount, Asset, Digest, Network, PaymentId, Timestamp};
use farebox_store::{
    Admit, Admitted, AnswerMark, Ledger, SettleMode, SqliteLedger, SqliteOptions, Terms,
};
use rusqlite::{Connection, params};

use crate::scenario::Plan;

/// How many clients wait for the ledger at a time.
const CLIENTS: [usize; 3] = [1, 16, 64];
/// From how many payers the payments are.
const PAYERS: u64 = 100;
/// About what a signed payment and our requirements take.
const PAYLOAD_BYTES: usize = 1_200;
const REQUIREMENTS_BYTES: usize = 600;
/// What no payer reaches.
const EXPOSURE: Amount = Amount::from_units(1 << 100);

/// Prints the rates of both sides.
pub async fn run(plan: &Plan) -> Result<()> {
    let time = Duration::from_secs(plan.seconds);
    for clients in CLIENTS {
        let (mut ours, mut hot, mut raw) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..plan.rounds {
            ours.push(sqlite(clients, PAYERS, time).await?);
            hot.push(sqlite(clients, 1, time).await?);
            raw.push(bare(clients, time)?);
        }
        let (ours, hot, raw) = (median(ours)?, median(hot)?, median(raw)?);
        let goal = if clients == 64 { ", goal 20000/s" } else { "" };
        println!(
            "ledger, {clients} clients: SQLite {ours:.0} pairs/s ({hot:.0} of one payer){goal}; \
             SQLite by itself {raw:.0}/s; ratio {:.2}",
            ours / raw
        );
    }
    Ok(())
}

fn median(mut figures: Vec<f64>) -> Result<f64> {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().context("no rounds")
}

/// Pairs a second of a fresh ledger on the disk that temporary files are on.
async fn sqlite(clients: usize, payers: u64, time: Duration) -> Result<f64> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("farebox.db");
    let ledger = Arc::new(SqliteLedger::open(file, SqliteOptions::default())?);
    ledger.recover(Timestamp::from_millis(1)).await?;
    let rate = pairs(&ledger, clients, payers, time).await?;
    ledger.close().await?;
    Ok(rate)
}

/// Pairs a second of any ledger.
pub async fn pairs<L: Ledger>(
    ledger: &Arc<L>,
    clients: usize,
    payers: u64,
    time: Duration,
) -> Result<f64> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let begun = Instant::now();
    let until = begun + time;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..clients {
        let ledger = Arc::clone(ledger);
        tasks.spawn(async move {
            let mut done = 0_u64;
            while Instant::now() < until {
                let number = NEXT.fetch_add(1, Ordering::Relaxed);
                pair(ledger.as_ref(), number, number % payers).await?;
                done += 1;
            }
            anyhow::Ok(done)
        });
    }
    let mut done = 0;
    while let Some(one) = tasks.join_next().await {
        done += one??;
    }
    let done = u32::try_from(done).context("too many")?;
    Ok(f64::from(done) / begun.elapsed().as_secs_f64())
}

async fn pair(ledger: &dyn Ledger, number: u64, payer: u64) -> Result<()> {
    let admit = Admit {
        terms: terms(number, payer)?,
        exposure_limit: Some(EXPOSURE),
        keys: Vec::new(),
        now: Timestamp::from_millis(2),
    };
    let Admitted::New(hold) = ledger.admit(admit).await? else { bail!("refused") };
    let charge = hold.limit();
    let now = Timestamp::from_millis(3);
    let captured = ledger.capture(hold, charge, AnswerMark::Withheld, now).await;
    drop(captured.map_err(|failed| anyhow!(failed.source))?);
    Ok(())
}

fn terms(number: u64, payer: u64) -> Result<Terms> {
    let name = Digest::of(&number.to_be_bytes());
    Ok(Terms {
        id: PaymentId::from_bytes(*name.as_bytes()),
        fingerprint: name,
        route: "chat".to_owned(),
        scheme: "exact".to_owned(),
        asset: Asset::new(Network::eip155(84532), "0x036CbD53842c5426634e7929541eC2318f3dCF7e")?,
        payer: format!("0x{payer:040x}"),
        pay_to: format!("0x{:040x}", 7),
        limit: Amount::from_units(1_000),
        settle: SettleMode::Before,
        price_version: "0123456789abcdef".to_owned(),
        settle_by: Timestamp::from_millis(60_000),
        payload: "p".repeat(PAYLOAD_BYTES),
        requirements: "r".repeat(REQUIREMENTS_BYTES),
    })
}

/// SQLite with one table and nothing else: the same bytes, forced to the disk as often.
fn bare(clients: usize, time: Duration) -> Result<f64> {
    let directory = tempfile::tempdir()?;
    let connection = Connection::open(directory.path().join("bare.db"))?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.execute_batch(
        "CREATE TABLE payments (id BLOB PRIMARY KEY, state TEXT, terms TEXT) STRICT, WITHOUT ROWID",
    )?;
    let terms = "p".repeat(PAYLOAD_BYTES + REQUIREMENTS_BYTES);
    let begun = Instant::now();
    let mut number = 0_u64;
    while begun.elapsed() < time {
        let ids: Vec<_> =
            (0..clients).map(|_| Digest::of(&{ number += 1; number }.to_be_bytes())).collect();
        for sql in [
            "INSERT INTO payments VALUES (?1, 'held', ?2)",
            "UPDATE payments SET state = 'captured' WHERE id = ?1 AND ?2 IS NOT NULL",
        ] {
            connection.execute_batch("BEGIN IMMEDIATE")?;
            let mut statement = connection.prepare_cached(sql)?;
            for id in &ids {
                statement.execute(params![id.as_bytes(), terms])?;
            }
            connection.execute_batch("COMMIT")?;
        }
    }
    let done = u32::try_from(number).context("too many")?;
    Ok(f64::from(done) / begun.elapsed().as_secs_f64())
}
