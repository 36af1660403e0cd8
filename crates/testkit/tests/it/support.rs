//! One script of calls, run on both chains: each step must end as the script says, and on both chains
//! with the same answer, the same error to the byte, and the same events.

use std::time::Duration;

use alloy_primitives::{Address, B256, Bytes, Signature, U256};
use alloy_sol_types::{Eip712Domain, SolCall, SolError, SolStruct, SolValue, eip712_domain, sol};
use farebox_devnet::{DEV_ACCOUNTS, PERMIT2_ADDRESS};
use farebox_protocol::Amount;
use farebox_testkit::anvil::Blocks;
use farebox_testkit::evm::{EvmChain, EvmKind};
use farebox_testkit::rpc::{CHAIN_ID, RpcError, TOKEN};
use secp256k1::{Message, SECP256K1, SecretKey, ecdsa::RecoveryId};
use serde::Deserialize;
use serde_json::{Value, json};

/// When the first step happens; each later one a second after the one before. Far from now, so that
/// no chain is there already.
pub(crate) const START: u64 = 4_000_000_000;

/// A deadline that no script reaches.
pub(crate) const FAR: u64 = START + 1_000_000;

/// Who is paid.
pub(crate) const TO: Address = Address::repeat_byte(0x77);

/// Gas of a step: enough for every honest one.
const GAS: u64 = 2_000_000;

sol! {
    #[derive(Debug)]
    interface Erc20 {
        function approve(address spender, uint256 value) external returns (bool);
        function balanceOf(address account) external view returns (uint256);
        function allowance(address owner, address spender) external view returns (uint256);
        function name() external view returns (string);
        function transfer(address to, uint256 value) external returns (bool);
    }

    /// What Solidity's `require` and `revert` with a text answer.
    error Error(string reason);
}

/// A dev account: it has ether and token units, and its key is known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key(usize);

/// The accounts of the scripts.
pub(crate) const PAYER: Key = Key(1);
pub(crate) const SPENDER: Key = Key(2);
pub(crate) const STRANGER: Key = Key(3);

impl Key {
    pub(crate) fn address(self) -> Address {
        DEV_ACCOUNTS[self.0].address
    }

    pub(crate) fn sign(self, digest: B256) -> Signature {
        let secret = SecretKey::from_byte_array(DEV_ACCOUNTS[self.0].private_key.0).unwrap();
        let recoverable = SECP256K1.sign_ecdsa_recoverable(Message::from_digest(digest.0), &secret);
        let (id, rs) = recoverable.serialize_compact();
        Signature::from_bytes_and_parity(&rs, id == RecoveryId::One)
    }

    /// EIP-712 in the domain of Permit2, 65 bytes.
    pub(crate) fn sign_permit2(self, message: &impl SolStruct) -> Bytes {
        bytes(self.sign(message.eip712_signing_hash(&permit2_domain())))
    }
}

/// The 65-byte form.
pub(crate) fn bytes(signature: Signature) -> Bytes {
    signature.as_bytes().into()
}

/// The domain of Permit2 (its documentation: a name, no version).
pub(crate) fn permit2_domain() -> Eip712Domain {
    eip712_domain! {
        name: "Permit2",
        chain_id: CHAIN_ID,
        verifying_contract: PERMIT2_ADDRESS,
    }
}

/// How a step ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It succeeds.
    Done,
    /// It succeeds and answers this.
    Answers(Bytes),
    /// It is reverted with this.
    Reverts(Bytes),
}

/// Succeeds with the ABI encoding of a value.
pub(crate) fn answers(value: &impl SolValue) -> End {
    End::Answers(value.abi_encode().into())
}

/// Reverts with a custom error.
pub(crate) fn error(error: &impl SolError) -> End {
    End::Reverts(error.abi_encode().into())
}

/// Reverts with a text.
pub(crate) fn text(reason: &str) -> End {
    error(&Error { reason: reason.to_owned() })
}

/// Reverts without saying why.
pub(crate) fn silence() -> End {
    End::Reverts(Bytes::new())
}

/// One transaction of a script.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    label: String,
    from: Key,
    to: Address,
    value: U256,
    data: Bytes,
    end: End,
}

impl Step {
    pub(crate) fn new(
        label: impl Into<String>,
        from: Key,
        to: Address,
        data: Bytes,
        end: End,
    ) -> Self {
        Self { label: label.into(), from, to, value: U256::ZERO, data, end }
    }

    /// With wei.
    pub(crate) fn paying(self, wei: u64) -> Self {
        Self { value: U256::from(wei), ..self }
    }
}

/// A step that must succeed, of a typed call.
pub(crate) fn done(label: &str, from: Key, to: Address, call: &impl SolCall) -> Step {
    Step::new(label, from, to, call.abi_encode().into(), End::Done)
}

