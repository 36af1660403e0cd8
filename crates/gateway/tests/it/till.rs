//! A ledger, a settlement worker and a real facilitator on a real chain; payments come captured.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use farebox_chains::{EvmKey, Facilitator, NetworkConfig, find_scheme};
use farebox_gateway::{Clock as _, Entropy, KeptTransactions, Settler, SystemClock};
use farebox_protocol::wire::{Object, PaymentRequirements};
use farebox_protocol::{Amount, Asset, Digest, Network, PaymentId};
use farebox_store::{
    Admit, Admitted, AnswerMark, Ledger, SettleMode, SqliteLedger, SqliteOptions, StoredPayment,
    Terms,
};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::app::{PAY_TO, USDC};
use crate::chain::{CHAIN, facilitator_with, sign};

const PATIENCE: Duration = Duration::from_mins(2);

/// One process's worth of settling.
#[derive(Debug)]
pub(crate) struct Till {
    pub(crate) ledger: Arc<SqliteLedger>,
    pub(crate) settler: Arc<Settler>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Till {
    /// Opens, or opens again, the one in this directory.
    pub(crate) async fn open(
        directory: &Path,
        rpc: &str,
        change: impl FnOnce(NetworkConfig) -> NetworkConfig,
    ) -> Self {
        let path = directory.join("ledger.db");
        let ledger = Arc::new(SqliteLedger::open(path, SqliteOptions::default()).unwrap());
        ledger.recover(SystemClock.now()).await.unwrap();
        let log = KeptTransactions::new(Arc::<SqliteLedger>::clone(&ledger));
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let facilitator: Arc<dyn Facilitator> =
            Arc::new(facilitator_with(rpc, log, (tasks.clone(), stop.clone()), change));
        let settler = Settler::new(
            Arc::<SqliteLedger>::clone(&ledger),
            facilitator,
            Arc::new(SystemClock),
            Arc::new(Entropy::from_os().unwrap()),
            tasks.clone(),
        );
        tasks.spawn(Arc::clone(&settler).run(stop.clone()));
        Self { ledger, settler, tasks, stop }
    }

    /// Ends it as a crash would, but for what the ledger was told already.
    pub(crate) async fn close(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.ledger.close().await.unwrap();
    }

    /// Something that was served and is to be paid for with so many units.
    pub(crate) async fn serve(&self, buyer: &EvmKey, number: u64, units: u128) -> PaymentId {
        let terms = terms(buyer, number, units);
        let (id, now) = (terms.id, SystemClock.now());
        let admit = Admit { terms, exposure_limit: None, keys: Vec::new(), now };
        let Admitted::New(hold) = self.ledger.admit(admit).await.unwrap() else { panic!() };
        self.ledger.begin_serve(&hold, now).await.unwrap();
        let amount = Amount::from_units(units);
        drop(self.ledger.capture(hold, amount, AnswerMark::Sent, now).await.unwrap());
        self.settler.kick();
        id
    }

    pub(crate) async fn payment(&self, id: PaymentId) -> StoredPayment {
        self.ledger.lookup(id).await.unwrap().unwrap()
    }

    pub(crate) async fn until_state(&self, id: PaymentId, state: &str) -> StoredPayment {
        self.until(state, async || {
            let payment = self.payment(id).await;
            (payment.state.name() == state).then_some(payment)
        })
        .await
    }

    /// Until nobody has to look at anything any more.
    pub(crate) async fn until_final(&self) {
        self.until("all are final", async || {
            self.ledger.next_due().await.unwrap().is_none().then_some(())
        })
        .await;
    }

    pub(crate) async fn until<T>(&self, what: &str, holds: impl AsyncFn() -> Option<T>) -> T {
        let poll = async {
            loop {
                if let Some(found) = holds().await {
                    return found;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let found = tokio::time::timeout(PATIENCE, poll).await;
        found.unwrap_or_else(|_| panic!("it did not come about: {what}"))
    }

    pub(crate) async fn assert_sound(&self) {
        let report = self.ledger.check().await.unwrap();
        assert!(report.is_sound(), "{report:?}");
    }
}

fn terms(buyer: &EvmKey, number: u64, units: u128) -> Terms {
    let extra = json!({"name": "USDC", "version": "2"});
    let requirements = PaymentRequirements {
        scheme: "exact".to_owned(),
        network: CHAIN.parse::<Network>().unwrap(),
        amount: Amount::from_units(units),
        asset: USDC.to_owned(),
        pay_to: PAY_TO.to_owned(),
        max_timeout_seconds: 600,
        extra: extra.as_object().unwrap().clone(),
        rest: Object::new(),
    };
    let mut nonce = [0x5a; 32];
    nonce[24..].copy_from_slice(&number.to_be_bytes());
    let payload = sign(buyer, &requirements, nonce);
    let scheme = find_scheme("exact", "eip155").unwrap();
    let identified = scheme.identify(&payload, &requirements).unwrap();
    Terms {
        id: identified.id,
        fingerprint: Digest::of(&number.to_be_bytes()),
        route: "GET /goods".to_owned(),
        scheme: "exact".to_owned(),
        asset: Asset::new(requirements.network.clone(), USDC).unwrap(),
        payer: identified.payer,
        pay_to: PAY_TO.to_owned(),
        limit: Amount::from_units(units),
        settle: SettleMode::Background,
        price_version: "1".to_owned(),
        settle_by: identified.valid_before,
        payload: serde_json::to_string(&payload).unwrap(),
        requirements: serde_json::to_string(&requirements).unwrap(),
    }
}
