//! ERC-6492 by the validator that stock clients bring along: what it says of wallets of our factory.

use alloy_primitives::{Address, B256, Bytes, U256, hex, keccak256};
use alloy_sol_types::SolValue;
use farebox_devnet::{WALLET_FACTORY_ADDRESS, counterfactual_wallet};
use farebox_testkit::evm::EvmKind;
use farebox_testkit::real;
use serde_json::json;

use crate::support::{End, Key, PAYER, SPENDER, STRANGER, Stage, Step, bytes};

/// The last 32 bytes of a wrapped signature (ERC-6492).
const MAGIC: [u8; 32] = hex!("6492649264926492649264926492649264926492649264926492649264926492");

/// A signature of a wallet that is not there yet.
fn wrapped(factory: Address, calldata: &Bytes, signature: &Bytes) -> Bytes {
    let mut bytes = (factory, calldata.clone(), signature.clone()).abi_encode_params();
    bytes.extend(MAGIC);
    bytes.into()
}

/// Whether the validator believes that `wallet` signed `hash`; nonsense is not believed.
async fn believed(stage: &Stage, wallet: Address, hash: B256, signature: Bytes) -> bool {
    let mut data = real::erc6492_validator_creation().unwrap();
    data.push_str(&hex::encode((wallet, hash, signature).abi_encode_params()));
    let answer = stage.rpc("eth_call", json!([{ "data": data }, "latest"])).await;
    answer.is_ok_and(|answer| answer == "0x01")
}

#[tokio::test]
async fn a_wallet_that_is_not_there_can_sign() {
    let hash = keccak256("what is signed");
    let sign = |key: Key| bytes(key.sign(hash));
    let salt = U256::from(7);
    let wallet = counterfactual_wallet(PAYER.address(), salt).unwrap();
    let other = counterfactual_wallet(PAYER.address(), U256::from(8)).unwrap();
    let make = &wallet.factory_calldata;
    let by = |key| wrapped(wallet.factory, make, &sign(key));
    let cases = [
        ("the owner", wallet.address, by(PAYER), true),
        ("another key", wallet.address, by(STRANGER), false),
        ("without the factory", wallet.address, sign(PAYER), false),
        ("for another salt", other.address, by(PAYER), false),
        (
            "by a factory that makes nothing",
            wallet.address,
            wrapped(Address::repeat_byte(0xe5), make, &sign(PAYER)),
            false,
        ),
        ("a key as a signer", PAYER.address(), sign(PAYER), true),
    ];
    for kind in EvmKind::ALL {
        let stage = Stage::start(kind, &[]).await;
        for (label, signer, signature, expected) in cases.clone() {
            let got = believed(&stage, signer, hash, signature).await;
            assert_eq!(got, expected, "{kind:?}, {label}");
        }
        // Deployed, it signs without the factory, and with it.
        let deploy = Step::new("deploy", SPENDER, WALLET_FACTORY_ADDRESS, make.clone(), End::Done);
        assert_eq!(stage.transact(&deploy).await["status"], "0x1", "{kind:?}");
        assert!(believed(&stage, wallet.address, hash, sign(PAYER)).await, "{kind:?}");
        assert!(believed(&stage, wallet.address, hash, by(PAYER)).await, "{kind:?}");
        assert!(!believed(&stage, wallet.address, hash, sign(STRANGER)).await, "{kind:?}");
    }
}
