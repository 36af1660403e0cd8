//! A payment to test the engine's inside with.

use farebox_protocol::{Amount, Asset, Digest, Network, PaymentId, Timestamp};

use crate::port::{SettleMode, Terms};

/// Payment `number`, of a limit of 100 units.
pub(crate) fn terms(number: u64) -> Terms {
    let mut id = [7; 32];
    id[24..].copy_from_slice(&number.to_be_bytes());
    Terms {
        id: PaymentId::from_bytes(id),
        fingerprint: Digest::of(b"request"),
        route: "r".to_owned(),
        scheme: "exact".to_owned(),
        asset: Asset::new(Network::eip155(1), "0x036CbD53842c5426634e7929541eC2318f3dCF7e")
            .unwrap(),
        payer: "0x1".to_owned(),
        pay_to: "0x2".to_owned(),
        limit: Amount::from_units(100),
        settle: SettleMode::After,
        price_version: "v1".to_owned(),
        settle_by: Timestamp::from_millis(9),
        payload: "{}".to_owned(),
        requirements: "{}".to_owned(),
    }
}
