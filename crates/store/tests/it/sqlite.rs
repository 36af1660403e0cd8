//! What the SQLite engine has to show beyond the contract.

use farebox_store::Ledger;

use crate::contract;
use crate::support::Place;

#[tokio::test]
async fn the_contract_holds() {
    let place = Place::new();
    let ledger = place.open();
    contract::run(&ledger).await;
    let report = ledger.check().await.unwrap();
    assert!(report.is_sound(), "{:?}", report.problems);
    assert!(report.payments > 20, "{report:?}");
    ledger.close().await.unwrap();
}
