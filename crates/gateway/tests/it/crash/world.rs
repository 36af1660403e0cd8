//! What survives a kill: the chain, the upstream, the buyer and the data directory.

use std::sync::Arc;

use farebox_billing::Payment;
use farebox_devnet::DEV_ACCOUNTS;
use farebox_protocol::Amount;
use farebox_store::{Ledger as _, SettleMode, SqliteLedger, SqliteOptions};
use farebox_testkit::upstream::{FakeUpstream, Part, Received, Script};
use serde_json::Value;
use tempfile::TempDir;

use super::process::{Orders, Paid, Process, SETTLE_CALLED, SETTLE_RETURNED, ledger_path};
use super::purchase::{Goods, Got, Purchase, first_byte, until_receipt};
use super::{Left, Row, Then};
use crate::app::PAY_TO;
use crate::chain::TestChain;

const COMPLETION: &str = r#"{"id":"c","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"hello"}}],"usage":{"prompt_tokens":9,"completion_tokens":2,"total_tokens":11}}"#;
const CHUNK: &str = "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hello\"}}]}\n\n";

/// 9 tokens in at 0.15 and 2 out at 0.60 dollars for a million, rounded up.
const USED: Amount = Amount::from_units(3);

#[derive(Debug)]
pub(crate) struct World {
    paid: Paid,
    settle: SettleMode,
    goods: Goods,
    pub(super) chain: TestChain,
    upstream: FakeUpstream,
    /// One data directory for each row.
    ledgers: Vec<TempDir>,
    pay_to_had: u128,
    buyer_had: u128,
}

/// What both sides of the chain have gained or lost since some moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Moved {
    from_buyer: u128,
    to_seller: u128,
}

impl Moved {
    /// That, and one payment more.
    fn and(self, charge: Amount) -> Self {
        Self {
            from_buyer: self.from_buyer + charge.units(),
            to_seller: self.to_seller + charge.units(),
        }
    }
}

impl World {
    /// One that pays the quote.
    pub(crate) async fn start(settle: SettleMode, goods: Goods) -> Self {
        Self::paid(Paid::Exact, settle, goods).await
    }

    pub(crate) async fn paid(paid: Paid, settle: SettleMode, goods: Goods) -> Self {
        let chain = TestChain::start().await;
        chain.approve_permit2().await;
        let upstream = FakeUpstream::start(answer).await.unwrap();
        let (pay_to_had, buyer_had) = (chain.tokens_of(PAY_TO).await, chain.buyer_has().await);
        Self { paid, settle, goods, chain, upstream, ledgers: Vec::new(), pay_to_had, buyer_had }
    }

    /// Buys, kills, starts again, and compares with the row; returns it as a line of a table.
    pub(crate) async fn kill_at(&mut self, (place, left, then): &Row) -> String {
        let before = self.moved().await;
        let (orders, purchase, got) = self.die_at(place, *left).await;
        match left {
            Left::Nothing => assert_eq!((got.status, got.body.as_str()), (0, ""), "{place}"),
            Left::Bytes => assert!(!got.body.is_empty(), "{place}"),
        }
        let process = Process::start(&orders).await;
        let address = process.address.as_str();
        let receipt = self.come_to_rest(&purchase, address, *then).await;
        let unmoved = matches!(then, Then::Unheard | Then::Released);
        if unmoved {
            assert_eq!(self.moved().await, before, "{place}");
        } else {
            assert_eq!(
                self.moved().await,
                before.and(self.charged(&purchase, &receipt)),
                "{place}"
            );
        }
        let again = purchase.send(address).await;
        let settled = if unmoved {
            assert!(again.is_whole(self.goods), "{place}: {again:?}");
            until_receipt(&purchase, address, |it| it["state"] == "settled").await
        } else {
            assert_eq!(again.code(), "payment_already_used", "{place}: {again:?}");
            receipt.clone()
        };
        let charge = self.charged(&purchase, &settled);
        let once = before.and(charge);
        // Whatever happened: one charge in all, and nothing more to be had for it.
        assert_eq!(self.moved().await, once, "{place}");
        let last = purchase.send(address).await;
        assert_eq!((last.status, last.code().as_str()), (409, "payment_already_used"), "{place}");
        process.stop().await;
        self.audit((&purchase, charge), &orders, *then).await;
        format!(
            "{place:<18} left {left:<8} then {then:<9} receipt {state:<12} again {again} charge {charge}",
            left = format!("{left:?}"),
            then = format!("{then:?}"),
            state = receipt["state"].as_str().unwrap_or("none"),
            again = again.status,
        )
    }

