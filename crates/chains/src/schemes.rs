//! Every scheme that this build knows: a new one is a file and a line.

use farebox_protocol::Reason;
use farebox_protocol::wire::PaymentRequirements;
use serde_json::Value;

use crate::evm::{Exact, ExactPermit2, Upto};
use crate::scheme::{Scheme, TransferMethod};

/// One row for each scheme, transfer method and namespace. Of rows with one name on the wire the
/// first is meant where an offer names no transfer method.
pub static SCHEMES: &[&dyn Scheme] = &[&Exact, &ExactPermit2, &Upto];

/// The scheme that a configuration calls so, on networks of that namespace: `exact-permit2`, `eip155`.
pub fn find_scheme(word: &str, namespace: &str) -> Option<&'static dyn Scheme> {
    SCHEMES.iter().copied().find(|it| it.word() == word && it.namespace() == namespace)
}

/// The scheme of that name and transfer method on the wire: `exact`, Permit2, `eip155`.
pub fn find_scheme_on_wire(
    name: &str,
    method: TransferMethod,
    namespace: &str,
) -> Option<&'static dyn Scheme> {
    let mut rows = SCHEMES.iter().copied();
    rows.find(|it| (it.name(), it.method(), it.namespace()) == (name, method, namespace))
}

/// The scheme that an offer is in, by `scheme`, `network` and `extra.assetTransferMethod`; `None`
/// where one of them is not known here.
pub fn scheme_of(offer: &PaymentRequirements) -> Option<&'static dyn Scheme> {
    let namespace = offer.network.namespace();
    let mut named = SCHEMES
        .iter()
        .copied()
        .filter(|it| it.name() == offer.scheme && it.namespace() == namespace);
    match offer.extra.get("assetTransferMethod") {
        None | Some(Value::Null) => named.next(),
        Some(method) => named.find(|it| method.as_str() == Some(it.method().word())),
    }
}

/// Whether a refusal says, in the words of any scheme, that an authorisation was used or cancelled: by
/// whom, it does not say, so it may have been by an earlier try of whoever asks.
pub fn says_used(reason: &Reason) -> bool {
    SCHEMES.iter().any(|it| it.used() == reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_found_and_stands_once() {
        for row in SCHEMES {
            let found = find_scheme(row.word(), row.namespace()).unwrap();
            assert_eq!(found, *row);
            let found = find_scheme_on_wire(row.name(), row.method(), row.namespace()).unwrap();
            assert_eq!(found, *row);
            assert_eq!(SCHEMES.iter().filter(|it| it == &row).count(), 1, "{row:?}");
        }
        assert!(find_scheme("exact", "solana").is_none());
        assert!(find_scheme("permit2", "eip155").is_none());
        assert!(find_scheme_on_wire("upto", TransferMethod::Eip3009, "eip155").is_none());
    }

    #[track_caller]
    fn check(scheme: &str, method: Value, expected: Option<&str>) {
        let offer = serde_json::json!({
            "scheme": scheme, "network": "eip155:1", "amount": "1", "asset": "", "payTo": "",
            "maxTimeoutSeconds": 1, "extra": {"assetTransferMethod": method},
        });
        let found = scheme_of(&serde_json::from_value(offer).unwrap());
        assert_eq!(found.map(Scheme::word), expected, "{scheme} {method}");
    }

    #[test]
    fn offers_name_their_scheme() {
        check("exact", Value::Null, Some("exact"));
        check("exact", "eip3009".into(), Some("exact"));
        check("exact", "permit2".into(), Some("exact-permit2"));
        check("upto", Value::Null, Some("upto"));
        check("upto", "permit2".into(), Some("upto"));
        check("upto", "eip3009".into(), None);
        check("exact", "erc7710".into(), None);
        check("exact", 7.into(), None);
        check("other", Value::Null, None);
    }
}
