//! Payers that are contracts: deployed, funded, and signing.

use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use farebox_chains::EvmKey;
use farebox_devnet::{
    CounterfactualWallet, DEV_ACCOUNTS, WalletLie, counterfactual_wallet, lying_wallet_creation,
    lying_wallet_switch, test_wallet_creation,
};
use farebox_protocol::wire::{PaymentRequirements, SettleRequest};
use serde_json::{Value, json};

use crate::support::{PERMIT2, TOKEN, World, altered, key, pay, pay_by_permit2};

/// What each contract payer gets.
pub(crate) const FUNDS: u128 = 1_000_000;

/// Where the token keeps allowances (`contracts/src/TestUSDC.sol`).
const ALLOWANCES_SLOT: u64 = 10;

/// The key that honest wallets belong to: a dev account's, which has gas money.
pub(crate) fn owner() -> EvmKey {
    key(DEV_ACCOUNTS[8].private_key.0)
}

impl World {
    /// Deploys a contract and gives it tokens.
    pub(crate) async fn deploy_payer(&self, creation: Bytes) -> Address {
        let call = json!([{"from": DEV_ACCOUNTS[7].address, "data": creation, "gas": "0x4c4b40"}]);
        let hash = self.rpc("eth_sendTransaction", call).await;
        self.devnet.mine();
        let receipt = self.rpc("eth_getTransactionReceipt", json!([hash])).await;
        let address: Address = serde_json::from_value(receipt["contractAddress"].clone()).unwrap();
        self.devnet.set_token_balance(address, FUNDS);
        address
    }

    /// A wallet of [`owner`].
    pub(crate) async fn honest_wallet(&self) -> Address {
        let creation = test_wallet_creation(owner().address().as_bytes().into()).unwrap();
        self.deploy_payer(creation).await
    }

    /// A wallet that lies.
    pub(crate) async fn lying_wallet(&self, lie: WalletLie) -> Address {
        self.deploy_payer(lying_wallet_creation(lie).unwrap()).await
    }

    /// Makes it lie in another way from the next block on.
    pub(crate) async fn switch(&self, wallet: Address, lie: WalletLie) {
        let hash = self.send(6, &wallet.to_string(), &lying_wallet_switch(lie).to_string()).await;
        self.devnet.mine();
        let receipt = self.rpc("eth_getTransactionReceipt", json!([hash])).await;
        assert_eq!(receipt["status"], "0x1");
    }

    /// Lets Permit2 spend all that an account has, there or not: a transaction would use its number.
    pub(crate) async fn let_permit2_spend(&self, owner: Address) {
        let spender: Address = PERMIT2.parse().unwrap();
        let outer =
            keccak256([owner.into_word(), B256::from(U256::from(ALLOWANCES_SLOT))].concat());
        let slot = keccak256([spender.into_word(), outer].concat());
        self.rpc("anvil_setStorageAt", json!([TOKEN, slot, B256::repeat_byte(0xff)])).await;
    }

    /// Whether there is code.
    pub(crate) async fn has_code(&self, account: Address) -> bool {
        self.rpc("eth_getCode", json!([account, "latest"])).await != "0x"
    }
}

/// The wallet of [`owner`] that is not there yet.
pub(crate) fn future_wallet(salt: u64) -> CounterfactualWallet {
    counterfactual_wallet(owner().address().as_bytes().into(), U256::from(salt)).unwrap()
}

/// A signature by ERC-6492.
pub(crate) fn wrap(factory: Address, calldata: &[u8], signature: &[u8]) -> Vec<u8> {
    let word = |it: usize| U256::from(it).to_be_bytes::<32>().to_vec();
    let padded = |it: &[u8]| {
        let mut bytes = [word(it.len()), it.to_vec()].concat();
        bytes.resize(bytes.len().next_multiple_of(32), 0);
        bytes
    };
    let (calldata, signature) = (padded(calldata), padded(signature));
    let second = calldata.len().saturating_add(96);
    let magic = hex::decode("6492".repeat(16)).unwrap();
    let heads = [factory.into_word().to_vec(), word(96), word(second)].concat();
    [heads, calldata, signature, magic].concat()
}