    /// The kill whose outcome only the chain's own clock decides.
    pub(crate) async fn kill_settling(&mut self) -> String {
        let before = self.moved().await;
        let (orders, purchase, got) = self.die_at(SETTLE_CALLED, Left::Nothing).await;
        assert_eq!((got.status, got.body.as_str()), (0, ""));
        let process = Process::start(&orders).await;
        let address = process.address.as_str();
        // Looked up at least twice, and every time it could still land.
        for _ in 0..2 {
            let at = until_receipt(&purchase, address, |it| it["state"] == "unknown").await;
            let at = at["at"].clone();
            let moved_on = |it: &Value| it["at"] != at && it["state"] == "unknown";
            until_receipt(&purchase, address, moved_on).await;
        }
        let again = purchase.send(address).await;
        assert_eq!((again.status, again.code().as_str()), (409, "payment_in_progress"));
        assert_eq!(self.moved().await, before);
        self.chain.devnet.increase_time(1_000);
        self.chain.devnet.mine();
        let released = until_receipt(&purchase, address, |it| it["state"] == "released").await;
        assert_eq!(released["reason"], "settlement_rejected");
        let last = purchase.send(address).await;
        assert_eq!((last.status, last.code().as_str()), (402, "payment_required"), "{last:?}");
        assert_eq!(self.moved().await, before);
        process.stop().await;
        format!("{SETTLE_CALLED:<18} stays unknown until it has expired on chain, then released")
    }

    /// Kills every gateway that tries to finish what the first one began: once before the
    /// settlement is sent, once after.
    pub(crate) async fn kill_again_and_again(&mut self) -> String {
        let before = self.moved().await;
        let (mut orders, purchase, _) = self.die_at("first-byte", Left::Bytes).await;
        for place in [SETTLE_CALLED, SETTLE_RETURNED] {
            orders.stop_at = Some(place.to_owned());
            let mut process = Process::start(&orders).await;
            assert_eq!(process.reached().await, place);
            let again = purchase.send(&process.address).await;
            assert_eq!(again.status, 409, "{again:?}");
            process.kill().await;
        }
        orders.stop_at = None;
        let process = Process::start(&orders).await;
        self.come_to_rest(&purchase, &process.address, Then::Settled).await;
        process.stop().await;
        let moved = self.moved().await;
        assert_eq!(moved.to_seller, before.to_seller + purchase.amount.units());
        self.audit((&purchase, purchase.amount), &orders, Then::Settled).await;
        format!("first-byte, {SETTLE_CALLED}, {SETTLE_RETURNED}: settled once")
    }

    /// What a gateway on a new ledger is to do.
    pub(super) fn orders(&mut self, stop_at: Option<&str>) -> Orders {
        let directory = tempfile::tempdir().unwrap();
        let orders = Orders {
            directory: directory.path().to_owned(),
            rpc: self.chain.devnet.url(),
            upstream: format!("http://{}", self.upstream.address()),
            settle: self.settle.as_str().to_owned(),
            paid: self.paid,
            stop_at: stop_at.map(str::to_owned),
        };
        self.ledgers.push(directory);
        orders
    }

    /// Runs a gateway on a new ledger until it dies in the middle of a purchase.
    async fn die_at(&mut self, place: &str, left: Left) -> (Orders, Arc<Purchase>, Got) {
        let orders = self.orders(Some(place));
        let mut process = Process::start(&orders).await;
        let mut nonce = [0x5a; 32];
        nonce[0] = u8::try_from(self.ledgers.len()).unwrap();
        let buyer = &self.chain.buyer;
        let purchase = Purchase::sign(&process.address, self.goods, buyer, nonce).await;
        let mut got = purchase.send_beside(&process.address);
        assert_eq!(process.reached().await, place);
        if left == Left::Bytes {
            first_byte(got.clone()).await;
        }
        process.kill().await;
        // The task that reads ends with the connection.
        while got.changed().await.is_ok() {}
        let got = got.borrow().clone();
        (Orders { stop_at: None, ..orders }, Arc::new(purchase), got)
    }

