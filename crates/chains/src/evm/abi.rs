//! The few calls and events of an EIP-3009 token, encoded by hand: all their arguments are words.

use alloy_primitives::{Address, B256, Bytes, U256, b256};

use super::check::ExactPayment;
use crate::rpc::Log;

/// `transferWithAuthorization(address,address,uint256,uint256,uint256,bytes32,uint8,bytes32,bytes32)`
const TRANSFER_WITH_AUTHORIZATION: [u8; 4] = [0xe3, 0xee, 0x16, 0x0e];
/// `authorizationState(address,bytes32)`
const AUTHORIZATION_STATE: [u8; 4] = [0xe9, 0x4a, 0x01, 0x02];
/// `balanceOf(address)`
const BALANCE_OF: [u8; 4] = [0x70, 0xa0, 0x82, 0x31];
/// `name()`
pub(crate) const NAME: [u8; 4] = [0x06, 0xfd, 0xde, 0x03];
/// `version()`
pub(crate) const VERSION: [u8; 4] = [0x54, 0xfd, 0x4d, 0x50];
/// `DOMAIN_SEPARATOR()`
pub(crate) const DOMAIN_SEPARATOR: [u8; 4] = [0x36, 0x44, 0xe5, 0x15];
/// `Error(string)`: how Solidity says why it reverts.
const ERROR: [u8; 4] = [0x08, 0xc3, 0x79, 0xa0];

/// `Transfer(address,address,uint256)`
const TRANSFER: B256 = b256!("0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef");
/// `AuthorizationUsed(address,bytes32)`
pub(crate) const AUTHORIZATION_USED: B256 =
    b256!("0x98de503528ee59b575ef0c0a2576a82497bfc029a5685b209e9ec333479b10a5");

/// The call that moves the money.
pub(crate) fn transfer_with_authorization(payment: &ExactPayment) -> Bytes {
    let (it, signature) = (&payment.authorization, &payment.signature);
    encode(
        TRANSFER_WITH_AUTHORIZATION,
        &[
            it.from.into_word(),
            it.to.into_word(),
            B256::from(U256::from(it.value.units())),
            B256::from(it.valid_after),
            B256::from(it.valid_before),
            it.nonce,
            B256::from(U256::from(signature.v())),
            signature.r(),
            signature.s(),
        ],
    )
}

/// Whether a nonce was used or cancelled.
pub(crate) fn authorization_state(authorizer: Address, nonce: B256) -> Bytes {
    encode(AUTHORIZATION_STATE, &[authorizer.into_word(), nonce])
}

/// What an account holds.
pub(crate) fn balance_of(account: Address) -> Bytes {
    encode(BALANCE_OF, &[account.into_word()])
}

/// A call without arguments.
pub(crate) fn bare(selector: [u8; 4]) -> Bytes {
    Bytes::copy_from_slice(&selector)
}

fn encode(selector: [u8; 4], words: &[B256]) -> Bytes {
    let mut bytes = Vec::with_capacity(words.len().saturating_mul(32).saturating_add(4));
    bytes.extend_from_slice(&selector);
    for word in words {
        bytes.extend_from_slice(word.as_slice());
    }
    bytes.into()
}

/// The text behind words of `(offset, length, bytes…)`.
pub(crate) fn string(words: &[B256]) -> Option<String> {
    let (offset, rest) = words.split_first()?;
    let (length, bytes) = rest.split_first()?;
    let length = usize::try_from(U256::from_be_bytes(length.0)).ok()?;
    if U256::from_be_bytes(offset.0) != U256::from(32) {
        return None;
    }
    let bytes: Vec<u8> = bytes.iter().flat_map(|it| it.0).collect();
    String::from_utf8(bytes.get(..length)?.to_vec()).ok()
}

/// What a revert says, where it says it as Solidity's `require` does.
pub(crate) fn revert_text(data: &[u8]) -> Option<String> {
    let body = data.strip_prefix(&ERROR)?;
    let words: Vec<B256> = body.chunks_exact(32).map(B256::from_slice).collect();
    string(&words)
}

