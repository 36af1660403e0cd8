//! Calls and answers of contracts, encoded by hand: nearly all their members are words.

use alloy_primitives::{Address, B256, Bytes, U256, b256};

use super::method::ContractCall;
use crate::rpc::Log;

/// `balanceOf(address)`
const BALANCE_OF: [u8; 4] = [0x70, 0xa0, 0x82, 0x31];
/// `allowance(address,address)`
const ALLOWANCE: [u8; 4] = [0xdd, 0x62, 0xed, 0x3e];
/// `name()`
pub(crate) const NAME: [u8; 4] = [0x06, 0xfd, 0xde, 0x03];
/// `version()`
pub(crate) const VERSION: [u8; 4] = [0x54, 0xfd, 0x4d, 0x50];
/// `DOMAIN_SEPARATOR()`
pub(crate) const DOMAIN_SEPARATOR: [u8; 4] = [0x36, 0x44, 0xe5, 0x15];
/// `Error(string)`: how Solidity says why it reverts.
const ERROR: [u8; 4] = [0x08, 0xc3, 0x79, 0xa0];

/// `Transfer(address,address,uint256)`
pub(crate) const TRANSFER: B256 =
    b256!("0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef");

/// What an account holds of a token.
pub(crate) fn balance_of(token: Address, account: Address) -> ContractCall {
    ContractCall { to: token, input: encode(BALANCE_OF, &[account.into_word()]) }
}

/// What an account lets another spend of a token.
pub(crate) fn allowance(token: Address, owner: Address, spender: Address) -> ContractCall {
    let input = encode(ALLOWANCE, &[owner.into_word(), spender.into_word()]);
    ContractCall { to: token, input }
}

/// A call without arguments.
pub(crate) fn bare(selector: [u8; 4]) -> Bytes {
    Bytes::copy_from_slice(&selector)
}

/// A call whose arguments are all words.
pub(crate) fn encode(selector: [u8; 4], words: &[B256]) -> Bytes {
    let mut bytes = Vec::with_capacity(words.len().saturating_mul(32).saturating_add(4));
    bytes.extend_from_slice(&selector);
    for word in words {
        bytes.extend_from_slice(word.as_slice());
    }
    bytes.into()
}

/// A call whose last argument is bytes, after words.
pub(crate) fn encode_with_bytes(selector: [u8; 4], words: &[B256], last: &[u8]) -> Bytes {
    let length = |it: usize| B256::from(U256::from(it));
    let offset = words.len().saturating_add(1).saturating_mul(32);
    let mut bytes: Vec<u8> = encode(selector, words).into();
    bytes.extend_from_slice(length(offset).as_slice());
    bytes.extend_from_slice(length(last.len()).as_slice());
    bytes.extend_from_slice(last);
    let rest = last.len().wrapping_neg() & 31;
    bytes.resize(bytes.len().saturating_add(rest), 0);
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

/// Whether this event is the transfer of so much of the token.
pub(crate) fn is_transfer(log: &Log, token: Address, parties: [Address; 2], value: U256) -> bool {
    let [from, to] = parties;
    log.address == token
        && log.topics == [TRANSFER, from.into_word(), to.into_word()]
        && *log.data == *B256::from(value).as_slice()
}

#[cfg(test)]
pub(crate) mod tests {
    use alloy_primitives::keccak256;

    use super::*;

    #[track_caller]
    pub(crate) fn check_selector(signature: &str, selector: [u8; 4]) {
        assert_eq!(keccak256(signature).split_at(4).0, selector, "{signature}");
    }

    #[test]
    fn selectors_and_topics() {
        check_selector("balanceOf(address)", BALANCE_OF);
        check_selector("allowance(address,address)", ALLOWANCE);
        check_selector("name()", NAME);
        check_selector("version()", VERSION);
        check_selector("DOMAIN_SEPARATOR()", DOMAIN_SEPARATOR);
        check_selector("Error(string)", ERROR);
        assert_eq!(keccak256("Transfer(address,address,uint256)"), TRANSFER);
    }

    #[test]
    fn bytes_are_filled_up_to_words() {
        let encoded = |last: &[u8]| hex::encode(encode_with_bytes([1, 2, 3, 4], &[], last));
        let word = |number: u64| format!("{number:064x}");
        assert_eq!(encoded(&[]), format!("01020304{}{}", word(32), word(0)));
        let one = format!("01020304{}{}ff{}", word(32), word(1), "0".repeat(62));
        assert_eq!(encoded(&[0xff]), one);
        let whole = format!("01020304{}{}{}", word(32), word(32), "ff".repeat(32));
        assert_eq!(encoded(&[0xff; 32]), whole);
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