    async fn come_to_rest(&self, purchase: &Arc<Purchase>, address: &str, then: Then) -> Value {
        let receipt = until_receipt(purchase, address, |receipt| match then {
            Then::Unheard => receipt["status"] == 404,
            Then::Released => receipt["state"] == "released",
            Then::Settled => receipt["state"] == "settled",
            Then::Owed => receipt["state"] == "settled" && receipt["refundOwed"].is_string(),
        });
        let receipt = receipt.await;
        match then {
            Then::Unheard => {}
            Then::Released => assert_eq!(receipt["reason"], "crashed"),
            Then::Settled => assert_eq!(receipt["refundOwed"], Value::Null, "{receipt}"),
            Then::Owed => assert_eq!(receipt["refundOwed"], "settled_unanswered"),
        }
        receipt
    }

    /// What a settled payment cost: the quote, or what was used of it.
    fn charged(&self, purchase: &Purchase, receipt: &Value) -> Amount {
        let charge: Amount = receipt["charged"].as_str().unwrap().parse().unwrap();
        match (self.paid, self.goods) {
            (Paid::Exact, _) => assert_eq!(charge, purchase.amount, "{receipt}"),
            (Paid::Upto, Goods::Json) => assert_eq!(charge, USED, "{receipt}"),
            // Estimated, because nobody tells.
            (Paid::Upto, Goods::Stream) => {
                assert!(!charge.is_zero() && charge < purchase.amount, "{receipt}");
            }
        }
        charge
    }

    /// The ledger is sound and has this one payment at this charge.
    async fn audit(&self, (purchase, cost): (&Purchase, Amount), orders: &Orders, then: Then) {
        let path = ledger_path(&orders.directory);
        let ledger = SqliteLedger::open(path, SqliteOptions::default()).unwrap();
        let report = ledger.check().await.unwrap();
        assert!(report.is_sound(), "{report:?}");
        let payments = ledger.list(None, 10).await.unwrap();
        assert_eq!(payments.len(), 1);
        assert_eq!(payments[0].terms.id, purchase.id);
        assert_eq!(charge(&payments[0].state), Some(cost));
        assert_eq!(payments[0].refund_owed.is_some(), then == Then::Owed);
        ledger.close().await.unwrap();
    }

    /// What the payer lost, what the seller gained, and what all ledgers say is the same.
    pub(crate) async fn balances_agree(&self) {
        let mut settled = 0;
        for directory in &self.ledgers {
            let path = ledger_path(directory.path());
            let ledger = SqliteLedger::open(path, SqliteOptions::default()).unwrap();
            let payments = ledger.list(None, 100).await.unwrap();
            settled +=
                payments.iter().filter_map(|it| charge(&it.state)).map(Amount::units).sum::<u128>();
            ledger.close().await.unwrap();
        }
        let moved = self.moved().await;
        assert_eq!(moved, Moved { from_buyer: settled, to_seller: settled });
    }

    /// How many transactions the facilitator has in blocks.
    pub(crate) async fn transactions(&self) -> usize {
        let params = serde_json::json!([DEV_ACCOUNTS[0].address, "latest"]);
        let count = self.chain.rpc.call("eth_getTransactionCount", params).await.unwrap();
        usize::from_str_radix(count.as_str().unwrap().trim_start_matches("0x"), 16).unwrap()
    }

    pub(crate) async fn end(self) {
        self.chain.devnet.shutdown().await;
    }

    async fn moved(&self) -> Moved {
        let from_buyer = self.buyer_had - self.chain.buyer_has().await;
        let to_seller = self.chain.tokens_of(PAY_TO).await - self.pay_to_had;
        Moved { from_buyer, to_seller }
    }
}

/// What the upstream says.
fn answer(received: &Received) -> Script {
    let asked: Value = serde_json::from_slice(&received.body).unwrap();
    if asked["stream"] != true {
        return Script::json(COMPLETION);
    }
    let parts = [CHUNK, CHUNK, "data: [DONE]\n\n"];
    Script::events(parts.map(Part::text).to_vec())
}

/// What was paid on chain.
pub(super) fn charge(state: &Payment) -> Option<Amount> {
    match state {
        Payment::Settled { charge, .. } => Some(*charge),
        Payment::Held { .. }
        | Payment::Serving { .. }
        | Payment::Captured { .. }
        | Payment::Settling { .. }
        | Payment::Unknown { .. }
        | Payment::Released { .. }
        | Payment::Lost { .. } => None,
    }
}