/// What the events of one transaction prove of a payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    /// The money moved as signed.
    Paid,
    /// It did not.
    Unpaid,
    /// The token does not emit its events as EIP-3009 tokens do: no verdict either way.
    Unclear,
}

/// Reads the events of one transaction. A status flag alone proves nothing: some tokens do not
/// revert on a used nonce.
///
/// EIP-3009 tokens emit `AuthorizationUsed` and `Transfer` back to back. Nothing may stand between
/// the payment's two, so that one `Transfer` proves one payment, whatever else a payer's contract
/// does with other nonces in the same transaction (attack A7) or during a token's callbacks.
pub(crate) fn proof_of(logs: &[Log], payment: &ExactPayment) -> Proof {
    let it = &payment.authorization;
    let token = payment.token.address().alloy();
    let value = B256::from(U256::from(it.value.units()));
    let by_token = || logs.iter().filter(|log| log.address == token && !log.removed);
    let is_use = |log: &&Log| log.topics == [AUTHORIZATION_USED, it.from.into_word(), it.nonce];
    let is_transfer = |log: &Log| log.topics.first() == Some(&TRANSFER);
    let moves_it = |log: &Log| {
        log.topics == [TRANSFER, it.from.into_word(), it.to.into_word()]
            && *log.data == *value.as_slice()
    };
    let mut unclear = false;
    for used in by_token().filter(is_use) {
        let next = used.index.checked_add(U256::from(1));
        match by_token().find(|log| Some(log.index) == next) {
            Some(next) if moves_it(next) => return Proof::Paid,
            // The use of the nonce moved something else.
            Some(next) if is_transfer(next) => {}
            Some(_) | None => unclear |= by_token().any(moves_it),
        }
    }
    if unclear { Proof::Unclear } else { Proof::Unpaid }
}

#[cfg(test)]
mod tests {
    use alloy_primitives::keccak256;

    use super::*;

    #[track_caller]
    fn check(signature: &str, selector: [u8; 4]) {
        assert_eq!(keccak256(signature).split_at(4).0, selector, "{signature}");
    }

    #[test]
    fn selectors_and_topics() {
        check(
            "transferWithAuthorization(address,address,uint256,uint256,uint256,bytes32,uint8,bytes32,bytes32)",
            TRANSFER_WITH_AUTHORIZATION,
        );
        check("authorizationState(address,bytes32)", AUTHORIZATION_STATE);
        check("balanceOf(address)", BALANCE_OF);
        check("name()", NAME);
        check("version()", VERSION);
        check("DOMAIN_SEPARATOR()", DOMAIN_SEPARATOR);
        check("Error(string)", ERROR);
        assert_eq!(keccak256("Transfer(address,address,uint256)"), TRANSFER);
        assert_eq!(keccak256("AuthorizationUsed(address,bytes32)"), AUTHORIZATION_USED);
    }

