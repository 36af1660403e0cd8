//! A chain, a client and keys: what every test starts from.

use std::time::Duration;

use alloy_consensus::{
    SignableTransaction, TxEip1559, TxEip2930, TxEnvelope, TxLegacy, TypedTransaction,
};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Address, B256, Bytes, Signature, TxKind, U64, U256, keccak256};
use alloy_rpc_types_eth::TransactionReceipt;
use alloy_sol_types::{Eip712Domain, SolCall, SolStruct, eip712_domain, sol};
use farebox_devnet::{DEV_ACCOUNTS, Devnet, DevnetConfig, Mining, TOKEN_ADDRESS};
use secp256k1::{Message, SECP256K1, SecretKey, ecdsa::RecoveryId};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

/// The chain id of the tests.
pub(crate) const CHAIN_ID: u64 = 84_532;

/// Fees that any block of a test accepts, wei per gas.
pub(crate) const FEE: u128 = 20_000_000_000;

sol! {
    #[derive(Debug)]
    interface Usdc {
        event Transfer(address indexed from, address indexed to, uint256 value);
        event Approval(address indexed owner, address indexed spender, uint256 value);
        event AuthorizationUsed(address indexed authorizer, bytes32 indexed nonce);
        event AuthorizationCanceled(address indexed authorizer, bytes32 indexed nonce);

        function name() external view returns (string);
        function version() external view returns (string);
        function symbol() external view returns (string);
        function decimals() external view returns (uint8);
        function totalSupply() external view returns (uint256);
        function DOMAIN_SEPARATOR() external view returns (bytes32);
        function TRANSFER_WITH_AUTHORIZATION_TYPEHASH() external view returns (bytes32);
        function RECEIVE_WITH_AUTHORIZATION_TYPEHASH() external view returns (bytes32);
        function CANCEL_AUTHORIZATION_TYPEHASH() external view returns (bytes32);
        function PERMIT_TYPEHASH() external view returns (bytes32);
        function balanceOf(address account) external view returns (uint256);
        function allowance(address owner, address spender) external view returns (uint256);
        function nonces(address owner) external view returns (uint256);
        function authorizationState(address authorizer, bytes32 nonce) external view returns (bool);
        function transfer(address to, uint256 value) external returns (bool);
        function transferFrom(address from, address to, uint256 value) external returns (bool);
        function approve(address spender, uint256 value) external returns (bool);
        function mint(address to, uint256 amount) external returns (bool);
        function configureMinter(address minter, uint256 allowed) external returns (bool);
        function pause() external;
        function blacklist(address account) external;
        function permit(address owner, address spender, uint256 value, uint256 deadline,
            uint8 v, bytes32 r, bytes32 s) external;
        function permit(address owner, address spender, uint256 value, uint256 deadline,
            bytes signature) external;
        function transferWithAuthorization(address from, address to, uint256 value,
            uint256 validAfter, uint256 validBefore, bytes32 nonce,
            uint8 v, bytes32 r, bytes32 s) external;
        function transferWithAuthorization(address from, address to, uint256 value,
            uint256 validAfter, uint256 validBefore, bytes32 nonce, bytes signature) external;
        function receiveWithAuthorization(address from, address to, uint256 value,
            uint256 validAfter, uint256 validBefore, bytes32 nonce,
            uint8 v, bytes32 r, bytes32 s) external;
        function receiveWithAuthorization(address from, address to, uint256 value,
            uint256 validAfter, uint256 validBefore, bytes32 nonce, bytes signature) external;
        function cancelAuthorization(address authorizer, bytes32 nonce,
            uint8 v, bytes32 r, bytes32 s) external;
        function cancelAuthorization(address authorizer, bytes32 nonce, bytes signature) external;
    }
}

/// The token's EIP-712 domain.
pub(crate) fn domain() -> Eip712Domain {
    eip712_domain! {
        name: "USDC",
        version: "2",
        chain_id: CHAIN_ID,
        verifying_contract: TOKEN_ADDRESS,
    }
}

/// An error as JSON-RPC tells it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Refusal {
    pub(crate) code: i64,
    pub(crate) message: String,
    #[serde(default)]
    pub(crate) data: Option<Value>,
}

/// A secret key.
#[derive(Clone, Copy)]
pub(crate) struct Key(pub(crate) B256);

impl Key {
    /// The key of dev account `index`.
    pub(crate) fn dev(index: usize) -> Self {
        Self(DEV_ACCOUNTS[index].private_key)
    }

