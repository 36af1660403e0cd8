//! What a wallet would say, and what a payment would do, once the wallet was deployed: both calls in
//! one `eth_call` that changes nothing.
//!
//! The node is asked to run a small program in the place of the account that will settle (a state
//! override, the third parameter of `eth_call`), so that the contracts see their real caller. What comes
//! back is of one size, whatever was answered within.

use alloy_primitives::{Address, B256, Bytes, U256, bytes};
use serde_json::json;

use super::abi;
use super::method::ContractCall;
use super::signed_by::Deployment;
use crate::rpc::{Call, RpcError, garbage, words};

/// The most gas that deploying a wallet may take; those of known factories take about 300 000.
pub(crate) const DEPLOYMENT_GAS_MAX: u64 = 2_000_000;
/// What the program takes itself, with the largest signature as its data.
const PROGRAM_GAS: u64 = 400_000;

/// Its data: gas, address and input length of either call, then both inputs. It copies the first input to
/// memory, calls, keeps the success; the same again, and keeps the success, the size of the answer and
/// the first 256 bytes of it.
const PROGRAM: Bytes = bytes!(
    // calldatacopy(0x200, 0xc0, len1)
    "60403560c061020037"
    // mstore(0, call(gas1, to1, 0, 0x200, len1, 0, 0))
    "600060006040356102006000602035600035f1600052"
    // calldatacopy(0x200, 0xc0 + len1, len2)
    "60a03560403560c00161020037"
    // mstore(0x20, call(gas2, to2, 0, 0x200, len2, 0x60, 0x100))
    "610100606060a0356102006000608035606035f1602052"
    // mstore(0x40, returndatasize())
    "3d604052"
    // return(0, 0x160)
    "6101606000f3"
);

/// How a call ended that followed a deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rehearsed {
    /// Whether the factory's call did not revert.
    pub(crate) deployed: bool,
    /// Whether the call itself did not.
    pub(crate) ran: bool,
    /// What it answered: all of it, or the first 256 bytes.
    pub(crate) answer: Vec<u8>,
    /// How much that was.
    pub(crate) size: U256,
}

/// The question what `call` by `sender` would do on so much gas, after the deployment.
pub(crate) fn rehearse(
    deployment: &Deployment,
    call: &ContractCall,
    gas: u64,
    sender: Address,
) -> Call {
    let length = |it: &Bytes| B256::from(U256::from(it.len()));
    let head = [
        B256::from(U256::from(DEPLOYMENT_GAS_MAX)),
        deployment.factory.into_word(),
        length(&deployment.input),
        B256::from(U256::from(gas)),
        call.to.into_word(),
        length(&call.input),
    ];
    let head: Vec<u8> = head.iter().flat_map(|it| it.0).collect();
    let data = Bytes::from([head.as_slice(), &deployment.input, &call.input].concat());
    let all = DEPLOYMENT_GAS_MAX.saturating_add(gas).saturating_add(PROGRAM_GAS);
    let request = json!({"to": sender, "data": data, "gas": format!("{all:#x}")});
    let place = json!({sender.to_string(): {"code": PROGRAM}});
    Call::new("eth_call", json!([request, "latest", place]))
}

impl Rehearsed {
    /// Reads what the program returned.
    pub(crate) fn read(answer: &serde_json::Value) -> Result<Self, RpcError> {
        let words = words(answer)?;
        let [deployed, ran, size, answer @ ..] = words.as_slice() else {
            return Err(garbage("something that no state override made"));
        };
        if answer.len() != 8 {
            return Err(garbage("something that no state override made"));
        }
        let size = U256::from_be_bytes(size.0);
        let answer: Vec<u8> = answer.iter().flat_map(|it| it.0).collect();
        let kept = usize::try_from(size).unwrap_or(usize::MAX).min(answer.len());
        Ok(Self {
            deployed: !deployed.is_zero(),
            ran: !ran.is_zero(),
            answer: answer.into_iter().take(kept).collect(),
            size,
        })
    }

    /// The contract's words, where it reverted with some.
    pub(crate) fn why(&self) -> String {
        let named = || super::permit2::revert_name(&self.answer).map(str::to_owned);
        let text = abi::revert_text(&self.answer).or_else(named);
        text.unwrap_or_else(|| "it says nothing that can be read".to_owned())
    }
}