    #[test]
    fn a20_only_the_token_s_own_events_prove_a_payment() {
        let payment = crate::evm::check::tests::payment();
        let it = &payment.authorization;
        let log = |topics: Vec<B256>, data: &[u8]| Log {
            address: payment.token.address().alloy(),
            topics,
            data: Bytes::copy_from_slice(data),
            transaction_hash: B256::ZERO,
            index: U256::ZERO,
            removed: false,
        };
        let in_order = |logs: &[&Log]| -> Vec<Log> {
            let numbered = (7_u64..).zip(logs);
            numbered.map(|(at, log)| Log { index: U256::from(at), ..(*log).clone() }).collect()
        };
        let value = |units: u64| B256::from(U256::from(units));
        let (from, to) = (it.from.into_word(), it.to.into_word());
        let moved = log(vec![TRANSFER, from, to], value(1000).as_slice());
        let used = log(vec![AUTHORIZATION_USED, from, it.nonce], &[]);
        let other = log(vec![AUTHORIZATION_USED, from, value(1)], &[]);
        let nothing = log(vec![TRANSFER, from, from], value(0).as_slice());
        let foreign = |log: &Log| Log { address: Address::repeat_byte(9), ..log.clone() };
        let removed = |log: &Log| Log { removed: true, ..log.clone() };
        for (logs, expected) in [
            (vec![&used, &moved], Proof::Paid),
            (vec![&other, &moved, &used, &moved, &other], Proof::Paid),
            (vec![], Proof::Unpaid),
            (vec![&moved], Proof::Unpaid),
            (vec![&used], Proof::Unpaid),
            (vec![&used, &foreign(&moved)], Proof::Unpaid),
            (vec![&foreign(&used), &moved], Proof::Unpaid),
            (vec![&used, &removed(&moved)], Proof::Unpaid),
            (vec![&used, &log(vec![TRANSFER, from, to], value(999).as_slice())], Proof::Unpaid),
            (vec![&used, &log(vec![TRANSFER, to, from], value(1000).as_slice())], Proof::Unpaid),
            (vec![&used, &log(vec![TRANSFER, from, to], &[0; 31])], Proof::Unpaid),
            (vec![&other, &moved], Proof::Unpaid),
            (vec![&log(vec![AUTHORIZATION_USED, to, it.nonce], &[]), &moved], Proof::Unpaid),
            // The transfer belongs to another authorisation.
            (vec![&other, &moved, &used, &nothing], Proof::Unpaid),
            (vec![&used, &nothing, &other, &moved], Proof::Unpaid),
            // No EIP-3009 token that we know does so; money may have moved.
            (vec![&moved, &used], Proof::Unclear),
            (vec![&used, &other, &moved], Proof::Unclear),
            (vec![&used, &foreign(&other), &moved], Proof::Unclear),
        ] {
            let logs = in_order(&logs);
            assert_eq!(proof_of(&logs, &payment), expected, "{logs:?}");
        }
        let last = Log { index: U256::MAX, ..used };
        assert_eq!(proof_of(&[last, moved], &payment), Proof::Unclear);
    }

    #[test]
    fn a07_one_transfer_proves_one_payment() {
        let first = crate::evm::check::tests::payment();
        let mut second = first.clone();
        second.authorization.nonce = B256::repeat_byte(2);
        let it = &first.authorization;
        let (from, to) = (it.from.into_word(), it.to.into_word());
        let value = B256::from(U256::from(it.value.units()));
        let events = [
            (vec![AUTHORIZATION_USED, from, it.nonce], B256::ZERO),
            (vec![TRANSFER, from, to], value),
            (vec![AUTHORIZATION_USED, from, second.authorization.nonce], B256::ZERO),
            (vec![TRANSFER, from, from], B256::ZERO),
        ];
        let logs: Vec<Log> = (0_u64..)
            .zip(events)
            .map(|(at, (topics, data))| Log {
                address: first.token.address().alloy(),
                topics,
                data: Bytes::copy_from_slice(data.as_slice()),
                transaction_hash: B256::ZERO,
                index: U256::from(at),
                removed: false,
            })
            .collect();
        assert_eq!(proof_of(&logs, &first), Proof::Paid);
        assert_eq!(proof_of(&logs, &second), Proof::Unpaid);
    }

    #[test]
    fn reverts_are_read_within_their_bounds() {
        let word = |number: u64| B256::from(U256::from(number));
        let mut text = [0; 32];
        text[..4].copy_from_slice(b"used");
        let good = [word(32), word(4), text.into()];
        assert_eq!(string(&good).as_deref(), Some("used"));
        let mut data = ERROR.to_vec();
        data.extend(good.iter().flat_map(|it| it.0));
        assert_eq!(revert_text(&data).as_deref(), Some("used"));
        assert_eq!(string(&[word(32), word(33), text.into()]), None);
        assert_eq!(string(&[word(64), word(4), text.into()]), None);
        assert_eq!(string(&[word(32), B256::repeat_byte(0xff), text.into()]), None);
        assert_eq!(revert_text(&[]), None);
    }
}