/// What really came of a step; equal on both chains.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    simulated: Result<Bytes, Bytes>,
    succeeded: bool,
    events: Vec<Event>,
    paid: U256,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
struct Event {
    address: Address,
    topics: Vec<B256>,
    data: Bytes,
}

/// Code that stands somewhere when a script starts.
pub(crate) type Code<'a> = (Address, &'a str);

/// Runs a script on each chain and compares. Every dev account starts with 1,000,000 token units, of
/// which Permit2 may take all.
pub(crate) async fn check(code: &[Code<'_>], script: &[Step]) {
    let mut first: Option<Vec<Outcome>> = None;
    for kind in EvmKind::ALL {
        let outcomes = play(kind, code, script).await;
        match &first {
            None => first = Some(outcomes),
            Some(first) => {
                for ((ours, theirs), step) in first.iter().zip(&outcomes).zip(script) {
                    assert_eq!(ours, theirs, "the chains disagree: {}", step.label);
                }
            }
        }
    }
}

async fn play(kind: EvmKind, code: &[Code<'_>], script: &[Step]) -> Vec<Outcome> {
    let stage = Stage::start(kind, code).await;
    let mut outcomes = Vec::new();
    for (time, step) in (START..).zip(script) {
        let outcome = stage.perform(step, time).await;
        let expected = match &step.end {
            End::Done => outcome.simulated.is_ok(),
            End::Answers(answer) => outcome.simulated.as_ref() == Ok(answer),
            End::Reverts(reason) => outcome.simulated.as_ref() == Err(reason),
        };
        let label = &step.label;
        assert!(expected, "{kind:?}, {label}: {:?} expected, got {outcome:?}", step.end);
        let reverts = matches!(step.end, End::Reverts(_));
        assert_eq!(outcome.succeeded, !reverts, "{kind:?}, {label}: {outcome:?}");
        outcomes.push(outcome);
    }
    outcomes
}

/// A chain with everything in place.
pub(crate) struct Stage {
    chain: EvmChain,
}

impl Stage {
    pub(crate) async fn start(kind: EvmKind, code: &[Code<'_>]) -> Self {
        let stage = Self { chain: EvmChain::start(kind, Blocks::Instant).await.unwrap() };
        for (address, code) in code {
            stage.rpc("anvil_setCode", json!([address, code])).await.unwrap();
        }
        for key in [PAYER, SPENDER, STRANGER] {
            let million = Amount::from_units(1_000_000);
            stage.chain.give_tokens(key.address(), million).await.unwrap();
            let approve = Erc20::approveCall { spender: PERMIT2_ADDRESS, value: U256::MAX };
            let receipt = stage.transact(&done("approve", key, TOKEN, &approve)).await;
            assert_eq!(receipt["status"], "0x1");
        }
        stage
    }

    pub(crate) async fn rpc(&self, method: &str, params: Value) -> Result<Value, RpcError> {
        self.chain.rpc().call(method, params).await
    }

    async fn perform(&self, step: &Step, time: u64) -> Outcome {
        let before = self.tokens_of_payee().await;
        let simulated = self.simulate(step).await;
        self.rpc("evm_setNextBlockTimestamp", json!([time])).await.unwrap();
        let receipt = self.transact(step).await;
        Outcome {
            simulated,
            succeeded: receipt["status"] == "0x1",
            events: serde_json::from_value(receipt["logs"].clone()).unwrap(),
            paid: self.tokens_of_payee().await.saturating_sub(before),
        }
    }

    /// The answer or the revert data of a step that is not sent.
    pub(crate) async fn simulate(&self, step: &Step) -> Result<Bytes, Bytes> {
        match self.rpc("eth_call", json!([request(step), "latest"])).await {
            Ok(answer) => Ok(serde_json::from_value(answer).unwrap()),
            Err(RpcError::Answer { answer, .. }) => {
                let data = answer["error"]["data"].clone();
                assert_eq!(answer["error"]["code"], 3, "{answer}");
                Err(if data.is_null() {
                    Bytes::new()
                } else {
                    serde_json::from_value(data).unwrap()
                })
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// Sends a step; its receipt.
    pub(crate) async fn transact(&self, step: &Step) -> Value {
        let hash = self.rpc("eth_sendTransaction", json!([request(step)])).await.unwrap();
        let receipt = async {
            loop {
                let receipt = self.rpc("eth_getTransactionReceipt", json!([hash])).await.unwrap();
                if !receipt.is_null() {
                    return receipt;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), receipt).await.expect("not mined")
    }

    async fn tokens_of_payee(&self) -> U256 {
        U256::from(self.chain.tokens_of(TO).await.unwrap().units())
    }
}

fn request(step: &Step) -> Value {
    json!({
        "from": step.from.address(), "to": step.to, "data": step.data, "value": step.value,
        "gas": U256::from(GAS),
    })
}
