//! Payments to test with.

use std::path::{Path, PathBuf};

use farebox_protocol::{Amount, Asset, Digest, Network, PaymentId, Timestamp};
use farebox_store::{
    Admit, Admitted, Hold, Ledger, Refusal, SettleMode, SqliteLedger, SqliteOptions, Terms,
};
use tempfile::TempDir;

/// A directory of its own, and the ledger in it.
pub(crate) struct Place {
    pub(crate) directory: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { directory: TempDir::new().unwrap() }
    }

    /// In memory, where the system has such a place.
    pub(crate) fn in_memory() -> Self {
        let memory = Path::new("/dev/shm");
        let directory = if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() };
        Self { directory: directory.unwrap() }
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.directory.path().join("farebox.db")
    }

    pub(crate) fn open(&self) -> SqliteLedger {
        SqliteLedger::open(self.file(), SqliteOptions::default()).unwrap()
    }
}

pub(crate) fn units(units: u128) -> Amount {
    Amount::from_units(units)
}

pub(crate) fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

/// The id with that number.
pub(crate) fn payment_id(number: u64) -> PaymentId {
    let mut bytes = [0x5a; 32];
    bytes[24..].copy_from_slice(&number.to_be_bytes());
    PaymentId::from_bytes(bytes)
}

pub(crate) fn asset() -> Asset {
    let address = "0x036CbD53842c5426634e7929541eC2318f3dCF7e";
    Asset::new(Network::eip155(84532), address).unwrap()
}

/// Payment `number` of a limit of 100 units.
pub(crate) fn terms(number: u64, settle: SettleMode) -> Terms {
    Terms {
        id: payment_id(number),
        fingerprint: Digest::of(&number.to_be_bytes()),
        route: "POST /v1/chat/completions".to_owned(),
        scheme: "exact".to_owned(),
        asset: asset(),
        payer: "0x1111111111111111111111111111111111111111".to_owned(),
        pay_to: "0x2222222222222222222222222222222222222222".to_owned(),
        limit: units(100),
        settle,
        price_version: "v1".to_owned(),
        settle_by: at(1_700_000_060_000),
        payload: "{\"x402Version\":2}".to_owned(),
        requirements: "{\"scheme\":\"exact\"}".to_owned(),
    }
}

pub(crate) fn ask(terms: &Terms, now: Timestamp) -> Admit {
    Admit { terms: terms.clone(), keys: Vec::new(), exposure_limit: None, now }
}

/// A hold that must be given.
#[track_caller]
pub(crate) fn granted(admitted: Admitted) -> Hold {
    match admitted {
        Admitted::New(hold) => hold,
        Admitted::Refused(refusal) => panic!("refused: {refusal:?}"),
    }
}

/// A hold that must be refused.
#[track_caller]
pub(crate) fn refused(admitted: Admitted) -> Refusal {
    match admitted {
        Admitted::New(hold) => panic!("granted: {hold:?}"),
        Admitted::Refused(refusal) => refusal,
    }
}

/// Holds payment `number`.
pub(crate) async fn hold(ledger: &dyn Ledger, number: u64, settle: SettleMode) -> Hold {
    granted(ledger.admit(ask(&terms(number, settle), at(1_000))).await.unwrap())
}

/// Holds payment `number` and begins to serve it.
pub(crate) async fn serving(ledger: &dyn Ledger, number: u64, settle: SettleMode) -> Hold {
    let hold = hold(ledger, number, settle).await;
    ledger.begin_serve(&hold, at(1_001)).await.unwrap();
    hold
}
