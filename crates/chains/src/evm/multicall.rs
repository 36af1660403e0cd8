//! Several calls in one transaction, each of which may fail alone: Multicall3's `aggregate3`.
//!
//! Source: the public interface of Multicall3 and the list of its deployments.

use alloy_primitives::{Address, B256, U256};
use serde_json::Value;

use super::abi;
use super::contracts::MULTICALL3;
use super::method::ContractCall;
use crate::rpc::{RpcError, garbage, words};

/// `aggregate3((address,bool,bytes)[])`
const AGGREGATE3: [u8; 4] = [0x82, 0xad, 0x56, 0xcb];
/// No transaction has more calls; a list that says so is none.
const CALLS_MAX: usize = 10_000;

/// These calls in their order; one that fails changes nothing for the others.
pub(crate) fn aggregate(calls: &[ContractCall]) -> ContractCall {
    let number = |it: usize| B256::from(U256::from(it));
    let mut offsets = Vec::with_capacity(calls.len());
    let mut bodies: Vec<u8> = Vec::new();
    for call in calls {
        offsets.push(number(calls.len().saturating_mul(32).saturating_add(bodies.len())));
        let head = [call.to.into_word(), number(1)];
        // All but the selector, which there is none of.
        let body = abi::encode_with_bytes([0; 4], &head, &call.input);
        bodies.extend_from_slice(body.get(4..).unwrap_or_default());
    }
    let words = [vec![number(32), number(calls.len())], offsets].concat();
    let head = abi::encode(AGGREGATE3, &words);
    ContractCall { to: MULTICALL3, input: [head.as_ref(), &bodies].concat().into() }
}

/// The calls that a call of `aggregate3` makes; `None` if it is none.
pub(crate) fn read_aggregate(call: &ContractCall) -> Option<Vec<ContractCall>> {
    let arguments = call.input.strip_prefix(&AGGREGATE3).filter(|_| call.to == MULTICALL3)?;
    let list = arguments.get(index(arguments, 0)?..)?;
    let (count, bodies) = (index(list, 0)?, list.get(32..)?);
    if CALLS_MAX < count {
        return None;
    }
    let one = |place: usize| {
        let body = bodies.get(index(bodies, place.checked_mul(32)?)?..)?;
        let to = word(body, 0)?;
        let to = Some(Address::from_word(to)).filter(|it| it.into_word() == to)?;
        let bytes = body.get(index(body, 64)?..)?;
        let input = bytes.get(32..)?.get(..index(bytes, 0)?)?;
        Some(ContractCall { to, input: input.to_vec().into() })
    };
    (0..count).map(one).collect()
}

/// Which of so many calls ran, as `eth_call` of `aggregate3` returns it.
pub(crate) fn read_results(answer: &Value, count: usize) -> Result<Vec<bool>, RpcError> {
    let words = words(answer)?;
    let bytes: Vec<u8> = words.iter().flat_map(|it| it.0).collect();
    let read = || {
        let list = bytes.get(index(&bytes, 0)?..)?;
        let (found, bodies) = (index(list, 0)?, list.get(32..)?);
        let one = |place: usize| {
            let success = word(bodies, index(bodies, place.checked_mul(32)?)?)?;
            Some(!success.is_zero())
        };
        if found == count { (0..count).map(one).collect() } else { None }
    };
    read().ok_or_else(|| garbage("something that Multicall3 does not return"))
}

fn word(bytes: &[u8], start: usize) -> Option<B256> {
    bytes.get(start..)?.first_chunk::<32>().map(B256::from)
}

/// A word that is a length or an offset.
fn index(bytes: &[u8], start: usize) -> Option<usize> {
    usize::try_from(U256::from_be_bytes(word(bytes, start)?.0)).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::evm::abi::tests::check_selector;

    fn calls() -> Vec<ContractCall> {
        let call = |byte: u8, length| ContractCall {
            to: Address::repeat_byte(byte),
            input: vec![byte; length].into(),
        };
        vec![call(1, 0), call(2, 4), call(3, 32), call(4, 100)]
    }

    #[test]
    fn what_is_put_together_can_be_taken_apart() {
        check_selector("aggregate3((address,bool,bytes)[])", AGGREGATE3);
        for count in 0..=4 {
            let some = &calls()[..count];
            assert_eq!(read_aggregate(&aggregate(some)).as_deref(), Some(some));
        }
        let aggregate = aggregate(&calls());
        let elsewhere = ContractCall { to: Address::ZERO, ..aggregate.clone() };
        assert_eq!(read_aggregate(&elsewhere), None);
    }

    #[test]
    fn one_call_word_by_word() {
        let input = aggregate(&calls()[1..2]).input;
        let word = |number: u64| format!("{number:064x}");
        let address = format!("{}{}", "0".repeat(24), "02".repeat(20));
        let data = format!("02020202{}", "0".repeat(56));
        let heads = [word(32), word(1), word(32), address, word(1), word(96), word(4), data];
        assert_eq!(hex::encode(input), format!("82ad56cb{}", heads.concat()));
    }

    #[test]
    fn lists_that_lead_out_of_their_bytes_are_none() {
        let good = aggregate(&calls()).input;
        // The last 28 bytes only fill up a word.
        for cut in 0..good.len() - 28 {
            let short = good[..cut].to_vec().into();
            assert_eq!(read_aggregate(&ContractCall { to: MULTICALL3, input: short }), None);
        }
        for place in (4..good.len()).step_by(32) {
            let mut bad = good.to_vec();
            bad[place] = 0xff;
            // None panics; what is not read as a number may be anything.
            drop(read_aggregate(&ContractCall { to: MULTICALL3, input: bad.into() }));
        }
    }

    #[test]
    fn results_are_read_in_their_order() {
        let word = |number: u64| format!("{number:064x}");
        let result = |success| [word(success), word(64), word(0)].concat();
        let heads = [word(32), word(2), word(64), word(64 + 96)].concat();
        let answer = json!(format!("0x{heads}{}{}", result(1), result(0)));
        assert_eq!(read_results(&answer, 2).unwrap(), [true, false]);
        assert!(read_results(&answer, 3).is_err());
        assert!(read_results(&json!("0x"), 0).is_err());
    }
}