    /// A key that owns nothing, the same one for the same seed.
    pub(crate) fn fresh(seed: u64) -> Self {
        Self(keccak256(seed.to_be_bytes()))
    }

    pub(crate) fn address(self) -> Address {
        let secret = SecretKey::from_byte_array(self.0.0).unwrap();
        let public = secret.public_key(SECP256K1).serialize_uncompressed();
        Address::from_word(keccak256(&public[1..]))
    }

    pub(crate) fn sign(self, digest: B256) -> Signature {
        let secret = SecretKey::from_byte_array(self.0.0).unwrap();
        let recoverable = SECP256K1.sign_ecdsa_recoverable(Message::from_digest(digest.0), &secret);
        let (id, rs) = recoverable.serialize_compact();
        Signature::from_bytes_and_parity(&rs, id == RecoveryId::One)
    }

    /// EIP-712 in the token's domain.
    pub(crate) fn sign_typed(self, message: &impl SolStruct) -> Signature {
        self.sign(message.eip712_signing_hash(&domain()))
    }

    /// The transaction as it travels.
    pub(crate) fn sign_tx(self, tx: impl Into<TypedTransaction>) -> Bytes {
        let tx: TypedTransaction = tx.into();
        let signature = self.sign(tx.signature_hash());
        TxEnvelope::from(tx.into_signed(signature)).encoded_2718().into()
    }
}

/// An EIP-1559 transaction to fill in: chain id, gas and fees are set.
pub(crate) fn tx_1559() -> TxEip1559 {
    TxEip1559 {
        chain_id: CHAIN_ID,
        gas_limit: 200_000,
        max_fee_per_gas: FEE,
        max_priority_fee_per_gas: 1_000_000_000,
        to: TxKind::Call(Address::repeat_byte(0x77)),
        ..TxEip1559::default()
    }
}

/// An EIP-2930 transaction to fill in.
pub(crate) fn tx_2930() -> TxEip2930 {
    TxEip2930 {
        chain_id: CHAIN_ID,
        gas_price: FEE,
        gas_limit: 200_000,
        to: TxKind::Call(Address::repeat_byte(0x77)),
        ..TxEip2930::default()
    }
}

/// A legacy transaction to fill in.
pub(crate) fn tx_legacy() -> TxLegacy {
    TxLegacy {
        chain_id: Some(CHAIN_ID),
        gas_price: FEE,
        gas_limit: 200_000,
        to: TxKind::Call(Address::repeat_byte(0x77)),
        ..TxLegacy::default()
    }
}

/// Asks until there is an answer, every 5 ms for 20 s.
pub(crate) async fn soon<T, F: Future<Output = Option<T>>>(ask: impl Fn() -> F) -> T {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), asking).await.expect("it did not happen")
}

/// A chain and a client of it.
pub(crate) struct Net {
    pub(crate) devnet: Devnet,
    http: reqwest::Client,
}

impl Net {
    pub(crate) async fn start(config: DevnetConfig) -> Self {
        // The second test of this process finds it installed.
        drop(rustls::crypto::ring::default_provider().install_default());
        let http = reqwest::Client::builder().timeout(Duration::from_secs(20)).build().unwrap();
        Self { devnet: Devnet::start(config).await.unwrap(), http }
    }

    pub(crate) async fn instant() -> Self {
        Self::start(DevnetConfig::default()).await
    }

    pub(crate) async fn mining(mining: Mining) -> Self {
        Self::start(DevnetConfig { mining, ..DevnetConfig::default() }).await
    }

