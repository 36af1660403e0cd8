//! Permit2 and the proxies of x402: payloads that official clients really signed settle here.

use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use alloy_rpc_types_eth::TransactionReceipt;
use alloy_sol_types::{SolCall, SolError, SolEvent, SolValue, eip712_domain, sol};
use farebox_devnet::{
    DevnetConfig, EXACT_PERMIT2_PROXY_ADDRESS, PERMIT2_ADDRESS, TOKEN_CODE_ADDRESS,
    UPTO_PERMIT2_PROXY_ADDRESS,
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::support::{Key, Net, Refusal, Usdc};

/// Storage slots of the balances and of the allowances of USDC and of our token.
const BALANCES_SLOT: u64 = 9;
const ALLOWANCES_SLOT: u64 = 10;

sol! {
    #[derive(Debug)]
    struct TokenPermissions { address token; uint256 amount; }
    #[derive(Debug)]
    struct PermitTransferFrom { TokenPermissions permitted; uint256 nonce; uint256 deadline; }
    #[derive(Debug)]
    struct EIP2612Permit { uint256 value; uint256 deadline; bytes32 r; bytes32 s; uint8 v; }

    #[derive(Debug)]
    interface Exact {
        struct Witness { address to; uint256 validAfter; }
        function settle(PermitTransferFrom permit, address owner, Witness witness,
            bytes signature) external;
        function settleWithPermit(EIP2612Permit permit2612, PermitTransferFrom permit,
            address owner, Witness witness, bytes signature) external;
    }

    #[derive(Debug)]
    interface Upto {
        struct Witness { address to; address facilitator; uint256 validAfter; }
        function settle(PermitTransferFrom permit, uint256 amount, address owner, Witness witness,
            bytes signature) external;
        function settleWithPermit(EIP2612Permit permit2612, PermitTransferFrom permit,
            uint256 amount, address owner, Witness witness, bytes signature) external;
    }

    #[derive(Debug)]
    interface Proxy {
        event Settled();
        event SettledWithPermit();
        event EIP2612PermitFailedWithReason(address indexed token, address indexed owner,
            string reason);
        function PERMIT2() external view returns (address);
        function WITNESS_TYPEHASH() external view returns (bytes32);
        function WITNESS_TYPE_STRING() external view returns (string);
    }

    #[derive(Debug)]
    interface Permit2 {
        function DOMAIN_SEPARATOR() external view returns (bytes32);
        function nonceBitmap(address owner, uint256 word) external view returns (uint256);
        error InvalidNonce();
        error InvalidSigner();
    }
}

/// One row of `tests/vectors/permit2.json`: signed by an official client.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Recorded {
    recording: String,
    from: Address,
    token: Address,
    amount: U256,
    spender: Address,
    nonce: U256,
    deadline: U256,
    to: Address,
    /// Of `upto` alone.
    facilitator: Option<Address>,
    valid_after: U256,
    signature: Bytes,
    /// What the extension `eip2612GasSponsoring` carried.
    approval: Option<Approval>,
    /// What the extension `erc20ApprovalGasSponsoring` carried.
    approval_transaction: Option<Bytes>,
}

#[derive(Clone, Debug, Deserialize)]
struct Approval {
    value: U256,
    deadline: U256,
    signature: Bytes,
}

fn recorded() -> Vec<Recorded> {
    serde_json::from_str(include_str!("../vectors/permit2.json")).unwrap()
}

