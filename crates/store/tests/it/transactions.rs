//! The log of signed transactions: what is recorded is there after a crash, until it has ended.

use farebox_protocol::Network;
use farebox_store::{KeptTransaction, Ledger as _, TransactionFate, Transactions};

use crate::support::{Place, payment_id};

fn kept(number: u8, nonce: u64) -> KeptTransaction {
    KeptTransaction {
        network: Network::eip155(84_532),
        sender: [7; 20],
        nonce,
        hash: [number; 32],
        raw: vec![number; 300],
        payments: (0..u64::from(number)).map(payment_id).collect(),
        depth: 10,
    }
}

#[tokio::test]
async fn what_is_recorded_is_open_until_it_ends() {
    let place = Place::new();
    let ledger = place.open();
    let all = [kept(0, 4), kept(3, 4), kept(1, 5)];
    for it in &all {
        ledger.record(it.clone()).await.unwrap();
        ledger.record(it.clone()).await.unwrap();
    }
    let elsewhere = KeptTransaction { network: Network::eip155(1), hash: [9; 32], ..kept(2, 4) };
    ledger.record(elsewhere.clone()).await.unwrap();
    ledger.close().await.unwrap();

    let ledger = place.open();
    assert_eq!(ledger.open(&Network::eip155(84_532)).await.unwrap(), all);
    assert_eq!(ledger.open(&Network::eip155(1)).await.unwrap(), [elsewhere]);
    assert_eq!(ledger.open(&Network::eip155(10)).await.unwrap(), []);
    let ended = [
        (all[0].hash, TransactionFate::Superseded),
        (all[1].hash, TransactionFate::Mined),
        ([0xee; 32], TransactionFate::NotSent),
    ];
    ledger.end(ended.to_vec()).await.unwrap();
    // The first word stands, and what has ended is not recorded anew.
    ledger.end(vec![(all[0].hash, TransactionFate::NotSent)]).await.unwrap();
    ledger.record(all[0].clone()).await.unwrap();
    assert_eq!(ledger.open(&Network::eip155(84_532)).await.unwrap(), all[2..]);
    ledger.close().await.unwrap();
    let raw = rusqlite::Connection::open(place.file()).unwrap();
    let row = "SELECT ended FROM transactions WHERE hash = ?1 AND raw IS NULL";
    let ended: String = raw.query_row(row, [all[0].hash], |it| it.get(0)).unwrap();
    assert_eq!(ended, "superseded");
}

#[tokio::test]
async fn the_file_refuses_to_change_what_was_signed() {
    let place = Place::new();
    let ledger = place.open();
    ledger.record(kept(1, 5)).await.unwrap();
    ledger.close().await.unwrap();
    let raw = rusqlite::Connection::open(place.file()).unwrap();
    for sql in [
        "DELETE FROM transactions",
        "UPDATE transactions SET nonce = 6",
        "UPDATE transactions SET raw = x'00'",
        "UPDATE transactions SET raw = NULL",
        "UPDATE transactions SET ended = 'mined'",
        "UPDATE transactions SET ended = 'forgotten', raw = NULL",
    ] {
        assert!(raw.execute(sql, []).is_err(), "{sql}");
    }
}