    /// Posts any body; status and text of the answer.
    pub(crate) async fn post(&self, body: impl Into<String>) -> (u16, String) {
        let answer = self.http.post(self.devnet.url()).body(body.into()).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    pub(crate) async fn rpc(&self, method: &str, params: Value) -> Result<Value, Refusal> {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let (status, text) = self.post(body.to_string()).await;
        assert_eq!(status, 200, "{text}");
        let mut answer: Value = serde_json::from_str(&text).unwrap();
        match answer.get_mut("error") {
            Some(error) => Err(serde_json::from_value(error.take()).unwrap()),
            None => Ok(answer["result"].take()),
        }
    }

    /// The result, which must be one.
    pub(crate) async fn ok<T: DeserializeOwned>(&self, method: &str, params: Value) -> T {
        let result = self.rpc(method, params).await;
        let result = result.unwrap_or_else(|refusal| panic!("{method}: {refusal:?}"));
        serde_json::from_value(result.clone()).unwrap_or_else(|_| panic!("{method}: {result}"))
    }

    /// The error, which there must be.
    pub(crate) async fn refused(&self, method: &str, params: Value) -> Refusal {
        self.rpc(method, params).await.expect_err(method)
    }

    pub(crate) async fn number(&self) -> u64 {
        self.ok::<U64>("eth_blockNumber", json!([])).await.to()
    }

    pub(crate) async fn head_time(&self) -> u64 {
        let block: Value = self.ok("eth_getBlockByNumber", json!(["latest", false])).await;
        serde_json::from_value::<U64>(block["timestamp"].clone()).unwrap().to()
    }

    pub(crate) async fn balance(&self, address: Address) -> U256 {
        self.ok("eth_getBalance", json!([address, "latest"])).await
    }

    pub(crate) async fn nonce(&self, address: Address) -> u64 {
        self.ok::<U64>("eth_getTransactionCount", json!([address, "pending"])).await.to()
    }

    pub(crate) async fn send_raw(&self, raw: Bytes) -> Result<B256, Refusal> {
        let hash = self.rpc("eth_sendRawTransaction", json!([raw])).await?;
        Ok(serde_json::from_value(hash).unwrap())
    }

    pub(crate) async fn find_receipt(&self, hash: B256) -> Option<TransactionReceipt> {
        self.ok("eth_getTransactionReceipt", json!([hash])).await
    }

    /// The receipt of a transaction that will be mined soon.
    pub(crate) async fn receipt(&self, hash: B256) -> TransactionReceipt {
        soon(|| self.find_receipt(hash)).await
    }

    /// Calls the token without a transaction.
    pub(crate) async fn call<C: SolCall>(&self, from: Key, call: C) -> Result<C::Return, Refusal> {
        self.call_at(from, TOKEN_ADDRESS, call).await
    }

    /// Calls a contract without a transaction.
    pub(crate) async fn call_at<C: SolCall>(
        &self,
        from: Key,
        to: Address,
        call: C,
    ) -> Result<C::Return, Refusal> {
        let output = self.call_raw(from, to, call.abi_encode().into()).await?;
        Ok(C::abi_decode_returns(&output).unwrap())
    }

    /// As [`Self::call_at`], without types.
    pub(crate) async fn call_raw(
        &self,
        from: Key,
        to: Address,
        data: Bytes,
    ) -> Result<Bytes, Refusal> {
        let request = json!({ "from": from.address(), "to": to, "data": data });
        let output = self.rpc("eth_call", json!([request, "latest"])).await?;
        Ok(serde_json::from_value(output).unwrap())
    }

    /// Reads a value from the token.
    pub(crate) async fn read<C: SolCall>(&self, call: C) -> C::Return {
        self.call(Key::dev(0), call).await.unwrap()
    }

    /// Makes `from` call the token in a transaction; the receipt, failed or not.
    pub(crate) async fn transact(&self, from: Key, call: impl SolCall) -> TransactionReceipt {
        self.send(from, TOKEN_ADDRESS, call.abi_encode().into()).await
    }

    /// Makes `from` call a contract in a transaction; the receipt, failed or not.
    pub(crate) async fn send(&self, from: Key, to: Address, data: Bytes) -> TransactionReceipt {
        let tx = TxEip1559 {
            nonce: self.nonce(from.address()).await,
            to: TxKind::Call(to),
            input: data,
            gas_limit: 10_000_000,
            ..tx_1559()
        };
        let hash = self.send_raw(from.sign_tx(tx)).await.unwrap();
        self.receipt(hash).await
    }

    /// What the token says against `call`, both simulated and in a transaction.
    #[track_caller]
    pub(crate) fn reverts<'a, C: SolCall + Clone + 'a>(
        &'a self,
        from: Key,
        call: C,
        reason: &'a str,
    ) -> impl Future<Output = ()> + 'a {
        let caller = std::panic::Location::caller();
        async move {
            let Err(refusal) = self.call(from, call.clone()).await else {
                panic!("{caller}: no refusal, expected {reason:?}");
            };
            let expected = format!("execution reverted: {reason}");
            assert_eq!((refusal.code, refusal.message), (3, expected), "{caller}");
            assert!(
                !self.transact(from, call).await.status(),
                "{caller}: the transaction succeeded"
            );
        }
    }

    pub(crate) async fn usdc(&self, owner: Address) -> U256 {
        self.read(Usdc::balanceOfCall { account: owner }).await
    }
}