impl Recorded {
    /// The call of a proxy that settles it; `upto` for `charged` units.
    fn settle(&self, charged: U256) -> Bytes {
        let permit = PermitTransferFrom {
            permitted: TokenPermissions { token: self.token, amount: self.amount },
            nonce: self.nonce,
            deadline: self.deadline,
        };
        let approval = self.approval.as_ref().map(|approval| EIP2612Permit {
            value: approval.value,
            deadline: approval.deadline,
            r: B256::from_slice(&approval.signature[..32]),
            s: B256::from_slice(&approval.signature[32..64]),
            v: approval.signature[64],
        });
        let (owner, amount, signature) = (self.from, charged, self.signature.clone());
        let to_exactly = Exact::Witness { to: self.to, validAfter: self.valid_after };
        let to_up_to =
            |facilitator| Upto::Witness { to: self.to, facilitator, validAfter: self.valid_after };
        let data = match (self.facilitator.map(to_up_to), approval) {
            (None, None) => {
                let witness = to_exactly;
                Exact::settleCall { permit, owner, witness, signature }.abi_encode()
            }
            (None, Some(permit2612)) => {
                let witness = to_exactly;
                Exact::settleWithPermitCall { permit2612, permit, owner, witness, signature }
                    .abi_encode()
            }
            (Some(witness), None) => {
                Upto::settleCall { permit, amount, owner, witness, signature }.abi_encode()
            }
            (Some(witness), Some(permit2612)) => {
                Upto::settleWithPermitCall { permit2612, permit, amount, owner, witness, signature }
                    .abi_encode()
            }
        };
        data.into()
    }

    /// A chain shortly before the deadline, with the token where the client saw it and the payer
    /// holding what was signed for.
    async fn chain(&self) -> Net {
        let start = self.deadline.saturating_sub(U256::from(100)).to();
        let net = Net::start(DevnetConfig { start_time: Some(start), ..Default::default() }).await;
        let code: Bytes = net.ok("eth_getCode", json!([TOKEN_CODE_ADDRESS, "latest"])).await;
        net.ok::<Value>("anvil_setCode", json!([self.token, code])).await;
        let balance = keccak256((self.from, U256::from(BALANCES_SLOT)).abi_encode());
        self.store(&net, balance, self.amount).await;
        net
    }

    /// Lets Permit2 take the payer's tokens: by the transaction that the client signed if it did.
    async fn approve(&self, net: &Net) {
        if let Some(transaction) = &self.approval_transaction {
            let ether = U256::from(10).pow(U256::from(18));
            net.ok::<Value>("anvil_setBalance", json!([self.from, ether])).await;
            let hash = net.send_raw(transaction.clone()).await.unwrap();
            assert!(net.receipt(hash).await.status());
        } else {
            let of_owner = keccak256((self.from, U256::from(ALLOWANCES_SLOT)).abi_encode());
            let slot = keccak256((PERMIT2_ADDRESS, of_owner).abi_encode());
            self.store(net, slot, self.amount).await;
        }
    }

    async fn store(&self, net: &Net, slot: B256, value: U256) {
        let params = json!([self.token, slot, B256::from(value)]);
        net.ok::<Value>("anvil_setStorageAt", params).await;
    }

    async fn held_by(&self, net: &Net, account: Address) -> U256 {
        net.call_at(Key::dev(0), self.token, Usdc::balanceOfCall { account }).await.unwrap()
    }
}

/// The events of a receipt as `(address, first topic)`.
fn events(receipt: &TransactionReceipt) -> Vec<(Address, B256)> {
    receipt.inner.logs().iter().map(|log| (log.address(), log.topics()[0])).collect()
}

/// The four bytes that name the error of a refused call.
fn selector(refusal: Refusal) -> Vec<u8> {
    let data = refusal.data.as_ref().and_then(Value::as_str).expect("no error data");
    data.parse::<Bytes>().unwrap()[..4].to_vec()
}