/// A payment by a contract of a demand of any method; `sign` makes the signature of the digest.
pub(crate) fn pay_by_contract(
    payer: Address,
    demand: &PaymentRequirements,
    number: u64,
    sign: impl FnOnce(B256) -> Vec<u8>,
) -> SettleRequest {
    let is_permit2 = demand.extra.contains_key("assetTransferMethod");
    let form = if is_permit2 { pay_by_permit2 } else { pay };
    let form = form(&owner(), demand, number);
    altered(&form, |it| {
        let payload = &mut it["paymentPayload"]["payload"];
        let member = if is_permit2 { "permit2Authorization" } else { "authorization" };
        payload[member]["from"] = json!(payer.to_string());
        let digest = digest_of(&payload[member], demand);
        payload["signature"] = json!(format!("0x{}", hex::encode(sign(digest))));
    })
}

/// The same with the signature of [`owner`].
pub(crate) fn pay_by_wallet(
    payer: Address,
    demand: &PaymentRequirements,
    number: u64,
) -> SettleRequest {
    pay_by_contract(payer, demand, number, |digest| owner().sign_digest(&digest.0).to_vec())
}

/// The same with a signature that says how the wallet is deployed.
pub(crate) fn pay_by_future_wallet(
    wallet: &CounterfactualWallet,
    demand: &PaymentRequirements,
    number: u64,
) -> SettleRequest {
    pay_by_contract(wallet.address, demand, number, |digest| {
        let signature = owner().sign_digest(&digest.0);
        wrap(wallet.factory, &wallet.factory_calldata, &signature)
    })
}

/// A payment whose signature is no one's.
pub(crate) fn pay_with_nonsense(
    payer: Address,
    demand: &PaymentRequirements,
    number: u64,
) -> SettleRequest {
    pay_by_contract(payer, demand, number, |_| b"whatever you say".to_vec())
}

fn digest_of(authorization: &Value, demand: &PaymentRequirements) -> B256 {
    let text = |pointer: &str| authorization.pointer(pointer).and_then(Value::as_str).unwrap();
    let account = |it: &str| it.parse::<Address>().unwrap().into_word();
    let number = |it: &str| B256::from(it.parse::<U256>().unwrap());
    let chain = B256::from(U256::from(84_532));
    let hash = |words: &[B256]| keccak256(words.iter().flat_map(|it| it.0).collect::<Vec<u8>>());
    let digest = |domain: B256, message: B256| {
        keccak256([b"\x19\x01".as_slice(), &domain.0, &message.0].concat())
    };
    if authorization.get("value").is_some() {
        let domain = hash(&[
            keccak256(
                "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)",
            ),
            keccak256("USDC"),
            keccak256("2"),
            chain,
            account(&demand.asset),
        ]);
        let message = hash(&[
            keccak256(
                "TransferWithAuthorization(address from,address to,uint256 value,uint256 \
                 validAfter,uint256 validBefore,bytes32 nonce)",
            ),
            account(text("/from")),
            account(text("/to")),
            number(text("/value")),
            number(text("/validAfter")),
            number(text("/validBefore")),
            text("/nonce").parse().unwrap(),
        ]);
        return digest(domain, message);
    }
    let facilitator = authorization.pointer("/witness/facilitator").and_then(Value::as_str);
    let witness_type = match facilitator {
        Some(_) => "Witness(address to,address facilitator,uint256 validAfter)",
        None => "Witness(address to,uint256 validAfter)",
    };
    let permissions_type = "TokenPermissions(address token,uint256 amount)";
    let transfer_type = format!(
        "PermitWitnessTransferFrom(TokenPermissions permitted,address spender,uint256 nonce,uint256 \
         deadline,Witness witness){permissions_type}{witness_type}"
    );
    let permitted = hash(&[
        keccak256(permissions_type),
        account(text("/permitted/token")),
        number(text("/permitted/amount")),
    ]);
    let mut witness = vec![keccak256(witness_type), account(text("/witness/to"))];
    witness.extend(facilitator.map(account));
    witness.push(number(text("/witness/validAfter")));
    let domain = hash(&[
        keccak256("EIP712Domain(string name,uint256 chainId,address verifyingContract)"),
        keccak256("Permit2"),
        chain,
        account(PERMIT2),
    ]);
    let message = hash(&[
        keccak256(transfer_type),
        permitted,
        account(text("/spender")),
        number(text("/nonce")),
        number(text("/deadline")),
        hash(&witness),
    ]);
    digest(domain, message)
}