#[tokio::test]
async fn every_recorded_payload_settles_once() {
    // Dev account 1 is the facilitator that the recorded clients named.
    let facilitator = Key::dev(1);
    for row in recorded() {
        let net = row.chain().await;
        let charged = if row.facilitator.is_some() { U256::from(2_345) } else { row.amount };
        let settle = row.settle(charged);
        let refused = net.send(facilitator, row.spender, settle.clone()).await;
        assert!(!refused.status(), "{}: settled without an allowance", row.recording);

        row.approve(&net).await;
        let before = row.held_by(&net, row.to).await;
        let receipt = net.send(facilitator, row.spender, settle.clone()).await;
        assert!(receipt.status(), "{}", row.recording);
        let mut expected = Vec::new();
        if row.approval.is_some() {
            // Signed for a token of another name: refused, and no matter with the allowance there.
            expected.push((row.spender, Proxy::EIP2612PermitFailedWithReason::SIGNATURE_HASH));
        }
        expected.push((row.token, Usdc::Transfer::SIGNATURE_HASH));
        let settled = match row.approval {
            Some(_) => Proxy::SettledWithPermit::SIGNATURE_HASH,
            None => Proxy::Settled::SIGNATURE_HASH,
        };
        expected.push((row.spender, settled));
        assert_eq!(events(&receipt), expected, "{}", row.recording);
        assert_eq!(row.held_by(&net, row.from).await, row.amount - charged, "{}", row.recording);
        assert_eq!(row.held_by(&net, row.to).await, before + charged, "{}", row.recording);
        let word = row.nonce >> 8;
        let bitmap = Permit2::nonceBitmapCall { owner: row.from, word };
        let used = net.call_at(facilitator, PERMIT2_ADDRESS, bitmap).await.unwrap();
        assert_eq!(used, U256::ONE << (row.nonce & U256::from(0xff)), "{}", row.recording);

        let again = net.call_raw(facilitator, row.spender, settle).await.unwrap_err();
        assert_eq!(selector(again), Permit2::InvalidNonce::SELECTOR, "{}", row.recording);
        net.devnet.shutdown().await;
    }
}

#[tokio::test]
async fn a15_no_recorded_field_can_be_changed() {
    for row in recorded() {
        let net = row.chain().await;
        row.approve(&net).await;
        let good = || row.clone();
        let one = U256::ONE;
        for changed in [
            Recorded { amount: row.amount - one, approval: None, ..good() },
            Recorded { nonce: row.nonce ^ one, ..good() },
            Recorded { deadline: row.deadline + one, ..good() },
            Recorded { to: Address::repeat_byte(0x77), ..good() },
            Recorded { valid_after: one, ..good() },
        ] {
            let charged = U256::from(1_000).min(changed.amount);
            let settle = changed.settle(charged);
            let refusal = net.call_raw(Key::dev(1), row.spender, settle).await.unwrap_err();
            assert_eq!(selector(refusal), Permit2::InvalidSigner::SELECTOR, "{changed:?}");
        }
        let settle = row.settle(U256::from(1_000));
        assert!(net.call_raw(Key::dev(1), row.spender, settle).await.is_ok());
        net.devnet.shutdown().await;
    }
}

#[tokio::test]
async fn the_proxies_tell_what_they_are() {
    let net = Net::instant().await;
    for (proxy, witness) in [
        (EXACT_PERMIT2_PROXY_ADDRESS, "Witness(address to,uint256 validAfter)"),
        (UPTO_PERMIT2_PROXY_ADDRESS, "Witness(address to,address facilitator,uint256 validAfter)"),
    ] {
        let from = Key::dev(0);
        let permit2 = net.call_at(from, proxy, Proxy::PERMIT2Call {}).await.unwrap();
        assert_eq!(permit2, PERMIT2_ADDRESS);
        let hash = net.call_at(from, proxy, Proxy::WITNESS_TYPEHASHCall {}).await.unwrap();
        assert_eq!(hash, keccak256(witness));
        let stub = net.call_at(from, proxy, Proxy::WITNESS_TYPE_STRINGCall {}).await.unwrap();
        let permissions = "TokenPermissions(address token,uint256 amount)";
        assert_eq!(stub, format!("Witness witness){permissions}{witness}"));
    }
}

#[tokio::test]
async fn permit2_signs_for_the_chain_it_is_on() {
    for chain_id in [1, 10, 84_532] {
        let net = Net::start(DevnetConfig { chain_id, ..Default::default() }).await;
        let call = Permit2::DOMAIN_SEPARATORCall {};
        let told = net.call_at(Key::dev(0), PERMIT2_ADDRESS, call).await.unwrap();
        let domain = eip712_domain! {
            name: "Permit2", chain_id: chain_id, verifying_contract: PERMIT2_ADDRESS,
        };
        assert_eq!(told, domain.separator(), "{chain_id}");
        net.devnet.shutdown().await;
    }
}
